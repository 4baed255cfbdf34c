//! `thresh export`: artifacts out of the store, as files.

mod write;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::gc::size;
use super::path::Results;
use super::reference::{Named, named, result};
use super::source::{Source, SourceArgs};
use super::{Common, Failure, Outcome, PipelineArgs, intact, records, runs, say, say_json, stage_indices};
use crate::config::Pipeline;
use crate::engine::graph::base;
use crate::engine::history::{RunRecord, StageRecord};
use crate::engine::store::Store;
use crate::fs;
use crate::report::{events, note};
use crate::stages::trl;

#[derive(Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// What to write: `stage.port`, or a stage for all of its outputs; everything that there is where nothing is named. In place
    /// of a run `RUN.stage.port` and `RUN.stage` may stand, and more of them behind.
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
    /// Of training logs event files as TensorBoard reads them, and nothing else: a folder for each run or pipeline, and in it
    /// one for each training. The wall time of an event is its step, in seconds.
    Tensorboard,
}

/// Something to write.
struct Item {
    /// Where it lies.
    from: PathBuf,
    /// Its name as a file: `stage.port`.
    name: String,
    /// The run or pipeline that it is of.
    group: String,
    /// Which of the names on the command line asked for it, where one did.
    asked: Option<usize>,
    /// Whether the pipeline would compute another now.
    stale: bool,
}

pub(super) fn run(args: &ExportArgs, common: &Common) -> Outcome {
    let items = match args.source.source()? {
        Source::Pipeline(pipeline) => of_pipeline(args, &pipeline)?,
        Source::Run(name) => of_run(args, name)?,
    };
    fs::create_dir_all(&args.to)?;
    let (mut stale, mut written) = (0, 0);
    let mut served = BTreeSet::new();
    for item in &items {
        let Some((to, bytes)) = write::write(item, &args.to, args.format)? else { continue };
        served.insert(item.asked);
        stale += usize::from(item.stale);
        written += 1;
        if common.json {
            say_json(&json!({"output": item.name, "path": to, "bytes": bytes}))?;
        } else {
            say(format!("{:>10}  {}", size(bytes), to.display()))?;
        }
    }
    // Of a stage's outputs, or of all, those that the format writes; of each name at least one.
    if let Some(item) = items.iter().find(|item| item.asked.is_some() && !served.contains(&item.asked)) {
        return Err(refused(&item.name, args.format));
    }
    if written == 0 {
        return Err(Failure::Failed(anyhow!(match args.format {
            Format::Trl => "no result here holds training examples; `data.sft`, `data.kto` and `data.pairs` make them",
            Format::Tensorboard =>
                "no result here holds a training log; `train.sft`, `train.kto` and `train.dpo` make them",
            _ => "there is no result yet; `thresh run` computes them",
        })));
    }
    if stale > 0 {
        note(format!(
            "note: {stale} of {written} are of an earlier state of the pipeline: the newest results there are"
        ));
    }
    Ok(())
}

fn refused(name: &str, format: Format) -> Failure {
    Failure::Wrong(match format {
        Format::Tensorboard => {
            anyhow!("`{name}` holds no training log; `tensorboard` writes `{}`", events::LOG)
        }
        _ => {
            let known = trl::EXAMPLES.map(|name| format!("`{name}`")).join(", ");
            anyhow!("`{name}` holds no training examples; `trl` writes {known}")
        }
    })
}

/// The newest results of a pipeline.
fn of_pipeline(args: &ExportArgs, pipeline: &PipelineArgs) -> Result<Vec<Item>, Failure> {
    let results = Results::open(pipeline)?;
    let graph = &results.opened.pipeline.graph;
    let mut items = Vec::new();
    for (name, asked) in chosen(args, &results.opened.pipeline)? {
        let found = match results.find(&name) {
            // Named outputs must be there; of all outputs, those that are.
            Err(Failure::Failed(_)) if asked.is_none() => continue,
            other => other?,
        };
        items.push(Item { from: found.intact(&results)?, name, group: graph.name.clone(), asked, stale: found.stale });
    }
    Ok(items)
}

