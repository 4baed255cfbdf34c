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
    /// Another process, or another stage of this run, computes its result.
    Blocked,
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
    blocked: BTreeSet<usize>,
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
            states: (0..graph.nodes.len()).map(|index| State::Waiting(graph.reads(index).len())).collect(),
            ready: BTreeSet::new(),
            due: vec![BTreeSet::new(); pools],
            blocked: BTreeSet::new(),
            pool,
            rank,
            by_rank: graph.order().to_vec(),
        };
        for (index, wanted) in wanted.iter().enumerate() {
            if *wanted && graph.reads(index).is_empty() {
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

    /// The result of a stage that was to start is being computed elsewhere: it is looked up again after [`unblock`].
    ///
    /// [`unblock`]: Self::unblock
    pub fn block(&mut self, index: usize) {
        self.states[index] = State::Blocked;
        self.blocked.insert(index);
    }

    /// Has all blocked stages looked up again.
    pub fn unblock(&mut self) {
        for index in std::mem::take(&mut self.blocked) {
            self.make_ready(index);
        }
    }

    /// Whether any stage is blocked.
    pub fn any_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Has a running stage looked up again.
    pub fn again(&mut self, index: usize) {
        self.make_ready(index);
    }

    /// A running stage has its result: stages that wait for nothing else become ready.
    pub fn finish(&mut self, graph: &Graph, wanted: &[bool], index: usize) {
        self.states[index] = State::Done;
        for &(reader, connections) in graph.readers(index) {
            if let State::Waiting(missing) = self.states[reader] {
                let missing = missing.saturating_sub(connections);
                self.states[reader] = State::Waiting(missing);
                if missing == 0 && wanted[reader] {
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
            for &(reader, _) in graph.readers(at) {
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
    /// again, and all that have not begun to read it wait for it. Returns whether the reader waits; it cannot where the stage
    /// has failed or will not run.
    pub fn reopen(&mut self, graph: &Graph, damaged: usize, reader: usize) -> bool {
        if matches!(self.states[damaged], State::Failed | State::Skipped(_)) {
            return false;
        }
        let again = self.states[damaged] == State::Done;
        if again {
            self.make_ready(damaged);
        }
        for &(other, _) in graph.readers(damaged) {
            let behind = matches!(self.states[other], State::Waiting(_) | State::Ready | State::Due | State::Blocked);
            if other == reader || (again && behind) {
                self.ready.remove(&self.rank[other]);
                self.due[self.pool[other]].remove(&self.rank[other]);
                self.blocked.remove(&other);
                let open = graph.reads(other).iter().filter(|edge| self.states[edge.from] != State::Done);
                self.states[other] = State::Waiting(open.count());
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::engine::graph::{Edge, Node, Policy};
    use crate::engine::port::PortSpec;
    use crate::engine::stage::{Context, Stage};

    #[derive(Serialize, Deserialize, schemars::JsonSchema)]
    struct Nothing {}

    impl Stage for Nothing {
        const KIND: &'static str = "test.nothing";
        const VERSION: u32 = 1;
        const EXAMPLE: &'static str = "";

        fn inputs(&self) -> Vec<PortSpec> {
            Vec::new()
        }

        fn outputs(&self) -> Vec<PortSpec> {
            Vec::new()
        }

        fn also_depends_on(&self, _: &Path) -> anyhow::Result<Vec<(String, String)>> {
            Ok(Vec::new())
        }

        fn run(&self, _: &Context) -> anyhow::Result<()> {
            Ok(())
        }
    }

    fn graph(reads: &[&[usize]], frozen: &[usize]) -> Graph {
        let node = |(index, from): (usize, &&[usize])| Node {
            name: format!("s{index}"),
            stage: Arc::new(Nothing {}),
            inputs: from
                .iter()
                .enumerate()
                .map(|(port, &from)| Edge { input: format!("i{port}"), from, output: "o".into() })
                .collect(),
            policy: Policy { frozen: frozen.contains(&index), ..Policy::default() },
        };
        Graph::new("g", reads.iter().enumerate().map(node).collect()).unwrap()
    }

    fn states(graph: &Graph) -> (States, Vec<bool>) {
        let wanted = vec![true; graph.nodes.len()];
        (States::new(graph, &wanted, vec![0; graph.nodes.len()]), wanted)
    }

    #[test]
    fn a_frozen_stage_waits_for_nothing_and_falls_with_nothing() {
        let graph = graph(&[&[], &[0], &[1]], &[1]);
        let (mut states, wanted) = states(&graph);
        assert_eq!([states.next_ready(), states.next_ready(), states.next_ready()], [Some(0), Some(1), None]);
        assert!(states.fail(&graph, 0).is_empty());
        states.finish(&graph, &wanted, 1);
        assert_eq!(states.next_ready(), Some(2));
    }

    #[test]
    fn readers_wait_for_every_damaged_input_through_every_connection() {
        // 2 reads 0 once and 1 twice; 3 reads 1.
        let graph = graph(&[&[], &[], &[0, 1, 1], &[1]], &[]);
        let (mut states, wanted) = states(&graph);
        for stage in [0, 1] {
            assert_eq!(states.next_ready(), Some(stage));
            states.finish(&graph, &wanted, stage);
        }
        assert_eq!(states.next_ready(), Some(2));
        assert!(states.reopen(&graph, 1, 2));
        assert_eq!((states.state(2), states.state(3)), (State::Waiting(2), State::Waiting(1)));
        assert_eq!(states.next_ready(), Some(1));
        states.finish(&graph, &wanted, 1);
        assert_eq!(states.next_ready(), Some(2));
        // The other input, while the first is computed again, too.
        assert!(states.reopen(&graph, 0, 2) && states.reopen(&graph, 1, 2));
        assert_eq!(states.state(2), State::Waiting(3));
        for stage in [0, 1] {
            assert_eq!(states.next_ready(), Some(stage));
            states.finish(&graph, &wanted, stage);
        }
        assert_eq!([states.next_ready(), states.next_ready()], [Some(2), Some(3)]);
    }

    #[test]
    fn nobody_waits_for_what_has_failed() {
        let graph = graph(&[&[], &[0], &[0]], &[]);
        let (mut states, wanted) = states(&graph);
        states.next_ready();
        states.finish(&graph, &wanted, 0);
        assert_eq!([states.next_ready(), states.next_ready()], [Some(1), Some(2)]);
        assert!(states.reopen(&graph, 0, 1));
        assert_eq!(states.next_ready(), Some(0));
        assert_eq!(states.fail(&graph, 0), [1]);
        assert!(!states.reopen(&graph, 0, 2));
    }

    #[test]
    fn blocked_stages_are_looked_up_again() {
        let graph = graph(&[&[], &[0]], &[]);
        let (mut states, wanted) = states(&graph);
        states.next_ready();
        states.wait_for_slot(0);
        assert_eq!(states.next_due(0), Some(0));
        states.block(0);
        assert!(states.any_blocked() && states.next_ready().is_none());
        states.unblock();
        assert_eq!(states.next_ready(), Some(0));
        states.finish(&graph, &wanted, 0);
        assert_eq!(states.next_ready(), Some(1));
    }
}
