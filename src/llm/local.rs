//! A model of our own behind [`ChatModel`]: requests queue up and are answered as one batch.

use std::cell::RefCell;

use futures_util::future::{FutureExt, LocalBoxFuture};
use tokio::sync::oneshot;

use super::{ChatModel, ChatRequest, ModelError, Reply};
use crate::model::bundle::Bundle;
use crate::model::chat;
use crate::model::generate::{Counters, GenRequest, Generated, Generator, Stop};
use crate::model::sample::Draw;
use crate::model::tokenizer::{Tokenizer, TokenizerError};

/// Bytes of keys and values that a model remembers unless told otherwise.
pub const REMEMBERED: usize = 512 << 20;

/// A model of our own. Replies come when [`ChatModel::answer_waiting`] is called, all at once and in the order of the
/// requests, so that what a chat is batched with never depends on timing.
pub struct LocalModel {
    tokenizer: Tokenizer,
    generator: RefCell<Generator>,
    queue: RefCell<Vec<Waiting>>,
}

struct Waiting {
    request: GenRequest,
    stops: Vec<String>,
    reply: oneshot::Sender<Result<Reply, ModelError>>,
}

impl LocalModel {
    /// A model from a bundle that remembers at most `remembered` bytes of keys and values: [`REMEMBERED`] is a good number.
    pub fn new(bundle: &Bundle, remembered: usize) -> Self {
        Self {
            tokenizer: bundle.tokenizer.clone(),
            generator: RefCell::new(Generator::new(&bundle.decoder, remembered)),
            queue: RefCell::new(Vec::new()),
        }
    }

    /// What was computed so far.
    pub fn counters(&self) -> Counters {
        self.generator.borrow().counters()
    }

    fn queue(&self, request: ChatRequest) -> Result<oneshot::Receiver<Result<Reply, ModelError>>, ModelError> {
        let ids = chat::encode_prompt(&self.tokenizer, request.messages()).map_err(failed)?;
        let context = self.generator.borrow().context();
        if ids.len() >= context {
            return Err(ModelError::TooLong { tokens: ids.len(), context });
        }
        let sampling = request.sampling;
        let draw = Draw { temperature: sampling.temperature, top_k: sampling.top_k, top_p: sampling.top_p };
        let request = GenRequest { ids, max_new: sampling.max_tokens, draw, seed: request.seed };
        let (reply, receiver) = oneshot::channel();
        let stops = sampling.stop.into_iter().filter(|stop| !stop.is_empty()).collect();
        self.queue.borrow_mut().push(Waiting { request, stops, reply });
        Ok(receiver)
    }

    fn reply(&self, waiting: &Waiting, generated: Generated) -> Result<Reply, ModelError> {
        let mut text = self.tokenizer.decode(&generated.ids).map_err(failed)?;
        let stop = waiting.stops.iter().filter_map(|stop| text.find(stop.as_str())).min();
        if let Some(stop) = stop {
            text.truncate(stop);
        }
        Ok(Reply {
            text,
            tool_calls: Vec::new(),
            prompt_tokens: waiting.request.ids.len() as u64,
            completion_tokens: generated.ids.len() as u64,
            cut_off: generated.cut_off && stop.is_none(),
        })
    }
}

impl ChatModel for LocalModel {
    fn complete(&self, request: ChatRequest) -> LocalBoxFuture<'_, Result<Reply, ModelError>> {
        // Queued here, not at the first poll: the order of calls is the order of the batch.
        let queued = self.queue(request);
        async move {
            queued?.await.unwrap_or_else(|_| Err(ModelError::Failed("it went away before it answered".to_owned())))
        }
        .boxed_local()
    }

    fn answer_waiting(&self) -> usize {
        let queue = std::mem::take(&mut *self.queue.borrow_mut());
        // A dialogue that was given up needs no reply.
        let queue: Vec<Waiting> = queue.into_iter().filter(|waiting| !waiting.reply.is_closed()).collect();
        let requests: Vec<GenRequest> = queue.iter().map(|waiting| waiting.request.clone()).collect();
        let mut stop = ChatStop { tokenizer: &self.tokenizer, queue: &queue };
        let generated = self.generator.borrow_mut().generate(&requests, &mut stop);
        let replies: Vec<_> =
            queue.iter().zip(generated).map(|(waiting, generated)| self.reply(waiting, generated)).collect();
        let count = queue.len();
        for (waiting, reply) in queue.into_iter().zip(replies) {
            // The receiver may be gone by now: then nobody wants the reply.
            let _ = waiting.reply.send(reply);
        }
        count
    }
}

