//! Training examples as other trainers read them: the objects that TRL documents, in Python's spelling.

use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::chat::Message;
use crate::dialogue::python_json::dumps;
use crate::examples::{KtoExample, PairExample, SftExample};
use crate::table::{self, Row, TableReader};

/// The row types that have such a form.
pub const EXAMPLES: [&str; 3] = [SftExample::TYPE, KtoExample::TYPE, PairExample::TYPE];

/// Writes a table of examples as one object a line, and returns how many bytes; `None` where the table holds no examples.
///
/// Chats to imitate become `{"messages"}`, labelled turns `{"prompt", "completion", "label"}`, preferences `{"prompt", "chosen",
/// "rejected"}`; examples that call functions have `tools` as well. The text is that of Python's `json.dumps` and has no line
/// end behind the last object, as the files of the paper's authors.
pub fn write(table: &Path, out: &mut impl Write) -> anyhow::Result<Option<u64>> {
    let bytes = match table::read_type(table)?.as_deref() {
        Some(SftExample::TYPE) => lines::<SftExample>(table, out, chat)?,
        Some(KtoExample::TYPE) => lines::<KtoExample>(table, out, labelled)?,
        Some(PairExample::TYPE) => lines::<PairExample>(table, out, preference)?,
        _ => return Ok(None),
    };
    Ok(Some(bytes))
}

fn lines<T: Row>(
    table: &Path,
    out: &mut impl Write,
    object: impl Fn(T) -> serde_json::Result<Value>,
) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for example in TableReader::<T>::open(table)? {
        let mut line = dumps(&object(example?)?);
        if bytes > 0 {
            line.insert(0, '\n');
        }
        out.write_all(line.as_bytes())?;
        bytes += line.len() as u64;
    }
    Ok(bytes)
}

fn chat(example: SftExample) -> serde_json::Result<Value> {
    with_tools(json!({"messages": messages(&example.messages)?}), example.tools)
}

fn labelled(example: KtoExample) -> serde_json::Result<Value> {
    let KtoExample { prompt, completion, label, tools, .. } = example;
    with_tools(json!({"prompt": messages(&prompt)?, "completion": messages(&completion)?, "label": label}), tools)
}

fn preference(example: PairExample) -> serde_json::Result<Value> {
    let PairExample { prompt, chosen, rejected, tools, .. } = example;
    let object = json!({"prompt": messages(&prompt)?, "chosen": messages(&chosen)?, "rejected": messages(&rejected)?});
    with_tools(object, tools)
}

fn with_tools(mut object: Value, tools: Option<String>) -> serde_json::Result<Value> {
    if let (Some(fields), Some(tools)) = (object.as_object_mut(), tools) {
        fields.insert("tools".to_owned(), serde_json::from_str(&tools)?);
    }
    Ok(object)
}

fn messages(messages: &[Message]) -> serde_json::Result<Vec<Value>> {
    messages.iter().map(message).collect()
}

/// A message. The arguments of calls are objects here, as chat templates take them; OpenAI's API has them as text.
fn message(message: &Message) -> serde_json::Result<Value> {
    let mut value = serde_json::to_value(message)?;
    for call in value.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
        let arguments = &mut call["function"]["arguments"];
        if let Some(object) = arguments.as_str().and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok())
        {
            *arguments = Value::Object(object);
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::ToolCall;
    use crate::train::TrainLog;

    fn written<T: Row>(rows: Vec<T>) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.parquet");
        table::write(&path, rows).unwrap();
        let mut out = Vec::new();
        let bytes = write(&path, &mut out).unwrap()?;
        assert_eq!(bytes, out.len() as u64);
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn examples_are_spelt_as_python_spells_them() {
        let [user, agent] = [Message::user("é\n\"1\""), Message::assistant("b")];
        let (prompt, side) = (vec![user.clone()], |text: &str| vec![Message::assistant(text)]);
        let sft = SftExample { messages: vec![user, agent], ..SftExample::default() };
        let one =
            r#"{"messages": [{"role": "user", "content": "\u00e9\n\"1\""}, {"role": "assistant", "content": "b"}]}"#;
        assert_eq!(written(vec![sft.clone(), sft]).unwrap(), format!("{one}\n{one}"));
        let kto = KtoExample { prompt: prompt.clone(), completion: side("b"), ..KtoExample::default() };
        let start = r#"{"prompt": [{"role": "user", "content": "\u00e9\n\"1\""}], "#;
        let end = r#""completion": [{"role": "assistant", "content": "b"}], "label": false}"#;
        assert_eq!(written(vec![kto]).unwrap(), format!("{start}{end}"));
        let pair = PairExample { prompt, chosen: side("b"), rejected: side("c"), ..PairExample::default() };
        let end = r#""chosen": [{"role": "assistant", "content": "b"}], "rejected": [{"role": "assistant", "content": "c"}]}"#;
        assert_eq!(written(vec![pair]).unwrap(), format!("{start}{end}"));
        assert_eq!(written::<SftExample>(Vec::new()).unwrap(), "");
        assert_eq!(written(vec![TrainLog::default()]), None);
    }

    #[test]
    fn calls_have_their_arguments_as_objects() {
        let calls = ["{\"area\": \"north\"}", "no json"].map(|arguments| ToolCall::new("1", "search_hotel", arguments));
        let call = Message { tool_calls: calls.to_vec(), ..Message::assistant("") };
        let tools = Some(r#"[{"name": "search_hotel"}]"#.to_owned());
        let sft = SftExample { messages: vec![call, Message::tool("1", "[]")], tools, ..SftExample::default() };
        let text = written(vec![sft]).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let function = |call: usize| &value["messages"][0]["tool_calls"][call]["function"]["arguments"];
        assert_eq!((function(0), function(1)), (&json!({"area": "north"}), &json!("no json")));
        assert_eq!(
            (&value["messages"][1]["tool_call_id"], &value["tools"][0]["name"]),
            (&json!("1"), &json!("search_hotel"))
        );
    }
}
