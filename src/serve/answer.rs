//! What clients get: completions, pieces of them, and errors, as OpenAI's API has them.

use std::borrow::Cow;

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::worker::{Choice, Event};
use crate::chat::ToolCall;

/// Which of the two ways of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Text,
}

/// Why a request gets an error.
#[derive(Clone, Debug)]
pub(super) struct Wrong {
    pub(super) status: StatusCode,
    message: String,
    kind: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
}

impl Wrong {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), kind, param: None, code: None }
    }

    pub(super) fn request(param: Option<&str>, message: impl Into<String>) -> Self {
        let message = message.into();
        let message = param.map_or_else(|| message.clone(), |param| format!("`{param}` {message}"));
        Self { param: param.map(str::to_owned), ..Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message) }
    }

    pub(super) fn too_long(tokens: usize, context: usize) -> Self {
        let message = format!(
            "this model's maximum context length is {context} tokens, and the prompt has {tokens}; a reply needs room for \
             at least one"
        );
        Self { code: Some("context_length_exceeded"), ..Self::request(None, message) }
    }

    pub(super) fn model(asked: &str, served: &str) -> Self {
        let message = format!("there is no model `{asked}` here; this server has `{served}`");
        let wrong = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        Self { param: Some("model".to_owned()), code: Some("model_not_found"), ..wrong }
    }

    pub(super) fn path(path: &str) -> Self {
        let known = "`/v1/chat/completions`, `/v1/completions`, `/v1/models` and `/health`";
        let message = format!("there is nothing at `{path}`; this server has {known}");
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    pub(super) fn method() -> Self {
        let message = "completions are asked for with POST, models and health with GET";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// The thread that computes has ended.
    pub(super) fn gone() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "server_error",
            "the model went away; the server must be started again",
        )
    }

    /// Too much waits.
    pub(super) fn busy() -> Self {
        let message = "too many replies wait here already; ask again later";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
    }

    pub(super) fn body(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}

/// The list of models.
pub(super) fn models(name: &str) -> Value {
    json!({"object": "list", "data": [model(name)]})
}

/// The one model.
pub(super) fn model(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": 0, "owned_by": "thresh"})
}

/// What every answer to one request says.
pub(super) struct Head {
    form: Form,
    fields: Map<String, Value>,
}

impl Head {
    pub(super) fn new(form: Form, model: &str, number: u64) -> Self {
        let (prefix, object) = match form {
            Form::Chat => ("chatcmpl", "chat.completion"),
            Form::Text => ("cmpl", "text_completion"),
        };
        // No clock: clients that want the time have one.
        let fields = json!({"id": format!("{prefix}-{number}"), "object": object, "created": 0, "model": model});
        let Value::Object(fields) = fields else { unreachable!("an object was written") };
        Self { form, fields }
    }

    fn with(&self, choices: Vec<Value>, usage: Option<Value>) -> Value {
        let mut fields = self.fields.clone();
        fields.insert("choices".to_owned(), choices.into());
        if let Some(usage) = usage {
            fields.insert("usage".to_owned(), usage);
        }
        fields.into()
    }

    /// The whole answer.
    pub(super) fn whole(&self, choices: Vec<Choice>) -> Value {
        let usage = usage(&choices);
        let choice = |choice: &Choice| {
            let mut fields = json!({
                "index": choice.index,
                "logprobs": self.logprobs(&choice.tokens, choice.logprobs),
                "finish_reason": finish(choice.cut_off, &choice.tool_calls),
            });
            match self.form {
                Form::Text => fields["text"] = choice.text.as_str().into(),
                Form::Chat => {
                    let content = (choice.tool_calls.is_empty() || !choice.text.is_empty()).then_some(&choice.text);
                    fields["message"] = json!({"role": "assistant", "content": content});
                    if !choice.tool_calls.is_empty() {
                        fields["message"]["tool_calls"] = json!(choice.tool_calls);
                    }
                }
            }
            fields
        };
        self.with(choices.iter().map(choice).collect(), Some(usage))
    }

