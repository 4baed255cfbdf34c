//! A tree as rows: one for each recorded node, and one for each node of which nothing was recorded.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::forest::Point;
use super::tree::{Node, NodeId, Outcome, Record, Step, Tree};
use crate::chat::Message;
use crate::table::Row;

/// One node of one dialogue's tree.
///
/// A row holds only the messages that its parent row does not have, so that a tree takes the room of what was said in it;
/// [`super::paths`] puts the whole dialogues together again. A node that was recorded at several stages of its growth has a
/// row for each, the earlier one the parent of the later one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeRow {
    /// The dialogue.
    pub dialogue: String,
    /// How its whole tree ended.
    pub outcome: Outcome,
    /// Why the tree is broken, or why the search stopped early.
    pub reason: Option<String>,
    /// The share of its goals that the whole tree reached, where that is known.
    pub reward: Option<f64>,
    /// How many goals the dialogue has, where that is known.
    pub goals: Option<u32>,
    /// The row's number within its dialogue, from 0 without gaps; a parent's is smaller.
    pub node: u32,
    /// The row whose messages come before this one's.
    pub parent: Option<u32>,
    /// How many rows lie above.
    pub depth: u32,
    /// The place among the dialogue's recorded examples; `None` for what was not recorded and is no example.
    pub order: Option<u32>,
    /// Whether it led to a leaf that hit a goal.
    pub success: bool,
    /// Whether it lies on the path that the search went on from.
    pub golden: bool,
    /// The goals that the agent hit within these messages.
    pub hits: Vec<u32>,
    /// The seed of the last agent step within these messages.
    pub seed: Option<u64>,
    /// The messages since the parent's last.
    pub messages: Vec<Message>,
}

impl Row for NodeRow {
    const TYPE: &'static str = "josh.node/v2";
}

/// What a row will show of a node.
#[derive(Clone, Copy)]
struct Listing {
    end: Point,
    length: usize,
    success: bool,
    golden: bool,
    order: Option<u32>,
}

/// A row that is there already: its number, and where its messages end.
#[derive(Clone, Copy)]
struct Listed {
    row: u32,
    end: Point,
    length: usize,
}

/// The rows of a dialogue's tree, parents first.
pub fn rows(dialogue: &str, tree: &Tree) -> Vec<NodeRow> {
    let mut listed: Vec<Vec<Listed>> = vec![Vec::new(); tree.nodes.len()];
    let mut recorded = recorded(tree);
    let mut rows: Vec<NodeRow> = Vec::new();
    for node in tree.preorder(0) {
        let listings = listings(tree, node, std::mem::take(&mut recorded[node]));
        let mut steps = tree.nodes[node].steps.iter().peekable();
        let last = listings.len() - 1;
        for (place, listing) in listings.into_iter().enumerate() {
            let mut here: Vec<&Step> = Vec::new();
            while let Some(step) = steps.next_if(|step| place == last || step.end <= listing.length) {
                here.push(step);
            }
            let above = above(tree, node, &listing, &listed);
            let (row, parent) = (rows.len() as u32, above.map(|above| above.row));
            listed[node].push(Listed { row, end: listing.end, length: listing.length });
            rows.push(NodeRow {
                dialogue: dialogue.to_owned(),
                outcome: tree.outcome(),
                reason: tree.broken.clone().or_else(|| tree.stopped.clone()),
                reward: tree.broken.is_none().then_some(tree.reward.unwrap_or(0.0)),
                goals: Some(tree.goals as u32),
                node: row,
                parent,
                depth: parent.map_or(0, |parent| rows[parent as usize].depth + 1),
                order: listing.order,
                success: listing.success,
                golden: listing.golden,
                hits: here.iter().flat_map(|step| step.hits.iter().map(|&hit| hit as u32)).collect(),
                seed: here.last().map(|step| step.seed),
                messages: tree.forest.between(above.map_or(Point::START, |above| above.end), listing.end),
            });
        }
    }
    rows
}

/// What was recorded of each node, in the order of recording.
fn recorded(tree: &Tree) -> Vec<Vec<Listing>> {
    let mut recorded: Vec<Vec<Listing>> = vec![Vec::new(); tree.nodes.len()];
    for (order, &Record { node, end, success, golden }) in tree.records.iter().enumerate() {
        let length = tree.forest.length(end);
        recorded[node].push(Listing { end, length, success, golden, order: Some(order as u32) });
    }
    recorded
}

/// What is listed of a node, in the order of its growth: its records, and its end where that would otherwise be lost.
fn listings(tree: &Tree, node: NodeId, mut listings: Vec<Listing>) -> Vec<Listing> {
    let Node { end, success, golden, ref children, .. } = tree.nodes[node];
    let shown = listings.iter().any(|listing| listing.end == end);
    if listings.is_empty() || (children.is_empty() && !shown) {
        listings.push(Listing { end, length: tree.forest.length(end), success, golden, order: None });
    }
    listings.sort_by_key(|listing| listing.length);
    listings
}

/// The nearest row above, of this node or of one that it branched from, that holds no more than the listing does.
fn above(tree: &Tree, node: NodeId, listing: &Listing, listed: &[Vec<Listed>]) -> Option<Listed> {
    let lineage = std::iter::successors(Some(node), |&node| tree.nodes[node].parent);
    let mut rows = lineage.flat_map(|node| listed[node].iter().rev());
    rows.find(|above| above.length <= listing.length).copied()
}
