//! Rows back to trees: the whole dialogue of every node, and the recorded examples in their order.

use super::node::NodeRow;
use super::tree::Outcome;
use crate::chat::Message;

/// Why rows are not a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// The rows of a dialogue are not numbered from 0 without gaps.
    #[error("dialogue `{dialogue}` has node {found} where node {expected} belongs")]
    Number { dialogue: String, expected: usize, found: u32 },
    /// A row names a parent that does not come before it.
    #[error("dialogue `{dialogue}`: node {node} names {parent} as its parent, which does not come before it")]
    Parent { dialogue: String, node: u32, parent: u32 },
    /// The recorded examples are not numbered from 0 without gaps.
    #[error("dialogue `{dialogue}` has no recorded example {missing}, or has it twice")]
    Order { dialogue: String, missing: usize },
}

/// One node's whole dialogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// The dialogue from its first message.
    pub messages: Vec<Message>,
    /// Whether it led to a leaf that hit a goal.
    pub success: bool,
    /// Whether the search went on from it.
    pub golden: bool,
    /// The place among the recorded examples.
    pub order: Option<u32>,
}

/// The whole dialogues of all rows of one tree, in the rows' order.
pub fn paths(rows: &[NodeRow]) -> Result<Vec<Path>, PathError> {
    let mut paths: Vec<Path> = Vec::with_capacity(rows.len());
    for (expected, row) in rows.iter().enumerate() {
        let dialogue = || row.dialogue.clone();
        if row.node as usize != expected {
            return Err(PathError::Number { dialogue: dialogue(), expected, found: row.node });
        }
        let before = match row.parent {
            None => Vec::new(),
            Some(parent) => paths
                .get(parent as usize)
                .map(|path| path.messages.clone())
                .ok_or_else(|| PathError::Parent { dialogue: dialogue(), node: row.node, parent })?,
        };
        let messages = before.into_iter().chain(row.messages.iter().cloned()).collect();
        paths.push(Path { messages, success: row.success, golden: row.golden, order: row.order });
    }
    Ok(paths)
}

/// One dialogue's tree as data builders see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Harvest {
    /// The dialogue.
    pub dialogue: String,
    /// How its tree ended.
    pub outcome: Outcome,
    /// The recorded examples in the order of recording.
    pub records: Vec<Path>,
}

impl Harvest {
    /// A tree from all its rows, which are not none.
    fn new(rows: &[NodeRow]) -> Result<Self, PathError> {
        let (dialogue, outcome) = (rows[0].dialogue.clone(), rows[0].outcome);
        let mut records: Vec<Path> = paths(rows)?.into_iter().filter(|path| path.order.is_some()).collect();
        records.sort_by_key(|path| path.order);
        match records.iter().enumerate().position(|(place, path)| path.order != Some(place as u32)) {
            Some(missing) => Err(PathError::Order { dialogue, missing }),
            None => Ok(Self { dialogue, outcome, records }),
        }
    }
}

/// The trees in a stream of rows, one at a time: rows of one dialogue stand together.
pub fn harvests<E: From<PathError>>(
    rows: impl Iterator<Item = Result<NodeRow, E>>,
) -> impl Iterator<Item = Result<Harvest, E>> {
    let mut rows = rows.peekable();
    std::iter::from_fn(move || {
        let first = match rows.next()? {
            Ok(row) => row,
            Err(error) => return Some(Err(error)),
        };
        let mut tree = vec![first];
        while let Some(Ok(row)) = rows.next_if(|row| matches!(row, Ok(row) if row.dialogue == tree[0].dialogue)) {
            tree.push(row);
        }
        Some(Harvest::new(&tree).map_err(E::from))
    })
}
