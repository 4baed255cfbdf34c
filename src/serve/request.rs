//! What clients ask for: bodies of OpenAI's API, checked and made requests of the model.

use serde::Deserialize;
use serde_json::Value;

use super::answer::{Form, Wrong};
use super::worker::{Asked, Worker};
use crate::chat::{FunctionCall, Message, Role, ToolCall, ToolKind};
use crate::model::chat;
use crate::model::sample::Draw;

/// The most choices of one request.
const CHOICES: usize = 128;

/// The most stops of one request, and bytes of one.
const STOPS: (usize, usize) = (16, 256);

/// The most replies of one request: its prompts times its choices.
const REPLIES: usize = 1024;

/// A body; fields that say nothing to a model of our own are passed over, as other servers do.
#[derive(Deserialize)]
struct Body {
    model: Option<String>,
    messages: Option<Vec<RawMessage>>,
    prompt: Option<Prompt>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    stop: Option<Stop>,
    seed: Option<i64>,
    n: Option<usize>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// `true` in chats, a number in completions.
    logprobs: Option<Value>,
    echo: Option<bool>,
    frequency_penalty: Option<Value>,
    presence_penalty: Option<Value>,
    logit_bias: Option<Value>,
    best_of: Option<Value>,
    response_format: Option<Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`stop` must be a text or a list of texts")]
enum Stop {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`prompt` must be a text, a list of texts, a list of token ids, or a list of such lists")]
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    Lists(Vec<Vec<u32>>),
}

#[derive(Deserialize)]
struct RawMessage {
    role: String,
    content: Option<Content>,
    tool_calls: Option<Vec<RawCall>>,
    tool_call_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a message's `content` must be a text or a list of parts with texts")]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
}

#[derive(Deserialize)]
struct RawCall {
    #[serde(default)]
    id: String,
    function: RawFunction,
}

#[derive(Deserialize)]
struct RawFunction {
    name: String,
    #[serde(default)]
    arguments: String,
}

/// Reads a body.
pub(super) fn read(form: Form, body: &[u8], worker: &Worker) -> Result<Asked, Wrong> {
    let body: Body = serde_json::from_slice(body)
        .map_err(|error| Wrong::request(None, format!("the body is no request: {error}")))?;
    if let Some(model) = body.model.as_deref().filter(|model| *model != worker.name()) {
        return Err(Wrong::model(model, worker.name()));
    }
    let choices = choices(&body)?;
    no_other_wishes(&body, choices)?;
    if form == Form::Text && body.echo == Some(true) {
        return Err(Wrong::request(Some("echo"), "is not supported: prompts are not given back"));
    }
    let tools = body.tools.clone().unwrap_or_default();
    let choice = body.tool_choice.as_ref().and_then(Value::as_str);
    if body.tool_choice.is_some() && !matches!(choice, Some("auto" | "none")) {
        let message = "must be `auto` or `none`: a reply cannot be made to call a tool";
        return Err(Wrong::request(Some("tool_choice"), message));
    }
    let native = !tools.is_empty() && choice != Some("none");
    let offered = if native { tools.as_slice() } else { &[] };
    let prompts = match form {
        Form::Chat => vec![chat_prompt(&body, offered, worker)?],
        Form::Text => prompts(&body, worker)?,
    };
    let context = worker.context();
    for ids in &prompts {
        if ids.is_empty() {
            return Err(Wrong::request(Some("prompt"), "must not be empty"));
        }
        if ids.len() >= context {
            return Err(Wrong::too_long(ids.len(), context));
        }
        if let Some(id) = ids.iter().find(|id| **id as usize >= worker.vocab()) {
            return Err(Wrong::request(Some("prompt"), format!("the model has no token {id}")));
        }
    }
    let most = body.max_completion_tokens.or(body.max_tokens);
    let max_new = most.map_or(if form == Form::Text { 16 } else { worker.max_tokens().min(context) }, |most| {
        most.min(context as u64) as usize
    });
    Ok(Asked {
        prompts,
        choices,
        max_new,
        draw: draw(&body)?,
        seed: body.seed.map(|seed| seed as u64),
        logprobs: logprobs(&body)?,
        stops: stops(body.stop)?,
        native,
        stream: body.stream.unwrap_or(false),
        stream_usage: body.stream_options.is_some_and(|options| options.include_usage == Some(true)),
    })
}

/// How many choices of each prompt.
fn choices(body: &Body) -> Result<usize, Wrong> {
    let choices = body.n.unwrap_or(1);
    if !(1..=CHOICES).contains(&choices) {
        return Err(Wrong::request(Some("n"), format!("must lie between 1 and {CHOICES}")));
    }
    let prompts = match &body.prompt {
        Some(Prompt::Texts(texts)) => texts.len(),
        Some(Prompt::Lists(lists)) => lists.len(),
        _ => 1,
    };
    if prompts.saturating_mul(choices) > REPLIES {
        let message = format!("times the number of prompts must be at most {REPLIES}; ask in several requests");
        return Err(Wrong::request(Some("n"), message));
    }
    Ok(choices)
}

/// Whether a value says what would be without it.
type Neutral<'a> = &'a dyn Fn(&Value) -> bool;

/// Refuses what would change replies elsewhere and does nothing here.
fn no_other_wishes(body: &Body, choices: usize) -> Result<(), Wrong> {
    let zero = |value: &Value| value.as_f64() == Some(0.0);
    let fields: [(_, _, Neutral, _); 5] = [
        ("frequency_penalty", &body.frequency_penalty, &zero, "use `repetition_penalty`"),
        ("presence_penalty", &body.presence_penalty, &zero, "use `repetition_penalty`"),
        ("logit_bias", &body.logit_bias, &|value| value.as_object().is_some_and(|map| map.is_empty()), "leave it out"),
        ("best_of", &body.best_of, &|value| value.as_u64() == Some(choices as u64), "use `n`"),
        ("response_format", &body.response_format, &|value| value["type"] == "text", "only `text` is written"),
    ];
    for (name, value, neutral, instead) in fields {
        if value.as_ref().is_some_and(|value| !value.is_null() && !neutral(value)) {
            return Err(Wrong::request(Some(name), format!("is not supported; {instead}")));
        }
    }
    Ok(())
}

fn chat_prompt(body: &Body, tools: &[Value], worker: &Worker) -> Result<Vec<u32>, Wrong> {
    let Some(raw) = body.messages.as_ref().filter(|messages| !messages.is_empty()) else {
        return Err(Wrong::request(Some("messages"), "must hold at least one message"));
    };
    let messages: Vec<Message> = raw.iter().enumerate().map(|(at, raw)| message(at, raw)).collect::<Result<_, _>>()?;
    let messages: Vec<&Message> = messages.iter().collect();
    chat::encode_prompt(worker.tokenizer(), &messages, tools)
        .map_err(|error| Wrong::request(Some("messages"), error.to_string()))
}

fn message(at: usize, raw: &RawMessage) -> Result<Message, Wrong> {
    let role = match raw.role.as_str() {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => {
            let message = format!("`{other}` is no role; expected `system`, `user`, `assistant` or `tool`");
            return Err(Wrong::request(Some(&format!("messages[{at}].role")), message));
        }
    };
    let content = match &raw.content {
        None => String::new(),
        Some(Content::Text(text)) => text.clone(),
        Some(Content::Parts(parts)) => {
            let texts: Option<Vec<&str>> = parts.iter().map(|part| part.text.as_deref()).collect();
            let place = format!("messages[{at}].content");
            texts.ok_or_else(|| Wrong::request(Some(&place), "has a part that is no text"))?.concat()
        }
    };
    let call = |raw: &RawCall| ToolCall {
        id: raw.id.clone(),
        kind: ToolKind::Function,
        function: FunctionCall { name: raw.function.name.clone(), arguments: raw.function.arguments.clone() },
    };
    let tool_calls = raw.tool_calls.iter().flatten().map(call).collect();
    Ok(Message { role, content, tool_calls, tool_call_id: raw.tool_call_id.clone() })
}

fn prompts(body: &Body, worker: &Worker) -> Result<Vec<Vec<u32>>, Wrong> {
    let tokenizer = worker.tokenizer();
    let encode = |text: &String| {
        let ids = tokenizer.encode_marked(text).map_err(|error| Wrong::request(Some("prompt"), error.to_string()))?;
        Ok(tokenizer.begin().filter(|begin| ids.first() != Some(begin)).into_iter().chain(ids).collect())
    };
    match &body.prompt {
        None => Err(Wrong::request(Some("prompt"), "must be given")),
        Some(Prompt::Text(text)) => Ok(vec![encode(text)?]),
        Some(Prompt::Texts(texts)) => texts.iter().map(encode).collect(),
        Some(Prompt::Ids(ids)) => Ok(vec![ids.clone()]),
        Some(Prompt::Lists(lists)) => Ok(lists.clone()),
    }
}

fn draw(body: &Body) -> Result<Draw, Wrong> {
    let within = |name: &'static str, value: Option<f64>, default: f64, fits: fn(f64) -> bool, range: &str| {
        let value = value.unwrap_or(default);
        if fits(value) { Ok(value as f32) } else { Err(Wrong::request(Some(name), format!("must {range}"))) }
    };
    let top_k = match body.top_k {
        None | Some(0 | -1) => None,
        Some(k) => {
            Some(usize::try_from(k).map_err(|_| Wrong::request(Some("top_k"), "must be 1 or more, or -1 for all"))?)
        }
    };
    Ok(Draw {
        temperature: within(
            "temperature",
            body.temperature,
            1.0,
            |x| (0.0..=100.0).contains(&x),
            "lie between 0 and 100",
        )?,
        top_k,
        top_p: within("top_p", body.top_p, 1.0, |x| x > 0.0 && x <= 1.0, "be above 0 and at most 1")?,
        min_p: within("min_p", body.min_p, 0.0, |x| (0.0..=1.0).contains(&x), "lie between 0 and 1")?,
        repetition_penalty: within(
            "repetition_penalty",
            body.repetition_penalty,
            1.0,
            |x| x > 0.0 && x <= 100.0,
            "be above 0 and at most 100",
        )?,
    })
}

fn logprobs(body: &Body) -> Result<bool, Wrong> {
    match &body.logprobs {
        None | Some(Value::Null | Value::Bool(false)) => Ok(false),
        Some(Value::Bool(true)) => Ok(true),
        Some(Value::Number(_)) => Ok(true),
        Some(_) => Err(Wrong::request(Some("logprobs"), "must be `true` or `false`, or a number in completions")),
    }
}

fn stops(stop: Option<Stop>) -> Result<Vec<String>, Wrong> {
    let stops = match stop {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Many(stops)) => stops,
    };
    if stops.len() > STOPS.0 || stops.iter().any(|stop| stop.is_empty() || stop.len() > STOPS.1) {
        let message = format!("must be at most {} texts of 1 to {} bytes", STOPS.0, STOPS.1);
        return Err(Wrong::request(Some("stop"), message));
    }
    Ok(stops)
}
