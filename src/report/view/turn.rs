//! One turn as lines: who, what was planned, called, seen and said, and the goals that it reached.

use serde_json::{Map, Value};

use super::ink::{Ink, Line, hang};
use super::{Look, count};
use crate::chat::Role;
use crate::report::talk::{Call, Goal, Step, Turn};

/// Columns for number and speaker.
pub const GUTTER: usize = 11;

/// Lines that an observation gets where not everything is asked for.
const LINES: usize = 3;

/// What the signs mean, for the end of a page.
pub const SIGNS: &str = "~ plan   → call   ← what it returned   ✓ goal reached   ✗ failed   ! broken";

/// A turn in this many columns.
pub fn lines(turn: &Turn, goals: &[Goal], columns: usize, look: Look) -> Vec<Line> {
    let room = columns.saturating_sub(GUTTER);
    let mut body: Vec<Line> = turn.steps.iter().flat_map(|step| self::step(step, room, look)).collect();
    for &goal in &turn.goals {
        body.extend(reached(goal, goals, room));
    }
    if body.is_empty() {
        body.push(Line::new(Ink::Dim, "(nothing)"));
    }
    hang(&label(turn), GUTTER, body)
}

/// The number and the speaker.
pub fn label(turn: &Turn) -> Line {
    let (ink, name) = speaker(turn.role);
    Line::new(Ink::Dim, format!("{:>3} ", turn.number)).with(ink, name)
}

/// A speaker's name and ink.
pub fn speaker(role: Role) -> (Ink, &'static str) {
    match role {
        Role::User => (Ink::User, "user"),
        Role::Assistant => (Ink::Agent, "agent"),
        Role::System => (Ink::Odd, "system"),
        Role::Tool => (Ink::Call, "tool"),
    }
}

/// That a goal was reached; goals are counted from 1 for people.
pub fn reached(goal: u32, goals: &[Goal], room: usize) -> Vec<Line> {
    let text = goals.get(goal as usize).map(|goal| format!(": {}", goal.name())).unwrap_or_default();
    signed(Ink::Good, "✓", Line::new(Ink::Good, format!("goal {} reached{text}", goal + 1)), room)
}

fn signed(ink: Ink, sign: &str, line: Line, room: usize) -> Vec<Line> {
    hang(&Line::new(ink, sign), 2, line.wrap(room.saturating_sub(2)))
}

fn step(step: &Step, room: usize, look: Look) -> Vec<Line> {
    match step {
        Step::Said { text } => Line::new(Ink::Plain, text).wrap(room),
        Step::Plan { text } => signed(Ink::Dim, "~", Line::new(Ink::Dim, text), room),
        Step::Seen { text } => signed(Ink::Bad, "←", Line::new(Ink::Bad, text), room),
        Step::Unread { text } => {
            signed(Ink::Bad, "✗", Line::new(Ink::Dim, "heard by nobody: ").with(Ink::Plain, text), room)
        }
        Step::Call(call) => self::call(call, room, look),
    }
}

fn call(call: &Call, room: usize, look: Look) -> Vec<Line> {
    let mut lines = signed(Ink::Call, "→", written(call), room);
    match &call.observation {
        // An example ends with a call; so does a dialogue that broke off there, and its head says so.
        None => {}
        Some(text) if call.error => {
            lines
                .extend(shortened(signed(Ink::Bad, "←", Line::new(Ink::Bad, format!("✗ {}", seen(text))), room), look));
        }
        Some(text) => lines.extend(shortened(signed(Ink::Dim, "←", Line::new(Ink::Dim, seen(text)), room), look)),
    }
    lines
}

/// `search_hotel(area: north)`, or what was written where that is no call.
pub fn written(call: &Call) -> Line {
    match &call.malformed {
        Some(text) => Line::new(Ink::Bad, "no call: ").with(Ink::Plain, format!("{}{text}", call.api)),
        None => {
            let arguments = call.arguments.as_object().map(listed).unwrap_or_default();
            Line::new(Ink::Call, &call.api).with(Ink::Plain, format!("({arguments})"))
        }
    }
}

fn shortened(mut lines: Vec<Line>, look: Look) -> Vec<Line> {
    if !look.full && lines.len() > LINES + 1 {
        let more = count(lines.len() - LINES, "more line");
        lines.truncate(LINES);
        lines.push(Line::new(Ink::Dim, format!("  … {more} (--full)")));
    }
    lines
}

/// An observation without the marks of JSON, where it is JSON.
fn seen(text: &str) -> String {
    match serde_json::from_str(text) {
        Ok(Value::Array(items)) if items.is_empty() => "nothing: []".to_owned(),
        Ok(Value::Array(items)) if items.iter().all(Value::is_object) => {
            items.iter().filter_map(Value::as_object).map(listed).collect::<Vec<_>>().join("\n")
        }
        Ok(Value::Object(fields)) => listed(&fields),
        Ok(Value::String(text)) => text,
        _ => text.to_owned(),
    }
}

fn listed(fields: &Map<String, Value>) -> String {
    fields.iter().map(|(name, value)| format!("{name}: {}", scalar(value))).collect::<Vec<_>>().join(", ")
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(fields) if !fields.is_empty() => format!("({})", listed(fields)),
        other => other.to_string(),
    }
}

