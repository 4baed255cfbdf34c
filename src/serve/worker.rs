//! The thread that computes: requests come in at any time and join those that run.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde_json::{Value, json};
use tokio::sync::mpsc as events;

use super::answer::{Token, Wrong};
use crate::chat::ToolCall;
use crate::model::Bundle;
use crate::model::executor::{self, ExecutorError};
use crate::model::reply::ReplyWriter;
use crate::model::sample::{Draw, Drawn};
use crate::model::scheduler::{Counters, Request, Scheduler, Sink, Ticket};
use crate::model::tokenizer::Tokenizer;

/// New tokens of a chat that does not say how many it wants: what a reply may take is kept free for it.
pub const MAX_TOKENS: usize = 1024;

/// The most replies that run or wait.
const QUEUE: usize = 4096;

/// Why a model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Its device does not take it.
    #[error(transparent)]
    Device(#[from] ExecutorError),
    /// The system grants no thread.
    #[error("no thread for the model: {0}")]
    Thread(std::io::Error),
}

/// A model on a thread of its own.
pub struct Worker {
    name: String,
    tokenizer: Tokenizer,
    context: usize,
    vocab: usize,
    jobs: Sender<Job>,
    numbers: AtomicU64,
    seeds: RandomState,
    status: Arc<Mutex<Status>>,
    max_tokens: usize,
    queue: Arc<Queue>,
    gone: Arc<AtomicBool>,
}

/// How many replies run or wait.
#[derive(Debug, Default)]
struct Queue(AtomicUsize);

/// A place in the queue, free again when the reply is done or given up.
#[derive(Debug)]
struct Place(Arc<Queue>);

impl Queue {
    /// So many places; none where there are not enough.
    fn take(self: &Arc<Self>, count: usize) -> Option<Vec<Place>> {
        let more = |taken: usize| taken.checked_add(count).filter(|taken| *taken <= QUEUE);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some((0..count).map(|_| Place(self.clone())).collect())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells that the thread has ended, also where it panicked.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How the thread is.
#[derive(Clone, Copy, Debug, Default)]
struct Status {
    running: usize,
    counters: Counters,
}

/// What a client asked for.
pub(super) struct Asked {
    pub(super) prompts: Vec<Vec<u32>>,
    pub(super) choices: usize,
    pub(super) max_new: usize,
    pub(super) draw: Draw,
    pub(super) seed: Option<u64>,
    pub(super) logprobs: bool,
    pub(super) stops: Vec<String>,
    pub(super) native: bool,
    pub(super) stream: bool,
    pub(super) stream_usage: bool,
}

/// One choice to be computed.
struct Job {
    request: Request,
    reply: Reply,
}

struct Reply {
    index: usize,
    first: bool,
    prompt: usize,
    writer: ReplyWriter,
    /// Text and tokens are told piece by piece; calls only as a whole, as their beginning looks like text.
    stream: bool,
    tokens: Vec<Token>,
    logprobs: bool,
    events: events::UnboundedSender<Result<Event, Wrong>>,
    _place: Place,
}

/// What happens to a choice.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// Some text came, of these tokens.
    Piece { index: usize, text: String, tokens: Vec<Token>, logprobs: bool },
    /// It has ended.
    End(Choice),
}

/// A choice that has ended.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) index: usize,
    /// Whether it is the first one of its prompt.
    pub(super) first: bool,
    pub(super) text: String,
    /// What of the text no piece has told.
    pub(super) rest: String,
    pub(super) tool_calls: Vec<ToolCall>,
    pub(super) tokens: Vec<Token>,
    pub(super) logprobs: bool,
    pub(super) cut_off: bool,
    pub(super) prompt_tokens: usize,
    pub(super) completion_tokens: usize,
}

/// What happens to the choices of one request.
pub(super) struct Events {
    receiver: events::UnboundedReceiver<Result<Event, Wrong>>,
    left: usize,
}

