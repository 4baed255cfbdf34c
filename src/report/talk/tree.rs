//! One dialogue's tree: what was tried, where rewards fell, and the path that the search went on from.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::goal::{Briefs, Goal};
use super::turn::{Turn, turns};
use crate::chat::Role;
use crate::josh::node::NodeRow;
use crate::josh::paths::PathError;
use crate::josh::tree::Outcome;
use crate::table::Row;

/// A tree of dialogues about one task.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tree {
    /// The task's dialogue.
    pub dialogue: String,
    /// How the whole tree ended: `complete`, `partial`, `empty` or `broken`.
    pub outcome: Outcome,
    /// Why it is broken, or why the search stopped early.
    pub reason: Option<String>,
    /// The share of its goals that the whole tree reached, where that is known; absent of a broken tree.
    pub reward: Option<f64>,
    /// The customer's wish in sentences, one a line, where the task is known.
    pub wish: Option<String>,
    /// The goals, where the task or at least their number is known; `turn` is always absent, [`TreeNode::hits`] tells where.
    pub goals: Vec<Goal>,
    /// The nodes, parents first; a node's number is its place.
    pub nodes: Vec<TreeNode>,
}

/// A stretch of dialogue between two places where the tree branches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TreeNode {
    /// Its number, from 0.
    pub node: u32,
    /// The node before it.
    pub parent: Option<u32>,
    /// The nodes after it, in order.
    pub children: Vec<u32>,
    /// How many nodes lie above.
    pub depth: u32,
    /// The place among the recorded examples; absent of what is no example.
    pub order: Option<u32>,
    /// Whether it led to a leaf that hit a goal.
    pub success: bool,
    /// Whether it lies on the path that the search went on from.
    pub golden: bool,
    /// The goals that the agent hit here, as positions in the tree's goals.
    pub hits: Vec<u32>,
    /// The seed of its last agent step.
    pub seed: Option<u64>,
    /// What was done since the parent, numbered on from it.
    pub turns: Vec<Turn>,
}

impl Tree {
    /// Reads the rows of one dialogue, which are not none.
    ///
    /// # Errors
    /// When they are not numbered from 0 without gaps, or a parent does not come before its children.
    pub fn new(rows: Vec<NodeRow>, briefs: &Briefs) -> Result<Self, PathError> {
        let mut nodes: Vec<TreeNode> = Vec::with_capacity(rows.len());
        let mut ends: Vec<u32> = Vec::with_capacity(rows.len());
        let mut head = None;
        for (expected, row) in rows.into_iter().enumerate() {
            head.get_or_insert_with(|| TreeRow::of(&row));
            let before = before(&row, expected, &ends)?;
            let mut turns = turns(&row.messages, before);
            credit(&mut turns, &row.hits);
            ends.push(before + turns.len() as u32);
            if let Some(parent) = row.parent {
                nodes[parent as usize].children.push(row.node);
            }
            let NodeRow { node, parent, depth, order, success, golden, hits, seed, .. } = row;
            nodes.push(TreeNode {
                node,
                parent,
                children: Vec::new(),
                depth,
                order,
                success,
                golden,
                hits,
                seed,
                turns,
            });
        }
        let head = head.unwrap_or_default();
        let hit: BTreeSet<u32> = nodes.iter().flat_map(|node| node.hits.iter().copied()).collect();
        Ok(Self {
            wish: briefs.wish(&head.dialogue),
            goals: goals(&head, &hit, briefs),
            dialogue: head.dialogue,
            outcome: head.outcome.unwrap_or(Outcome::Empty),
            reason: head.reason,
            reward: head.reward.filter(|_| head.outcome != Some(Outcome::Broken)),
            nodes,
        })
    }

    /// The nodes from the root to this one; none where there is no such node.
    pub fn lineage(&self, node: u32) -> Vec<&TreeNode> {
        let parent = |node: &&TreeNode| self.nodes.get(node.parent? as usize);
        let mut lineage: Vec<&TreeNode> = std::iter::successors(self.nodes.get(node as usize), parent).collect();
        lineage.reverse();
        lineage
    }

