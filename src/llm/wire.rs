//! The JSON of chat completions, as OpenAI's API and the servers that follow it speak it.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{ChatRequest, drawn_seed};
use crate::chat::{Message, ToolCall};

/// Bytes of text for each token, in estimates: English has about so many.
const BYTES_PER_TOKEN: u64 = 4;

/// What a server wants to be told differently.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dialect {
    /// The field that limits the tokens of a reply; `max_tokens` where absent.
    pub max_tokens_field: Option<String>,
    /// Fields that the server refuses.
    pub omit: Vec<String>,
    /// What is merged into each request; goes before what stands there.
    pub extra: Map<String, Value>,
}

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
    #[serde(skip_serializing_if = "Option::is_none")]
    min_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repetition_penalty: Option<f32>,
    max_tokens: usize,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    seed: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    logprobs: bool,
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) text: String,
    /// The tools that it calls, as the model wrote them: arguments need not be JSON.
    pub(super) tool_calls: Vec<ToolCall>,
    /// Tokens, where the server counts them.
    pub(super) tokens: Option<Tokens>,
    /// Whether the limit on tokens ended the reply.
    pub(super) cut_off: bool,
    /// The log-probability of the reply, where the server gives it.
    pub(super) logprob: Option<f64>,
}

/// Tokens as a server counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) prompt: u64,
    /// Those of `prompt` that were in the server's cache.
    pub(super) cached: u64,
    pub(super) completion: u64,
}

/// The body of a request. What is not asked for is left out: not every server knows `top_k`, `min_p` and `repetition_penalty`.
pub(super) fn request(model: &str, request: &ChatRequest, dialect: &Dialect, logprobs: bool) -> Vec<u8> {
    let sampling = &request.sampling;
    let body = Body {
        model,
        messages: request.messages(),
        tools: request.tools.as_deref(),
        temperature: sampling.temperature,
        top_p: Some(sampling.top_p).filter(|sum| *sum < 1.0),
        top_k: sampling.top_k,
        min_p: Some(sampling.min_p).filter(|share| *share > 0.0),
        repetition_penalty: Some(sampling.repetition_penalty).filter(|penalty| *penalty != 1.0),
        max_tokens: sampling.max_tokens,
        stop: &sampling.stop,
        seed: drawn_seed(request.seed),
        logprobs,
    };
    let plain = serde_json::to_vec(&body);
    let written = if *dialect == Dialect::default() {
        plain
    } else {
        // Through its text, which has a temperature of 0.7 where a value would have 0.699999988079071.
        plain.and_then(|text| serde_json::from_slice(&text)).and_then(|body| serde_json::to_vec(&dialect.apply(body)))
    };
    written.expect("texts and numbers have a form in JSON")
}

impl Dialect {
    fn apply(&self, body: Value) -> Value {
        let Value::Object(fields) = body else { return body };
        let renamed = |name: String| match &self.max_tokens_field {
            Some(field) if name == "max_tokens" => field.clone(),
            _ => name,
        };
        let kept = fields.into_iter().filter(|(name, _)| !self.omit.contains(name));
        let mut fields: Map<String, Value> = kept.map(|(name, value)| (renamed(name), value)).collect();
        fields.extend(self.extra.clone());
        Value::Object(fields)
    }
}

/// About how many tokens a call will take: those of its texts, and as many as its reply may have.
pub(super) fn estimate(request: &ChatRequest) -> u64 {
    let calls = |message: &Message| message.tool_calls.iter().map(|call| call.function.arguments.len()).sum::<usize>();
    let texts: usize = request.messages().iter().map(|message| message.content.len() + calls(message)).sum();
    let tools = request.tools.as_ref().map_or(0, |tools| tools.iter().map(|tool| tool.to_string().len()).sum());
    (texts + tools) as u64 / BYTES_PER_TOKEN + request.sampling.max_tokens as u64
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
    let finish = choice.get("finish_reason").and_then(Value::as_str);
    let tool_calls = tool_calls(choice)?;
    let Some(text) = text(choice).or((!tool_calls.is_empty()).then(String::new)) else {
        // A reply that ended is one, also without a word: a model that ran out of tokens while it thought.
        return match finish {
            Some("content_filter") => Err(format!("the server's filter held the reply back: `{choice}`")),
            Some(reason) if choice.get("message").is_some_and(Value::is_object) => {
                Ok(Answer { text: String::new(), tool_calls, ..counted(&json, choice, reason) })
            }
            _ => Err(format!("the first choice has no text: `{choice}`")),
        };
    };
    Ok(Answer { text, tool_calls, ..counted(&json, choice, finish.unwrap_or_default()) })
}

