//! One tree: its branches in short lines, where rewards fell, and the golden path.

use super::ink::{Ink, Line};
use super::{Look, count, dialogue, turn};
use crate::josh::tree::Outcome;
use crate::report::talk::{Tree, TreeNode};

/// What the signs mean.
const SIGNS: &str = "★ golden path   + led to a goal   - led to none   ✓ goal reached here; --branch N shows the whole dialogue to node N, --branch golden the golden path";

/// Columns of a node's number and marks.
const MARKS: usize = 7;

/// Columns below which a turn is not squeezed, however deep it stands.
const LEAST: usize = 24;

/// How a tree ended, with its sign.
pub fn outcome(outcome: Outcome) -> Line {
    match outcome {
        Outcome::Complete => Line::new(Ink::Good, "✓ complete"),
        Outcome::Partial => Line::new(Ink::Plain, "~ partial"),
        Outcome::Empty => Line::new(Ink::Bad, "✗ empty"),
        Outcome::Broken => Line::new(Ink::Odd, "! broken"),
    }
}

/// A whole tree, down to nodes of this depth.
pub fn page(tree: &Tree, depth: Option<u32>, look: Look) -> Vec<Line> {
    let mut lines = head(tree, look);
    lines.push(Line::default());
    lines.extend(branches(tree, depth, look));
    lines.push(Line::default());
    lines.extend(Line::new(Ink::Dim, SIGNS).wrap(look.prose()));
    lines
}

/// The whole dialogue from the root to a node. The node must be one of the tree.
pub fn branch(tree: &Tree, node: u32, look: Look) -> Vec<Line> {
    let mut lines = head(tree, look);
    let lineage = tree.lineage(node);
    let names: Vec<String> = lineage.iter().map(|node| node.node.to_string()).collect();
    lines.push(Line::default());
    lines.extend(Line::new(Ink::Bold, format!("node {node}: the path {}", names.join(" → "))).wrap(look.prose()));
    for node in lineage.into_iter().filter(|node| !node.turns.is_empty()) {
        lines.push(rule(node, look));
        lines.extend(dialogue::body(&node.turns, &tree.goals, look));
        lines.extend(unplaced(node).map(|text| Line::new(Ink::Good, format!("           {text}"))));
    }
    lines.push(Line::default());
    lines.extend(Line::new(Ink::Dim, turn::SIGNS).wrap(look.prose()));
    lines
}

fn rule(node: &TreeNode, look: Look) -> Line {
    let line = Line::new(Ink::Dim, "── ").then(name(node)).with(Ink::Dim, " ");
    let rest = look.prose().saturating_sub(line.width());
    line.with(Ink::Dim, "─".repeat(rest))
}

fn head(tree: &Tree, look: Look) -> Vec<Line> {
    let mut lines = vec![Line::new(Ink::Bold, &tree.dialogue).with(Ink::Plain, "  ").then(outcome(tree.outcome))];
    let reward = match (tree.reward, tree.outcome) {
        (_, Outcome::Broken) => "no reward".to_owned(),
        (Some(reward), _) => format!("reward {reward:.2}"),
        (None, _) => "reward unknown".to_owned(),
    };
    let goals = match tree.goals.len() {
        0 => String::new(),
        goals => format!(", {} of {}", tree.reached(), count(goals, "goal")),
    };
    let examples = tree.nodes.iter().filter(|node| node.order.is_some()).count();
    let nodes = count(tree.nodes.len(), "node");
    lines.push(Line::new(Ink::Plain, format!("{reward}{goals}, {nodes}, {}", count(examples, "recorded example"))));
    if let Some(reason) = &tree.reason {
        lines.extend(Line::new(Ink::Odd, format!("! {reason}")).wrap(look.prose()));
    }
    // Goals of an unknown task are told by their number above.
    if tree.goals.iter().any(|goal| !goal.api.is_empty()) {
        lines.extend(dialogue::about(tree.wish.as_deref(), &tree.goals, look, |goal, number| {
            let nodes = tree.nodes.iter().filter(|node| node.hits.contains(&number));
            let nodes: Vec<String> = nodes.map(|node| node.node.to_string()).collect();
            match (nodes.is_empty(), goal.reached) {
                (false, _) => format!("at node {}", nodes.join(", ")),
                (true, true) => "reached".to_owned(),
                (true, false) => "not reached".to_owned(),
            }
        }));
    }
    lines
}