    /// The last node of the golden path: the deepest of the golden nodes, the first of several. None where nothing is golden.
    pub fn golden_end(&self) -> Option<u32> {
        self.nodes.iter().rev().filter(|node| node.golden).max_by_key(|node| node.depth).map(|node| node.node)
    }

    /// How many goals were reached.
    pub fn reached(&self) -> usize {
        self.goals.iter().filter(|goal| goal.reached).count()
    }
}

/// What a row says of the whole tree.
#[derive(Default)]
struct TreeRow {
    dialogue: String,
    outcome: Option<Outcome>,
    reason: Option<String>,
    reward: Option<f64>,
    goals: Option<u32>,
}

impl TreeRow {
    fn of(row: &NodeRow) -> Self {
        Self {
            dialogue: row.dialogue.clone(),
            outcome: Some(row.outcome),
            reason: row.reason.clone(),
            reward: row.reward,
            goals: row.goals,
        }
    }
}

/// How many turns come before a row's.
fn before(row: &NodeRow, expected: usize, ends: &[u32]) -> Result<u32, PathError> {
    let dialogue = || row.dialogue.clone();
    if row.node as usize != expected {
        return Err(PathError::Number { dialogue: dialogue(), expected, found: row.node });
    }
    match row.parent {
        None => Ok(0),
        Some(parent) => ends.get(parent as usize).copied().ok_or_else(|| PathError::Parent {
            dialogue: dialogue(),
            node: row.node,
            parent,
        }),
    }
}

/// Notes a node's goals at its turn where only one of its turns is the agent's; of several, the rows do not say which.
fn credit(turns: &mut [Turn], hits: &[u32]) {
    let mut agents = turns.iter_mut().filter(|turn| turn.role == Role::Assistant);
    if let (Some(turn), None) = (agents.next(), agents.next()) {
        turn.goals = hits.to_vec();
    }
}

fn goals(head: &TreeRow, hit: &BTreeSet<u32>, briefs: &Briefs) -> Vec<Goal> {
    let count = head.goals.map(|count| count as usize);
    let known = briefs.goals(&head.dialogue).filter(|goals| count.is_none_or(|count| count == goals.len()));
    let mut goals = known.unwrap_or_else(|| vec![Goal::bare(""); count.unwrap_or(0)]);
    let complete = head.outcome == Some(Outcome::Complete);
    for (goal, place) in goals.iter_mut().zip(0..) {
        goal.reached = complete || hit.contains(&place);
    }
    goals
}

/// What a list shows of a tree: some columns of its rows, quick to read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TreeHeadline {
    /// The task's dialogue.
    pub dialogue: String,
    /// How the whole tree ended.
    pub outcome: Outcome,
    /// Why it is broken, or why the search stopped early.
    pub reason: Option<String>,
    /// The share of its goals that the whole tree reached, where that is known.
    pub reward: Option<f64>,
    /// How many goals it has, where that is known.
    pub goals: Option<u32>,
    /// How many nodes.
    pub nodes: u32,
    /// How many of them are recorded examples.
    pub examples: u32,
    /// The depth of the deepest node.
    pub depth: u32,
}

impl From<&Tree> for TreeHeadline {
    fn from(tree: &Tree) -> Self {
        Self {
            dialogue: tree.dialogue.clone(),
            outcome: tree.outcome,
            reason: tree.reason.clone(),
            reward: tree.reward,
            goals: (!tree.goals.is_empty()).then_some(tree.goals.len() as u32),
            nodes: tree.nodes.len() as u32,
            examples: tree.nodes.iter().filter(|node| node.order.is_some()).count() as u32,
            depth: tree.nodes.iter().map(|node| node.depth).max().unwrap_or_default(),
        }
    }
}

/// The columns that a headline needs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TreeHeadlineRow {
    pub(super) dialogue: String,
    outcome: Outcome,
    reason: Option<String>,
    reward: Option<f64>,
    goals: Option<u32>,
    depth: u32,
    order: Option<u32>,
}

