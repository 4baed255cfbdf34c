//! What a served model can do, found out by asking it: a handful of tiny calls.

use std::sync::Arc;

use reqwest::StatusCode;
use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};

use super::{HttpModel, wire};
use crate::chat::Message;
use crate::llm::completion::Completion;
use crate::llm::{ChatRequest, ModelError, Sampling};

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Fine,
    /// Something is lacking that not everybody needs.
    Lacking,
    /// Runs with this endpoint will fail.
    Wrong,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in a word.
    pub check: &'static str,
    /// How good it is.
    pub verdict: Verdict,
    /// What was found.
    pub said: String,
    /// What to do about it.
    pub advice: Option<String>,
}

impl Finding {
    /// Something that works.
    pub fn fine(check: &'static str, said: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fine, said: said.into(), advice: None }
    }

    /// Something that not everybody needs.
    pub fn lacking(check: &'static str, said: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Lacking, said: said.into(), advice: Some(advice.into()) }
    }

    /// Something that has to be put right.
    pub fn wrong(check: &'static str, said: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Wrong, said: said.into(), advice: Some(advice.into()) }
    }
}

/// Asks a served model what it can do, with at most seven tiny calls; where the first fails there is no other.
pub async fn probe(model: &HttpModel) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(listed(model).await);
    match ask(model, &request("Say hello.", 0.0, 1), false).await {
        Err(error) => {
            findings.push(Finding::wrong("reply", error.to_string(), advice(&error)));
            return findings;
        }
        Ok(completion) => findings.extend(replied(model, &completion)),
    }
    findings.push(seeds(model).await);
    findings.push(tools(model).await);
    findings.push(logprobs(model).await);
    findings
}

fn request(text: &str, temperature: f32, seed: u64) -> ChatRequest {
    let sampling = Sampling { temperature, max_tokens: 24, ..Sampling::default() };
    let chat = [Message::user(text)].into_iter().collect();
    ChatRequest { system: None, chat, tools: None, sampling, seed }
}

/// One call; that a chat does not fit is no answer.
async fn ask(model: &HttpModel, request: &ChatRequest, logprobs: bool) -> Result<Completion, ModelError> {
    let completion = model.call(request, logprobs).await?;
    completion.clone().reply(&model.name)?;
    Ok(completion)
}

/// What to do about a call that failed.
fn advice(error: &ModelError) -> String {
    let text = match error {
        ModelError::Unreachable { .. } => "is the server running at `url`, and may this machine reach it?",
        ModelError::Status { status: 401 | 403, .. } => {
            "`key_env` must name the variable that holds a key for this server"
        }
        ModelError::Status { status: 404, .. } => {
            "`url` must end where `/chat/completions` follows, which is usually `/v1`; `model` must be one that it serves"
        }
        ModelError::Status { status: 400 | 422, body, .. } if body.contains("max_completion_tokens") => {
            "say `max_tokens_field = \"max_completion_tokens\"`"
        }
        ModelError::Status { status: 400 | 422, .. } => {
            "name fields that the server refuses in `omit = [\"temperature\"]`; what else it wants stands in `extra = {…}`"
        }
        ModelError::Status { status: 429, .. } => "lower `requests_per_minute` and `tokens_per_minute`, or wait",
        ModelError::ContextFull { .. } => "serve the model with a larger context",
        ModelError::Budget { .. } => "raise `budget` in thresh.toml: no call was made",
        ModelError::Malformed { .. } => "`url` must be that of an OpenAI-compatible server, with its `/v1`",
        _ => "see what the server itself says",
    };
    text.to_owned()
}

/// Whether the server lists the model.
async fn listed(model: &HttpModel) -> Option<Finding> {
    let known = match model.models().await {
        Ok(Some(known)) => known,
        // Not every server has such a list, and what else is wrong the first call will tell.
        Ok(None) | Err(_) => {
            let said = "the server does not list its models";
            return Some(Finding::lacking("model", said, "nothing: the list is only looked at here"));
        }
    };
    let name = &model.model;
    if known.contains(name) {
        return Some(Finding::fine("model", format!("`{name}` is served")));
    }
    let some = known.iter().take(6).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let advice = "say `model = \"…\"` with one of these, unless the server takes any name";
    Some(Finding::lacking("model", format!("`{name}` is not in the server's list, which has {some}"), advice))
}

