//! Which stages of a pipeline a command is about.

use clap::Args;

use super::{Failure, stage_indices};
use crate::config::Pipeline;
use crate::engine::graph::Graph;

/// Stages named on the command line. A bare name of a matrix stands for all of its stages.
#[derive(Args, Clone, Default)]
pub(super) struct SelectionArgs {
    /// Run up to this stage: it and what it needs.
    #[arg(long, value_name = "STAGE")]
    upto: Vec<String>,
    /// Run this stage, what reads its results, and what those need.
    #[arg(long, value_name = "STAGE")]
    downstream: Vec<String>,
    /// Compute nothing but this stage: what it needs must have its results.
    #[arg(long, value_name = "STAGE", conflicts_with_all = ["upto", "downstream"])]
    only: Vec<String>,
}

/// What a run may touch.
pub(super) struct Selected {
    /// Stages whose results are wanted; what they need is among them.
    pub wanted: Vec<bool>,
    /// Stages that may be computed.
    pub allowed: Vec<bool>,
}

impl SelectionArgs {
    /// The stages of a pipeline; all where none is named.
    pub(super) fn choose(&self, pipeline: &Pipeline) -> Result<Selected, Failure> {
        let graph = &pipeline.graph;
        let count = graph.nodes.len();
        if self.upto.is_empty() && self.downstream.is_empty() && self.only.is_empty() {
            return Ok(Selected { wanted: vec![true; count], allowed: vec![true; count] });
        }
        let mut ends = stage_indices(pipeline, &self.upto)?;
        ends.extend(reached(stage_indices(pipeline, &self.downstream)?, count, |index| {
            graph.readers(index).iter().map(|(reader, _)| *reader).collect()
        }));
        let only = stage_indices(pipeline, &self.only)?;
        let mut allowed = vec![only.is_empty(); count];
        only.iter().for_each(|&index| allowed[index] = true);
        ends.extend(only);
        let mut wanted = vec![false; count];
        reached(ends, count, |index| needs(graph, index)).into_iter().for_each(|index| wanted[index] = true);
        Ok(Selected { wanted, allowed })
    }
}

fn needs(graph: &Graph, index: usize) -> Vec<usize> {
    graph.reads(index).iter().map(|edge| edge.from).collect()
}

/// The stages and all that can be reached from them.
fn reached(from: Vec<usize>, count: usize, next: impl Fn(usize) -> Vec<usize>) -> Vec<usize> {
    let (mut seen, mut found, mut open) = (vec![false; count], Vec::new(), from);
    while let Some(index) = open.pop() {
        if !std::mem::replace(&mut seen[index], true) {
            found.push(index);
            open.extend(next(index));
        }
    }
    found
}
