//! `thresh graph`: the stages and their connections.

use clap::{Args, ValueEnum};

use super::{Outcome, PipelineArgs, load, say};
use crate::engine::graph::Graph;

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

pub(super) fn run(args: &GraphArgs) -> Outcome {
    let graph = load(&args.pipeline)?.graph;
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
