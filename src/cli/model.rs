//! `thresh model`: look at models, ask them for logits, write them in other forms.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Common, Failure, Outcome, say, say_json};
use crate::model::checkpoint::{Checkpoint, CheckpointError, next_logits};
use crate::model::device::{Place, device};
use crate::model::numbers::Format;
use crate::model::peft::PeftAdapter;
use crate::model::{export, inspect};
use crate::report::note;

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
    /// Write a model as a folder that transformers, vLLM and llama.cpp's converter load.
    Convert(ConvertArgs),
}

#[derive(Args)]
struct InspectArgs {
    /// A model's folder, a GGUF file, or an adapter's folder.
    path: PathBuf,
}

#[derive(Args)]
struct LogitsArgs {
    /// A model's folder, or a GGUF file.
    path: PathBuf,
    /// The tokens' numbers, with commas between.
    #[arg(long, value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// How many of the largest logits to print; with `--json` all, in the order of the vocabulary.
    #[arg(long, default_value_t = 10)]
    top: usize,
    /// Where to compute: `cpu` or `wgpu`.
    #[arg(long, default_value = "cpu")]
    device: String,
}

#[derive(Args)]
struct ConvertArgs {
    /// A model's folder, or a GGUF file.
    path: PathBuf,
    /// The folder to write; it must not be there.
    out: PathBuf,
    /// The number format of the weights. Without it they keep theirs; quantised ones become f32.
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// Work the adapter of this folder into the weights.
    #[arg(long, value_name = "ADAPTER")]
    merge: Option<PathBuf>,
}

/// The number formats that weights are written in.
#[derive(Clone, Copy, ValueEnum)]
enum Dtype {
    F32,
    Bf16,
    F16,
}

impl From<Dtype> for Format {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::Bf16,
            Dtype::F16 => Self::F16,
        }
    }
}

pub(super) fn run(args: &ModelArgs, common: &Common) -> Outcome {
    match &args.command {
        ModelCommand::Inspect(args) => inspect(args, common.json),
        ModelCommand::Logits(args) => logits(args, common.json),
        ModelCommand::Convert(args) => convert(args, common.json),
    }
}

fn inspect(args: &InspectArgs, json: bool) -> Outcome {
    there(&args.path)?;
    let facts = inspect::facts(&args.path)?;
    if json {
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

fn logits(args: &LogitsArgs, json: bool) -> Outcome {
    there(&args.path)?;
    let device = device(&args.device).map_err(|error| Failure::Wrong(error.into()))?;
    // The tensors of a model on CUDA lie on the processor, and would be computed there.
    if *device.place() != Place::Holder {
        return Err(Failure::Wrong(anyhow!("logits are computed on `cpu` or `wgpu`, not on `{}`", args.device)));
    }
    let decoder = Checkpoint::open(&args.path)?.decoder(&device)?;
    let logits = next_logits(&decoder, &args.tokens).map_err(|error| match error {
        CheckpointError::Tokens(_) => Failure::Wrong(error.into()),
        other => other.into(),
    })?;
    if json {
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

fn convert(args: &ConvertArgs, json: bool) -> Outcome {
    there(&args.path)?;
    if args.out.exists() {
        return Err(Failure::Wrong(anyhow!("`{}` is there already; name a folder that is not", args.out.display())));
    }
    let checkpoint = Checkpoint::open(&args.path)?;
    let adapter =
        args.merge.as_deref().map(|path| there(path).and_then(|()| Ok(PeftAdapter::open(path)?))).transpose()?;
    let texts = export::texts(&checkpoint)?;
    let format = args.dtype.map_or_else(|| export::natural_format(&checkpoint), Format::from);
    let processor = device("cpu")?;
    let decoder = checkpoint.decoder(&processor)?;
    let decoder = match &adapter {
        Some(adapter) => adapter.attach(&decoder)?,
        None => decoder,
    };
    export::export(&decoder, &texts, &args.out, format)?;
    let (parameters, format) = (decoder.architecture().parameters(), format.name());
    if json {
        return say_json(&json!({"path": args.out, "parameters": parameters, "format": format}));
    }
    note(format!("wrote `{}`: {parameters} parameters in {format}", args.out.display()));
    Ok(())
}

/// Paths that are not there are the command's fault.
fn there(path: &Path) -> Result<(), Failure> {
    if path.exists() {
        return Ok(());
    }
    Err(Failure::Wrong(anyhow!("`{}` is not there", path.display())))
}
