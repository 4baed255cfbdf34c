//! A model of our own behind [`ChatModel`]: requests queue up and are answered together.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::{FutureExt, LocalBoxFuture};
use tokio::sync::oneshot;

use super::{ChatModel, ChatRequest, ModelError, Reply, drawn_seed};
use crate::chat::ToolCall;
use crate::model::bundle::Bundle;
use crate::model::chat;
use crate::model::executor::{self, ExecutorError};
use crate::model::grammar::calls::CallFormat;
use crate::model::grammar::vocabulary::Constraint;
use crate::model::reply::ReplyWriter;
use crate::model::sample::{Draw, Drawn};
use crate::model::scheduler::{Counters, Request, Scheduler, Sink, Ticket};
use crate::model::tokenizer::{Tokenizer, TokenizerError};

/// Bytes of keys and values that a model remembers unless told otherwise.
pub const REMEMBERED: usize = 512 << 20;

/// A model of our own. Replies come when [`ChatModel::answer_waiting`] is called, in an order that depends on the requests
/// alone, so that what a chat is batched with never depends on timing.
pub struct LocalModel {
    tokenizer: Tokenizer,
    scheduler: RefCell<Scheduler>,
    waiting: RefCell<BTreeMap<Ticket, Waiting>>,
    constraints: RefCell<Vec<(Arc<CallFormat>, Arc<Constraint>)>>,
}

struct Waiting {
    prompt: usize,
    writer: ReplyWriter,
    calls: Option<Arc<CallFormat>>,
    reply: oneshot::Sender<Result<Reply, ModelError>>,
}

impl LocalModel {
    /// A model from a bundle that remembers about `remembered` bytes of keys and values: [`REMEMBERED`] is a good number.
    ///
    /// # Errors
    /// When its weights cannot be read from their device.
    pub fn new(bundle: &Bundle, remembered: usize) -> Result<Self, ExecutorError> {
        Ok(Self {
            tokenizer: bundle.tokenizer.clone(),
            scheduler: RefCell::new(Scheduler::new(executor::of(&bundle.decoder, remembered)?)),
            waiting: RefCell::default(),
            constraints: RefCell::default(),
        })
    }

    /// What was computed so far.
    pub fn counters(&self) -> Counters {
        self.scheduler.borrow().counters()
    }

    fn queue(&self, request: ChatRequest) -> Result<oneshot::Receiver<Result<Reply, ModelError>>, ModelError> {
        let native = request.tools.is_some();
        let tools = request.tools.as_deref().unwrap_or_default();
        let ids = chat::encode_prompt(&self.tokenizer, &request.messages(), tools).map_err(failed)?;
        let mut scheduler = self.scheduler.borrow_mut();
        let context = scheduler.layout().context;
        if ids.len() >= context {
            return Err(ModelError::TooLong { tokens: ids.len(), context });
        }
        let sampling = request.sampling;
        let draw = Draw {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
        };
        let constraint = sampling.calls.as_ref().map(|calls| self.constraint(calls)).transpose()?;
        let guide = constraint.map(|constraint| constraint.guide());
        let (prompt, max_new, seed) = (ids.len(), sampling.max_tokens, drawn_seed(request.seed));
        let ticket = scheduler.submit(Request { ids, max_new, draw, seed, logprobs: false, guide });
        let (reply, receiver) = oneshot::channel();
        let writer = ReplyWriter::new(&self.tokenizer, sampling.stop, native);
        self.waiting.borrow_mut().insert(ticket, Waiting { prompt, writer, calls: sampling.calls, reply });
        Ok(receiver)
    }

    /// The constraint of a call format, made once.
    fn constraint(&self, format: &Arc<CallFormat>) -> Result<Arc<Constraint>, ModelError> {
        let mut made = self.constraints.borrow_mut();
        let known = made.iter().find(|(known, _)| Arc::ptr_eq(known, format) || known == format);
        if let Some((_, constraint)) = known {
            return Ok(constraint.clone());
        }
        let constraint = Constraint::new(format, &self.tokenizer);
        let constraint = Arc::new(constraint.map_err(|error| ModelError::Failed(error.to_string()))?);
        made.push((format.clone(), constraint.clone()));
        Ok(constraint)
    }