/// What a first reply tells: how long it took, and whether tokens are counted.
fn replied(model: &HttpModel, completion: &Completion) -> [Finding; 2] {
    let account = model.account();
    let reply = Finding::fine("reply", format!("an answer in {:.2} s", account.slowest));
    let usage = if account.uncounted > 0 {
        let advice = "tokens and costs of runs will lack it; budgets and rates go by the length of texts";
        Finding::lacking("usage", "the server counts no tokens", advice)
    } else {
        let (prompt, written) = (completion.reply.prompt_tokens, completion.reply.completion_tokens);
        Finding::fine("usage", format!("{prompt} tokens asked, {written} answered"))
    };
    [reply, usage]
}

/// Whether the same seed gives the same reply, and another one another.
async fn seeds(model: &HttpModel) -> Finding {
    let text = "Write one surprising sentence about anything.";
    let mut said = Vec::new();
    for seed in [7, 7, 8] {
        match ask(model, &request(text, 1.0, seed), false).await {
            Ok(completion) => said.push(completion.reply.text),
            Err(error) => return Finding::lacking("seed", error.to_string(), advice(&error)),
        }
    }
    match (said[0] == said[1], said[0] == said[2]) {
        (true, false) => Finding::fine("seed", "the same seed gives the same reply, another one another"),
        (true, true) => Finding::lacking(
            "seed",
            "all replies are alike, also with temperature 1 and another seed",
            "branches of a tree will be alike, too: does the server ignore `temperature`, or answer from a cache?",
        ),
        (false, _) => Finding::lacking(
            "seed",
            "the same seed gives different replies",
            "runs cannot be repeated by asking again; keep `calls`, which replay them to the byte",
        ),
    }
}

/// Whether it calls tools.
async fn tools(model: &HttpModel) -> Finding {
    let tool = json!({"type": "function", "function": {
        "name": "get_temperature",
        "description": "Get the present temperature of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }});
    let mut asked = request("How warm is it in Cambridge now? Call the tool.", 0.0, 1);
    asked.tools = Some(Arc::from([tool]));
    asked.sampling.max_tokens = 64;
    let help = "agents of style `react` need none; vLLM wants `--enable-auto-tool-choice --tool-call-parser …`, llama.cpp `--jinja`";
    match ask(model, &asked, false).await {
        Err(error) => Finding::lacking("tools", format!("requests with tools are refused: {error}"), help),
        Ok(Completion { reply, .. }) => match reply.tool_calls.first() {
            None => Finding::lacking("tools", "the model answered with text instead of a call", help),
            Some(call) if serde_json::from_str::<Value>(&call.function.arguments).is_err() => {
                Finding::lacking("tools", "the model calls tools with arguments that are no JSON", help)
            }
            Some(_) => Finding::fine("tools", "the model calls tools"),
        },
    }
}

/// Whether it gives log-probabilities.
async fn logprobs(model: &HttpModel) -> Finding {
    let help = "nothing, unless `logprobs: true` stands in a pipeline: they will be missing in `calls`";
    match ask(model, &request("Say hello.", 0.0, 1), true).await {
        Err(error) => Finding::lacking("logprobs", error.to_string(), help),
        Ok(Completion { logprob: None, .. }) => {
            Finding::lacking("logprobs", "the server gives no log-probabilities", help)
        }
        Ok(Completion { logprob: Some(_), .. }) => Finding::fine("logprobs", "log-probabilities are given"),
    }
}

impl HttpModel {
    /// The names of the models that the server lists at `/models`; `None` where it has no such list.
    async fn models(&self) -> Result<Option<Vec<String>>, ModelError> {
        let mut url = self.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop().pop().push("models");
        }
        let mut call = self.client.get(url);
        if let Some(key) = &self.key {
            call = call.header(AUTHORIZATION, key.header.clone());
        }
        let response = call.send().await.map_err(|error| self.broken(error).error)?;
        if response.status() != StatusCode::OK {
            return Ok(None);
        }
        let body = self.body(response).await.map_err(|failure| failure.error)?;
        Ok(wire::models(&body).map(|names| names.into_iter().map(|name| self.redacted(&name)).collect()))
    }
}
