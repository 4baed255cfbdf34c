//! A tree as rows: one for each recorded node, and one for each node of which nothing was recorded.

use serde::{Deserialize, Serialize};

use super::tree::{Node, NodeId, Outcome, Record, Step, Tree};
use crate::chat::Message;
use crate::table::Row;

/// One node of one dialogue's tree.
///
/// A row holds only the messages that its parent row does not have, so that a tree takes the room of what was said in it;
/// [`super::paths`] puts the whole dialogues together again. A node that was recorded at several stages of its growth has a
/// row for each, the earlier one the parent of the later one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
struct Listing {
    node: NodeId,
    length: usize,
    success: bool,
    golden: bool,
    order: Option<u32>,
}

/// The rows of a dialogue's tree, parents first.
pub fn rows(dialogue: &str, tree: &Tree) -> Vec<NodeRow> {
    let mut listed: Vec<Vec<(u32, usize)>> = vec![Vec::new(); tree.nodes.len()];
    let mut rows: Vec<NodeRow> = Vec::new();
    for node in tree.preorder(0) {
        let listings = listings(tree, node);
        let mut steps = tree.nodes[node].steps.iter().peekable();
        let last = listings.len() - 1;
        for (place, listing) in listings.into_iter().enumerate() {
            let mut here: Vec<&Step> = Vec::new();
            while let Some(step) = steps.next_if(|step| place == last || step.end <= listing.length) {
                here.push(step);
            }
            let number = rows.len() as u32;
            let parent = parent_of(tree, &listing, &listed);
            let from = parent.map_or(0, |(_, length)| length);
            let parent = parent.map(|(row, _)| row);
            listed[node].push((number, listing.length));
            rows.push(NodeRow {
                dialogue: dialogue.to_owned(),
                outcome: tree.outcome(),
                reason: tree.broken.clone().or_else(|| tree.stopped.clone()),
                reward: tree.broken.is_none().then_some(tree.reward.unwrap_or(0.0)),
                goals: Some(tree.goals as u32),
                node: number,
                parent,
                depth: parent.map_or(0, |parent| rows[parent as usize].depth + 1),
                order: listing.order,
                success: listing.success,
                golden: listing.golden,
                hits: here.iter().flat_map(|step| step.hits.iter().map(|&hit| hit as u32)).collect(),
                seed: here.last().map(|step| step.seed),
                messages: tree.path(node, listing.length).split_off(from),
            });
        }
    }
    rows
}

/// What is listed of a node, in the order of its growth: its records, and its end where that would otherwise be lost.
fn listings(tree: &Tree, node: NodeId) -> Vec<Listing> {
    let recorded = tree.records.iter().enumerate().filter(|(_, record)| record.node == node);
    let listing = |(order, record): (usize, &Record)| Listing {
        node,
        length: record.length,
        success: record.success,
        golden: record.golden,
        order: Some(order as u32),
    };
    let mut listings: Vec<Listing> = recorded.map(listing).collect();
    let length = tree.length(node);
    let shown = listings.iter().any(|listing| listing.length == length);
    let Node { success, golden, ref children, .. } = tree.nodes[node];
    if listings.is_empty() || (children.is_empty() && !shown) {
        listings.push(Listing { node, length, success, golden, order: None });
    }
    listings.sort_by_key(|listing| listing.length);
    listings
}

/// The nearest row above that holds no more than the listing does, and how much it holds.
fn parent_of(tree: &Tree, listing: &Listing, listed: &[Vec<(u32, usize)>]) -> Option<(u32, usize)> {
    let mut here = Some(listing.node);
    while let Some(node) = here {
        if let Some(row) = listed[node].iter().rev().find(|(_, length)| *length <= listing.length) {
            return Some(*row);
        }
        here = tree.nodes[node].parent;
    }
    None
}
