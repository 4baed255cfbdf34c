//! One dialogue from its head to its last turn.

use super::ink::{Ink, Line, hang};
use super::{Look, count, turn};
use crate::dialogue::episode::Outcome;
use crate::report::table::grouped;
use crate::report::talk::{Goal, Talk, Tokens, Turn};

/// How a dialogue ended, with its sign.
pub fn outcome(outcome: Outcome) -> Line {
    match outcome {
        Outcome::Success => Line::new(Ink::Good, "✓ success"),
        Outcome::Failure => Line::new(Ink::Bad, "✗ failure"),
        Outcome::Broken => Line::new(Ink::Odd, "! broken"),
    }
}

/// A whole dialogue.
pub fn page(talk: &Talk, look: Look) -> Vec<Line> {
    let mut lines = head(talk, look);
    lines.push(Line::default());
    lines.extend(body(&talk.turns, &talk.goals, look));
    lines.push(Line::default());
    lines.extend(Line::new(Ink::Dim, turn::SIGNS).wrap(look.prose()));
    lines
}

/// Turns below each other.
pub fn body(turns: &[Turn], goals: &[Goal], look: Look) -> Vec<Line> {
    let lines = turns.iter().flat_map(|turn| turn::lines(turn, goals, look.prose(), look));
    let lines: Vec<Line> = lines.collect();
    if lines.is_empty() { vec![Line::new(Ink::Dim, "nothing was said")] } else { lines }
}

fn head(talk: &Talk, look: Look) -> Vec<Line> {
    let title = Line::new(Ink::Bold, &talk.dialogue).with(Ink::Dim, format!("  {}  ", talk.split));
    let mut lines = vec![title.then(outcome(talk.outcome))];
    lines.extend(Line::new(Ink::Plain, sum(talk)).wrap(look.prose()));
    if let Some(tokens) = tokens(talk.tokens) {
        lines.extend(Line::new(Ink::Dim, tokens).wrap(look.prose()));
    }
    if let Some(reason) = &talk.reason {
        lines.extend(Line::new(Ink::Odd, format!("! {reason}")).wrap(look.prose()));
    }
    lines.extend(about(talk.wish.as_deref(), &talk.goals, look, |goal, _| match (goal.reached, goal.turn) {
        (false, _) => "not reached".to_owned(),
        (true, Some(turn)) => format!("turn {turn}"),
        (true, None) => "reached".to_owned(),
    }));
    lines
}

/// `reward 0.50, 1 of 2 goals, 12 turns, ended by the customer`.
pub fn sum(talk: &Talk) -> String {
    let reward = talk.reward.map_or_else(|| "no reward".to_owned(), |reward| format!("reward {reward:.2}"));
    let end = match (talk.outcome, talk.ended) {
        (Outcome::Broken, _) => "broken off",
        (_, true) => "ended by the customer",
        (_, false) => "ended by the limit of messages",
    };
    let goals = format!("{} of {}", talk.reached(), count(talk.goals.len(), "goal"));
    format!("{reward}, {goals}, {}, {end}", count(talk.turns.len(), "turn"))
}

/// What the models read and wrote; none where no model took part.
fn tokens(tokens: Tokens) -> Option<String> {
    let side = |name: &str, prompt: u64, completion: u64| {
        (prompt + completion > 0).then(|| format!("{name} read {} and wrote {}", grouped(prompt), grouped(completion)))
    };
    let agent = side("agent", tokens.agent_prompt, tokens.agent_completion);
    let user = side("user", tokens.user_prompt, tokens.user_completion);
    let sides: Vec<String> = agent.into_iter().chain(user).collect();
    (!sides.is_empty()).then(|| format!("tokens: {}", sides.join(", ")))
}

/// The customer's wish and the goals, each with where it was reached.
pub fn about(wish: Option<&str>, goals: &[Goal], look: Look, place: impl Fn(&Goal, u32) -> String) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(wish) = wish {
        lines.push(Line::default());
        lines.extend(Line::new(Ink::Dim, prose(wish)).wrap(look.prose()));
    }
    if !goals.is_empty() {
        lines.push(Line::default());
    }
    for (goal, number) in goals.iter().zip(0..) {
        let (ink, sign) = sign(goal.reached);
        let label = Line::new(ink, sign).with(Ink::Dim, format!(" {}", number + 1));
        let text = Line::new(Ink::Plain, goal.text()).with(Ink::Dim, "  ").with(ink, place(goal, number));
        lines.extend(hang(&label, 5, text.wrap(look.prose().saturating_sub(5))));
    }
    lines
}

/// Sentences, one a line, as one text. MultiWOZ leaves their full stops out.
fn prose(sentences: &str) -> String {
    let stop = |line: &str| if line.ends_with(['.', '!', '?', ',']) { line.to_owned() } else { format!("{line}.") };
    let lines = sentences.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(stop).collect::<Vec<_>>().join(" ")
}

/// The sign of a goal.
pub fn sign(reached: bool) -> (Ink, &'static str) {
    if reached { (Ink::Good, "✓") } else { (Ink::Bad, "✗") }
}
