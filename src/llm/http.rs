//! A model behind an OpenAI-compatible address: `POST {url}/chat/completions`.

pub mod probe;

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::LocalBoxFuture;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};

use super::account::Account;
use super::completion::Completion;
pub use super::wire::Dialect;
use super::wire::{self, Answer};
use super::{ChatModel, ChatRequest, ModelError, Reply};
use crate::chat::ToolCall;
use crate::net::gate::{Gate, Limits, OverBudget, Prices};
use crate::net::{self, Backoff};

/// The first wait before a call is tried again, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The largest body that is read; a reply of 100,000 tokens stays well below.
const LARGEST_BODY: usize = 8 << 20;

/// How much of a body that makes no sense is shown, in characters.
const SHOWN: usize = 200;

/// How a served model is reached.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// The base address, up to and with `/v1`.
    pub url: String,
    /// The model's name at that address.
    pub model: String,
    /// The environment variable that holds the key, where one is needed.
    pub key_env: Option<String>,
    /// What the server bears: calls pass it in the order in which they were made.
    pub gate: Arc<Gate>,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long one attempt may take from connecting to the last byte.
    pub timeout: Duration,
    /// How often a call is tried again after 408, 425, 429, 5xx, broken connections and answers that are none. One that took too
    /// long is tried again once at most.
    pub retries: u32,
    /// What tokens cost, for the account and the gate's budget.
    pub prices: Option<Prices>,
    /// What the server wants to be told differently.
    pub dialect: Dialect,
}

/// Why an endpoint cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The address is none.
    #[error("endpoint `{endpoint}`: `{url}` is not an address: {reason}")]
    Url { endpoint: String, url: String, reason: String },
    /// The address holds a user or a password, which would show in messages.
    #[error("endpoint `{endpoint}`: the address holds a user name or password; name a variable in `key_env` instead")]
    UrlWithPassword { endpoint: String },
    /// The variable that should hold the key is not set or empty.
    #[error("endpoint `{endpoint}`: the environment variable `{variable}` is not set; it should hold the key")]
    NoKey { endpoint: String, variable: String },
    /// The key holds characters that no header can carry.
    #[error("endpoint `{endpoint}`: the key in `{variable}` holds characters that a key cannot have")]
    BadKey { endpoint: String, variable: String },
    /// A setting with which no call could ever be made.
    #[error("endpoint `{endpoint}`: {reason}")]
    Setting { endpoint: String, reason: String },
    /// The client could not be set up, for example for want of certificates.
    #[error("endpoint `{endpoint}`: {reason}")]
    Client { endpoint: String, reason: String },
}

/// A model behind an OpenAI-compatible endpoint.
///
/// Its connections belong to the runtime of its first call: use one for one drive.
#[derive(Debug)]
pub struct HttpModel {
    name: String,
    url: Url,
    model: String,
    key: Option<Key>,
    gate: Arc<Gate>,
    retries: u32,
    waits: (Duration, Duration),
    client: Client,
    prices: Option<Prices>,
    dialect: Dialect,
    refuses_logprobs: Cell<bool>,
    account: Cell<Account>,
}

/// A secret: it prints as `[key]`.
struct Key {
    secret: String,
    header: HeaderValue,
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[key]")
    }
}

/// Whether a call that failed is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// It would fail again.
    Never,
    /// It took too long: it may be stuck, or just take that long.
    Once,
    /// The trouble passes.
    Often,
}

/// An attempt that failed.
struct Failure {
    error: ModelError,
    again: Again,
    /// How long the server asks to wait.
    wait: Option<Duration>,
}

impl Failure {
    /// Whether the server refuses a request for a field of this name.
    fn is_about(&self, field: &str) -> bool {
        matches!(&self.error, ModelError::Status { status: 400..500, body, .. } if body.contains(field))
    }
}

