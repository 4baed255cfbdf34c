//! A model that says what a list says: for tests, and for demos whose model is a recording.

use std::cell::RefCell;
use std::collections::VecDeque;

use futures_util::future::LocalBoxFuture;

use super::{ChatModel, ChatRequest, ModelError, Reply};
use crate::chat::ToolCall;

/// One reply of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Its text.
    pub text: String,
    /// The tools that it calls natively.
    pub calls: Vec<ToolCall>,
}

impl From<&str> for Line {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for Line {
    fn from(text: String) -> Self {
        Self { text, calls: Vec::new() }
    }
}

impl Line {
    /// A reply that calls tools: names and arguments. Their ids are all the same, as some servers have it.
    pub fn calling(text: &str, calls: &[(&str, &str)]) -> Self {
        let calls = calls.iter().map(|(name, arguments)| ToolCall::new("call", *name, *arguments));
        Self { text: text.to_owned(), calls: calls.collect() }
    }
}

/// Gives its replies in order, one a call, and fails when they are used up.
///
/// Calls are answered at once, so the order of replies is that in which the driver polls: with several dialogues at once give
/// each its own script.
#[derive(Debug)]
pub struct Scripted {
    replies: RefCell<VecDeque<Result<Line, ModelError>>>,
    requests: RefCell<Vec<ChatRequest>>,
}

impl Scripted {
    /// A model with these replies.
    pub fn new<T: Into<Line>>(replies: impl IntoIterator<Item = T>) -> Self {
        Self::with_errors(replies.into_iter().map(Ok))
    }

    /// A model some of whose calls fail.
    pub fn with_errors<T: Into<Line>>(replies: impl IntoIterator<Item = Result<T, ModelError>>) -> Self {
        let replies = replies.into_iter().map(|reply| reply.map(Into::into));
        Self { replies: RefCell::new(replies.collect()), requests: RefCell::default() }
    }

    /// What was asked so far.
    pub fn requests(&self) -> Vec<ChatRequest> {
        self.requests.borrow().clone()
    }

    /// How many replies are left.
    pub fn left(&self) -> usize {
        self.replies.borrow().len()
    }

    fn next(&self, request: ChatRequest) -> Result<Reply, ModelError> {
        let words = |text: &str| text.split_whitespace().count() as u64;
        let prompt_tokens = request.messages().iter().map(|message| words(&message.content)).sum();
        let place = self.requests.borrow().len();
        self.requests.borrow_mut().push(request);
        let next = self.replies.borrow_mut().pop_front();
        let ended = || Err(ModelError::Failed(format!("the script ends after {place} replies")));
        let Line { text, calls } = next.unwrap_or_else(ended)?;
        let written = calls.iter().map(|call| words(&call.function.arguments)).sum::<u64>();
        let completion_tokens = words(&text) + written;
        Ok(Reply { text, tool_calls: calls, prompt_tokens, completion_tokens, cut_off: false })
    }
}

impl ChatModel for Scripted {
    /// The next reply as it stands in the script: neither `stop` nor `max_tokens` cut it. Tokens are words here.
    fn complete(&self, request: ChatRequest) -> LocalBoxFuture<'_, Result<Reply, ModelError>> {
        Box::pin(async move { self.next(request) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::chat::Message;
    use crate::llm::Sampling;
    use crate::llm::drive::drive_here;

    #[test]
    fn replies_come_in_order_and_end() {
        let model = Scripted::with_errors([
            Ok("one word".to_owned()),
            Err(ModelError::TooLong { tokens: 9, context: 8 }),
            Ok("three".to_owned()),
        ]);
        let sampling = Sampling { max_tokens: 8, ..Sampling::default() };
        let jobs = (0..4).map(|seed| {
            let chat = [Message::user(format!("say {seed}"))].into_iter().collect();
            model.complete(ChatRequest { system: None, chat, tools: None, sampling: sampling.clone(), seed })
        });
        let mut said = Vec::new();
        drive_here(&[&model], 1, jobs, |_, reply| said.push(reply), &AtomicBool::new(false)).unwrap();
        let first = said[0].as_ref().unwrap();
        assert_eq!((first.text.as_str(), first.prompt_tokens, first.completion_tokens), ("one word", 2, 2));
        assert_eq!(said[1].as_ref().unwrap_err().to_string(), "the chat has 9 tokens, the model's context 8");
        assert_eq!(said[2].as_ref().unwrap().text, "three");
        assert_eq!(said[3].as_ref().unwrap_err().to_string(), "the model failed: the script ends after 3 replies");
        assert_eq!(model.requests()[2].messages()[0].content, "say 2");
        assert_eq!(model.left(), 0);
    }
}
