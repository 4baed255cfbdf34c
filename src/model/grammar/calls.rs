//! The grammars of replies that call tools: whatever a model would say, its calls can be read and name what there is.

use std::sync::Arc;

use serde_json::Value;

use super::{Expression, Grammar, json};

/// How calls are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallForm {
    /// Text commands: `PLAN …`, `SPEAK …` and `APICALL {"name": …, "parameters": {…}}`, each ended by `<COMMAND_END>`.
    Commands,
    /// Text, then native calls as Hermes, Qwen and models from scratch write them:
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.
    Hermes,
}

/// What replies must follow: how calls are written, and the tools that there are.
#[derive(Clone, Debug, PartialEq)]
pub struct CallFormat {
    /// How calls are written.
    pub form: CallForm,
    /// The definitions of the tools (OpenAI function schemas).
    pub tools: Arc<[Value]>,
}

const END: &str = " <COMMAND_END>";
const CALL: &str = "APICALL ";
const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

impl CallFormat {
    /// The grammar, and the expression of a whole reply.
    pub fn grammar(&self) -> (Grammar, Expression) {
        let mut grammar = Grammar::default();
        let reply = match self.form {
            CallForm::Commands => self.commands(&mut grammar),
            CallForm::Hermes => self.hermes(&mut grammar),
        };
        (grammar, reply)
    }

    fn commands(&self, grammar: &mut Grammar) -> Expression {
        let call = self.calls(grammar, "parameters");
        // Nothing that could be read as another command, or as the end of this one.
        let plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'<' && byte != b'{';
        let first = grammar.character(|byte| plain(byte) && byte != b' ' && byte != b':');
        let other = grammar.character(plain);
        let others = grammar.many(other);
        let said = grammar.then(first, others);
        let words = [("PLAN ", said), ("SPEAK ", said), (CALL, call)];
        let end = grammar.text(END);
        let commands = words.map(|(word, rest)| {
            let word = grammar.text(word);
            grammar.sequence(&[word, rest, end])
        });
        let command = grammar.either(commands);
        let space = grammar.text(" ");
        let next = grammar.then(space, command);
        let more = grammar.many(next);
        grammar.then(command, more)
    }

    fn hermes(&self, grammar: &mut Grammar) -> Expression {
        let call = self.calls(grammar, "arguments");
        // No mark, and no brace or bracket: calls of other families begin with these, wherever they stand.
        let plain = |byte: u8| (byte == b'\n' || (0x20..0x7f).contains(&byte)) && !b"<{[".contains(&byte);
        let first = grammar.character(|byte| plain(byte) && !byte.is_ascii_whitespace());
        let other = grammar.character(plain);
        let others = grammar.many(other);
        let said = grammar.then(first, others);
        let (open, close) = (grammar.text(OPEN), grammar.text(CLOSE));
        let line = grammar.text("\n");
        let line = grammar.maybe(line);
        let one = grammar.sequence(&[open, line, call, line, close, line]);
        let more = grammar.many(one);
        let some = grammar.then(one, more);
        let said_and_more = grammar.then(said, more);
        grammar.either([said_and_more, some])
    }

    /// Any call of a tool that there is.
    fn calls(&self, grammar: &mut Grammar, arguments: &str) -> Expression {
        let mut calls = Vec::new();
        for tool in &*self.tools {
            let tool = tool.get("function").unwrap_or(tool);
            let Some(name) = tool["name"].as_str() else { continue };
            let head = grammar.text(&format!("{{\"name\": {}, \"{arguments}\": ", Value::from(name)));
            let rest = json::object(grammar, &tool["parameters"], 3);
            let close = grammar.text("}");
            calls.push(grammar.sequence(&[head, rest, close]));
        }
        // Without tools there is nothing to call, and nothing fits.
        grammar.either(calls)
    }

