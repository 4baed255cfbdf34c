//! The search: branch, let the agents answer, go on from the first that earned something, let the users answer.

use futures_util::future::join_all;

use super::rules::Place;
use super::simulation::{AgentError, AgentTurn, Broken, GoalIndex, Simulation, UserTurn};
use super::tree::{NodeId, Step, Tree};
use crate::compat::{Compat, Rules};

/// How a search goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The most leaves that branching may lead to.
    pub beam: usize,
    /// Children of a leaf that branches.
    pub branching: usize,
    /// Rounds that an agent's turn may take.
    pub tries: usize,
    /// The most agent turns on any path.
    pub max_steps: usize,
    /// The run's seed.
    pub seed: u64,
    /// Whose behaviour.
    pub rules: Rules,
}

impl Default for Settings {
    fn default() -> Self {
        Self { beam: 8, branching: 2, tries: 3, max_steps: 15, seed: 0, rules: Rules::of(Compat::Fixed) }
    }
}

/// Searches one dialogue (reference, section 2.6), from a state to which nobody has said anything yet.
///
/// `dialogue` only enters the seeds. Whatever happens is in the tree: a model that does not answer makes it
/// [`Outcome::Broken`](super::Outcome::Broken), an agent that raises costs it a branch.
pub async fn search<S: Simulation>(
    simulation: &S,
    dialogue: &str,
    root: S::State,
    goals: usize,
    settings: &Settings,
) -> Tree {
    let mut search = Search::new(simulation, dialogue, root, goals, settings);
    if goals == 0 && settings.rules.hits_are_a_set() {
        return search.tree;
    }
    search.open().await;
    for _ in 0..settings.max_steps {
        if search.step().await == Next::Stop {
            break;
        }
    }
    search.tree
}

/// Whether a search has more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another step may find more.
    Step,
    /// All goals are reached, no dialogue is alive, or the search failed.
    Stop,
}

/// A search between two steps.
pub struct Search<'s, S: Simulation> {
    simulation: &'s S,
    dialogue: &'s str,
    settings: &'s Settings,
    /// The tree so far.
    pub tree: Tree,
    /// The states of the leaves, by node; a node that has branched needs none.
    states: Vec<Option<S::State>>,
    steps: usize,
}

/// What an agent phase has found so far.
#[derive(Default)]
struct Found {
    /// Every leaf that hit something.
    successes: Vec<NodeId>,
    /// The first of them, from which the search goes on.
    survivor: Option<NodeId>,
    /// The goals credited to the survivor.
    hits: Vec<GoalIndex>,
}

impl<'s, S: Simulation> Search<'s, S> {
    /// A search about to take its first step from a state that the user has opened.
    pub fn new(simulation: &'s S, dialogue: &'s str, root: S::State, goals: usize, settings: &'s Settings) -> Self {
        let mut tree = Tree::new(goals);
        tree.grow(0, simulation.chat(&root));
        Self { simulation, dialogue, settings, tree, states: vec![Some(root)], steps: 0 }
    }

    /// Lets the user speak first. The reference ignores an end at this point (Q23).
    pub async fn open(&mut self) {
        let root = self.tree.root;
        self.users(&[root]).await;
        if !self.settings.rules.answers_last_message() {
            self.tree.nodes[root].over = false;
            self.tree.nodes[root].ending = false;
        }
    }

    /// One step: branch, agents, collapse, users.
    pub async fn step(&mut self) -> Next {
        if self.settings.rules.ends_at_next_step() {
            self.close_ended();
        }
        self.expand();
        let leaves = self.tree.leaves();
        if leaves.is_empty() || self.tree.broken.is_some() {
            return Next::Stop;
        }
        let found = self.agents(&leaves).await;
        if self.tree.broken.is_some() || !self.collapse(found) {
            return Next::Stop;
        }
        let (goals, left) = (self.tree.goals, self.tree.left.len());
        self.tree.reward = Some(if goals == 0 { 0.0 } else { (goals - left) as f64 / goals as f64 });
        if left == 0 {
            return Next::Stop;
        }
        if self.settings.rules.answers_last_message() {
            self.close_ended();
        }
        self.users(&self.tree.leaves()).await;
        self.steps += 1;
        if self.tree.leaves().is_empty() || self.tree.broken.is_some() { Next::Stop } else { Next::Step }
    }

