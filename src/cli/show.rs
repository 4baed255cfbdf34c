//! `thresh show`: a table's columns and first rows.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Common, Failure, Outcome, PipelineArgs, path, records, reference, runs, say};
use crate::report::table;

#[derive(Args)]
pub(super) struct ShowArgs {
    /// `RUN.stage.port`, `stage.port` of the newest run that has it, a pipeline file followed by `stage.port`, or a Parquet file.
    #[arg(num_args = 1..=2, required = true)]
    target: Vec<String>,
    /// How many rows.
    #[arg(long, default_value_t = 10)]
    rows: usize,
    /// Change a value of the pipeline.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// The profile of thresh.toml.
    #[arg(long)]
    profile: Option<String>,
}

pub(super) fn run(args: &ShowArgs, common: &Common) -> Outcome {
    let path = match args.target.as_slice() {
        [file] if Path::new(file).exists() => PathBuf::from(file),
        [name] => {
            let store = runs::store()?;
            reference::output(&store, &records(&store)?, name)?.0
        }
        [pipeline, output] => {
            let pipeline =
                PipelineArgs { pipeline: pipeline.into(), set: args.set.clone(), profile: args.profile.clone() };
            let results = path::Results::open(&pipeline)?;
            results.find(output)?.intact(&results)?
        }
        _ => {
            return Err(Failure::Wrong(anyhow::anyhow!(
                "expected `RUN.stage.port`, a pipeline and `stage.port`, or a Parquet file"
            )));
        }
    };
    if path.is_dir() {
        for entry in crate::fs::list(&path)? {
            say(entry.display().to_string())?;
        }
        return Ok(());
    }
    if common.json {
        for line in table::json_lines(&path, args.rows)? {
            say(line)?;
        }
        return Ok(());
    }
    say(table::overview(&path, args.rows)?)?;
    Ok(())
}
