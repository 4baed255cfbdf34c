//! A model behind an OpenAI-compatible address: `POST {url}/chat/completions`.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, SystemTime};

use futures_util::future::LocalBoxFuture;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::sync::Semaphore;

use super::wire;
use super::{ChatModel, ChatRequest, ModelError, Reply};
use crate::net::{self, Backoff};

/// The first wait before a call is tried again, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The largest body that is read; a reply of 100,000 tokens stays well below.
const LARGEST_BODY: usize = 8 << 20;

/// How much of a body that makes no sense is shown, in characters.
const SHOWN: usize = 200;

/// How a served model is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpSettings {
    /// The base address, up to and with `/v1`.
    pub url: String,
    /// The model's name at that address.
    pub model: String,
    /// The environment variable that holds the key, where one is needed.
    pub key_env: Option<String>,
    /// The most calls in flight at once; further ones wait in the order in which they were made.
    pub in_flight: usize,
    /// How long one attempt may take from connecting to the last byte.
    pub timeout: Duration,
    /// How often a call is tried again after 429, 5xx and broken connections.
    pub retries: u32,
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
    /// No call could ever start.
    #[error("endpoint `{endpoint}`: `in_flight` must be at least 1")]
    NoSlots { endpoint: String },
    /// The client could not be set up, for example for want of certificates.
    #[error("endpoint `{endpoint}`: {reason}")]
    Client { endpoint: String, reason: String },
}

/// What a model's calls have cost so far, in the server's own numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Calls that were answered.
    pub replies: u64,
    /// Calls that failed in the end.
    pub failures: u64,
    /// Attempts beyond the first of each call.
    pub retries: u64,
    /// Tokens of all requests.
    pub prompt_tokens: u64,
    /// Tokens of all replies.
    pub completion_tokens: u64,
    /// Replies that came without token counts: the sums above lack them.
    pub uncounted: u64,
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
    slots: Semaphore,
    retries: u32,
    waits: (Duration, Duration),
    client: Client,
    usage: Cell<Usage>,
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

/// An attempt that failed.
struct Failure {
    error: ModelError,
    /// Whether another attempt may fare better.
    passing: bool,
    /// How long the server asks to wait.
    wait: Option<Duration>,
}

impl HttpModel {
    /// A model at an endpoint, which errors call by `name`. The key is read from the environment here, once.
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
        if settings.in_flight == 0 {
            return Err(EndpointError::NoSlots { endpoint });
        }
        let key = key.map(|(variable, value)| Key::new(name, variable, value)).transpose()?;
        let client = net::client(&url)
            .timeout(settings.timeout)
            .build()
            .map_err(|error| EndpointError::Client { endpoint: endpoint.clone(), reason: net::reason(error) })?;
        Ok(Self {
            name: endpoint,
            url,
            model: settings.model.clone(),
            key,
            slots: Semaphore::new(settings.in_flight.min(Semaphore::MAX_PERMITS)),
            retries: settings.retries,
            waits: WAITS,
            client,
            usage: Cell::default(),
        })
    }

    /// What the calls so far have cost.
    pub fn usage(&self) -> Usage {
        self.usage.get()
    }

    fn count(&self, change: impl FnOnce(&mut Usage)) {
        let mut usage = self.usage.get();
        change(&mut usage);
        self.usage.set(usage);
    }

    async fn call(&self, request: ChatRequest) -> Result<Reply, ModelError> {
        let body = wire::request(&self.model, &request);
        let mut backoff = Backoff::new(self.waits.0, self.waits.1, request.seed);
        // Held over the waits too: a server that asks for time gets it.
        let _slot = self.slots.acquire().await.map_err(|error| ModelError::Failed(error.to_string()))?;
        let mut retries = 0;
        loop {
            match self.attempt(body.clone()).await {
                Ok(reply) => return Ok(reply),
                Err(failure) if failure.passing && retries < self.retries => {
                    retries += 1;
                    self.count(|usage| usage.retries += 1);
                    tokio::time::sleep(backoff.next(failure.wait)).await;
                }
                Err(failure) => {
                    self.count(|usage| usage.failures += 1);
                    return Err(failure.error);
                }
            }
        }
    }

    async fn attempt(&self, body: Vec<u8>) -> Result<Reply, Failure> {
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
        if !wire::is_json(&content_type) {
            let shown = self.shown(&String::from_utf8_lossy(&body));
            return Err(self.malformed(format!("content type `{content_type}`, body `{shown}`")));
        }
        let answer = wire::answer(&body).map_err(|reason| self.malformed(self.shown(&reason)))?;
        self.count(|usage| {
            usage.replies += 1;
            usage.uncounted += u64::from(answer.tokens.is_none());
            usage.prompt_tokens += answer.tokens.unwrap_or_default().0;
            usage.completion_tokens += answer.tokens.unwrap_or_default().1;
        });
        let (prompt_tokens, completion_tokens) = answer.tokens.unwrap_or_default();
        let text = if self.key.as_ref().is_some_and(Key::is_long) { self.redacted(&answer.text) } else { answer.text };
        Ok(Reply { text, tool_calls: answer.tool_calls, prompt_tokens, completion_tokens, cut_off: answer.cut_off })
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
        let body = self.shown(&text.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned()));
        let passing = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
        let error = ModelError::Status { endpoint: self.name.clone(), status: status.as_u16(), body };
        Failure { error, passing, wait }
    }

    /// A connection that did not come about, broke, or took too long. Only the last is not tried again: it would take as long.
    fn broken(&self, error: reqwest::Error) -> Failure {
        let passing = !error.is_timeout() || error.is_connect();
        let reason = self.redacted(&net::reason(error));
        Failure { error: ModelError::Unreachable { endpoint: self.name.clone(), reason }, passing, wait: None }
    }

    fn malformed(&self, reason: String) -> Failure {
        let error = ModelError::Malformed { endpoint: self.name.clone(), reason };
        Failure { error, passing: false, wait: None }
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
        Box::pin(self.call(request))
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
