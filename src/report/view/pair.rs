//! Two dialogues about the same task, side by side or below each other, and where they part.

use super::dialogue::{about, outcome, sign, sum};
use super::ink::{Ink, Line, hang};
use super::{Look, turn};
use crate::report::talk::{Talk, Turn};

/// Columns from which two dialogues stand side by side.
const SIDE_BY_SIDE: usize = 100;

/// Columns of both together at most.
const WIDEST: usize = 200;

/// Two dialogues with the names of the tables that they are from.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// The names.
    pub names: [&'a str; 2],
    /// The dialogues.
    pub talks: [&'a Talk; 2],
}

/// The number of the first turn in which two dialogues differ; none where they are the same.
pub fn parting(a: &Talk, b: &Talk) -> Option<u32> {
    let same = a.turns.iter().zip(&b.turns).take_while(|(a, b)| alike(a, b)).count();
    (same < a.turns.len().max(b.turns.len())).then_some(same as u32 + 1)
}

fn alike(a: &Turn, b: &Turn) -> bool {
    a.role == b.role && a.steps == b.steps
}

impl Pair<'_> {
    /// Both: what they have in common once, then turn by turn.
    pub fn page(self, look: Look) -> Vec<Line> {
        let [a, b] = self.talks;
        let common = parting(a, b).map_or(a.turns.len(), |turn| turn as usize - 1);
        let mut lines = self.head(look);
        if common > 0 {
            lines.push(Line::default());
            lines.push(Line::new(Ink::Dim, "the same in both"));
            let shared = a.turns[..common].iter().flat_map(|turn| turn::lines(turn, &a.goals, look.prose(), look));
            lines.extend(shared);
        }
        lines.push(Line::default());
        if common == a.turns.len().max(b.turns.len()) {
            lines.push(Line::new(Ink::Bold, "the two dialogues are the same"));
            return lines;
        }
        let side_by_side = look.width >= SIDE_BY_SIDE;
        let width = if side_by_side { look.width.min(WIDEST) } else { look.prose() };
        lines.push(rule(&format!("they part at turn {}", common + 1), width));
        lines.extend(if side_by_side { self.columns(common, width, look) } else { self.stacked(common, width, look) });
        lines.push(Line::default());
        lines.extend(Line::new(Ink::Dim, format!("{}   = the same in both", turn::SIGNS)).wrap(look.prose()));
        lines
    }

    /// Both outcomes, and the goals with who reached them where.
    fn head(self, look: Look) -> Vec<Line> {
        let [a, b] = self.talks;
        let mut lines = vec![Line::new(Ink::Bold, &a.dialogue).with(Ink::Dim, format!("  {}", a.split))];
        for (letter, (name, talk)) in ["A", "B"].iter().zip(self.names.iter().zip(self.talks)) {
            let text = Line::new(Ink::Plain, format!("{name}  ")).then(outcome(talk.outcome));
            let text = text.with(Ink::Plain, format!("  {}", sum(talk)));
            lines.extend(hang(&Line::new(Ink::Bold, *letter), 2, text.wrap(look.prose().saturating_sub(2))));
            if let Some(reason) = &talk.reason {
                lines.extend(Line::new(Ink::Odd, format!("  ! {reason}")).wrap(look.prose()));
            }
        }
        lines.extend(about(a.wish.as_deref(), &[], look, |_, _| String::new()));
        lines.push(Line::default());
        for place in 0..a.goals.len().max(b.goals.len()) {
            let Some(goal) = a.goals.get(place).or_else(|| b.goals.get(place)) else { continue };
            let mut text = Line::default();
            for (letter, talk) in ["A", "B"].iter().zip(self.talks) {
                let found = talk.goals.get(place);
                let (ink, sign) = sign(found.is_some_and(|goal| goal.reached));
                let turn = found.and_then(|goal| goal.turn).map(|turn| format!(" turn {turn}")).unwrap_or_default();
                text =
                    text.then(Line::new(Ink::Dim, format!("{letter} ")).with(ink, format!("{sign}{turn}")).padded(12));
            }
            let label = text.with(Ink::Dim, format!("{:>2} ", place + 1));
            let indent = label.width();
            let wanted = Line::new(Ink::Plain, goal.text()).wrap(look.prose().saturating_sub(indent));
            lines.extend(hang(&label, indent, wanted));
        }
        lines
    }

    /// Turn by turn, the one left, the other right.
    fn columns(self, from: usize, width: usize, look: Look) -> Vec<Line> {
        let [a, b] = self.talks;
        let column = (width - 3) / 2;
        let title = |letter: &str, name: &str| Line::new(Ink::Bold, format!("{letter}  {name}")).cut(column);
        let mut lines = vec![beside(title("A", self.names[0]), title("B", self.names[1]), column, " ")];
        for place in from..a.turns.len().max(b.turns.len()) {
            let same = matches!((a.turns.get(place), b.turns.get(place)), (Some(a), Some(b)) if alike(a, b));
            let cell = |talk: &Talk| match talk.turns.get(place) {
                Some(turn) => turn::lines(turn, &talk.goals, column, look),
                None if place == talk.turns.len() => vec![Line::new(Ink::Dim, "    (ended)")],
                None => Vec::new(),
            };
            let (mut left, mut right) = (cell(a).into_iter(), cell(b).into_iter());
            loop {
                let (left, right) = (left.next(), right.next());
                if left.is_none() && right.is_none() {
                    break;
                }
                let middle = if same { "=" } else { "│" };
                lines.push(beside(left.unwrap_or_default(), right.unwrap_or_default(), column, middle));
            }
        }
        lines
    }

    /// Turn by turn, the one above the other.
    fn stacked(self, from: usize, width: usize, look: Look) -> Vec<Line> {
        let [a, b] = self.talks;
        let mut lines = Vec::new();
        for place in from..a.turns.len().max(b.turns.len()) {
            let same = matches!((a.turns.get(place), b.turns.get(place)), (Some(a), Some(b)) if alike(a, b));
            let both = [("A", a), ("B", b)];
            let shown = if same { &both[..1] } else { &both[..] };
            for (letter, talk) in shown {
                let letter = if same { "=" } else { letter };
                let Some(turn) = talk.turns.get(place) else {
                    if place == talk.turns.len() {
                        lines.push(Line::new(Ink::Bold, letter).with(Ink::Dim, "│    (ended)"));
                    }
                    continue;
                };
                let marked = turn::lines(turn, &talk.goals, width.saturating_sub(2), look);
                lines
                    .extend(marked.into_iter().map(|line| Line::new(Ink::Bold, letter).with(Ink::Dim, "│").then(line)));
            }
        }
        lines
    }
}

fn beside(left: Line, right: Line, column: usize, middle: &str) -> Line {
    left.padded(column).with(Ink::Dim, format!(" {middle} ")).then(right)
}

fn rule(text: &str, width: usize) -> Line {
    let rest = width.saturating_sub(text.chars().count() + 6);
    Line::new(Ink::Odd, "──── ").with(Ink::Bold, text).with(Ink::Odd, format!(" {}", "─".repeat(rest)))
}
