//! `thresh graph`: the stages and their connections, of a pipeline or of a run with what became of them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::reference::named;
use super::source::{Source, SourceArgs};
use super::{Common, Failure, Outcome, load, records, runs, say};
use crate::engine::fingerprint::type_name;
use crate::engine::graph::{Edge, Graph, Node};
use crate::engine::history::{RunRecord, StageRecord};
use crate::engine::port::PortSpec;
use crate::fs;
use crate::report::dag::{self, Dag, notation};
use crate::report::note;

#[derive(Args)]
pub(super) struct GraphArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The notation.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Write to this file instead of stdout.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// One line a stage, each after what it reads.
    Text,
    /// Graphviz.
    Dot,
    /// Mermaid, which GitHub, GitLab and many editors draw.
    Mermaid,
    /// A picture, with colours for light and for dark ground.
    Svg,
}

pub(super) fn run(args: &GraphArgs, common: &Common) -> Outcome {
    let (dag, object) = match args.source.source()? {
        Source::Pipeline(pipeline) => {
            let graph = load(&pipeline)?.graph;
            (Dag::of_graph(&graph), common.json.then(|| of_graph(&graph)))
        }
        Source::Run(name) => {
            let records = records(&runs::store()?)?;
            let named = named(&records, name)?;
            if let Some(stage) = named.stage {
                let (stage, run) = (&stage.name, &named.run.run);
                return Err(Failure::Wrong(anyhow::anyhow!("`{stage}` is a stage of `{run}`; expected a run")));
            }
            (Dag::of_run(named.run), common.json.then(|| of_run(named.run)))
        }
    };
    let text = match (object, args.format) {
        (Some(object), _) => object.to_string() + "\n",
        (None, Format::Text) => notation::text(&dag),
        (None, Format::Dot) => notation::dot(&dag),
        (None, Format::Mermaid) => notation::mermaid(&dag),
        (None, Format::Svg) => dag::standalone(&dag),
    };
    match &args.out {
        Some(path) => {
            fs::write_whole(path, text.as_bytes())?;
            note(format!("wrote {}", path.display()));
        }
        None => say(text.trim_end_matches('\n'))?,
    }
    Ok(())
}

/// The stages in the file's order: what each is, reads and gives.
fn of_graph(graph: &Graph) -> Value {
    let stage = |node: &Node| {
        let from = |edge: &Edge| json!({"port": edge.input, "from": format!("{}.{}", graph.nodes[edge.from].name, edge.output)});
        let out = |port: PortSpec| json!({"port": port.name, "holds": type_name(&port.holds)});
        json!({
            "name": node.name,
            "kind": node.stage.kind(),
            "in": node.inputs.iter().map(from).collect::<Value>(),
            "out": node.stage.outputs().into_iter().map(out).collect::<Value>(),
        })
    };
    json!({"pipeline": graph.name, "stages": graph.nodes.iter().map(stage).collect::<Value>()})
}

/// The same of a run, with what became of each.
fn of_run(run: &RunRecord) -> Value {
    let stage = |stage: &StageRecord| {
        json!({
            "name": stage.name,
            "kind": stage.kind,
            "outcome": stage.outcome,
            "seconds": stage.seconds,
            "in": stage.inputs.iter().map(|(port, from)| json!({"port": port, "from": from})).collect::<Value>(),
        })
    };
    json!({"pipeline": run.pipeline, "run": run.run, "stages": run.stages.iter().map(stage).collect::<Value>()})
}
