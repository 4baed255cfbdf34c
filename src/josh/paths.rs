//! Rows back to trees: where every node's dialogue ends, and the recorded examples in their order.

use super::extraction::calls_functions;
use super::forest::{Forest, Point};
use super::node::NodeRow;
use super::tree::Outcome;

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

/// One recorded example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Where its dialogue ends.
    pub end: Point,
    /// Whether it led to a leaf that hit a goal.
    pub success: bool,
    /// Whether the search went on from it.
    pub golden: bool,
}

impl Recorded {
    /// Whether nothing came of it.
    pub fn failed(&self) -> bool {
        !self.success && !self.golden
    }
}

/// One dialogue's tree as data builders see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Harvest {
    /// The dialogue.
    pub dialogue: String,
    /// How its tree ended.
    pub outcome: Outcome,
    /// The recorded examples in the order of recording.
    pub records: Vec<Recorded>,
}

impl Harvest {
    /// A tree from all its rows, which are not none; what was said goes into the forest.
    pub fn new(forest: &mut Forest, rows: Vec<NodeRow>) -> Result<Self, PathError> {
        let (dialogue, outcome) = (rows[0].dialogue.clone(), rows[0].outcome);
        let marks: Vec<_> = rows.iter().map(|row| (row.order, row.success, row.golden)).collect();
        let ends = ends(forest, rows)?;
        let recorded = ends.into_iter().zip(marks).filter_map(|(end, (order, success, golden))| {
            order.map(|order| (order, Recorded { end, success, golden }))
        });
        let mut records: Vec<(u32, Recorded)> = recorded.collect();
        records.sort_by_key(|(order, _)| *order);
        match records.iter().enumerate().position(|(place, (order, _))| *order as usize != place) {
            Some(missing) => Err(PathError::Order { dialogue, missing }),
            None => Ok(Self { dialogue, outcome, records: records.into_iter().map(|(_, record)| record).collect() }),
        }
    }
}

/// Where the dialogue of each row of one tree ends, in the rows' order.
pub fn ends(forest: &mut Forest, rows: Vec<NodeRow>) -> Result<Vec<Point>, PathError> {
    let mut ends: Vec<Point> = Vec::with_capacity(rows.len());
    for (expected, NodeRow { dialogue, node, parent, messages, .. }) in rows.into_iter().enumerate() {
        if node as usize != expected {
            return Err(PathError::Number { dialogue, expected, found: node });
        }
        let before = match parent {
            None => Point::START,
            Some(parent) => match ends.get(parent as usize) {
                Some(&end) => end,
                None => return Err(PathError::Parent { dialogue, node, parent }),
            },
        };
        ends.push(messages.into_iter().fold(before, |place, message| forest.after(place, message)));
    }
    Ok(ends)
}

/// The rows of each tree, one tree after the other: rows of one dialogue stand together.
pub fn trees<E>(rows: impl Iterator<Item = Result<NodeRow, E>>) -> impl Iterator<Item = Result<Vec<NodeRow>, E>> {
    let mut rows = rows.peekable();
    std::iter::from_fn(move || {
        let mut tree = match rows.next()? {
            Ok(row) => vec![row],
            Err(error) => return Some(Err(error)),
        };
        while let Some(Ok(row)) = rows.next_if(|row| matches!(row, Ok(row) if row.dialogue == tree[0].dialogue)) {
            tree.push(row);
        }
        Some(Ok(tree))
    })
}

/// Trees with all that was said in them.
#[derive(Debug, Default)]
pub struct Harvests {
    /// What was said.
    pub forest: Forest,
    /// The trees.
    pub trees: Vec<Harvest>,
}

impl Harvests {
    /// Of each tree whether its agent calls functions natively.
    pub fn calling(&self) -> Vec<bool> {
        let calls = |harvest: &Harvest| {
            harvest.records.iter().any(|record| self.forest.messages(record.end).any(calls_functions))
        };
        self.trees.iter().map(calls).collect()
    }

    /// All trees of a table.
    pub fn read<E: From<PathError>>(rows: impl Iterator<Item = Result<NodeRow, E>>) -> Result<Self, E> {
        let mut harvests = Self::default();
        for tree in trees(rows) {
            let harvest = Harvest::new(&mut harvests.forest, tree?)?;
            harvests.trees.push(harvest);
        }
        Ok(harvests)
    }
}