impl Row for TreeHeadlineRow {
    const TYPE: &'static str = NodeRow::TYPE;
}

impl From<TreeHeadlineRow> for TreeHeadline {
    fn from(row: TreeHeadlineRow) -> Self {
        Self {
            reward: row.reward.filter(|_| row.outcome != Outcome::Broken),
            dialogue: row.dialogue,
            outcome: row.outcome,
            reason: row.reason,
            goals: row.goals,
            nodes: 1,
            examples: u32::from(row.order.is_some()),
            depth: row.depth,
        }
    }
}

impl TreeHeadline {
    /// Counts one more node of the same tree.
    pub(super) fn add(&mut self, row: &TreeHeadlineRow) {
        self.nodes += 1;
        self.examples += u32::from(row.order.is_some());
        self.depth = self.depth.max(row.depth);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::goal::tests::briefs;
    use super::*;
    use crate::chat::Message;
    use crate::dialogue::react::spoken;

    /// Of a tree: the user's word; a branch that hits goal 0 and goes on; one that hits nothing.
    pub(in super::super) fn rows(dialogue: &str, outcome: Outcome) -> Vec<NodeRow> {
        let row = |node, parent: Option<u32>, depth, hits: &[u32], golden, messages| NodeRow {
            dialogue: dialogue.to_owned(),
            outcome,
            reason: None,
            reward: Some(0.5),
            goals: Some(2),
            node,
            parent,
            depth,
            order: parent.map(|_| node - 1),
            success: golden,
            golden,
            hits: hits.to_vec(),
            seed: None,
            messages,
        };
        let user = || Message::user("more");
        vec![
            row(0, None, 0, &[], true, vec![Message::user("a hotel")]),
            row(1, Some(0), 1, &[0], true, vec![spoken("The Avalon.")]),
            row(2, Some(1), 2, &[1], false, vec![user(), spoken("Booked."), user(), spoken("Bye.")]),
            row(3, Some(0), 1, &[], false, vec![spoken("There is none.")]),
        ]
    }

    #[test]
    fn a_tree_knows_its_children_and_counts_turns_on() {
        let tree = Tree::new(rows("a", Outcome::Partial), &briefs("a")).unwrap();
        assert_eq!(
            tree.nodes.iter().map(|node| node.children.as_slice()).collect::<Vec<_>>(),
            [&[1, 3][..], &[2], &[], &[]]
        );
        let numbers = |node: usize| tree.nodes[node].turns.iter().map(|turn| turn.number).collect::<Vec<_>>();
        assert_eq!((numbers(1), numbers(2), numbers(3)), (vec![2], vec![3, 4, 5, 6], vec![2]));
        assert_eq!(tree.nodes[1].turns[0].goals, [0]);
        assert!(tree.nodes[2].turns.iter().all(|turn| turn.goals.is_empty()));
        assert_eq!(tree.lineage(2).iter().map(|node| node.node).collect::<Vec<_>>(), [0, 1, 2]);
        assert!(tree.lineage(4).is_empty());
        assert_eq!(
            (tree.golden_end(), tree.reached(), tree.goals[0].text()),
            (Some(1), 2, "search_hotel(area: north)".into())
        );
    }

    #[test]
    fn goals_of_an_unknown_task_are_counted_and_a_broken_tree_has_no_reward() {
        let tree = Tree::new(rows("a", Outcome::Broken), &Briefs::default()).unwrap();
        assert_eq!((tree.goals.len(), tree.reward, tree.wish), (2, None, None));
    }

    #[test]
    fn rows_that_are_no_tree_are_named() {
        let mut gap = rows("a", Outcome::Partial);
        gap.remove(1);
        assert_eq!(
            Tree::new(gap, &Briefs::default()).unwrap_err().to_string(),
            "dialogue `a` has node 2 where node 1 belongs"
        );
        let mut loops = rows("a", Outcome::Partial);
        loops[1].parent = Some(3);
        assert!(matches!(Tree::new(loops, &Briefs::default()), Err(PathError::Parent { node: 1, parent: 3, .. })));
    }
}
