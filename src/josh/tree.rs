//! The tree of a search: an arena of nodes over one forest of messages, and what was recorded of it.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forest::{Forest, Point};
use super::simulation::GoalIndex;
use crate::chat::{Chat, Message};
use crate::compat::Rules;

/// A node by its place in the arena.
pub type NodeId = usize;

/// How a tree ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every goal was reached.
    Complete,
    /// Some goals were reached.
    Partial,
    /// No goal was reached, and so nothing is recorded.
    Empty,
    /// Something other than the agent failed: nothing in the tree is a label.
    Broken,
}

/// One agent step that a node took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// How many messages the node's dialogue had after it.
    pub end: usize,
    /// The seed it was given.
    pub seed: u64,
    /// The goals it hit, each once.
    pub hits: Vec<GoalIndex>,
}

/// One branch of the dialogue: from where it left its parent to where it split, died or stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The node it branched from. A collapse does not cut this link: it still leads to the messages before.
    pub parent: Option<NodeId>,
    /// The nodes that branched from it, in order.
    pub children: Vec<NodeId>,
    /// Where it left its parent.
    pub start: Point,
    /// Where its dialogue stands.
    pub end: Point,
    /// Where its dialogue stood when the agent's side last had its say.
    pub answered: Point,
    /// Where the first of its agent's turns ended; `None` where the agent has said nothing in it.
    pub first_answer: Option<Point>,
    /// Its agent steps, in order.
    pub steps: Vec<Step>,
    /// Whether its dialogue is over.
    pub over: bool,
    /// Whether the user has ended its dialogue.
    pub ending: bool,
    /// Whether it reached a goal in a step that then raised: that earns nothing by our rules, and is blamed for nothing either.
    pub reached: bool,
    /// Whether it leads to a leaf that hit a goal, in the current tree.
    pub success: bool,
    /// Whether it leads to the leaf that the search went on from.
    pub golden: bool,
}

/// One recorded example: a prefix of a node's dialogue, and how it was marked at that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The node.
    pub node: NodeId,
    /// How far of its dialogue.
    pub end: Point,
    /// The node's mark at that time.
    pub success: bool,
    /// The node's mark at that time.
    pub golden: bool,
}

/// A search's tree.
#[derive(Debug, PartialEq)]
pub struct Tree {
    /// What was said in it.
    pub forest: Forest,
    /// All nodes that ever were; the first is the first root.
    pub nodes: Vec<Node>,
    /// The present root.
    pub root: NodeId,
    /// What was recorded, in order.
    pub records: Vec<Record>,
    /// How many goals there were.
    pub goals: usize,
    /// The goals not yet reached.
    pub left: Vec<GoalIndex>,
    /// The share of the goals that was reached when a step was last finished; `None` before the first one.
    pub reward: Option<f64>,
    /// The leaf that reached the last goal.
    pub golden_leaf: Option<NodeId>,
    /// Why the search stopped before its end by the reference's own error (quirk Q21).
    pub stopped: Option<String>,
    /// Why the tree says nothing about the agent.
    pub broken: Option<String>,
    seen: HashSet<(Point, bool, bool)>,
}

impl Tree {
    /// A tree of one node without messages.
    pub fn new(goals: usize) -> Self {
        Self {
            forest: Forest::default(),
            nodes: vec![Node::default()],
            root: 0,
            records: Vec::new(),
            goals,
            left: (0..goals).collect(),
            reward: None,
            golden_leaf: None,
            stopped: None,
            broken: None,
            seen: HashSet::new(),
        }
    }

    /// How the tree ended. A search that the reference's own error stopped in its first step is broken, as the reference
    /// knows no reward for it.
    pub fn outcome(&self) -> Outcome {
        match self.reward {
            _ if self.broken.is_some() => Outcome::Broken,
            None if self.stopped.is_some() => Outcome::Broken,
            Some(_) if self.goals > 0 && self.left.is_empty() && self.stopped.is_none() => Outcome::Complete,
            Some(reward) if reward > 0.0 => Outcome::Partial,
            _ => Outcome::Empty,
        }
    }