    /// What of a reply counts that was cut off: a call that was not finished is none.
    pub fn finished<'t>(&self, text: &'t str) -> &'t str {
        let (begin, end) = match self.form {
            CallForm::Commands => (CALL, END.trim_start()),
            CallForm::Hermes => (OPEN, CLOSE),
        };
        let done = text.rfind(end).map_or(0, |at| at + end.len());
        let begun = match self.form {
            // `APICALL` may be cut off itself.
            CallForm::Commands => text[done..].trim_start().starts_with("APICALL"),
            CallForm::Hermes => text[done..].contains(begin),
        };
        match (begun, self.form) {
            (false, _) => text,
            (true, CallForm::Commands) => text[..done].trim_end(),
            (true, CallForm::Hermes) => &text[..done + text[done..].find(begin).unwrap_or(0)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::command::{Command, parse};
    use crate::dialogue::tools::TOOLS;
    use crate::model::calls::split;
    use proptest::prelude::*;
    use serde_json::json;

    fn format(form: CallForm) -> CallFormat {
        CallFormat { form, tools: TOOLS.iter().map(|tool| tool.schema()).collect() }
    }

    #[test]
    fn commands_that_agents_write_fit_and_broken_ones_do_not() {
        let (mut grammar, reply) = format(CallForm::Commands).grammar();
        for text in [
            "SPEAK Which area, café or bar? <COMMAND_END>",
            "PLAN find it <COMMAND_END> APICALL {\"name\": \"search_hotel\", \"parameters\": {}} <COMMAND_END>",
            "APICALL {\"name\": \"search_hotel\", \"parameters\": {\"stars\": \"4\", \"name\": \"a \\\"b\\\" é\"}} <COMMAND_END> SPEAK x <COMMAND_END>",
            "APICALL {\"name\": \"search_hotel\", \"parameters\": {\"name\": \"\", \"stars\": \"4\"}} <COMMAND_END>",
        ] {
            assert!(grammar.fits(reply, text), "{text}");
        }
        for text in [
            "",
            "hello",
            "SPEAK <COMMAND_END>",
            "SPEAK a",
            "APICALL {\"name\": \"search_spaceship\", \"parameters\": {}} <COMMAND_END>",
            "APICALL {\"name\": \"search_hotel\", \"parameters\": {\"colour\": \"red\"}} <COMMAND_END>",
            "APICALL {\"name\": \"search_hotel\", \"parameters\": {\"stars\": \"7\"}} <COMMAND_END>",
            "APICALL {\"name\": \"search_hotel\", \"parameters\": {\"stars\": \"4\", \"stars\": \"3\"}} <COMMAND_END>",
            "APICALL {\"name\": \"search_hotel\", \"parameters\": {\"name\": \"\\ud800\"}} <COMMAND_END>",
            "SPEAK a APICALL {\"name\": 3} <COMMAND_END>",
        ] {
            assert!(!grammar.fits(reply, text), "{text}");
        }
    }

    #[test]
    fn native_calls_fit_their_schemas() {
        let parameters = json!({"type": "object", "required": ["count", "kind"], "properties": {
            "count": {"type": "integer"}, "kind": {"enum": ["a", 2, null]}, "where": {"type": ["string", "null"]},
            "tags": {"type": "array", "items": {"type": "boolean"}}, "box": {"properties": {"x": {"type": "number"}}, "required": ["x"]},
        }});
        let tool = json!({"type": "function", "function": {"name": "put", "parameters": parameters}});
        let format = CallFormat { form: CallForm::Hermes, tools: [tool].into() };
        let (mut grammar, reply) = format.grammar();
        let mut fits = |arguments: &str| {
            let text = format!("Well.\n<tool_call>\n{{\"name\": \"put\", \"arguments\": {arguments}}}\n</tool_call>");
            let fits = grammar.fits(reply, &text);
            if fits {
                let (said, calls) = split(&text);
                assert!(
                    said == "Well." && calls.len() == 1 && calls[0].name == "put" && calls[0].object().is_ok(),
                    "{text}"
                );
            }
            fits
        };
        assert!(fits(r#"{"count": -12, "kind": null}"#));
        assert!(fits(r#"{"tags": [true, false], "kind": 2, "where": null, "count": 0, "box": {"x": -1.5}}"#));
        for wrong in [
            r#"{"count": 1}"#,
            r#"{"kind": "b", "count": 1}"#,
            r#"{"kind": "a", "count": 01}"#,
            r#"{"kind": "a", "count": 1, "box": {}}"#,
        ] {
            assert!(!fits(wrong), "{wrong}");
        }
    }

    #[test]
    fn text_that_would_be_read_as_another_familys_call_does_not_fit() {
        let (mut grammar, reply) = format(CallForm::Hermes).grammar();
        for text in ["a[TOOL_CALLS] x", "\u{3000}{\"name\": \"nope\"}", "a {", "<|python_tag|>{}"] {
            assert!(!grammar.fits(reply, text), "{text}");
        }
        assert!(grammar.fits(reply, "Which area (north or south)?"));
    }

    proptest! {
        #[test]
        fn what_fits_calls_only_tools_that_there_are(parts in prop::collection::vec(0..12_usize, 1..24)) {
            let (mut grammar, mut rest) = format(CallForm::Hermes).grammar();
            let pieces = [
                "<tool_call>", "\n", "{\"name\": \"search_hotel\", \"arguments\": {}}", "</tool_call>", "[TOOL_CALLS]",
                "{\"name\": \"nope\"}", "\u{3000}", "[", "{", "<|python_tag|>", "so, ", ";",
            ];
            let mut text = String::new();
            for part in parts {
                let next = grammar.behind(rest, pieces[part].as_bytes());
                if next == super::super::NEVER {
                    continue;
                }
                rest = next;
                text.push_str(pieces[part]);
                if grammar.fits_empty(rest) {
                    let (_, calls) = split(&text);
                    prop_assert!(calls.iter().all(|call| call.name == "search_hotel"), "{}", text);
                    prop_assert_eq!(calls.len(), text.matches("search_hotel").count());
                }
            }
        }
    }

    #[test]
    fn required_members_are_there_whether_described_or_not() {
        let tool = json!({"name": "put", "parameters": {"properties": {"a": {"type": "integer"}}, "required": ["b"]}});
        let (mut grammar, reply) = CallFormat { form: CallForm::Hermes, tools: [tool].into() }.grammar();
        let text =
            |arguments: &str| format!("<tool_call>{{\"name\": \"put\", \"arguments\": {arguments}}}</tool_call>");
        assert!(grammar.fits(reply, &text("{\"a\": 1, \"b\": \"x\"}")) && grammar.fits(reply, &text("{\"b\": 2}")));
        assert!(!grammar.fits(reply, &text("{}")) && !grammar.fits(reply, &text("{\"a\": 1}")));
        let many: serde_json::Map<String, Value> = (0..65).map(|n| (format!("m{n}"), json!({}))).collect();
        let tool = json!({"function": {"name": "put", "parameters": {"properties": {"in": {"properties": many}}}}});
        assert_eq!(super::json::too_many(&tool), Some(65));
        let format = CallFormat { form: CallForm::Hermes, tools: [tool].into() };
        let tokenizer = crate::model::bundle::tests::untrained().tokenizer;
        assert!(crate::model::grammar::vocabulary::Constraint::new(&format, &tokenizer).is_err());
    }

    #[test]
    fn calls_that_were_cut_off_are_none() {
        let commands = format(CallForm::Commands);
        assert_eq!(commands.finished("SPEAK a <COMMAND_END> APICALL {\"na"), "SPEAK a <COMMAND_END>");
        assert_eq!(commands.finished("APICALL"), "");
        assert_eq!(commands.finished("PLAN a <COMMAND_END> SPEAK b"), "PLAN a <COMMAND_END> SPEAK b");
        assert_eq!(parse(commands.finished("SPEAK a")), [Command::Speak("a".into())]);
        assert_eq!(format(CallForm::Hermes).finished("hm <tool_call>{\"n"), "hm ");
    }
}
