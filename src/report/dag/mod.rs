//! Pipelines drawn: their stages in rows, everything a stage reads above it.
//!
//! The steps are those of Sugiyama's method, a file each: [`rows`] says which row a stage stands in, [`net`] leads long
//! connections through the rows between, [`crossings`] orders every row, [`place`] gives the columns, [`layout`] puts sizes and
//! steps together, and [`svg`] draws. Nothing in it is random: the same stages give the same bytes.

mod crossings;
pub mod layout;
mod net;
pub mod notation;
mod place;
mod rows;
pub mod svg;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::collections::HashMap;

use serde::Serialize;

use crate::engine::graph::Graph;
use crate::engine::history::{Outcome, RunRecord};

pub use svg::{COLOURS, STYLE, inline, standalone};

/// A pipeline, or what a run did of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Dag {
    /// The pipeline's name.
    pub name: String,
    /// The stages, in the file's order.
    pub stages: Vec<Stage>,
    /// What they read of each other, by reader, then as the reader names its inputs.
    pub edges: Vec<Edge>,
}

/// A stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stage {
    /// Its name in the pipeline.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// What became of it; `None` in a pipeline that no run is told of.
    pub outcome: Option<Outcome>,
    /// Wall seconds that it took, where it was computed or tried.
    pub seconds: Option<f64>,
}

/// An output that a stage reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// The stage that it comes from, by its index.
    pub from: usize,
    /// That stage's output port.
    pub port: String,
    /// The stage that reads it, by its index.
    pub to: usize,
    /// The inputs that it is read through: one as a rule.
    pub inputs: Vec<String>,
}

impl Dag {
    /// The stages of a pipeline.
    pub fn of_graph(graph: &Graph) -> Self {
        let stages = graph.nodes.iter().map(|node| Stage {
            name: node.name.clone(),
            kind: node.stage.kind().to_owned(),
            outcome: None,
            seconds: None,
        });
        let reads = graph.nodes.iter().enumerate().flat_map(|(to, node)| {
            node.inputs.iter().map(move |edge| (edge.from, edge.output.clone(), to, edge.input.clone()))
        });
        Self::new(&graph.name, stages.collect(), reads.collect())
    }

    /// The stages of a run and what became of them. Records of versions that wrote no inputs have no edges.
    pub fn of_run(run: &RunRecord) -> Self {
        let stages = run.stages.iter().map(|stage| Stage {
            name: stage.name.clone(),
            kind: stage.kind.clone(),
            outcome: Some(stage.outcome),
            seconds: Some(stage.seconds).filter(|seconds| seconds.is_finite() && *seconds > 0.0),
        });
        let indices: HashMap<&str, usize> =
            run.stages.iter().enumerate().map(|(index, stage)| (stage.name.as_str(), index)).collect();
        let reads = run.stages.iter().enumerate().flat_map(|(to, stage)| {
            stage.inputs.iter().filter_map({
                let indices = &indices;
                move |(input, output)| {
                    let (from, port) = output.rsplit_once('.')?;
                    Some((*indices.get(from)?, port.to_owned(), to, input.clone()))
                }
            })
        });
        Self::new(&run.pipeline, stages.collect(), reads.collect())
    }

    /// Stages and what they read: from, its port, to, the input. An output that a stage reads twice is one edge. What names no
    /// stage and what would close a circle is left out: nothing can be above itself.
    pub fn new(name: &str, stages: Vec<Stage>, reads: Vec<(usize, String, usize, String)>) -> Self {
        let reads: Vec<_> =
            reads.into_iter().filter(|(from, _, to, _)| *from < stages.len() && *to < stages.len()).collect();
        let pairs: Vec<(usize, usize)> = reads.iter().map(|(from, _, to, _)| (*from, *to)).collect();
        let place = rows::places(stages.len(), &pairs);
        let mut edges: Vec<Edge> = Vec::new();
        let mut known: BTreeMap<(usize, usize, String), usize> = BTreeMap::new();
        for (from, port, to, input) in reads.into_iter().filter(|(from, _, to, _)| place[*from] < place[*to]) {
            let at = *known.entry((to, from, port.clone())).or_insert(edges.len());
            if at == edges.len() {
                edges.push(Edge { from, port, to, inputs: Vec::new() });
            }
            edges[at].inputs.push(input);
        }
        Self { name: name.to_owned(), stages, edges }
    }

    /// Its edges as pairs of stages.
    fn pairs(&self) -> Vec<(usize, usize)> {
        self.edges.iter().map(|edge| (edge.from, edge.to)).collect()
    }
}

/// The word for what became of a stage, as records spell it.
pub fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pending => "pending",
        Outcome::Fresh => "fresh",
        Outcome::Frozen => "frozen",
        Outcome::Computed => "computed",
        Outcome::Failed => "failed",
        Outcome::Skipped => "skipped",
    }
}