impl HttpModel {
    /// A model at an endpoint, which errors call by `name`. The key is read from the environment here, once.
    ///
    /// # Errors
    /// When the settings cannot work, or the key is not in the environment.
    pub fn new(name: &str, settings: &HttpSettings) -> Result<Self, EndpointError> {
        let key = settings.key_env.as_ref().map(|variable| (variable.as_str(), std::env::var(variable).ok()));
        Self::with_key(name, settings, key)
    }

    fn with_key(
        name: &str,
        settings: &HttpSettings,
        key: Option<(&str, Option<String>)>,
    ) -> Result<Self, EndpointError> {
        let endpoint = name.to_owned();
        let url = address(name, &settings.url)?;
        if let Some(reason) = settings.wrong() {
            return Err(EndpointError::Setting { endpoint, reason });
        }
        let key = key.map(|(variable, value)| Key::new(name, variable, value)).transpose()?;
        let client = net::client(&url)
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.timeout)
            .build()
            .map_err(|error| EndpointError::Client { endpoint: endpoint.clone(), reason: net::reason(error) })?;
        Ok(Self {
            name: endpoint,
            url,
            model: settings.model.clone(),
            key,
            gate: settings.gate.clone(),
            retries: settings.retries,
            waits: WAITS,
            client,
            prices: settings.prices,
            dialect: settings.dialect.clone(),
            refuses_logprobs: Cell::new(false),
            account: Cell::default(),
        })
    }

    /// Where it is asked, without what may be a secret.
    pub fn address(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        url.to_string()
    }

    /// The most calls in flight at once.
    pub fn in_flight(&self) -> usize {
        self.gate.limits().in_flight
    }

    /// What the calls so far have cost.
    pub fn account(&self) -> Account {
        self.account.get()
    }

    fn count(&self, change: impl FnOnce(&mut Account)) {
        let mut account = self.account.get();
        change(&mut account);
        self.account.set(account);
    }

    /// Continues a chat; like [`ChatModel::complete`], with the log-probability of the reply where `logprobs` are asked for. A
    /// server that refuses to give them is asked without from then on.
    ///
    /// # Errors
    /// When no answer came after all tries, or the budget is used up.
    pub async fn call(&self, request: &ChatRequest, logprobs: bool) -> Result<Completion, ModelError> {
        let estimated = wire::estimate(request);
        let mut backoff = Backoff::new(self.waits.0, self.waits.1, request.seed);
        let (mut retries, mut late) = (0, false);
        loop {
            let pass = self.gate.enter(estimated).await.map_err(|reason| self.over_budget(reason))?;
            let asked = logprobs && !self.refuses_logprobs.get();
            let failure = match self.attempt(wire::request(&self.model, request, &self.dialect, asked)).await {
                Ok(answer) => {
                    pass.took(answer.tokens.map_or(estimated, |tokens| tokens.prompt + tokens.completion));
                    return Ok(self.pay(answer, estimated, request.sampling.max_tokens as u64));
                }
                Err(failure) => failure,
            };
            // Who waits holds no place of those who could be answered.
            drop(pass);
            if let ModelError::ContextFull { reason, .. } = failure.error {
                return Ok(Completion::full(reason));
            }
            if asked && failure.is_about("logprobs") {
                self.refuses_logprobs.set(true);
                continue;
            }
            let again = failure.again == Again::Often || (failure.again == Again::Once && !late);
            if !again || retries == self.retries {
                self.count(|account| account.failures += 1);
                return Err(failure.error);
            }
            retries += 1;
            late |= failure.again == Again::Once;
            self.count(|account| account.retries += 1);
            if let Some(wait) = failure.wait {
                self.gate.close_for(wait.min(net::LONGEST_REQUESTED));
            }
            tokio::time::sleep(backoff.next(failure.wait)).await;
        }
    }

    fn over_budget(&self, reason: OverBudget) -> ModelError {
        self.count(|account| account.failures += 1);
        ModelError::Budget { endpoint: self.name.clone(), reason }
    }

    /// Puts an answer into the account; of one without token counts what was estimated counts against the budget.
    fn pay(&self, answer: Answer, estimated: u64, longest: u64) -> Completion {
        let tokens = answer.tokens.unwrap_or_default();
        let cost = self.prices.map_or(0.0, |prices| match answer.tokens {
            Some(tokens) => prices.cost(tokens.prompt, tokens.cached, tokens.completion),
            // The estimate holds the longest reply.
            None => prices.cost(estimated.saturating_sub(longest), 0, longest),
        });
        self.gate.spend(cost);
        self.count(|account| {
            account.replies += 1;
            account.uncounted += u64::from(answer.tokens.is_none());
            account.prompt_tokens += tokens.prompt;
            account.cached_tokens += tokens.cached;
            account.completion_tokens += tokens.completion;
            account.cost += cost;
        });
        let reply = Reply {
            text: self.said(answer.text),
            tool_calls: answer.tool_calls.into_iter().map(|call| self.called(call)).collect(),
            prompt_tokens: tokens.prompt,
            completion_tokens: tokens.completion,
            cut_off: answer.cut_off,
        };
        Completion { reply, logprob: answer.logprob, full: None }
    }

    /// What a reply says, without the key.
    fn said(&self, text: String) -> String {
        if self.key.as_ref().is_some_and(Key::is_long) { self.redacted(&text) } else { text }
    }

    fn called(&self, call: ToolCall) -> ToolCall {
        ToolCall::new(self.said(call.id), self.said(call.function.name), self.said(call.function.arguments))
    }

    async fn attempt(&self, body: Vec<u8>) -> Result<Answer, Failure> {
        let begin = Instant::now();
        let mut call = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(key) = &self.key {
            call = call.header(AUTHORIZATION, key.header.clone());
        }
        let response = call.send().await.map_err(|error| self.broken(error))?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let content_type = content_type(&response);
        let body = self.body(response).await?;
        // A completion is one whatever the server calls it: asked again it would be paid for again.
        let answer = wire::answer(&body).map_err(|reason| {
            if wire::is_json(&content_type) {
                return self.malformed(self.shown(&reason));
            }
            let shown = self.shown(&String::from_utf8_lossy(&body));
            self.malformed(format!("content type `{}`, body `{shown}`", self.shown(&content_type)))
        })?;
        let seconds = begin.elapsed().as_secs_f64();
        self.count(|account| {
            account.seconds += seconds;
            account.slowest = account.slowest.max(seconds);
        });
        Ok(answer)
    }

    /// Reads a body, as far as it is of a sensible size.
    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        let mut declared = response.content_length().unwrap_or(0);
        while declared <= LARGEST_BODY as u64 {
            match response.chunk().await.map_err(|error| self.broken(error))? {
                None => return Ok(body),
                Some(chunk) => body.extend_from_slice(&chunk),
            }
            declared = declared.max(body.len() as u64);
        }
        Err(self.malformed(format!("the body is larger than {} MiB", LARGEST_BODY >> 20)))
    }

    /// An answer with an error status.
    async fn refused(&self, response: Response) -> Failure {
        let status = response.status();
        let wait = net::retry_after(response.headers(), SystemTime::now());
        let json = wire::is_json(&content_type(&response));
        // The status says what is wrong even where the body cannot be read.
        let body = self.body(response).await.unwrap_or_default();
        let text = if json { wire::error_message(&body) } else { None };
        let shown = self.shown(&text.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned()));
        let endpoint = self.name.clone();
        // Other errors may speak of contexts, too, and are not about this request's length.
        let refuses = matches!(status.as_u16(), 400 | 413 | 422);
        let error = if refuses && wire::is_full(&body) {
            ModelError::ContextFull { endpoint, reason: shown }
        } else {
            ModelError::Status { endpoint, status: status.as_u16(), body: shown }
        };
        Failure { error, again: again(status, &body), wait }
    }

    /// A connection that did not come about, broke, or took too long.
    fn broken(&self, error: reqwest::Error) -> Failure {
        let again = if error.is_timeout() && !error.is_connect() { Again::Once } else { Again::Often };
        let reason = self.redacted(&net::reason(error));
        Failure { error: ModelError::Unreachable { endpoint: self.name.clone(), reason }, again, wait: None }
    }

    /// An answer that is none: a proxy's page, JSON that ends early. The next one may be whole.
    fn malformed(&self, reason: String) -> Failure {
        let error = ModelError::Malformed { endpoint: self.name.clone(), reason };
        Failure { error, again: Again::Often, wait: None }
    }

    /// The beginning of what the server sent, on one line and without the key.
    fn shown(&self, text: &str) -> String {
        let line = self.redacted(text).split_whitespace().collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(SHOWN) {
            None => line,
            Some((end, _)) => format!("{}…", &line[..end]),
        }
    }

    fn redacted(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(&key.secret, "[key]"),
            None => text.to_owned(),
        }
    }
}