    /// Gives up what nobody waits for any more: a dialogue may have been dropped.
    fn give_up(&self) {
        self.waiting.borrow_mut().retain(|ticket, waiting| {
            let wanted = !waiting.reply.is_closed();
            if !wanted {
                self.scheduler.borrow_mut().cancel(*ticket);
            }
            wanted
        });
    }
}

impl ChatModel for LocalModel {
    fn complete(&self, request: ChatRequest) -> LocalBoxFuture<'_, Result<Reply, ModelError>> {
        // Queued here, not at the first poll: the order of calls is the order of the requests.
        let queued = self.queue(request);
        async move {
            queued?.await.unwrap_or_else(|_| Err(ModelError::Failed("it went away before it answered".to_owned())))
        }
        .boxed_local()
    }

    /// Computes until some request is answered. The dialogues that can go on then may ask again at once, and take the places
    /// that have become free.
    fn answer_waiting(&self) -> usize {
        self.give_up();
        let mut waiting = self.waiting.borrow_mut();
        let mut scheduler = self.scheduler.borrow_mut();
        let mut replies = Replies { waiting: &mut waiting, ended: 0 };
        while replies.ended == 0 && !scheduler.is_idle() {
            if let Err(error) = scheduler.step(&mut replies) {
                let all = std::mem::take(replies.waiting);
                replies.ended = all.len();
                for waiting in all.into_values() {
                    let _ = waiting.reply.send(Err(ModelError::Failed(error.to_string())));
                }
            }
        }
        replies.ended
    }
}

/// Ends replies at a token that ends one, or at one of the request's texts, and sends them.
struct Replies<'a> {
    waiting: &'a mut BTreeMap<Ticket, Waiting>,
    ended: usize,
}

impl Sink for Replies<'_> {
    fn token(&mut self, ticket: Ticket, drawn: Drawn) -> bool {
        let Some(waiting) = self.waiting.get_mut(&ticket) else { return true };
        // What cannot be decoded says so at the end.
        waiting.writer.push(drawn.id).map_or(true, |(_, over)| over)
    }

    fn end(&mut self, ticket: Ticket, cut_off: bool) {
        let Some(Waiting { prompt, writer, calls, reply }) = self.waiting.remove(&ticket) else { return };
        self.ended += 1;
        let completion = writer.tokens() as u64;
        let answer = writer.finish().map_err(failed).map(|(text, tool_calls)| match calls {
            Some(format) if cut_off => (format.finished(&text).to_owned(), finished(tool_calls)),
            _ => (text, tool_calls),
        });
        let answer = answer.map(|(text, tool_calls)| Reply {
            text,
            tool_calls,
            prompt_tokens: prompt as u64,
            completion_tokens: completion,
            cut_off,
        });
        // The receiver may be gone by now: then nobody wants the reply.
        let _ = reply.send(answer);
    }
}

/// What counts of a constrained reply's calls that was cut off: one that was not finished names nothing that could be called.
fn finished(calls: Vec<ToolCall>) -> Vec<ToolCall> {
    calls.into_iter().filter(|call| !call.function.name.is_empty()).collect()
}

