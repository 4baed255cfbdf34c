//! Dialogues and trees as a list, one a line.

use super::ink::{Ink, Line};
use super::{count, dialogue, tree};
use crate::report::talk::{Headline, TreeHeadline};

/// A line for each dialogue, below a header.
pub fn dialogues(lines: &[Headline]) -> Vec<Line> {
    let rows = lines.iter().map(|line| {
        let reason = line.reason.as_deref().unwrap_or_default();
        vec![
            Line::new(Ink::Plain, &line.dialogue),
            Line::new(Ink::Dim, &line.split),
            dialogue::outcome(line.outcome),
            Line::new(Ink::Plain, reward(line.reward)),
            Line::new(Ink::Plain, format!("{} of {}", line.reached, line.goals)),
            Line::new(Ink::Odd, reason).cut(60),
        ]
    });
    aligned(&["dialogue", "split", "outcome", "reward", "goals", ""], rows.collect())
}

/// A line for each dialogue of two tables, before and after.
pub fn flips(lines: &[(Headline, Headline)]) -> Vec<Line> {
    let rows = lines.iter().map(|(a, b)| {
        let reason = a.reason.as_deref().or(b.reason.as_deref()).unwrap_or_default();
        vec![
            Line::new(Ink::Plain, &a.dialogue),
            dialogue::outcome(a.outcome),
            dialogue::outcome(b.outcome),
            Line::new(Ink::Plain, format!("{} → {}", reward(a.reward), reward(b.reward))),
            Line::new(Ink::Plain, format!("{} → {} of {}", a.reached, b.reached, b.goals)),
            Line::new(Ink::Odd, reason).cut(60),
        ]
    });
    aligned(&["dialogue", "in A", "in B", "reward", "goals", ""], rows.collect())
}

/// A line for each tree.
pub fn trees(lines: &[TreeHeadline]) -> Vec<Line> {
    let rows = lines.iter().map(|line| {
        let goals = line.goals.map(|goals| goals.to_string()).unwrap_or_default();
        vec![
            Line::new(Ink::Plain, &line.dialogue),
            tree::outcome(line.outcome),
            Line::new(Ink::Plain, reward(line.reward)),
            Line::new(Ink::Plain, goals),
            Line::new(Ink::Plain, line.nodes.to_string()),
            Line::new(Ink::Plain, line.examples.to_string()),
            Line::new(Ink::Plain, line.depth.to_string()),
            Line::new(Ink::Odd, line.reason.as_deref().unwrap_or_default()).cut(60),
        ]
    });
    aligned(&["dialogue", "outcome", "reward", "goals", "nodes", "examples", "depth", ""], rows.collect())
}

fn reward(reward: Option<f64>) -> String {
    reward.map_or_else(|| "-".to_owned(), |reward| format!("{reward:.2}"))
}

/// Rows below a header, each column as wide as its widest cell.
pub fn aligned(header: &[&str], rows: Vec<Vec<Line>>) -> Vec<Line> {
    let header: Vec<Line> = header.iter().map(|name| Line::new(Ink::Dim, name)).collect();
    let mut widths: Vec<usize> = header.iter().map(Line::width).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let line = |cells: Vec<Line>| {
        let padded = cells.into_iter().zip(&widths).map(|(cell, width)| cell.padded(width + 2));
        padded.fold(Line::default(), Line::then)
    };
    std::iter::once(header).chain(rows).map(line).collect()
}

/// `300 dialogues: 154 success, 146 failure`; outcomes in the order in which they are given, those that do not occur left out.
pub fn tally<'a>(what: &str, outcomes: &[&'a str], found: impl Iterator<Item = &'a str>) -> String {
    let mut counts = vec![0; outcomes.len()];
    let mut all = 0;
    for outcome in found {
        all += 1;
        if let Some(place) = outcomes.iter().position(|known| *known == outcome) {
            counts[place] += 1;
        }
    }
    let parts = outcomes.iter().zip(counts).filter(|(_, count)| *count > 0);
    let parts: Vec<String> = parts.map(|(name, count)| format!("{count} {name}")).collect();
    let colon = if parts.is_empty() { "" } else { ": " };
    format!("{}{colon}{}", count(all, what), parts.join(", "))
}
