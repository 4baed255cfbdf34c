//! The scheduler's mind: which stage may start. A pure state machine; the runner drives it.

use std::collections::BTreeSet;

use super::graph::Graph;

/// What a stage is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for this many connections.
    Waiting(usize),
    /// Everything it reads is there: its result is to be looked up.
    Ready,
    /// Its result is to be computed when its pool has a slot.
    Due,
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
    /// Stages that wait for a slot, by pool.
    due: Vec<BTreeSet<usize>>,
    pool: Vec<usize>,
    rank: Vec<usize>,
    by_rank: Vec<usize>,
}

impl States {
    /// All stages of `wanted` at the start; the others are left alone. `pool` gives each stage its pool's number.
    pub fn new(graph: &Graph, wanted: &[bool], pool: Vec<usize>) -> Self {
        let mut rank = vec![0; graph.nodes.len()];
        for (position, &index) in graph.order().iter().enumerate() {
            rank[index] = position;
        }
        let pools = pool.iter().max().map_or(0, |last| last + 1);
        let mut states = Self {
            states: graph.nodes.iter().map(|node| State::Waiting(node.inputs.len())).collect(),
            ready: BTreeSet::new(),
            due: vec![BTreeSet::new(); pools],
            pool,
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

    /// Takes the next stage whose result is to be looked up, first in the order of the data, and marks it running.
    pub fn next_ready(&mut self) -> Option<usize> {
        let index = self.by_rank[self.ready.pop_first()?];
        self.states[index] = State::Running;
        Some(index)
    }

    /// A stage that was looked up has no result: it waits for a slot of its pool.
    pub fn wait_for_slot(&mut self, index: usize) {
        self.states[index] = State::Due;
        self.due[self.pool[index]].insert(self.rank[index]);
    }

    /// Takes the next stage that waits for a slot of a pool, first in the order of the data, and marks it running.
    pub fn next_due(&mut self, pool: usize) -> Option<usize> {
        let index = self.by_rank[self.due.get_mut(pool)?.pop_first()?];
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
        if self.states[damaged] != State::Done {
            // Another reader saw it first: wait for the same new result.
            self.states[reader] = State::Waiting(served(reader));
            return;
        }
        self.states[reader] = State::Waiting(served(reader));
        for &other in graph.readers(damaged) {
            match self.states[other] {
                State::Waiting(missing) if other != reader => {
                    self.states[other] = State::Waiting(missing + served(other));
                }
                State::Ready | State::Due => {
                    self.ready.remove(&self.rank[other]);
                    self.due[self.pool[other]].remove(&self.rank[other]);
                    self.states[other] = State::Waiting(served(other));
                }
                _ => {}
            }
        }
        self.make_ready(damaged);
    }
}