    /// Branches every leaf if the beam has room for all of them. Dead leaves take no room, so a tree can grow again.
    fn expand(&mut self) {
        let leaves = self.tree.leaves();
        if leaves.len() * self.settings.branching > self.settings.beam {
            return;
        }
        for leaf in leaves {
            let state = self.states[leaf].take();
            for _ in self.tree.branch(leaf, self.settings.branching) {
                self.states.push(state.clone());
            }
        }
    }

    /// The agents' turns: rounds over the leaves whose turn is not over.
    async fn agents(&mut self, leaves: &[NodeId]) -> Found {
        let mut found = Found::default();
        let mut unfinished = leaves.to_vec();
        for round in 0..self.settings.tries {
            if unfinished.is_empty() || self.tree.broken.is_some() {
                break;
            }
            let last = round + 1 == self.settings.tries;
            let turns = self.agent_round(&unfinished, round).await;
            unfinished.clear();
            for (leaf, turn) in turns {
                self.judge(leaf, &turn.hits, &mut found);
                if last && (!turn.finished || self.settings.rules.notes_finished_leaves()) {
                    self.note_out_of_tries(leaf);
                }
                if !turn.finished {
                    unfinished.push(leaf);
                }
            }
        }
        leaves.iter().for_each(|&leaf| self.tree.turn_ends(leaf));
        found
    }

    /// One step of each of these leaves' agents, at the same time; what each came to, in the leaves' order.
    async fn agent_round(&mut self, leaves: &[NodeId], round: usize) -> Vec<(NodeId, AgentTurn)> {
        let mut ready = self.take_states(leaves);
        let (simulation, left) = (self.simulation, &self.tree.left);
        let steps = ready.iter_mut().map(|(leaf, state)| {
            let seed = self.seed("agent", *leaf, round);
            async move { (seed, simulation.agent_step(state, left, seed).await) }
        });
        let results = join_all(steps).await;
        let mut turns = Vec::new();
        for ((leaf, state), (seed, result)) in ready.into_iter().zip(results) {
            let turn = self.take_turn(leaf, result);
            self.settle_answer(leaf, state);
            let mut hits = turn.hits.clone();
            hits.sort_unstable();
            hits.dedup();
            let end = self.tree.length(leaf);
            self.tree.nodes[leaf].steps.push(Step { end, seed, hits });
            turns.push((leaf, turn));
        }
        turns
    }

    /// What a step's result means: a failed one is over, and by the reference's rules may still have earned something.
    fn take_turn(&mut self, leaf: NodeId, result: Result<AgentTurn, AgentError>) -> AgentTurn {
        match result {
            Ok(AgentTurn { finished, mut hits }) => {
                if self.settings.rules.hits_are_a_set() {
                    hits.retain(|hit| self.tree.left.contains(hit));
                }
                AgentTurn { finished, hits }
            }
            Err(AgentError::Raised { hits, .. }) => {
                let node = &mut self.tree.nodes[leaf];
                node.over = true;
                node.reached |= !hits.is_empty();
                let hits = if self.settings.rules.credits_raised_steps() { hits } else { Vec::new() };
                AgentTurn { finished: true, hits }
            }
            Err(AgentError::Broken(Broken(reason))) => {
                self.tree.nodes[leaf].over = true;
                self.tree.broken.get_or_insert(reason);
                AgentTurn { finished: true, hits: Vec::new() }
            }
        }
    }