impl Events {
    /// The next event; `None` when all choices have ended.
    pub(super) async fn next(&mut self) -> Option<Result<Event, Wrong>> {
        if self.left == 0 {
            return None;
        }
        let event = self.receiver.recv().await.unwrap_or_else(|| Err(Wrong::gone()));
        if matches!(event, Ok(Event::End(_))) {
            self.left -= 1;
        }
        Some(event)
    }

    /// All choices, when they have ended, in their order.
    pub(super) async fn all(mut self) -> Result<Vec<Choice>, Wrong> {
        let mut choices = Vec::new();
        while let Some(event) = self.next().await {
            if let Event::End(choice) = event? {
                choices.push(choice);
            }
        }
        choices.sort_by_key(|choice| choice.index);
        Ok(choices)
    }
}

impl Worker {
    /// Puts a model to work under a name, with about so many bytes of keys and values, on so many requests at once at most.
    ///
    /// # Errors
    /// When its device does not take it, or there is no thread.
    pub fn start(bundle: &Bundle, name: &str, bytes: usize, most: usize) -> Result<Self, ServeError> {
        let scheduler = Scheduler::new(executor::of(&bundle.decoder, bytes)?).at_most(most);
        let layout = scheduler.layout();
        let (jobs, queue) = mpsc::channel();
        let status = Arc::new(Mutex::new(Status::default()));
        let (tokenizer, told) = (bundle.tokenizer.clone(), status.clone());
        let gone = Arc::new(AtomicBool::new(false));
        let guard = Gone(gone.clone());
        let work = move || {
            let _guard = guard;
            work(scheduler, &queue, &tokenizer, &told);
        };
        thread::Builder::new().name("model".to_owned()).spawn(work).map_err(ServeError::Thread)?;
        Ok(Self {
            name: name.to_owned(),
            tokenizer: bundle.tokenizer.clone(),
            context: layout.context,
            vocab: layout.vocab,
            jobs,
            numbers: AtomicU64::new(0),
            seeds: RandomState::new(),
            status,
            max_tokens: MAX_TOKENS,
            queue: Arc::default(),
            gone,
        })
    }

    /// Gives chats that do not say how many tokens they want so many at most, instead of [`MAX_TOKENS`].
    #[must_use]
    pub fn with_max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = tokens;
        self
    }

    pub(super) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub(super) fn context(&self) -> usize {
        self.context
    }

    pub(super) fn vocab(&self) -> usize {
        self.vocab
    }

    /// The number of the next request.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// How the server is, and what it has computed.
    pub(super) fn health(&self) -> Result<Value, Wrong> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(Wrong::gone());
        }
        let Status { running, counters } = *self.status.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(json!({
            "status": "ok",
            "model": self.name,
            "running": running,
            "prompt_tokens": counters.prompt,
            "reused_tokens": counters.reused,
            "generated_tokens": counters.generated,
            "steps": counters.steps,
        }))
    }

    /// Queues all choices of a request. Where it names no seed, one is drawn; the first choice has the seed itself.
    pub(super) fn submit(&self, asked: Asked) -> Result<Events, Wrong> {
        let seed = asked.seed.unwrap_or_else(|| self.seeds.hash_one(self.number()));
        let (sender, receiver) = events::unbounded_channel();
        let left = asked.prompts.len() * asked.choices;
        let mut places = self.queue.take(left).ok_or_else(Wrong::busy)?.into_iter();
        for (place, ids) in asked.prompts.iter().enumerate() {
            for (choice, queued) in (0..asked.choices).zip(&mut places) {
                let reply = Reply {
                    index: place * asked.choices + choice,
                    first: choice == 0,
                    prompt: ids.len(),
                    writer: ReplyWriter::new(&self.tokenizer, asked.stops.iter().cloned(), asked.native),
                    stream: asked.stream && !asked.native,
                    tokens: Vec::new(),
                    logprobs: asked.logprobs,
                    events: sender.clone(),
                    _place: queued,
                };
                let request = Request {
                    ids: ids.clone(),
                    max_new: asked.max_new,
                    draw: asked.draw,
                    seed: seed.wrapping_add(choice as u64),
                    logprobs: asked.logprobs,
                    guide: None,
                };
                let sent = self.jobs.send(Job { request, reply });
                sent.map_err(|_| Wrong::gone())?;
            }
        }
        Ok(Events { receiver, left })
    }
}