/// A place in the drawing: a node, what stands before its first line, and before its others.
struct Place {
    node: u32,
    first: String,
    others: String,
}

fn branches(tree: &Tree, depth: Option<u32>, look: Look) -> Vec<Line> {
    let mut lines = Vec::new();
    let roots = tree.nodes.iter().filter(|node| node.parent.is_none());
    let mut waiting: Vec<Place> =
        roots.map(|root| Place { node: root.node, first: String::new(), others: String::new() }).collect();
    waiting.reverse();
    while let Some(place) = waiting.pop() {
        let Some(node) = tree.nodes.get(place.node as usize) else { continue };
        lines.extend(node_lines(node, &place, look));
        if depth.is_some_and(|depth| node.depth >= depth) && !node.children.is_empty() {
            let below = count(below(tree, node), "node");
            lines.push(Line::new(Ink::Dim, format!("{}{:MARKS$}… {below} below", place.others, "")));
            continue;
        }
        let last = node.children.len().saturating_sub(1);
        let children = node.children.iter().enumerate().map(|(at, &child)| {
            let (first, others) = match (last, at == last) {
                // One who goes on alone needs no branch.
                (0, _) => ("", ""),
                (_, false) => ("├─ ", "│  "),
                (_, true) => ("└─ ", "   "),
            };
            let before = &place.others;
            Place { node: child, first: format!("{before}{first}"), others: format!("{before}{others}") }
        });
        let mut children: Vec<Place> = children.collect();
        children.reverse();
        waiting.extend(children);
    }
    lines
}

/// How many nodes stand below one.
fn below(tree: &Tree, node: &TreeNode) -> usize {
    let (mut count, mut waiting) = (0, node.children.clone());
    while let Some(child) = waiting.pop() {
        count += 1;
        waiting.extend(tree.nodes.get(child as usize).into_iter().flat_map(|node| node.children.iter()));
    }
    count
}

fn node_lines(node: &TreeNode, place: &Place, look: Look) -> Vec<Line> {
    let guide = if node.golden { Ink::Golden } else { Ink::Dim };
    let room = look.width.saturating_sub(place.first.chars().count() + MARKS).max(LEAST);
    let mut body: Vec<Line> = node.turns.iter().map(|turn| spoken(turn, room)).collect();
    body.extend(unplaced(node).map(|text| Line::new(Ink::Good, text)));
    if body.is_empty() {
        body.push(Line::new(Ink::Dim, if node.parent.is_none() { "(before the first word)" } else { "(nothing new)" }));
    }
    let label = |(row, line): (usize, Line)| match row {
        0 => Line::new(guide, &place.first).then(name(node).padded(MARKS)).then(line),
        _ => Line::new(Ink::Dim, &place.others).padded(place.others.chars().count() + MARKS).then(line),
    };
    body.into_iter().enumerate().map(label).collect()
}

/// A turn in one line, the goals that it reached at its end.
fn spoken(turn: &crate::report::talk::Turn, room: usize) -> Line {
    let (ink, name) = turn::speaker(turn.role);
    let goals: Vec<String> = turn.goals.iter().map(|goal| format!(" ✓{}", goal + 1)).collect();
    let goals = Line::new(Ink::Good, goals.concat());
    let line = Line::new(ink, name).padded(7).then(turn::short(turn));
    line.cut(room.saturating_sub(goals.width())).then(goals)
}

/// A node's number and marks: `12 ★+`.
fn name(node: &TreeNode) -> Line {
    let ink = if node.golden { Ink::Golden } else { Ink::Plain };
    let golden = if node.golden { "★" } else { "" };
    let line = Line::new(ink, format!("{} {golden}", node.node));
    match (node.order, node.success, node.golden) {
        (None, ..) => line,
        (Some(_), true, _) => line.with(Ink::Good, "+"),
        (Some(_), false, true) => line,
        (Some(_), false, false) => line.with(Ink::Bad, "-"),
    }
}

/// The goals of a node of which no turn is known to have reached them.
fn unplaced(node: &TreeNode) -> Option<String> {
    let placed = |goal: &&u32| node.turns.iter().any(|turn| turn.goals.contains(goal));
    let goals: Vec<String> =
        node.hits.iter().filter(|goal| !placed(goal)).map(|goal| format!("✓{}", goal + 1)).collect();
    (!goals.is_empty()).then(|| format!("{} in these turns", goals.join(" ")))
}
