//! The commands in which a ReAct agent writes: `PLAN`, `APICALL`, `SPEAK`, each ended by `<COMMAND_END>` (reference, section 2.7).
//!
//! The reference deletes every newline and backslash and splits at the keywords wherever they stand (quirk Q26). Here a
//! keyword counts where a command may start, a call's JSON is read as JSON, and texts are kept as they are.

use serde_json::{Map, Value};

/// What ends a command.
pub const COMMAND_END: &str = "<COMMAND_END>";

/// What starts the message that answers a call.
pub const API_RETURN: &str = "APIRETURN";

/// One command of an agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A thought: nobody sees it.
    Plan(String),
    /// A call of a tool.
    Call { api: String, arguments: Value },
    /// A call that is none: no JSON, or no `name` and `parameters` in it.
    Malformed(String),
    /// What the customer gets to read.
    Speak(String),
}

impl Command {
    /// The command as an agent writes it.
    pub fn text(&self) -> String {
        match self {
            Self::Plan(text) => format!("PLAN {text} {COMMAND_END}"),
            Self::Speak(text) => format!("SPEAK {text} {COMMAND_END}"),
            Self::Malformed(text) => format!("APICALL {text} {COMMAND_END}"),
            Self::Call { api, arguments } => {
                let mut call = Map::new();
                call.insert("name".to_owned(), Value::from(api.as_str()));
                call.insert("parameters".to_owned(), arguments.clone());
                format!("APICALL {} {COMMAND_END}", super::python_json::dumps(&Value::Object(call)))
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Keyword {
    Plan,
    Call,
    Speak,
}

const KEYWORDS: [(&str, Keyword); 3] = [("PLAN", Keyword::Plan), ("APICALL", Keyword::Call), ("SPEAK", Keyword::Speak)];

/// Reads the commands of a reply, in order. Text before a command's keyword is dropped; what follows an invented
/// `APIRETURN` is not read; an empty `SPEAK` is none.
pub fn parse(reply: &str) -> Vec<Command> {
    let mut commands = Vec::new();
    let mut rest = reply;
    while let Some((keyword, body)) = next_keyword(rest) {
        let (command, left) = match keyword {
            Keyword::Call => read_call(body),
            Keyword::Plan => read_text(body, Command::Plan),
            Keyword::Speak => read_text(body, Command::Speak),
        };
        let empty = matches!(&command, Command::Speak(text) | Command::Plan(text) if text.is_empty());
        if !empty {
            commands.push(command);
        }
        rest = left;
    }
    commands
}

/// The first keyword of a text that stands as a word, and what follows it; none after an invented answer.
fn next_keyword(text: &str) -> Option<(Keyword, &str)> {
    let invented = word_at(text, API_RETURN).unwrap_or(text.len());
    let first = KEYWORDS.iter().filter_map(|(word, keyword)| word_at(text, word).map(|at| (at, *word, *keyword)));
    let (at, word, keyword) = first.min_by_key(|(at, ..)| *at).filter(|(at, ..)| *at < invented)?;
    Some((keyword, &text[at + word.len()..]))
}

/// Where a word stands with white space, or the mark of a command's end, around it.
fn word_at(text: &str, word: &str) -> Option<usize> {
    text.match_indices(word).map(|(at, _)| at).find(|at| {
        let before = &text[..*at];
        let after = text[at + word.len()..].chars().next();
        (before.is_empty() || before.ends_with(char::is_whitespace) || before.ends_with(COMMAND_END))
            && after.is_none_or(|c| c.is_whitespace() || matches!(c, '{' | ':' | '<'))
    })
}

/// Reads a text up to its end mark, or to the next command at the start of a line, or to a call.
fn read_text(body: &str, make: fn(String) -> Command) -> (Command, &str) {
    let end = body.find(COMMAND_END);
    let next = next_command(body).filter(|at| end.is_none_or(|end| *at < end));
    let (text, rest) = match (next, end) {
        (Some(at), _) => (&body[..at], &body[at..]),
        (None, Some(end)) => (&body[..end], &body[end + COMMAND_END.len()..]),
        (None, None) => (body, ""),
    };
    (make(text.trim_start_matches(':').trim().to_owned()), rest)
}

/// Where, inside a text whose end mark was forgotten, the next command or an invented answer starts.
fn next_command(body: &str) -> Option<usize> {
    let words = KEYWORDS.iter().map(|(word, _)| *word).chain([API_RETURN]);
    let starts = words.flat_map(|word| body.match_indices(word).map(move |(at, _)| (at, word)));
    let commands = starts.filter(|(at, word)| {
        let line_start = body[..*at].trim_end_matches([' ', '\t']).ends_with('\n');
        let after = body[at + word.len()..].trim_start_matches([' ', ':']);
        let spaced = body[..*at].ends_with(char::is_whitespace);
        line_start || spaced && *word == "APICALL" && after.starts_with('{')
    });
    commands.map(|(at, _)| at).min()
}

/// Reads a call's JSON object, whatever marks stand inside its texts; what follows it up to the end mark is dropped.
fn read_call(body: &str) -> (Command, &str) {
    let end = body.find(COMMAND_END);
    let Some(open) = body.find('{').filter(|open| end.is_none_or(|end| *open < end)) else {
        return malformed(body, end);
    };
    let mut values = serde_json::Deserializer::from_str(&body[open..]).into_iter::<Value>();
    let Some(Ok(Value::Object(call))) = values.next() else { return malformed(body, end) };
    let rest = &body[open + values.byte_offset()..];
    let rest = match rest.find(COMMAND_END) {
        Some(end) if next_keyword(&rest[..end]).is_none() && word_at(&rest[..end], API_RETURN).is_none() => {
            &rest[end + COMMAND_END.len()..]
        }
        _ => rest,
    };
    let command = match (call.get("name"), call.get("parameters")) {
        (Some(Value::String(api)), Some(arguments @ Value::Object(_))) => {
            Command::Call { api: api.clone(), arguments: arguments.clone() }
        }
        _ => Command::Malformed(super::python_json::dumps(&Value::Object(call))),
    };
    (command, rest)
}

fn malformed(body: &str, end: Option<usize>) -> (Command, &str) {
    let (text, rest) = match end {
        Some(end) => (&body[..end], &body[end + COMMAND_END.len()..]),
        None => (body, ""),
    };
    (Command::Malformed(text.trim().to_owned()), rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn escapes_and_newlines_survive() {
        let reply = "PLAN look\nit up <COMMAND_END> APICALL {\"name\": \"search_hotel\", \"parameters\": {\"name\": \"a \\\"b\\\" SPEAK <COMMAND_END>\"}} <COMMAND_END>";
        let arguments = json!({"name": "a \"b\" SPEAK <COMMAND_END>"});
        let call = Command::Call { api: "search_hotel".into(), arguments };
        assert_eq!(parse(reply), [Command::Plan("look\nit up".into()), call]);
    }

    #[test]
    fn forgotten_ends_and_invented_answers_are_borne() {
        let reply = "Sure! PLAN find it APICALL {\"name\": \"search_hotel\", \"parameters\": {}}\nAPIRETURN [] <COMMAND_END> SPEAK hi";
        let commands = parse(reply);
        assert_eq!(commands.len(), 2, "{commands:?}");
        assert_eq!(
            parse("SPEAK I PLANNED to SPEAK up. <COMMAND_END>"),
            [Command::Speak("I PLANNED to SPEAK up.".into())]
        );
        assert_eq!(parse("PLAN a\nSPEAK b"), [Command::Plan("a".into()), Command::Speak("b".into())]);
    }

    #[test]
    fn calls_that_are_none_are_malformed() {
        for text in
            ["APICALL search <COMMAND_END>", "APICALL {\"name\": 3} <COMMAND_END>", "APICALL {\"name\": <COMMAND_END>"]
        {
            assert!(matches!(parse(text).as_slice(), [Command::Malformed(_)]), "{text}");
        }
        assert!(parse("hello").is_empty() && parse("").is_empty());
    }

    fn command() -> impl Strategy<Value = Command> {
        let text = "[a-z\"\\\\{}.:,]{1,12}( [a-z\"\\\\{}.:,]{1,12}){0,3}".prop_map(|text| format!("x{text}"));
        prop_oneof![
            text.clone().prop_map(Command::Plan),
            text.clone().prop_map(Command::Speak),
            ("[a-z_]{1,9}", "[a-z]{1,5}", ".{0,9}")
                .prop_map(|(api, key, value)| Command::Call { api, arguments: json!({ key: value }) }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(commands in proptest::collection::vec(command(), 0..5)) {
            let text: Vec<String> = commands.iter().map(Command::text).collect();
            prop_assert_eq!(parse(&text.join(" ")), commands);
        }

        #[test]
        fn no_reply_panics(reply in "(PLAN|APICALL|SPEAK|APIRETURN|<COMMAND_END>|\\{|\\}|\"|name|é| |\n){0,20}") {
            parse(&reply);
        }
    }
}
