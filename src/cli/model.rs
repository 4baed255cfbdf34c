//! `thresh model`: look at models, ask them for logits, write them in other forms.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Failure, Outcome, say};
use crate::model::checkpoint::{Checkpoint, CheckpointError, next_logits};
use crate::model::device::device;
use crate::model::inspect;

#[derive(Args)]
pub(super) struct ModelArgs {
    #[command(subcommand)]
    command: ModelCommand,
}

#[derive(Subcommand)]
enum ModelCommand {
    /// Say what a model is: its family, size, number formats, vocabulary, layers.
    Inspect(InspectArgs),
    /// Print the logits of the token that follows some tokens.
    Logits(LogitsArgs),
}

#[derive(Args)]
struct InspectArgs {
    /// A model's folder, a GGUF file, or an adapter's folder.
    path: PathBuf,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct LogitsArgs {
    /// A model's folder, or a GGUF file.
    path: PathBuf,
    /// The tokens' numbers, with commas between.
    #[arg(long, value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// All logits as JSON, in the order of the vocabulary.
    #[arg(long)]
    json: bool,
    /// How many of the largest logits to print otherwise.
    #[arg(long, default_value_t = 10)]
    top: usize,
    /// Where to compute: `cpu`, `wgpu`, `cuda` or `cuda:N`.
    #[arg(long, default_value = "cpu")]
    device: String,
}

pub(super) fn run(args: &ModelArgs) -> Outcome {
    match &args.command {
        ModelCommand::Inspect(args) => inspect(args),
        ModelCommand::Logits(args) => logits(args),
    }
}

fn inspect(args: &InspectArgs) -> Outcome {
    there(&args.path)?;
    let facts = inspect::facts(&args.path)?;
    if args.json {
        let object: serde_json::Map<String, Value> =
            facts.into_iter().map(|fact| (fact.name.to_owned(), fact.value)).collect();
        say(serde_json::to_string_pretty(&object)?)?;
        return Ok(());
    }
    let width = facts.iter().map(|fact| fact.label().len()).max().unwrap_or(0);
    for fact in facts {
        say(format!("{:width$}  {}", fact.label(), fact.text()))?;
    }
    Ok(())
}

fn logits(args: &LogitsArgs) -> Outcome {
    there(&args.path)?;
    let device = device(&args.device).map_err(|error| Failure::Wrong(error.into()))?;
    let decoder = Checkpoint::open(&args.path)?.decoder(&device)?;
    let logits = next_logits(&decoder, &args.tokens).map_err(|error| match error {
        CheckpointError::Tokens(_) => Failure::Wrong(error.into()),
        other => other.into(),
    })?;
    if args.json {
        say(json!({"tokens": args.tokens, "logits": logits}).to_string())?;
        return Ok(());
    }
    let mut ids: Vec<usize> = (0..logits.len()).collect();
    ids.sort_by(|&left, &right| logits[right].total_cmp(&logits[left]).then(left.cmp(&right)));
    for id in ids.into_iter().take(args.top) {
        say(format!("{id:>8}  {}", logits[id]))?;
    }
    Ok(())
}

/// Paths that are not there are the command's fault.
fn there(path: &Path) -> Result<(), Failure> {
    if path.exists() {
        return Ok(());
    }
    Err(Failure::Wrong(anyhow!("`{}` is not there", path.display())))
}