    fn logprobs(&self, tokens: &[Token], wanted: bool) -> Value {
        if !wanted {
            return Value::Null;
        }
        match self.form {
            Form::Chat => {
                let content = tokens.iter().map(|token| {
                    json!({
                        "token": token.text(), "logprob": token.logprob, "bytes": token.bytes, "top_logprobs": [],
                    })
                });
                json!({"content": content.collect::<Vec<_>>()})
            }
            Form::Text => json!({
                "tokens": tokens.iter().map(Token::text).collect::<Vec<_>>(),
                "token_logprobs": tokens.iter().map(|token| token.logprob).collect::<Vec<_>>(),
                "top_logprobs": null,
            }),
        }
    }
}

/// A drawn token, its bytes and log-probability.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) bytes: Vec<u8>,
    pub(super) logprob: f32,
}

impl Token {
    /// Its text; what is a part of a character becomes U+FFFD.
    fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }
}

fn usage(choices: &[Choice]) -> Value {
    // Choices of one prompt share it.
    let prompt: usize = choices.iter().filter(|choice| choice.first).map(|choice| choice.prompt_tokens).sum();
    let completion: usize = choices.iter().map(|choice| choice.completion_tokens).sum();
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
}

fn finish(cut_off: bool, calls: &[ToolCall]) -> &'static str {
    match (calls.is_empty(), cut_off) {
        (_, true) => "length",
        (false, false) => "tool_calls",
        (true, false) => "stop",
    }
}

/// An answer in pieces.
pub(super) struct Pieces {
    head: Head,
    usage: bool,
    ended: Vec<Choice>,
    begun: Vec<usize>,
}

impl Pieces {
    pub(super) fn new(mut head: Head, usage: bool) -> Self {
        if head.form == Form::Chat {
            head.fields.insert("object".to_owned(), "chat.completion.chunk".into());
        }
        Self { head, usage, ended: Vec::new(), begun: Vec::new() }
    }

    /// A piece of one choice.
    pub(super) fn piece(&mut self, event: &Event) -> String {
        match event {
            Event::Piece { index, text, tokens, logprobs } => {
                self.send(*index, text, None, self.head.logprobs(tokens, *logprobs), &[])
            }
            Event::End(choice) => {
                let reason = finish(choice.cut_off, &choice.tool_calls);
                let text = choice.rest.clone();
                // Those whose text no piece has told.
                let logprobs = self.head.logprobs(&choice.tokens, choice.logprobs && !choice.tokens.is_empty());
                let sent = self.send(choice.index, &text, Some(reason), logprobs, &choice.tool_calls);
                self.ended.push(choice.clone());
                sent
            }
        }
    }

    fn send(&mut self, index: usize, text: &str, reason: Option<&str>, logprobs: Value, calls: &[ToolCall]) -> String {
        let mut choice = json!({"index": index, "logprobs": logprobs, "finish_reason": reason});
        match self.head.form {
            Form::Text => choice["text"] = text.into(),
            Form::Chat => {
                let mut delta = Map::new();
                if !self.begun.contains(&index) {
                    self.begun.push(index);
                    delta.insert("role".to_owned(), "assistant".into());
                }
                if !text.is_empty() {
                    delta.insert("content".to_owned(), text.into());
                }
                if !calls.is_empty() {
                    let numbered = calls.iter().enumerate().map(
                        |(at, call)| json!({"index": at, "id": call.id, "type": "function", "function": call.function}),
                    );
                    delta.insert("tool_calls".to_owned(), numbered.collect::<Vec<_>>().into());
                }
                choice["delta"] = delta.into();
            }
        }
        sse(&self.head.with(vec![choice], None))
    }

    /// What stands behind all pieces.
    pub(super) fn last(&self) -> String {
        let usage = self.usage.then(|| sse(&self.head.with(Vec::new(), Some(usage(&self.ended)))));
        usage.unwrap_or_default() + "data: [DONE]\n\n"
    }
}

/// A server-sent event.
pub(super) fn sse(body: &Value) -> String {
    format!("data: {body}\n\n")
}
