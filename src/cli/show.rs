//! `thresh show`: a table's columns and first rows, or what a folder holds.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::gc::size;
use super::{Common, Failure, Outcome, PipelineArgs, path, records, reference, runs, say};
use crate::config::schema;
use crate::fs;
use crate::report::table::{self, About, Form, Screen, Table, counted};
use crate::stages;

#[derive(Args)]
pub(super) struct ShowArgs {
    /// `RUN.stage.port`, `stage.port` of the newest run that has it, a pipeline file followed by `stage.port`, or a Parquet file.
    #[arg(num_args = 1..=2, required = true)]
    target: Vec<String>,
    /// How many rows; by default those that fit, and with `--json` all.
    #[arg(long, value_name = "N")]
    rows: Option<usize>,
    /// Only these columns, in this order.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    columns: Vec<String>,
    /// Change a value of the pipeline.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// The profile of thresh.toml.
    #[arg(long)]
    profile: Option<String>,
}

pub(super) fn run(args: &ShowArgs, common: &Common) -> Outcome {
    let path = find(args)?;
    if path.is_dir() {
        return folder(&path, common);
    }
    let mut table = Table::open(&path)?;
    if !args.columns.is_empty() {
        table.choose(&args.columns).map_err(|error| Failure::Wrong(error.into()))?;
    }
    if common.json {
        let mut out = BufWriter::new(io::stdout().lock());
        table::write(&table, Form::Jsonl, args.rows, &mut out)?;
        out.flush()?;
        return Ok(());
    }
    let row = table.kind().and_then(|kind| stages::rows().find(|row| row.name == kind));
    let about: About = row.map(schema::about).unwrap_or_default();
    say(table::overview(&table, &about, args.rows, &Screen::of_stdout())?)?;
    Ok(())
}

/// Where the table or folder lies.
fn find(args: &ShowArgs) -> Result<PathBuf, Failure> {
    match args.target.as_slice() {
        [file] if Path::new(file).exists() => Ok(PathBuf::from(file)),
        [name] => {
            let store = runs::store()?;
            Ok(reference::output(&store, &records(&store)?, name)?.0)
        }
        [pipeline, output] => {
            let pipeline =
                PipelineArgs { pipeline: pipeline.into(), set: args.set.clone(), profile: args.profile.clone() };
            let results = path::Results::open(&pipeline)?;
            results.find(output)?.intact(&results)
        }
        _ => Err(Failure::Wrong(anyhow::anyhow!(
            "expected `RUN.stage.port`, a pipeline and `stage.port`, or a Parquet file"
        ))),
    }
}

/// The files of a folder with their sizes, and what to do with them.
fn folder(path: &Path, common: &Common) -> Outcome {
    let mut files = Vec::new();
    collect(path, path, &mut files)?;
    let bytes = files.iter().map(|(_, bytes)| bytes).sum();
    if common.json {
        let files: Vec<_> = files.iter().map(|(path, bytes)| json!({"path": path, "bytes": bytes})).collect();
        say(json!({"folder": path, "bytes": bytes, "files": files}).to_string())?;
        return Ok(());
    }
    say(format!("{}: {}, {}", path.display(), counted(files.len() as u64, "file"), size(bytes)))?;
    for (path, bytes) in &files {
        say(format!("{:>10}  {}", size(*bytes), path.display()))?;
    }
    if files.iter().any(|(path, _)| path == Path::new("config.json")) {
        say(format!("\nA model: `thresh model inspect {0}`, `thresh chat {0}`", path.display()))?;
    }
    Ok(())
}

/// The files below a folder, by their paths from the top, and their sizes.
fn collect(top: &Path, folder: &Path, files: &mut Vec<(PathBuf, u64)>) -> Result<(), Failure> {
    for path in fs::list(folder)? {
        if path.is_dir() {
            collect(top, &path, files)?;
        } else {
            files.push((path.strip_prefix(top).unwrap_or(&path).to_owned(), std::fs::metadata(&path)?.len()));
        }
    }
    Ok(())
}
