//! `thresh export`: artifacts out of the store, as files.

use std::collections::BTreeSet;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::gc::size;
use super::path::Results;
use super::{Common, Failure, Outcome, PipelineArgs, say, say_json, stage_indices};
use crate::config::Pipeline;
use crate::fs;
use crate::report::note;
use crate::report::table;
use crate::stages::trl;

#[derive(Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// What to write: `stage.port`, or a stage for all of its outputs; everything that there is where nothing is named.
    outputs: Vec<String>,
    /// The folder to write to; files of the same names are replaced.
    #[arg(long)]
    to: PathBuf,
    /// What tables become.
    #[arg(long, value_enum, default_value = "parquet")]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Parquet files, as they are.
    Parquet,
    /// One JSON object a row.
    Jsonl,
    /// Comma-separated values with a header; nested cells are JSON, empty ones empty.
    Csv,
    /// Of training examples what TRL reads, and nothing else: `{"messages"}` of `data.sft`, `{"prompt", "completion", "label"}`
    /// of `data.kto`, `{"prompt", "chosen", "rejected"}` of `data.pairs`, and `tools` where functions are called; one object a
    /// line in the spelling of Python's `json.dumps`, without a line end behind the last.
    Trl,
}

pub(super) fn run(args: &ExportArgs, common: &Common) -> Outcome {
    fs::create_dir_all(&args.to)?;
    let results = Results::open(&args.pipeline)?;
    let (mut stale, mut written) = (0, 0);
    for output in &chosen(args, &results.opened.pipeline)? {
        let found = match results.find(output) {
            // Named outputs must be there; of all outputs, those that are.
            Err(Failure::Failed(_)) if args.outputs.is_empty() => continue,
            other => other?,
        };
        let from = found.intact(&results)?;
        let Some((to, bytes)) = write(&from, &args.to, output, args.format)? else {
            // Of all outputs, those that are examples.
            if args.outputs.is_empty() {
                continue;
            }
            let known = trl::EXAMPLES.map(|name| format!("`{name}`")).join(", ");
            return Err(Failure::Wrong(anyhow!("`{output}` holds no training examples; `trl` writes {known}")));
        };
        stale += usize::from(found.stale);
        written += 1;
        if common.json {
            say_json(&json!({"output": output, "path": to, "bytes": bytes}))?;
        } else {
            say(format!("{:>10}  {}", size(bytes), to.display()))?;
        }
    }
    if written == 0 && args.format == Format::Trl {
        return Err(Failure::Failed(anyhow!(
            "no result here holds training examples; `data.sft`, `data.kto` and `data.pairs` make them"
        )));
    }
    if written == 0 {
        return Err(Failure::Failed(anyhow!("there is no result yet; `thresh run` computes them")));
    }
    if stale > 0 {
        note(format!(
            "note: {stale} of {written} are of an earlier state of the pipeline: the newest results there are"
        ));
    }
    Ok(())
}

/// The outputs that are named, as `stage.port`.
fn chosen(args: &ExportArgs, pipeline: &Pipeline) -> Result<BTreeSet<String>, Failure> {
    let graph = &pipeline.graph;
    let all = |index: usize| {
        let node = &graph.nodes[index];
        node.stage.outputs().into_iter().map(move |port| format!("{}.{}", node.name, port.name))
    };
    if args.outputs.is_empty() {
        return Ok((0..graph.nodes.len()).flat_map(all).collect());
    }
    let mut chosen = BTreeSet::new();
    for name in &args.outputs {
        let whole = graph.find_all(name);
        match name.rsplit_once('.') {
            Some((stage, port)) if whole.is_empty() => {
                let stages = stage_indices(pipeline, &[stage.to_owned()])?;
                chosen.extend(stages.into_iter().map(|index| format!("{}.{port}", graph.nodes[index].name)));
            }
            _ => chosen.extend(stage_indices(pipeline, std::slice::from_ref(name))?.into_iter().flat_map(all)),
        }
    }
    Ok(chosen)
}

/// Writes an artifact under the name of its output; where to, and how many bytes. `None` of what the format does not write.
fn write(from: &Path, folder: &Path, output: &str, format: Format) -> Result<Option<(PathBuf, u64)>, Failure> {
    let output = output.replace('/', "_");
    if from.is_dir() && format == Format::Trl {
        return Ok(None);
    }
    if from.is_dir() {
        let to = folder.join(&output);
        fs::remove_dir_all(&to)?;
        let bytes = copy_folder(from, &to)?;
        return Ok(Some((to, bytes)));
    }
    let aside = folder.join(format!(".{output}.tmp"));
    let (ending, bytes) = match format {
        Format::Parquet => ("parquet", fs::copy(from, &aside)?),
        Format::Jsonl => ("jsonl", write_text(from, &aside, table::Form::Jsonl)?),
        Format::Csv => ("csv", write_text(from, &aside, table::Form::Csv)?),
        Format::Trl => {
            let mut file = fs::Hashed::create(&aside)?;
            let Some(bytes) = trl::write(from, &mut file)? else {
                fs::remove_file(&aside)?;
                return Ok(None);
            };
            file.finish()?;
            ("jsonl", bytes)
        }
    };
    let to = folder.join(format!("{output}.{ending}"));
    fs::rename(&aside, &to)?;
    Ok(Some((to, bytes)))
}

/// Writes a table as text, a few rows at a time; how many bytes.
fn write_text(from: &Path, to: &Path, form: table::Form) -> Result<u64, Failure> {
    let mut file = BufWriter::new(fs::Hashed::create(to)?);
    table::write(&table::Table::open(from)?, form, None, &mut file)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(file.finish()?.bytes)
}

fn copy_folder(from: &Path, to: &Path) -> Result<u64, Failure> {
    fs::create_dir_all(to)?;
    let mut bytes = 0;
    for path in fs::list(from)? {
        let target = to.join(path.file_name().unwrap_or_default());
        bytes += if path.is_dir() { copy_folder(&path, &target)? } else { fs::copy(&path, &target)? };
    }
    Ok(bytes)
}
