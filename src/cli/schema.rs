//! `thresh schema`: what editors and readers of the Parquet need.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::{Outcome, say};
use crate::config::schema;
use crate::fs;

#[derive(Args)]
pub(super) struct SchemaArgs {
    /// Write `pipeline.schema.json` and `rows/` into this folder; without it the pipeline's schema goes to stdout.
    #[arg(long)]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &SchemaArgs) -> Outcome {
    let Some(out) = &args.out else {
        say(text(&schema::pipeline()).trim_end())?;
        return Ok(());
    };
    fs::create_dir_all(out.join("rows"))?;
    fs::write_whole(out.join("pipeline.schema.json"), text(&schema::pipeline()).as_bytes())?;
    for (name, value) in schema::rows() {
        fs::write_whole(out.join("rows").join(name), text(&value).as_bytes())?;
    }
    Ok(())
}

/// The schema of pipelines, as the file in a project.
pub(super) fn pipeline_text() -> String {
    text(&schema::pipeline())
}

fn text(value: &Value) -> String {
    format!("{value:#}\n")
}
