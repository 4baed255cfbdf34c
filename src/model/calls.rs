//! Native calls in what a model writes: the forms of the common families, read back into calls.
//!
//! * Hermes, Qwen 2.5 and 3, SmolLM, and models from scratch: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, several in a row.
//! * Llama 3.1 and later: the whole reply is `{"name": …, "parameters": {…}}`, with or without `<|python_tag|>` before it,
//!   several joined by `;`.
//! * Mistral: `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`.

use serde_json::{Map, Value};

use super::tokenizer::{Tokenizer, TokenizerError};
use crate::chat::{FunctionCall, ToolCall, ToolKind};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const PYTHON: &str = "<|python_tag|>";
const LIST: &str = "[TOOL_CALLS]";

/// A model's reply: its text and the calls in it.
///
/// `native` says whether the chat offers tools; where it does not, all is text. What is meant as a call but is none comes
/// with what was written as its arguments, so that the model sees what is wrong with it.
///
/// # Errors
/// When the tokenizer cannot decode.
pub fn read_reply(tokenizer: &Tokenizer, ids: &[u32], native: bool) -> Result<(String, Vec<ToolCall>), TokenizerError> {
    if !native {
        return Ok((tokenizer.decode(ids)?, Vec::new()));
    }
    // In some families what begins a call is a special token, of which the bare text keeps nothing.
    let marks = [OPEN, CLOSE, PYTHON, LIST].map(|mark| tokenizer.token(mark));
    let kept = |id: &u32| !tokenizer.is_special(*id) || marks.contains(&Some(*id));
    let ids: Vec<u32> = ids.iter().copied().filter(kept).collect();
    let (text, calls) = split(&tokenizer.decode_marked(&ids)?);
    let numbered = |(at, function): (usize, FunctionCall)| ToolCall {
        id: format!("call{:05}", at + 1),
        kind: ToolKind::Function,
        function,
    };
    Ok((text, calls.into_iter().enumerate().map(numbered).collect()))
}

/// A text without its calls, and these.
pub fn split(text: &str) -> (String, Vec<FunctionCall>) {
    if let Some((said, rest)) = text.split_once(OPEN) {
        let mut said = said.to_owned();
        let mut calls = Vec::new();
        for block in rest.split(OPEN) {
            let (call, behind) = block.split_once(CLOSE).unwrap_or((block, ""));
            calls.push(hermes(call));
            said.push_str(behind);
        }
        return (said.trim().to_owned(), calls);
    }
    if let Some((said, list)) = text.split_once(LIST) {
        let calls = match serde_json::from_str(list.trim()) {
            Ok(Value::Array(calls)) => {
                calls.into_iter().map(|call| read(&call).unwrap_or_else(|| unread(&call.to_string()))).collect()
            }
            _ => vec![unread(list)],
        };
        return (said.trim().to_owned(), calls);
    }
    let (said, call, meant) = match text.split_once(PYTHON) {
        Some((said, call)) => (said, call, true),
        None => ("", text, false),
    };
    match (llama(call), meant) {
        (Some(calls), _) => (said.trim().to_owned(), calls),
        (None, true) => (said.trim().to_owned(), vec![unread(call)]),
        (None, false) => (text.to_owned(), Vec::new()),
    }
}

fn hermes(text: &str) -> FunctionCall {
    serde_json::from_str(text.trim()).ok().and_then(|call| read(&call)).unwrap_or_else(|| unread(text))
}

/// One or more calls that are the whole text.
fn llama(text: &str) -> Option<Vec<FunctionCall>> {
    let mut calls = Vec::new();
    let mut rest = text.trim();
    loop {
        if !rest.starts_with('{') {
            return None;
        }
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        calls.push(read(&values.next()?.ok()?)?);
        rest = rest[values.byte_offset()..].trim_start();
        if rest.is_empty() {
            return Some(calls);
        }
        rest = rest.strip_prefix(';').unwrap_or(rest).trim_start();
    }
}

/// A call from its JSON; `None` where that names no function.
fn read(call: &Value) -> Option<FunctionCall> {
    let call = match call.get("function") {
        Some(inner @ Value::Object(_)) => inner,
        _ => call,
    };
    let name = call.get("name")?.as_str()?.to_owned();
    let arguments = match call.get("arguments").or_else(|| call.get("parameters")) {
        None | Some(Value::Null) => Value::Object(Map::new()).to_string(),
        // Some models quote them once more, as OpenAI's API does.
        Some(Value::String(text)) => text.clone(),
        Some(arguments) => arguments.to_string(),
    };
    Some(FunctionCall { name, arguments })
}

/// What is meant as a call but names nothing that could be called.
fn unread(text: &str) -> FunctionCall {
    FunctionCall { name: String::new(), arguments: text.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(text: &str) -> (String, Vec<(String, String)>) {
        let (said, calls) = split(text);
        (said, calls.into_iter().map(|call| (call.name, call.arguments)).collect())
    }

    fn call(name: &str, arguments: &str) -> (String, String) {
        (name.to_owned(), arguments.to_owned())
    }

    #[test]
    fn every_form_is_read() {
        let hotel = call("search_hotel", r#"{"area":"north"}"#);
        for text in [
            r#"<tool_call>{"name": "search_hotel", "arguments": {"area": "north"}}</tool_call>"#,
            "<tool_call>\n{\"name\": \"search_hotel\", \"arguments\": {\"area\": \"north\"}}\n</tool_call>",
            r#"<tool_call>{"name": "search_hotel", "arguments": {"area": "north"}}"#,
            r#"{"name": "search_hotel", "parameters": {"area": "north"}}"#,
            r#"<|python_tag|>{"type": "function", "name": "search_hotel", "parameters": {"area": "north"}}"#,
            r#"{"type": "function", "function": {"name": "search_hotel", "parameters": {"area": "north"}}}"#,
            r#"[TOOL_CALLS][{"name": "search_hotel", "arguments": {"area": "north"}}]"#,
            r#"<tool_call>{"name": "search_hotel", "arguments": "{\"area\":\"north\"}"}</tool_call>"#,
        ] {
            assert_eq!(calls(text), (String::new(), vec![hotel.clone()]), "{text}");
        }
        let several = [
            "One moment.\n<tool_call>\n{\"name\": \"a\"}\n</tool_call>\n<tool_call>\n{\"name\": \"b\", \"arguments\": {}}\n</tool_call>",
            "One moment.<|python_tag|>{\"name\": \"a\"}; {\"name\": \"b\", \"parameters\": {}}",
            "One moment.[TOOL_CALLS] [{\"name\": \"a\"}, {\"name\": \"b\", \"arguments\": {}}]",
        ];
        for text in several {
            assert_eq!(calls(text), ("One moment.".to_owned(), vec![call("a", "{}"), call("b", "{}")]), "{text}");
        }
    }

    #[test]
    fn text_is_no_call_and_a_broken_call_is_no_text() {
        for text in ["{\"area\": \"north\"}", "Hello.", "", "{\"name\": 1}", "{\"name\": \"a\"} is a call", "  { "] {
            assert_eq!(calls(text), (text.to_owned(), vec![]), "{text}");
        }
        assert_eq!(calls("a<tool_call>{\"name\": </tool_call>b"), ("ab".to_owned(), vec![call("", "{\"name\":")]));
        assert_eq!(calls("<|python_tag|>print(1)"), (String::new(), vec![call("", "print(1)")]));
        assert_eq!(calls("[TOOL_CALLS]{}"), (String::new(), vec![call("", "{}")]));
        assert_eq!(calls("<tool_call>[]</tool_call>").1, [call("", "[]")]);
    }
}
