//! The JSON of chat completions, as OpenAI's API and the servers that follow it speak it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ChatRequest;
use crate::chat::{Message, ToolCall};

/// Seeds go out with 31 bits: some servers take no more, and JSON readers lose digits beyond 53.
const SEED_BITS: u64 = (1 << 31) - 1;

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: Vec<&'a Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<&'a [Value]>,
    temperature: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_k: Option<usize>,
    max_tokens: usize,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    seed: u64,
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) text: String,
    /// The tools that it calls.
    pub(super) tool_calls: Vec<ToolCall>,
    /// Tokens of request and reply, where the server counts them.
    pub(super) tokens: Option<(u64, u64)>,
    /// Whether the limit on tokens ended the reply.
    pub(super) cut_off: bool,
}

/// The body of a request. What is not asked for is left out: not every server knows `top_k`.
pub(super) fn request(model: &str, request: &ChatRequest) -> Vec<u8> {
    let sampling = &request.sampling;
    let body = Body {
        model,
        messages: request.messages(),
        tools: request.tools.as_deref(),
        temperature: sampling.temperature,
        top_p: Some(sampling.top_p).filter(|sum| *sum < 1.0),
        top_k: sampling.top_k,
        max_tokens: sampling.max_tokens,
        stop: &sampling.stop,
        seed: (request.seed ^ (request.seed >> 32)) & SEED_BITS,
    };
    serde_json::to_vec(&body).expect("texts and numbers have a form in JSON")
}

/// Whether a content type is that of JSON.
pub(super) fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// Reads a chat completion; the error says what is missing.
pub(super) fn answer(body: &[u8]) -> Result<Answer, String> {
    let json: Value = serde_json::from_slice(body).map_err(|error| {
        let shown = String::from_utf8_lossy(body);
        if error.is_eof() { format!("the JSON ends early: `{shown}`") } else { format!("{error}: `{shown}`") }
    })?;
    let Some(choices) = json.get("choices").and_then(Value::as_array) else {
        return Err(match message(&json) {
            Some(message) => format!("an error instead of `choices`: `{message}`"),
            None => format!("`choices` is missing in `{json}`"),
        });
    };
    let choice = choices.first().ok_or("`choices` is empty")?;
    let tool_calls = match choice.pointer("/message/tool_calls") {
        None | Some(Value::Null) => Vec::new(),
        Some(calls) => Vec::<ToolCall>::deserialize(calls)
            .map_err(|error| format!("`tool_calls` of the first choice are none: {error}: `{choice}`"))?,
    };
    let text = choice.pointer("/message/content").and_then(Value::as_str);
    // A message that calls tools needs no text.
    let Some(text) = text.or((!tool_calls.is_empty()).then_some("")) else {
        return Err(format!("the first choice has no text: `{choice}`"));
    };
    let count = |name| json.get("usage")?.get(name)?.as_u64();
    Ok(Answer {
        text: text.to_owned(),
        tool_calls,
        tokens: count("prompt_tokens").zip(count("completion_tokens")),
        cut_off: choice.get("finish_reason").and_then(Value::as_str) == Some("length"),
    })
}

/// The message of an error body: `{"error": {"message": …}}`, `{"error": …}`, `{"message": …}` or `{"detail": …}`.
pub(super) fn error_message(body: &[u8]) -> Option<String> {
    message(&serde_json::from_slice(body).ok()?)
}

fn message(json: &Value) -> Option<String> {
    let places = ["/error/message", "/error", "/message", "/detail"];
    places.iter().find_map(|place| json.pointer(place)?.as_str()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Chat;
    use crate::llm::Sampling;
    use std::sync::Arc;

    #[test]
    fn a_request_says_what_is_asked_and_no_more() {
        let mut sampling = Sampling { temperature: 0.5, top_k: None, top_p: 1.0, max_tokens: 256, stop: Vec::new() };
        let system = Some(Arc::new(Message::system("be ä")));
        let chat: Chat = [Message::user("hi")].into_iter().collect();
        let ask = |sampling: &Sampling, seed| {
            let asked = ChatRequest {
                system: system.clone(),
                chat: chat.clone(),
                tools: None,
                sampling: sampling.clone(),
                seed,
            };
            String::from_utf8(request("m", &asked)).unwrap()
        };
        assert_eq!(
            ask(&sampling, 42),
            r#"{"model":"m","messages":[{"role":"system","content":"be ä"},{"role":"user","content":"hi"}],"temperature":0.5,"max_tokens":256,"seed":42}"#
        );
        sampling.top_k = Some(5);
        sampling.top_p = 0.5;
        sampling.stop.push("<end>".to_owned());
        let all = ask(&sampling, u64::MAX - 1);
        assert!(
            all.ends_with(r#""temperature":0.5,"top_p":0.5,"top_k":5,"max_tokens":256,"stop":["<end>"],"seed":1}"#),
            "{all}"
        );
    }

    #[test]
    fn an_answer_is_text_and_tokens() {
        let body = r#"{"choices":[{"message":{"content":"gr\u00fc\u00df 🌍"},"finish_reason":"length"}],
            "usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
        let expected =
            Answer { text: "grüß 🌍".to_owned(), tool_calls: Vec::new(), tokens: Some((3, 2)), cut_off: true };
        assert_eq!(answer(body.as_bytes()), Ok(expected));
        let body = r#"{"choices":[{"message":{"content":""}}],"usage":{"prompt_tokens":3}}"#;
        assert_eq!(
            answer(body.as_bytes()),
            Ok(Answer { text: String::new(), tool_calls: Vec::new(), tokens: None, cut_off: false })
        );
    }

    #[test]
    fn an_answer_may_call_tools_instead_of_speaking() {
        let body = r#"{"choices":[{"message":{"content":null,"tool_calls":[
            {"id":"c1","type":"function","function":{"name":"search_hotel","arguments":"{not json"}}]}}]}"#;
        let answered = answer(body.as_bytes()).unwrap();
        assert_eq!(
            (answered.text.as_str(), answered.tool_calls),
            ("", vec![ToolCall::new("c1", "search_hotel", "{not json")])
        );
    }

    #[test]
    fn what_is_no_completion_is_said() {
        let wrong = |body: &str| answer(body.as_bytes()).unwrap_err();
        assert_eq!(wrong(r#"{"choices":[{"mess"#), r#"the JSON ends early: `{"choices":[{"mess`"#);
        assert!(wrong("nope").starts_with("expected"));
        assert_eq!(wrong("{}"), "`choices` is missing in `{}`");
        assert_eq!(wrong(r#"{"choices":[]}"#), "`choices` is empty");
        assert_eq!(wrong(r#"{"error":{"message":"no such model"}}"#), "an error instead of `choices`: `no such model`");
        let refusal = r#"{"choices":[{"message":{"content":null}}]}"#;
        assert_eq!(wrong(refusal), r#"the first choice has no text: `{"message":{"content":null}}`"#);
    }

    #[test]
    fn content_types() {
        assert!(is_json("application/json; charset=utf-8"));
        assert!(is_json("Application/Problem+JSON"));
        assert!(!is_json("text/html"));
        assert!(!is_json("none"));
    }
}