/// The outputs that are named, as `stage.port`, and which name asked for each.
fn chosen(args: &ExportArgs, pipeline: &Pipeline) -> Result<BTreeSet<(String, Option<usize>)>, Failure> {
    let graph = &pipeline.graph;
    let all = |index: usize, asked: Option<usize>| {
        let node = &graph.nodes[index];
        node.stage.outputs().into_iter().map(move |port| (format!("{}.{}", node.name, port.name), asked))
    };
    if args.outputs.is_empty() {
        return Ok((0..graph.nodes.len()).flat_map(|index| all(index, None)).collect());
    }
    let mut chosen = BTreeSet::new();
    for (asked, name) in args.outputs.iter().enumerate() {
        let whole = graph.find_all(name);
        match name.rsplit_once('.') {
            Some((stage, port)) if whole.is_empty() => {
                let stages = stage_indices(pipeline, &[stage.to_owned()])?;
                chosen.extend(
                    stages.into_iter().map(|index| (format!("{}.{port}", graph.nodes[index].name), Some(asked))),
                );
            }
            _ => {
                let stages = stage_indices(pipeline, std::slice::from_ref(name))?;
                chosen.extend(stages.into_iter().flat_map(|index| all(index, Some(asked))));
            }
        }
    }
    Ok(chosen)
}

/// The results of a run, of its stages, or of stages and outputs of several runs.
fn of_run(args: &ExportArgs, name: &str) -> Result<Vec<Item>, Failure> {
    let store = runs::store()?;
    let records = records(&store)?;
    let first = named(&records, name)?;
    let mut items = Vec::new();
    if first.stage.is_some() {
        add(&store, &first, Some(0), &mut items)?;
        for (asked, name) in args.outputs.iter().enumerate() {
            add(&store, &named(&records, name)?, Some(asked + 1), &mut items)?;
        }
    } else if args.outputs.is_empty() {
        add(&store, &first, None, &mut items)?;
    } else {
        for (asked, name) in args.outputs.iter().enumerate() {
            for of_stage in instances(first.run, name) {
                add(&store, &of_stage, Some(asked), &mut items)?;
            }
            if items.last().is_none_or(|item| item.asked != Some(asked)) {
                let whole = format!("{}.{name}", first.run.run);
                add(&store, &named(&records, &whole)?, Some(asked), &mut items)?;
            }
        }
    }
    // Outputs of the same name, but of several runs, are told apart.
    let twice: BTreeSet<usize> = (0..items.len())
        .filter(|&one| items.iter().any(|other| other.name == items[one].name && other.group != items[one].group))
        .collect();
    if args.format != Format::Tensorboard {
        for index in twice {
            items[index].name = format!("{}.{}", items[index].group, items[index].name);
        }
    }
    Ok(items)
}

/// What the name of a matrix stage means in a run: all of its instances, `train` or `train.model`.
fn instances<'a>(run: &'a RunRecord, name: &'a str) -> Vec<Named<'a>> {
    let of = |wanted: &str, port: Option<&'a str>| -> Vec<Named<'a>> {
        let is = |stage: &&StageRecord| stage.name != wanted && base(&stage.name) == wanted;
        run.stages.iter().filter(is).map(|stage| Named { run, stage: Some(stage), port }).collect()
    };
    match (of(name, None), name.rsplit_once('.')) {
        (whole, _) if !whole.is_empty() => whole,
        (_, Some((stage, port))) => of(stage, Some(port)),
        _ => Vec::new(),
    }
}

/// Adds what a name means: one output, all of a stage, or all of a run. What was named must be there.
fn add(store: &Store, named: &Named, asked: Option<usize>, items: &mut Vec<Item>) -> Result<(), Failure> {
    let Some(stage) = named.stage else {
        for stage in &named.run.stages {
            add(store, &Named { stage: Some(stage), ..named.clone() }, asked, items)?;
        }
        return Ok(());
    };
    let Some(manifest) = result(store, stage)? else {
        let (name, run) = (&stage.name, &named.run.run);
        let why = "it was not computed, or removed since";
        return if asked.is_none() {
            Ok(())
        } else {
            Err(Failure::Failed(anyhow!("`{name}` has no result in run `{run}`: {why}")))
        };
    };
    if let Some(port) = named.port.filter(|port| !manifest.outputs.contains_key(*port)) {
        let known = manifest.outputs.keys().map(|port| format!("`{port}`")).collect::<Vec<_>>().join(", ");
        return Err(Failure::Wrong(anyhow!("stage `{}` has no output `{port}`; it has {known}", stage.name)));
    }
    for (port, artifact) in manifest.outputs.iter().filter(|(port, _)| named.port.is_none_or(|name| name == *port)) {
        items.push(Item {
            from: intact(store, &manifest.fingerprint, artifact)?,
            name: format!("{}.{port}", stage.name),
            group: named.run.run.clone(),
            asked,
            stale: false,
        });
    }
    Ok(())
}
