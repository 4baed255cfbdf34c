//! `thresh graph`: the stages and their connections.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{Common, Outcome, PipelineArgs, load, say, say_json};
use crate::engine::fingerprint::type_name;
use crate::engine::graph::{Edge, Graph, Node};
use crate::engine::port::PortSpec;

#[derive(Args)]
pub(super) struct GraphArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The notation.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// One line a stage.
    Text,
    /// Graphviz.
    Dot,
    /// Mermaid.
    Mermaid,
}

pub(super) fn run(args: &GraphArgs, common: &Common) -> Outcome {
    let graph = load(&args.pipeline)?.graph;
    if common.json {
        return object(&graph);
    }
    match args.format {
        Format::Text => text(&graph)?,
        Format::Dot => {
            say("digraph {")?;
            for (index, node) in graph.nodes.iter().enumerate() {
                let name = node.name.replace('\\', "\\\\").replace('"', "\\\"");
                say(format!("  n{index} [label=\"{name}\\n{}\", shape=box]", node.stage.kind()))?;
            }
            edges(&graph, |from, to, port| format!("  n{from} -> n{to} [label=\"{port}\"]"))?;
            say("}")?;
        }
        Format::Mermaid => {
            say("flowchart TD")?;
            for (index, node) in graph.nodes.iter().enumerate() {
                let name = node.name.replace('"', "#quot;");
                say(format!("  n{index}[\"{name}<br/><small>{}</small>\"]", node.stage.kind()))?;
            }
            edges(&graph, |from, to, port| format!("  n{from} -->|{port}| n{to}"))?;
        }
    }
    Ok(())
}

/// The stages in the file's order: what each is, reads and gives.
fn object(graph: &Graph) -> Outcome {
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
    say_json(&json!({"pipeline": graph.name, "stages": graph.nodes.iter().map(stage).collect::<Value>()}))
}

fn text(graph: &Graph) -> std::io::Result<()> {
    let width = graph.nodes.iter().map(|node| node.name.len()).max().unwrap_or(0);
    for &index in graph.order() {
        let node = &graph.nodes[index];
        let mut from: Vec<String> =
            node.inputs.iter().map(|edge| format!("{}.{}", graph.nodes[edge.from].name, edge.output)).collect();
        from.dedup();
        let arrow = if from.is_empty() { String::new() } else { format!("  <- {}", from.join(", ")) };
        say(format!("{:width$}  {}{arrow}", node.name, node.stage.kind()))?;
    }
    Ok(())
}

fn edges(graph: &Graph, line: impl Fn(usize, usize, &str) -> String) -> std::io::Result<()> {
    for (to, node) in graph.nodes.iter().enumerate() {
        for edge in &node.inputs {
            say(line(edge.from, to, &edge.output))?;
        }
    }
    Ok(())
}
