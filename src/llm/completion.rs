//! What a served model's call came to, as it is recorded and kept.

use serde::{Deserialize, Serialize};

use super::{ModelError, Reply};

/// An answer with what only the recording keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// The reply; empty where there is none.
    pub reply: Reply,
    /// The sum of the log-probabilities of its tokens, where they were asked for and the server gives them.
    pub logprob: Option<f64>,
    /// In the server's words that the request does not fit the model's context, where that is so. In a recording it is an answer
    /// like others, so that a replay ends where the run did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<String>,
}

impl Completion {
    /// The answer to a request that does not fit.
    pub fn full(reason: String) -> Self {
        let reply = Reply {
            text: String::new(),
            tool_calls: Vec::new(),
            prompt_tokens: 0,
            completion_tokens: 0,
            cut_off: false,
        };
        Self { reply, logprob: None, full: Some(reason) }
    }

    /// The reply of the endpoint that is so called.
    ///
    /// # Errors
    /// [`ModelError::ContextFull`] where the request does not fit.
    pub fn reply(self, endpoint: &str) -> Result<Reply, ModelError> {
        match self.full {
            None => Ok(self.reply),
            Some(reason) => Err(ModelError::ContextFull { endpoint: endpoint.to_owned(), reason }),
        }
    }
}