/// A turn in one line: calls with the gist of what they returned, and what was said.
pub fn short(turn: &Turn) -> Line {
    let mut line = Line::default();
    for step in &turn.steps {
        let space = if line.width() > 0 { " " } else { "" };
        line = match step {
            Step::Call(call) => {
                let (ink, gist) = gist(call);
                line.with(Ink::Plain, space).then(written(call)).with(Ink::Dim, " ← ").with(ink, gist)
            }
            Step::Said { text } if turn.role == Role::Assistant => line.with(Ink::Plain, format!("{space}“{text}”")),
            Step::Said { text } => line.with(Ink::Plain, format!("{space}{text}")),
            Step::Unread { text } | Step::Seen { text } => line.with(Ink::Bad, format!("{space}✗ {text}")),
            Step::Plan { text } if turn.steps.len() == 1 => line.with(Ink::Dim, format!("~ {text}")),
            Step::Plan { .. } => line,
        };
    }
    line
}

/// The gist of what a call returned: a name, a reference, `nothing`, `refused`.
fn gist(call: &Call) -> (Ink, String) {
    let Some(text) = &call.observation else { return (Ink::Odd, "no answer".to_owned()) };
    if call.error {
        return (Ink::Bad, "error".to_owned());
    }
    let name = |fields: &Map<String, Value>| {
        let known = ["name", "trainID", "reference"].iter().find_map(|key| fields.get(*key));
        known.or_else(|| fields.values().next()).map(scalar).unwrap_or_default()
    };
    match serde_json::from_str(text) {
        Ok(Value::Array(items)) => match items.as_slice() {
            [] => (Ink::Dim, "nothing".to_owned()),
            [Value::Object(fields)] => (Ink::Plain, name(fields)),
            items => (Ink::Plain, count(items.len(), "record")),
        },
        Ok(Value::Object(fields)) => match (fields.get("success"), fields.get("return").and_then(Value::as_object)) {
            (Some(Value::Bool(false)), _) => (Ink::Dim, "refused".to_owned()),
            (Some(Value::Bool(true)), Some(returned)) => (Ink::Plain, format!("done: {}", name(returned))),
            _ => (Ink::Plain, name(&fields)),
        },
        Ok(Value::String(text)) => (Ink::Plain, text),
        _ => (Ink::Plain, text.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Message;
    use crate::dialogue::react::{observed, spoken};
    use crate::report::talk::turn::turns;

    fn shown(columns: usize, full: bool, messages: &[Message]) -> Vec<String> {
        let look = Look { width: columns, full };
        let turns = turns(messages, 0);
        let lines = turns.iter().flat_map(|turn| lines(turn, &[Goal::bare("search_hotel")], columns, look));
        lines.map(|line| anstream::adapter::strip_str(&line.paint()).to_string()).collect()
    }

    fn call(parameters: &str) -> Message {
        let name = "search_hotel";
        Message::assistant(format!(
            r#"PLAN look <COMMAND_END> APICALL {{"name": "{name}", "parameters": {parameters}}} <COMMAND_END>"#
        ))
    }

    #[test]
    fn a_turn_reads_from_top_to_bottom() {
        let messages = [
            Message::user("a hotel"),
            call(r#"{"area": "north", "stars": 4, "name": ""}"#),
            observed("[]"),
            call("{}"),
            observed("\"ERROR: no\""),
            spoken("none"),
        ];
        let expected = [
            "  1 user   a hotel",
            "  2 agent  ~ look",
            "           → search_hotel(area: north, stars: 4, name: \"\")",
            "           ← nothing: []",
            "           ~ look",
            "           → search_hotel()",
            "           ← ✗ ERROR: no",
            "           none",
        ];
        assert_eq!(shown(80, false, &messages), expected);
    }

    #[test]
    fn long_observations_are_shortened_unless_all_is_asked_for() {
        let long = format!(r#"[{{"name": "avalon", "text": "{}"}}]"#, "word ".repeat(80));
        let messages = [call("{}"), observed(&long)];
        let short = shown(60, false, &messages);
        assert_eq!((short.len(), short[5].as_str()), (6, "             … 7 more lines (--full)"));
        assert_eq!(shown(60, true, &messages).len(), 12);
        assert!(short[2].starts_with("           ← name: avalon, text: word word"));
    }

    #[test]
    fn a_turn_in_one_line_has_the_gist() {
        let line =
            |messages: &[Message]| anstream::adapter::strip_str(&short(&turns(messages, 0)[0]).paint()).to_string();
        let found = [call(r#"{"area": "north"}"#), observed(r#"[{"id": "1", "name": "Avalon"}]"#), spoken("It is.")];
        assert_eq!(line(&found), "search_hotel(area: north) ← Avalon “It is.”");
        assert_eq!(line(&[call("{}"), observed(r#"{"success": false, "return": {}}"#)]), "search_hotel() ← refused");
        assert_eq!(
            line(&[call("{}"), observed(r#"{"success": true, "return": {"reference": "X1"}}"#)]),
            "search_hotel() ← done: X1"
        );
        assert_eq!(line(&[call("{}")]), "search_hotel() ← no answer");
        assert_eq!(line(&[Message::user("hi")]), "hi");
    }
}