/// All of an answer but what it says.
fn counted(json: &Value, choice: &Value, finish: &str) -> Answer {
    let count = |place| json.get("usage")?.pointer(place)?.as_u64();
    let tokens = count("/prompt_tokens").zip(count("/completion_tokens")).map(|(prompt, completion)| Tokens {
        prompt,
        cached: count("/prompt_tokens_details/cached_tokens").unwrap_or(0),
        completion,
    });
    Answer {
        text: String::new(),
        tool_calls: Vec::new(),
        tokens,
        cut_off: finish == "length",
        logprob: logprob(choice),
    }
}

/// What the model says: its text, its text in parts, or its refusal. What it thought is left out.
fn text(choice: &Value) -> Option<String> {
    let message = choice.get("message")?;
    let parts = |parts: &Vec<Value>| -> String {
        parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect()
    };
    match message.get("content") {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Array(content)) => Some(parts(content)),
        _ => message.get("refusal").and_then(Value::as_str).map(str::to_owned),
    }
}

/// The tools that a message calls. Names and arguments are the model's own, and handed on as they are; an id that the server
/// left out is made up.
fn tool_calls(choice: &Value) -> Result<Vec<ToolCall>, String> {
    let calls = match choice.pointer("/message/tool_calls") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(calls)) => calls,
        Some(_) => return Err(format!("`tool_calls` of the first choice is no list: `{choice}`")),
    };
    let call = |(place, call): (usize, &Value)| {
        let word = |place| call.pointer(place).and_then(Value::as_str).filter(|text| !text.is_empty());
        let id = word("/id").map_or_else(|| format!("call_{place}"), str::to_owned);
        let arguments = match call.pointer("/function/arguments") {
            Some(Value::String(text)) => text.clone(),
            None | Some(Value::Null) => "{}".to_owned(),
            Some(json) => json.to_string(),
        };
        ToolCall::new(id, word("/function/name").unwrap_or_default(), arguments)
    };
    Ok(calls.iter().enumerate().map(call).collect())
}

/// The sum of the log-probabilities of a reply's tokens; `None` where the server gives none.
fn logprob(choice: &Value) -> Option<f64> {
    let tokens = choice.pointer("/logprobs/content")?.as_array()?;
    tokens.iter().map(|token| token.get("logprob")?.as_f64()).sum()
}

/// The names in a list of models: `{"data": [{"id": …}, …]}`.
pub(super) fn models(body: &[u8]) -> Option<Vec<String>> {
    let json: Value = serde_json::from_slice(body).ok()?;
    let models = json.get("data")?.as_array()?;
    Some(models.iter().filter_map(|model| model.get("id")?.as_str()).map(str::to_owned).collect())
}

/// The message of an error body: `{"error": {"message": …}}`, `{"error": …}`, `{"message": …}` or `{"detail": …}`.
pub(super) fn error_message(body: &[u8]) -> Option<String> {
    message(&serde_json::from_slice(body).ok()?)
}

/// Whether an error says that there is nothing left to pay with, which does not pass with time.
pub(super) fn is_unpaid(body: &[u8]) -> bool {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = json.pointer("/error/code").or_else(|| json.pointer("/error/type")).and_then(Value::as_str);
    code.is_some_and(|code| matches!(code, "insufficient_quota" | "billing_hard_limit_reached"))
}

