//! `thresh schema`: what editors and readers of the Parquet need.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::{Common, Outcome, book, say, say_json};
use crate::config::schema;
use crate::fs;
use crate::report::note;

#[derive(Args)]
pub(super) struct SchemaArgs {
    /// Write `pipeline.schema.json` and `rows/` into this folder; without it the pipeline's schema goes to stdout.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write the reference of the book into this folder: kinds, commands, tables and settings as Markdown.
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
}

pub(super) fn run(args: &SchemaArgs, common: &Common) -> Outcome {
    if let Some(folder) = &args.reference {
        fs::create_dir_all(folder)?;
        for (name, page) in book::pages() {
            fs::write_whole(folder.join(name), page.as_bytes())?;
        }
    }
    let Some(out) = &args.out else {
        if args.reference.is_some() {
            return Ok(());
        }
        say(text(&schema::pipeline()).trim_end())?;
        return Ok(());
    };
    fs::create_dir_all(out.join("rows"))?;
    let rows = schema::rows().into_iter().map(|(name, value)| (out.join("rows").join(name), value));
    for (path, value) in std::iter::once((out.join("pipeline.schema.json"), schema::pipeline())).chain(rows) {
        let text = text(&value);
        fs::write_whole(&path, text.as_bytes())?;
        if common.json {
            say_json(&json!({"path": path, "bytes": text.len()}))?;
        } else {
            note(format!("wrote `{}`", path.display()));
        }
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
