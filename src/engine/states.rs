//! The scheduler's mind: which stage may start. A pure state machine; the runner drives it.

use std::collections::BTreeSet;

use super::graph::Graph;

/// What a stage is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for this many connections.
    Waiting(usize),
    /// Everything it reads is there.
    Ready,
    /// Is being looked up or computed.
    Running,
    /// Its result is there.
    Done,
    /// It failed.
    Failed,
    /// It will not run: the stage that failed before it.
    Skipped(usize),
}

/// The states of all stages of a run.
pub struct States {
    states: Vec<State>,
    ready: BTreeSet<usize>,
    rank: Vec<usize>,
    by_rank: Vec<usize>,
}

impl States {
    /// All stages of `wanted` at the start; the others are left alone.
    pub fn new(graph: &Graph, wanted: &[bool]) -> Self {
        let mut rank = vec![0; graph.nodes.len()];
        for (position, &index) in graph.order().iter().enumerate() {
            rank[index] = position;
        }
        let mut states = Self {
            states: graph.nodes.iter().map(|node| State::Waiting(node.inputs.len())).collect(),
            ready: BTreeSet::new(),
            rank,
            by_rank: graph.order().to_vec(),
        };
        for (index, (node, wanted)) in graph.nodes.iter().zip(wanted).enumerate() {
            if *wanted && node.inputs.is_empty() {
                states.make_ready(index);
            }
        }
        states
    }

    fn make_ready(&mut self, index: usize) {
        self.states[index] = State::Ready;
        self.ready.insert(self.rank[index]);
    }

    /// The state of a stage.
    pub fn state(&self, index: usize) -> State {
        self.states[index]
    }

    /// Takes the next ready stage, first in the order of the data, and marks it running.
    pub fn start(&mut self) -> Option<usize> {
        let index = self.by_rank[self.ready.pop_first()?];
        self.states[index] = State::Running;
        Some(index)
    }

    /// A running stage has its result: stages that wait for nothing else become ready.
    pub fn finish(&mut self, graph: &Graph, wanted: &[bool], index: usize) {
        self.states[index] = State::Done;
        for &reader in graph.readers(index) {
            let served = graph.nodes[reader].inputs.iter().filter(|edge| edge.from == index).count();
            if let State::Waiting(missing) = self.states[reader] {
                self.states[reader] = State::Waiting(missing - served);
                if missing == served && wanted[reader] {
                    self.make_ready(reader);
                }
            }
        }
    }

    /// A running stage failed: everything behind it is skipped. Returns the skipped stages.
    pub fn fail(&mut self, graph: &Graph, index: usize) -> Vec<usize> {
        self.states[index] = State::Failed;
        let mut skipped = Vec::new();
        let mut open = vec![index];
        while let Some(at) = open.pop() {
            for &reader in graph.readers(at) {
                if matches!(self.states[reader], State::Waiting(_)) {
                    self.states[reader] = State::Skipped(index);
                    skipped.push(reader);
                    open.push(reader);
                }
            }
        }
        skipped.sort_unstable();
        skipped
    }

    /// A stage's stored result turned out to be damaged when `reader`, which is running, wanted to read it: the stage runs
    /// again, and all that have not read it yet wait for it.
    pub fn reopen(&mut self, graph: &Graph, damaged: usize, reader: usize) {
        let served = |index: usize| graph.nodes[index].inputs.iter().filter(|edge| edge.from == damaged).count();
        self.states[reader] = State::Waiting(served(reader));
        if self.states[damaged] != State::Done {
            return;
        }
        for &other in graph.readers(damaged) {
            match self.states[other] {
                State::Waiting(missing) if other != reader => {
                    self.states[other] = State::Waiting(missing + served(other))
                }
                State::Ready => {
                    self.ready.remove(&self.rank[other]);
                    self.states[other] = State::Waiting(served(other));
                }
                _ => {}
            }
        }
        self.make_ready(damaged);
    }
}