/// How servers say that a chat does not fit the model's context: as a code or type of the error, or in words (lower case) that
/// stand in its message.
const FULL_CODES: [&str; 2] = ["context_length_exceeded", "exceed_context_size_error"];
const FULL_WORDS: [&str; 8] = [
    "maximum context length",
    "maximum model length",
    "context length",
    "context size",
    "context window",
    "prompt is too long",
    "input is too long",
    "`inputs` must have less than",
];

/// Whether an error says that the chat does not fit the model's context.
pub(super) fn is_full(body: &[u8]) -> bool {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = |place| json.pointer(place).and_then(Value::as_str).is_some_and(|code| FULL_CODES.contains(&code));
    let text = message(&json).unwrap_or_default().to_lowercase();
    code("/error/code") || code("/error/type") || FULL_WORDS.iter().any(|words| text.contains(words))
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
        let mut sampling = Sampling { temperature: 0.5, max_tokens: 256, ..Sampling::default() };
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
            String::from_utf8(request("m", &asked, &Dialect::default(), false)).unwrap()
        };
        assert_eq!(
            ask(&sampling, 42),
            r#"{"model":"m","messages":[{"role":"system","content":"be ä"},{"role":"user","content":"hi"}],"temperature":0.5,"max_tokens":256,"seed":42}"#
        );
        sampling.top_k = Some(5);
        sampling.top_p = 0.5;
        (sampling.min_p, sampling.repetition_penalty) = (0.25, 1.5);
        sampling.stop.push("<end>".to_owned());
        let all = ask(&sampling, u64::MAX - 1);
        assert!(
            all.ends_with(r#""temperature":0.5,"top_p":0.5,"top_k":5,"min_p":0.25,"repetition_penalty":1.5,"max_tokens":256,"stop":["<end>"],"seed":1}"#),
            "{all}"
        );
    }

    #[test]
    fn servers_are_told_things_their_way() {
        let sampling = Sampling { max_tokens: 9, ..Sampling::default() };
        let chat = [Message::user("twelve bytes")].into_iter().collect();
        let asked = ChatRequest { system: None, chat, tools: None, sampling, seed: 1 };
        let extra = serde_json::json!({"num_ctx": 4096, "model": "other"});
        let dialect = Dialect {
            max_tokens_field: Some("max_completion_tokens".to_owned()),
            omit: vec!["temperature".to_owned(), "seed".to_owned()],
            extra: extra.as_object().unwrap().clone(),
        };
        assert_eq!(
            String::from_utf8(request("m", &asked, &dialect, true)).unwrap(),
            r#"{"model":"other","messages":[{"role":"user","content":"twelve bytes"}],"max_completion_tokens":9,"logprobs":true,"num_ctx":4096}"#
        );
        assert_eq!(estimate(&asked), 3 + 9);
    }

    fn read(body: &str) -> Answer {
        answer(body.as_bytes()).unwrap()
    }

    #[test]
    fn an_answer_is_text_and_tokens() {
        let found = read(
            r#"{"choices":[{"message":{"content":"gr\u00fc\u00df 🌍","reasoning_content":"hm"},"finish_reason":"length"}],
            "usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}}"#,
        );
        let tokens = Some(Tokens { prompt: 3, cached: 1, completion: 2 });
        let text = "grüß 🌍".to_owned();
        assert_eq!(found, Answer { text, tool_calls: Vec::new(), tokens, cut_off: true, logprob: None });
        let found = read(r#"{"choices":[{"message":{"content":""}}],"usage":{"prompt_tokens":3}}"#);
        assert_eq!((found.text.as_str(), found.tokens, found.cut_off), ("", None, false));
        let parts = r#"{"choices":[{"message":{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}}]}"#;
        assert_eq!(read(parts).text, "ab");
        assert_eq!(read(r#"{"choices":[{"message":{"content":null,"refusal":"I will not"}}]}"#).text, "I will not");
        let thought = r#"{"choices":[{"message":{"content":null,"reasoning_content":"hm"},"finish_reason":"length"}]}"#;
        assert_eq!((read(thought).text.as_str(), read(thought).cut_off), ("", true));
    }

    #[test]
    fn log_probabilities_are_summed() {
        let with = |logprobs: &str| {
            read(&format!(r#"{{"choices":[{{"message":{{"content":"a b"}},"logprobs":{logprobs}}}]}}"#)).logprob
        };
        assert_eq!(with(r#"{"content":[{"token":"a","logprob":-0.25},{"token":" b","logprob":-1.5}]}"#), Some(-1.75));
        assert_eq!(with("null"), None);
        assert_eq!(with(r#"{"content":null}"#), None);
        assert_eq!(with(r#"{"content":[{"token":"a"}]}"#), None);
    }

    #[test]
    fn an_answer_may_call_tools_instead_of_speaking() {
        let found = read(
            r#"{"choices":[{"message":{"content":null,"tool_calls":[
            {"id":"c1","type":"function","function":{"name":"search_hotel","arguments":"{not json"}},
            {"function":{"name":"book","arguments":{"day":"monday"}}},
            {"id":"","function":{}}]}}]}"#,
        );
        let calls = vec![
            ToolCall::new("c1", "search_hotel", "{not json"),
            ToolCall::new("call_1", "book", r#"{"day":"monday"}"#),
            ToolCall::new("call_2", "", "{}"),
        ];
        assert_eq!((found.text.as_str(), found.tool_calls), ("", calls));
        assert!(answer(br#"{"choices":[{"message":{"content":"a","tool_calls":"none"}}]}"#).is_err());
    }

    #[test]
    fn what_is_no_completion_is_said() {
        let wrong = |body: &str| answer(body.as_bytes()).unwrap_err();
        assert_eq!(wrong(r#"{"choices":[{"mess"#), r#"the JSON ends early: `{"choices":[{"mess`"#);
        assert!(wrong("nope").starts_with("expected"));
        assert_eq!(wrong("{}"), "`choices` is missing in `{}`");
        assert_eq!(wrong(r#"{"choices":[]}"#), "`choices` is empty");
        assert_eq!(wrong(r#"{"error":{"message":"no such model"}}"#), "an error instead of `choices`: `no such model`");
        let silent = r#"{"choices":[{"message":{"content":null}}]}"#;
        assert_eq!(wrong(silent), r#"the first choice has no text: `{"message":{"content":null}}`"#);
        let filtered = r#"{"choices":[{"message":{"content":null},"finish_reason":"content_filter"}]}"#;
        assert!(wrong(filtered).starts_with("the server's filter held the reply back"));
    }

    #[test]
    fn what_cannot_be_paid_does_not_pass() {
        assert!(is_unpaid(br#"{"error":{"message":"you exceeded your quota","code":"insufficient_quota"}}"#));
        assert!(!is_unpaid(br#"{"error":{"message":"slow down","code":"rate_limit_exceeded"}}"#));
        assert!(!is_unpaid(b"<html>"));
    }

    #[test]
    fn servers_say_in_many_ways_that_a_context_is_full() {
        for full in [
            r#"{"error":{"message":"too much","type":"invalid_request_error","code":"context_length_exceeded"}}"#,
            r#"{"error":{"code":400,"message":"too much","type":"exceed_context_size_error"}}"#,
            r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 5000"}"#,
            r#"{"error":{"message":"The decoder prompt (length 9) is longer than the maximum model length of 8."}}"#,
        ] {
            assert!(is_full(full.as_bytes()), "{full}");
        }
        assert!(!is_full(br#"{"error":{"message":"no such model","code":"model_not_found"}}"#));
        assert!(!is_full(b"context length"), "a proxy's page is no answer of the model's server");
    }

    #[test]
    fn content_types() {
        assert!(is_json("application/json; charset=utf-8"));
        assert!(is_json("Application/Problem+JSON"));
        assert!(!is_json("text/html"));
        assert!(!is_json("none"));
    }
}