/// Computes until nobody can ask any more.
fn work(mut scheduler: Scheduler, queue: &Receiver<Job>, tokenizer: &Tokenizer, status: &Mutex<Status>) {
    let mut replies = Replies { tokenizer, waiting: BTreeMap::new() };
    loop {
        loop {
            let job = if scheduler.is_idle() {
                queue.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                queue.try_recv()
            };
            match job {
                Ok(Job { request, reply }) => drop(replies.waiting.insert(scheduler.submit(request), reply)),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) if scheduler.is_idle() => return,
                Err(TryRecvError::Disconnected) => break,
            }
        }
        // Clients that hung up want nothing any more.
        replies.waiting.retain(|ticket, reply| {
            let wanted = !reply.events.is_closed();
            if !wanted {
                scheduler.cancel(*ticket);
            }
            wanted
        });
        if let Err(error) = scheduler.step(&mut replies) {
            for reply in std::mem::take(&mut replies.waiting).into_values() {
                let _ = reply.events.send(Err(Wrong::failed(error.to_string())));
            }
        }
        *status.lock().unwrap_or_else(PoisonError::into_inner) =
            Status { running: replies.waiting.len(), counters: scheduler.counters() };
    }
}

struct Replies<'a> {
    tokenizer: &'a Tokenizer,
    waiting: BTreeMap<Ticket, Reply>,
}

impl Sink for Replies<'_> {
    fn token(&mut self, ticket: Ticket, drawn: Drawn) -> bool {
        let Some(reply) = self.waiting.get_mut(&ticket) else { return true };
        let Ok((text, over)) = reply.writer.push(drawn.id) else { return true };
        if let Some(logprob) = drawn.logprob.filter(|_| !self.tokenizer.is_end(drawn.id)) {
            let alone = || self.tokenizer.decode(&[drawn.id]).unwrap_or_default().into_bytes();
            let bytes = self.tokenizer.bytes(drawn.id).unwrap_or_else(alone);
            reply.tokens.push(Token { bytes, logprob });
        }
        if reply.stream && !text.is_empty() {
            let tokens = std::mem::take(&mut reply.tokens);
            // A client that hung up is noticed before the next step.
            let _ = reply.events.send(Ok(Event::Piece { index: reply.index, text, tokens, logprobs: reply.logprobs }));
        }
        over
    }

    fn end(&mut self, ticket: Ticket, cut_off: bool) {
        let Some(mut reply) = self.waiting.remove(&ticket) else { return };
        let (completion_tokens, native) = (reply.writer.tokens(), !reply.stream);
        let ended = reply.writer.rest().and_then(|rest| Ok((rest, reply.writer.finish()?)));
        let event = ended.map_err(|error| Wrong::failed(error.to_string())).map(|(rest, (text, tool_calls))| {
            Event::End(Choice {
                index: reply.index,
                first: reply.first,
                rest: if native { text.clone() } else { rest },
                text,
                tool_calls,
                tokens: reply.tokens,
                logprobs: reply.logprobs,
                cut_off,
                prompt_tokens: reply.prompt,
                completion_tokens,
            })
        });
        let _ = reply.events.send(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_has_an_end() {
        let queue = Arc::new(Queue::default());
        let most = queue.take(QUEUE).unwrap();
        assert!(queue.take(1).is_none() && queue.take(usize::MAX).is_none());
        drop(most);
        assert_eq!(queue.take(3).unwrap().len(), 3);
        assert_eq!(queue.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_model_that_is_gone_is_not_well() {
        let worker = Worker::start(&crate::model::bundle::tests::untrained(), "ours", 1 << 20, 4).unwrap();
        assert_eq!(worker.health().unwrap()["status"], "ok");
        let gone = Gone(worker.gone.clone());
        assert!(std::thread::spawn(move || drop(gone)).join().is_ok());
        assert_eq!(worker.health().unwrap_err().status, hyper::StatusCode::SERVICE_UNAVAILABLE);
    }
}