fn failed(error: TokenizerError) -> ModelError {
    ModelError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Message;
    use crate::dialogue::command::{Command, parse};
    use crate::dialogue::tools::{TOOLS, parameter_names, tool};
    use crate::llm::Sampling;
    use crate::model::bundle::tests::untrained;
    use crate::model::grammar::calls::CallForm;
    use crate::model::{Decoder, ModelConfig};
    use futures_util::future::join_all;

    fn request(text: &str, seed: u64) -> ChatRequest {
        let sampling = Sampling { temperature: 1.0, max_tokens: 12, ..Sampling::default() };
        ChatRequest { system: None, chat: [Message::user(text)].into_iter().collect(), tools: None, sampling, seed }
    }

    fn ask(model: &LocalModel, requests: Vec<ChatRequest>) -> Vec<Result<Reply, ModelError>> {
        let calls: Vec<_> = requests.into_iter().map(|request| model.complete(request)).collect();
        while model.answer_waiting() > 0 {}
        join_all(calls).now_or_never().unwrap()
    }

    /// A bundle with room for long replies.
    fn roomy() -> Bundle {
        let bundle = untrained();
        let config = ModelConfig { max_position_embeddings: 300, ..bundle.decoder.config().clone() };
        Bundle { decoder: Decoder::init(&config, 3, &burn::tensor::Device::flex()).unwrap(), ..bundle }
    }

    #[test]
    fn answers_all_that_wait_and_the_same_request_alike() {
        let model = LocalModel::new(&untrained(), REMEMBERED).unwrap();
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
        let model = LocalModel::new(&untrained(), REMEMBERED).unwrap();
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
        let model = LocalModel::new(&untrained(), REMEMBERED).unwrap();
        let reply = ask(&model, vec![request(&"food ".repeat(80), 1)]).remove(0);
        assert!(matches!(reply, Err(ModelError::TooLong { tokens: 80.., context: 64 })), "{reply:?}");
    }

    #[test]
    fn a_model_that_goes_away_says_so() {
        let model = LocalModel::new(&untrained(), REMEMBERED).unwrap();
        let abandoned = model.complete(request("food", 1));
        drop(abandoned);
        assert_eq!(model.answer_waiting(), 0);
    }

    #[test]
    fn a_native_call_that_was_cut_off_is_none() {
        let tools: Arc<[serde_json::Value]> = TOOLS.iter().map(|tool| tool.schema()).collect();
        let format = CallFormat { form: CallForm::Hermes, tools: tools.clone() };
        let whole = r#"<tool_call>{"name": "search_hotel", "arguments": {}}</tool_call>"#;
        let tokenizer = untrained().tokenizer;
        let end = |text: &str, calls: Option<CallFormat>| {
            let mut writer = ReplyWriter::new(&tokenizer, Vec::new(), true);
            for id in tokenizer.encode_marked(text).unwrap() {
                writer.push(id).unwrap();
            }
            let (reply, mut receiver) = oneshot::channel();
            let mut waiting = [(0, Waiting { prompt: 1, writer, calls: calls.map(Arc::new), reply })].into();
            Replies { waiting: &mut waiting, ended: 0 }.end(0, true);
            let reply = receiver.try_recv().unwrap().unwrap();
            reply.tool_calls.into_iter().map(|call| call.function.name).collect::<Vec<_>>()
        };
        let broken = format!("{whole}<tool_call>{{\"na");
        assert_eq!(end(&broken, Some(format)), ["search_hotel"]);
        // A model that is free has made a mistake, and hears of it.
        assert_eq!(end(&broken, None), ["search_hotel", ""]);
    }

    #[test]
    fn a_constrained_model_that_knows_nothing_makes_only_calls_that_there_are() {
        let tools: Arc<[serde_json::Value]> = TOOLS.iter().map(|tool| tool.schema()).collect();
        let calls = Some(Arc::new(CallFormat { form: CallForm::Commands, tools }));
        let model = LocalModel::new(&roomy(), REMEMBERED).unwrap();
        let constrained = |seed| {
            let sampling = Sampling { temperature: 1.0, max_tokens: 200, calls: calls.clone(), ..Sampling::default() };
            ChatRequest { sampling, ..request("food", seed) }
        };
        let mut made = 0;
        for reply in ask(&model, (0..40).map(constrained).collect()) {
            let text = reply.unwrap().text;
            for command in parse(&text) {
                let Command::Call { api, arguments } = command else {
                    assert!(!matches!(command, Command::Malformed(_)), "{text}");
                    continue;
                };
                made += 1;
                let known: Vec<&str> = parameter_names(&api).collect();
                assert!(tool(&api).is_some(), "{text}");
                let arguments = arguments.as_object().unwrap();
                assert!(
                    arguments.iter().all(|(name, value)| known.contains(&name.as_str()) && value.is_string()),
                    "{text}"
                );
            }
        }
        assert!(made > 3, "{made}");
    }
}