    /// The live leaves under the present root, in order.
    pub fn leaves(&self) -> Vec<NodeId> {
        let live = |&node: &NodeId| self.nodes[node].children.is_empty() && !self.nodes[node].over;
        self.preorder(self.root).into_iter().filter(live).collect()
    }

    /// A node and all below it: first itself, then each child's in order.
    pub fn preorder(&self, from: NodeId) -> Vec<NodeId> {
        let (mut order, mut waiting) = (Vec::new(), vec![from]);
        while let Some(node) = waiting.pop() {
            order.push(node);
            waiting.extend(self.nodes[node].children.iter().rev());
        }
        order
    }

    /// Gives a leaf this many children.
    pub fn branch(&mut self, node: NodeId, children: usize) -> Vec<NodeId> {
        let Node { end, answered, ending, .. } = self.nodes[node];
        let born: Vec<NodeId> = (self.nodes.len()..self.nodes.len() + children).collect();
        for _ in &born {
            self.nodes.push(Node { parent: Some(node), start: end, end, answered, ending, ..Node::default() });
        }
        self.nodes[node].children.clone_from(&born);
        born
    }

    /// How many messages a node's dialogue has.
    pub fn length(&self, node: NodeId) -> usize {
        self.forest.length(self.nodes[node].end)
    }

    /// Takes over what a node's dialogue has grown by.
    pub fn grow(&mut self, node: NodeId, dialogue: &Chat) {
        let known = self.length(node);
        let new = dialogue.since(known).into_iter().cloned();
        self.nodes[node].end = new.fold(self.nodes[node].end, |point, message| self.forest.after(point, message));
    }

    /// Takes over what the agent's side added to a node's dialogue.
    pub fn answer(&mut self, node: NodeId, dialogue: &Chat) {
        self.grow(node, dialogue);
        self.nodes[node].answered = self.nodes[node].end;
    }

    /// Notes that the agent's turn is over.
    pub fn turn_ends(&mut self, node: NodeId) {
        let node = &mut self.nodes[node];
        if node.first_answer.is_none() && node.answered != node.start {
            node.first_answer = Some(node.answered);
        }
    }

    /// The messages of a node's dialogue.
    pub fn dialogue(&self, node: NodeId) -> Vec<Message> {
        self.forest.messages(self.nodes[node].end).cloned().collect()
    }

    /// A node and its ancestors up to the present root, the node first.
    pub fn lineage(&self, node: NodeId) -> Vec<NodeId> {
        let mut lineage = vec![node];
        while let (here, true) = (lineage[lineage.len() - 1], lineage[lineage.len() - 1] != self.root)
            && let Some(parent) = self.nodes[here].parent
        {
            lineage.push(parent);
        }
        lineage
    }

    /// Marks what led to success, records the whole present tree, and makes the survivor its root.
    pub fn collapse(&mut self, successes: &[NodeId], survivor: NodeId, rules: Rules) {
        for &leaf in successes {
            for node in self.lineage(leaf) {
                self.nodes[node].success = true;
            }
        }
        for node in self.lineage(survivor) {
            self.nodes[node].golden = true;
        }
        for node in self.preorder(self.root) {
            self.record(node, rules);
        }
        self.root = survivor;
        self.nodes[survivor].success = false;
    }

    /// Records a node as it stands, unless the same messages with the same marks are recorded already.
    fn record(&mut self, node: NodeId, rules: Rules) {
        let Some(end) = rules.recorded(&self.forest, &self.nodes[node]) else { return };
        let (success, golden) = (self.nodes[node].success, self.nodes[node].golden);
        if self.seen.insert((end, success, golden)) || rules.records_repeats() {
            self.records.push(Record { node, end, success, golden });
        }
    }
}