/// Ends a reply at a special token, or at one of the request's texts.
struct ChatStop<'a> {
    tokenizer: &'a Tokenizer,
    queue: &'a [Waiting],
}

impl Stop for ChatStop<'_> {
    fn is_over(&mut self, index: usize, ids: &mut Vec<u32>) -> bool {
        if ids.pop_if(|id| self.tokenizer.is_special(*id)).is_some() {
            return true;
        }
        let stops = &self.queue[index].stops;
        let Some(longest) = stops.iter().map(String::len).max() else { return false };
        // Every token has at least one byte, so that a text that has just been completed lies in the last few.
        let tail = &ids[ids.len().saturating_sub(longest + 2)..];
        self.tokenizer.decode(tail).is_ok_and(|text| stops.iter().any(|stop| text.contains(stop.as_str())))
    }
}

fn failed(error: TokenizerError) -> ModelError {
    ModelError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Message;
    use crate::llm::Sampling;
    use crate::model::bundle::tests::untrained;
    use futures_util::future::join_all;

    fn request(text: &str, seed: u64) -> ChatRequest {
        let sampling = Sampling { temperature: 1.0, top_k: None, top_p: 1.0, max_tokens: 12, stop: Vec::new() };
        ChatRequest { system: None, chat: [Message::user(text)].into_iter().collect(), tools: None, sampling, seed }
    }

    fn ask(model: &LocalModel, requests: Vec<ChatRequest>) -> Vec<Result<Reply, ModelError>> {
        let calls: Vec<_> = requests.into_iter().map(|request| model.complete(request)).collect();
        model.answer_waiting();
        join_all(calls).now_or_never().unwrap()
    }

    #[test]
    fn answers_all_that_wait_and_the_same_request_alike() {
        let model = LocalModel::new(&untrained(), REMEMBERED);
        let requests: Vec<_> = (0..5).map(|seed| request("italian food in the centre", seed)).collect();
        let together = ask(&model, requests.clone());
        for (request, reply) in requests.into_iter().zip(together) {
            let alone = ask(&model, vec![request]).remove(0).unwrap();
            assert_eq!(alone, reply.unwrap());
            assert!(alone.cut_off == (alone.completion_tokens == 12) && alone.prompt_tokens > 4);
        }
        assert_eq!(model.answer_waiting(), 0);
    }

    #[test]
    fn a_stop_text_ends_the_reply_and_is_no_part_of_it() {
        let model = LocalModel::new(&untrained(), REMEMBERED);
        let free = (0..).find_map(|seed| {
            let reply = ask(&model, vec![request("food", seed)]).remove(0).unwrap();
            (reply.text.chars().count() > 8 && !reply.text.contains('\u{fffd}')).then_some((seed, reply))
        });
        let (seed, free) = free.unwrap();
        let stop: String = free.text.chars().skip(4).take(2).collect();
        let mut stopped = request("food", seed);
        stopped.sampling.stop = vec![String::new(), stop.clone()];
        let reply = ask(&model, vec![stopped]).remove(0).unwrap();
        assert_eq!(reply.text, free.text[..free.text.find(&stop).unwrap()]);
        assert!(!reply.cut_off && reply.completion_tokens < free.completion_tokens);
    }

    #[test]
    fn a_chat_that_fills_the_context_is_too_long() {
        let model = LocalModel::new(&untrained(), REMEMBERED);
        let reply = ask(&model, vec![request(&"food ".repeat(80), 1)]).remove(0);
        assert!(matches!(reply, Err(ModelError::TooLong { tokens: 80.., context: 64 })), "{reply:?}");
    }

    #[test]
    fn a_model_that_goes_away_says_so() {
        let model = LocalModel::new(&untrained(), REMEMBERED);
        let abandoned = model.complete(request("food", 1));
        drop(abandoned);
        assert_eq!(model.answer_waiting(), 0);
    }
}