impl ChatModel for HttpModel {
    fn complete(&self, request: ChatRequest) -> LocalBoxFuture<'_, Result<Reply, ModelError>> {
        Box::pin(async move { self.call(&request, false).await?.reply(&self.name) })
    }
}

impl Key {
    fn new(endpoint: &str, variable: &str, value: Option<String>) -> Result<Self, EndpointError> {
        let (endpoint, variable) = (endpoint.to_owned(), variable.to_owned());
        let secret = value.unwrap_or_default().trim().to_owned();
        if secret.is_empty() {
            return Err(EndpointError::NoKey { endpoint, variable });
        }
        let Ok(mut header) = HeaderValue::from_str(&format!("Bearer {secret}")) else {
            return Err(EndpointError::BadKey { endpoint, variable });
        };
        header.set_sensitive(true);
        Ok(Self { secret, header })
    }

    /// Whether the key is one: servers without keys are often given a word such as `none`, which replies may well say.
    fn is_long(&self) -> bool {
        self.secret.len() >= 8
    }
}

impl HttpSettings {
    /// What cannot work.
    fn wrong(&self) -> Option<String> {
        let Limits { in_flight, requests_per_minute, tokens_per_minute, budget } = self.gate.limits();
        let no_rate = |rate: Option<f64>| rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite()));
        let price = |price: f64| price >= 0.0 && price.is_finite();
        let prices = self.prices.map(|prices| [prices.prompt, prices.completion, prices.cached]);
        let wrong = if in_flight == 0 {
            "`in_flight` must be at least 1"
        } else if no_rate(requests_per_minute) {
            "`requests_per_minute` must be more than 0"
        } else if no_rate(tokens_per_minute) {
            "`tokens_per_minute` must be more than 0"
        } else if prices.is_some_and(|prices| !prices.into_iter().all(price)) {
            "prices must be 0 or more"
        } else if budget.is_some_and(|budget| !price(budget)) {
            "`budget` must be 0 or more"
        } else if budget.is_some() && prices.is_none() {
            "a `budget` needs `price_per_million = {prompt = …, completion = …}`"
        } else {
            return None;
        };
        Some(wrong.to_owned())
    }
}

/// Whether a call that was answered with this error status may be answered otherwise later.
fn again(status: StatusCode, body: &[u8]) -> Again {
    let passing = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS
    );
    let lasting = matches!(status, StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED);
    // Hosted servers say 429 also when there is nothing left to pay with, and that does not pass.
    let again = (passing && !wire::is_unpaid(body)) || (status.is_server_error() && !lasting);
    if again { Again::Often } else { Again::Never }
}

fn content_type(response: &Response) -> String {
    let value =
        response.headers().get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    value.unwrap_or_else(|| "none".to_owned())
}

fn address(endpoint: &str, text: &str) -> Result<Url, EndpointError> {
    let wrong = |reason: &str| EndpointError::Url {
        endpoint: endpoint.to_owned(),
        url: text.to_owned(),
        reason: reason.to_owned(),
    };
    let mut url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(EndpointError::UrlWithPassword { endpoint: endpoint.to_owned() });
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("it should start with http:// or https://"));
    }
    url.path_segments_mut().map_err(|()| wrong("it has no path"))?.pop_if_empty().extend(["chat", "completions"]);
    Ok(url)
}

#[cfg(test)]
mod tests;
