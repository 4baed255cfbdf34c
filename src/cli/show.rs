//! `thresh show`: a table's columns and first rows.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Outcome, PipelineArgs, path, say};
use crate::report::table;

#[derive(Args)]
pub(super) struct ShowArgs {
    /// A pipeline file followed by `stage.port`, or a Parquet file.
    #[arg(num_args = 1..=2, required = true)]
    target: Vec<String>,
    /// How many rows.
    #[arg(long, default_value_t = 10)]
    rows: usize,
    /// Whole rows as JSON lines.
    #[arg(long)]
    json: bool,
    /// Change a value of the pipeline.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// The profile of thresh.toml.
    #[arg(long)]
    profile: Option<String>,
}

pub(super) fn run(args: &ShowArgs) -> Outcome {
    let path = match args.target.as_slice() {
        [file] => PathBuf::from(file),
        [pipeline, output] => {
            let pipeline =
                PipelineArgs { pipeline: pipeline.into(), set: args.set.clone(), profile: args.profile.clone() };
            let results = path::Results::open(&pipeline)?;
            results.find(output)?.intact(&results)?
        }
        _ => return Err(Failure::Wrong(anyhow::anyhow!("expected a pipeline and `stage.port`, or a Parquet file"))),
    };
    if path.is_dir() {
        for entry in crate::fs::list(&path)? {
            say(entry.display().to_string())?;
        }
        return Ok(());
    }
    if args.json {
        for line in table::json_lines(&path, args.rows)? {
            say(line)?;
        }
        return Ok(());
    }
    say(table::overview(&path, args.rows)?)?;
    Ok(())
}