    fn judge(&mut self, leaf: NodeId, hits: &[GoalIndex], found: &mut Found) {
        if hits.is_empty() {
            return;
        }
        let rules = self.settings.rules;
        found.successes.push(leaf);
        let survivor = *found.survivor.get_or_insert(leaf);
        let again = survivor == leaf && rules.credits_later_rounds();
        if found.hits.is_empty() || again || rules.deletes_goals_of_all() {
            let once = rules.hits_are_a_set() || rules.deletes_goals_of_all();
            for hit in hits {
                if !once || !found.hits.contains(hit) {
                    found.hits.push(*hit);
                }
            }
            if rules.completes(self.tree.left.len(), found.hits.len()) {
                self.tree.golden_leaf = Some(survivor);
            }
        }
    }

    fn note_out_of_tries(&mut self, leaf: NodeId) {
        if let Some(mut state) = self.states[leaf].take() {
            self.simulation.out_of_tries(&mut state);
            self.settle_answer(leaf, state);
        }
    }

    /// Goes on from the survivor, where there is one. False where the reference fails: on a goal that is not left (Q21).
    fn collapse(&mut self, found: Found) -> bool {
        let Some(survivor) = found.survivor else { return true };
        for hit in found.hits {
            match self.tree.left.iter().position(|&goal| goal == hit) {
                Some(place) => drop(self.tree.left.remove(place)),
                None => {
                    self.tree.stopped = Some(format!("goal {hit} was hit twice in one turn"));
                    return false;
                }
            }
        }
        let reached = self.tree.preorder(self.tree.root).into_iter().filter(|&node| self.tree.nodes[node].reached);
        let successes: Vec<NodeId> = found.successes.into_iter().chain(reached).collect();
        self.tree.collapse(&successes, survivor, self.settings.rules);
        self.forget_all_but(survivor);
        true
    }

    /// Lets go of the dialogues of all other leaves: nothing goes on from them.
    fn forget_all_but(&mut self, survivor: NodeId) {
        let kept = self.states[survivor].take();
        self.states.iter_mut().for_each(|state| *state = None);
        self.states[survivor] = kept;
    }

    /// Ends the dialogues that their users have ended.
    fn close_ended(&mut self) {
        for leaf in self.tree.leaves() {
            self.tree.nodes[leaf].over |= self.tree.nodes[leaf].ending;
        }
    }

    /// The users' turns of these leaves, at the same time.
    async fn users(&mut self, leaves: &[NodeId]) {
        let mut ready = self.take_states(leaves);
        let simulation = self.simulation;
        let steps = ready.iter_mut().map(|(leaf, state)| simulation.user_step(state, self.seed("user", *leaf, 0)));
        let results = join_all(steps).await;
        for ((leaf, state), result) in ready.into_iter().zip(results) {
            self.settle(leaf, state);
            let rules = self.settings.rules;
            let node = &mut self.tree.nodes[leaf];
            match result {
                Ok(UserTurn::GoesOn) => {}
                Ok(UserTurn::EndsAfterAnswer) if rules.answers_last_message() => node.ending = true,
                Ok(UserTurn::EndsAfterAnswer | UserTurn::Over) if rules.ends_at_next_step() => node.ending = true,
                Ok(UserTurn::EndsAfterAnswer | UserTurn::Over) => node.over = true,
                Err(Broken(reason)) => drop(self.tree.broken.get_or_insert(reason)),
            }
        }
    }

    fn take_states(&mut self, leaves: &[NodeId]) -> Vec<(NodeId, S::State)> {
        leaves.iter().filter_map(|&leaf| Some((leaf, self.states[leaf].take()?))).collect()
    }

    /// Puts a stepped state back, and what it said into the tree.
    fn settle(&mut self, leaf: NodeId, state: S::State) {
        self.tree.grow(leaf, self.simulation.chat(&state));
        self.states[leaf] = Some(state);
    }

    /// As [`Self::settle`], after a step of the agent's side.
    fn settle_answer(&mut self, leaf: NodeId, state: S::State) {
        self.tree.answer(leaf, self.simulation.chat(&state));
        self.states[leaf] = Some(state);
    }

    fn seed(&self, who: &'static str, node: NodeId, round: usize) -> u64 {
        let place = Place { who, dialogue: self.dialogue, node, step: self.steps, round };
        self.settings.rules.seed(self.settings.seed, place)
    }
}
