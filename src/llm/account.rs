//! What the calls to a served model came to in one run.

/// What a model's calls have cost so far, in the server's own numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Account {
    /// Calls that were answered.
    pub replies: u64,
    /// Calls that failed in the end.
    pub failures: u64,
    /// Attempts beyond the first of each call.
    pub retries: u64,
    /// Tokens of all requests.
    pub prompt_tokens: u64,
    /// Those of them that the server had in its cache.
    pub cached_tokens: u64,
    /// Tokens of all replies.
    pub completion_tokens: u64,
    /// Replies that came without token counts: the sums above lack them.
    pub uncounted: u64,
    /// What it costs by the profile's prices; 0 where there are none.
    pub cost: f64,
    /// Seconds of all answered calls, each from sending to the last byte.
    pub seconds: f64,
    /// The longest of them.
    pub slowest: f64,
}

impl Account {
    /// The figures of a run, by their names.
    pub fn figures(&self) -> Vec<(&'static str, f64)> {
        let mut figures = vec![
            ("replies", self.replies as f64),
            ("failures", self.failures as f64),
            ("retries", self.retries as f64),
            ("prompt_tokens", self.prompt_tokens as f64),
            ("completion_tokens", self.completion_tokens as f64),
        ];
        if self.cached_tokens > 0 {
            figures.push(("cached_tokens", self.cached_tokens as f64));
        }
        if self.replies > 0 {
            figures.push(("mean_seconds", self.seconds / self.replies as f64));
            figures.push(("slowest_seconds", self.slowest));
        }
        figures
    }
}
