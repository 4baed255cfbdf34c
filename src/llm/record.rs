//! Recordings of model calls: every call of a dialogue as a row, small enough to keep and enough to put each request together.
//!
//! Whose call it is comes from where it is made: [`dialogue`] surrounds all that one dialogue does, [`turn`] what one branch of
//! it does by itself. The order of calls within a dialogue is then that of turns, never that in which a server answered.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::completion::Completion;
use super::{ChatRequest, Reply};
use crate::chat::{Message, ToolCall};
use crate::table::Row;

/// One call of a served model, and what was answered.
///
/// A request repeats most of an earlier one, so a row holds only what is new: its messages are the first `keep` of the call
/// `after`, then `messages`; where `after` is there, system message and tools are those of that call, too.
/// [`requests`] puts all of them together again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CallRow {
    /// The dialogue.
    pub dialogue: String,
    /// The call's number within its dialogue, from 0 without gaps.
    pub call: u32,
    /// The turn in which it was made: agents and users take turns, and in a tree each branch takes its own.
    pub turn: u32,
    /// Which call of its turn it is, from 0.
    pub step: u32,
    /// The model, by the name that the pipeline has for it.
    pub model: String,
    /// The digest of model and request: equal requests have equal keys.
    pub key: String,
    /// An earlier call with the same model, system message and tools.
    pub after: Option<u32>,
    /// How many of that call's messages come first.
    pub keep: u32,
    /// The system message, where there is no `after` and the request has one.
    pub system: Option<String>,
    /// The tools' definitions as JSON, where there is no `after` and the request has some.
    pub tools: Option<String>,
    /// The messages that follow those of `after`.
    pub messages: Vec<Message>,
    /// How the reply was to be drawn.
    pub temperature: f32,
    /// Only the k likeliest tokens.
    pub top_k: Option<u64>,
    /// Only the likeliest tokens whose probabilities reach this sum.
    pub top_p: f32,
    /// Only tokens at least this share as likely as the likeliest one.
    pub min_p: f32,
    /// What made tokens that were said before less likely.
    pub repetition_penalty: f32,
    /// The most tokens that the reply might have.
    pub max_tokens: u64,
    /// Texts that were to end it.
    pub stop: Vec<String>,
    /// The seed.
    pub seed: u64,
    /// What was answered.
    pub text: String,
    /// The tools that the reply calls natively.
    pub tool_calls: Vec<ToolCall>,
    /// Tokens of the request as the server counted them; 0 where it did not.
    pub prompt_tokens: u64,
    /// Tokens of the reply.
    pub completion_tokens: u64,
    /// Whether the limit on tokens ended the reply.
    pub cut_off: bool,
    /// The sum of the log-probabilities of the reply's tokens, where it was asked for and given.
    pub logprob: Option<f64>,
    /// Where the request did not fit the model's context: the server's words. Then nothing was answered.
    pub full: Option<String>,
}

impl Row for CallRow {
    const TYPE: &'static str = "llm.call/v2";
}

impl CallRow {
    /// Where in its dialogue the call was made.
    pub fn place(&self) -> Place {
        Place { turn: self.turn, step: self.step }
    }

    /// What was answered.
    pub fn completion(self) -> Completion {
        let reply = Reply {
            text: self.text,
            tool_calls: self.tool_calls,
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            cut_off: self.cut_off,
        };
        Completion { reply, logprob: self.logprob, full: self.full }
    }
}

/// Where in its dialogue a call was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The turn, in the order in which turns begin.
    pub turn: u32,
    /// The call within the turn.
    pub step: u32,
}

tokio::task_local! {
    static DIALOGUE: Rc<Dialogue>;
    static TURN: Turn;
}

/// A dialogue that is being played.
#[derive(Debug)]
pub(super) struct Dialogue {
    pub(super) name: String,
    turns: Cell<u32>,
    made: RefCell<Vec<Made>>,
}

#[derive(Debug)]
struct Turn {
    number: u32,
    steps: Cell<u32>,
}

/// A call that was answered.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) place: Place,
    pub(super) model: Rc<str>,
    pub(super) key: String,
    pub(super) request: ChatRequest,
    pub(super) completion: Completion,
}

/// Plays a dialogue, and gives the calls of recorded models that were answered in it, in the order of their places.
pub async fn dialogue<F: Future>(name: &str, play: F) -> (F::Output, Vec<CallRow>) {
    let dialogue = Rc::new(Dialogue { name: name.to_owned(), turns: Cell::new(0), made: RefCell::default() });
    let output = DIALOGUE.scope(dialogue.clone(), play).await;
    let calls = rows(name, dialogue.made.take());
    (output, calls)
}

/// Plays what one branch of a dialogue does by itself while others do the same. Turns have the order in which they are first
/// polled, so branches are to be polled in an order of their own.
pub async fn turn<F: Future>(play: F) -> F::Output {
    match DIALOGUE.try_with(|dialogue| dialogue.next_turn()) {
        Ok(number) => TURN.scope(Turn { number, steps: Cell::new(0) }, play).await,
        Err(_) => play.await,
    }
}

impl Dialogue {
    /// The dialogue in which this is called, and the place of the call that is about to be made.
    pub(super) fn here() -> Option<(Rc<Self>, Place)> {
        let dialogue = DIALOGUE.try_with(Rc::clone).ok()?;
        let within = TURN.try_with(|turn| Place { turn: turn.number, step: turn.steps.replace(turn.steps.get() + 1) });
        let place = within.unwrap_or_else(|_| Place { turn: dialogue.next_turn(), step: 0 });
        Some((dialogue, place))
    }

    fn next_turn(&self) -> u32 {
        self.turns.replace(self.turns.get() + 1)
    }

    pub(super) fn note(&self, made: Made) {
        self.made.borrow_mut().push(made);
    }
}

/// The digest of a request to a model of this name.
pub(super) fn key(model: &str, request: &ChatRequest) -> String {
    let ChatRequest { tools, sampling, seed, .. } = request;
    let cuts = (sampling.top_k, sampling.top_p, sampling.min_p);
    let sampling = (sampling.temperature, cuts, sampling.repetition_penalty, sampling.max_tokens, &sampling.stop);
    let content =
        (CallRow::TYPE, model, request.system.as_deref(), request.chat.messages(), tools.as_deref(), sampling, seed);
    let mut hash = blake3::Hasher::new();
    serde_json::to_writer(&mut hash, &content).expect("texts and numbers have a form in JSON");
    hash.finalize().to_hex().to_string()
}

/// The calls of a dialogue as rows.
fn rows(dialogue: &str, mut made: Vec<Made>) -> Vec<CallRow> {
    made.sort_by_key(|made| made.place);
    let mut known = Known::default();
    let told: Vec<Told> = made.iter().enumerate().map(|(call, made)| known.tell(call as u32, made)).collect();
    let rows = made.iter().zip(told).enumerate();
    rows.map(|(call, (made, told))| row(dialogue, call as u32, made, told)).collect()
}

fn row(dialogue: &str, call: u32, made: &Made, told: Told) -> CallRow {
    let Made { place, model, key, request, completion: Completion { reply, logprob, full } } = made;
    CallRow {
        dialogue: dialogue.to_owned(),
        call,
        turn: place.turn,
        step: place.step,
        model: model.to_string(),
        key: key.clone(),
        after: told.after,
        keep: told.keep as u32,
        system: request.system.as_ref().filter(|_| told.after.is_none()).map(|system| system.content.clone()),
        tools: told.tools.filter(|_| told.after.is_none()),
        messages: request.chat.since(told.keep).into_iter().cloned().collect(),
        temperature: request.sampling.temperature,
        top_k: request.sampling.top_k.map(|k| k as u64),
        top_p: request.sampling.top_p,
        min_p: request.sampling.min_p,
        repetition_penalty: request.sampling.repetition_penalty,
        max_tokens: request.sampling.max_tokens as u64,
        stop: request.sampling.stop.clone(),
        seed: request.seed,
        text: reply.text.clone(),
        tool_calls: reply.tool_calls.clone(),
        prompt_tokens: reply.prompt_tokens,
        completion_tokens: reply.completion_tokens,
        cut_off: reply.cut_off,
        logprob: *logprob,
        full: full.clone(),
    }
}

/// What earlier calls have told already: a tree of their messages, below a root for each model, system message and tools.
#[derive(Default)]
struct Known<'m> {
    roots: HashMap<(&'m str, Option<&'m Message>, Option<String>), usize>,
    below: HashMap<(usize, &'m Message), usize>,
    /// The first call that came through each node.
    first: Vec<u32>,
}

struct Told {
    after: Option<u32>,
    keep: usize,
    tools: Option<String>,
}

impl<'m> Known<'m> {
    /// What was told of a request before this call, which is remembered.
    fn tell(&mut self, call: u32, made: &'m Made) -> Told {
        let request = &made.request;
        let tools = request.tools.as_deref().map(|tools| Value::from(tools.to_vec()).to_string());
        let root = (&*made.model, request.system.as_deref(), tools.clone());
        let (mut node, mut after, mut keep) = (self.first.len(), None, 0);
        match self.roots.entry(root) {
            std::collections::hash_map::Entry::Occupied(known) => {
                node = *known.get();
                after = Some(self.first[node]);
            }
            std::collections::hash_map::Entry::Vacant(new) => {
                new.insert(node);
                self.first.push(call);
            }
        }
        for message in request.chat.messages() {
            match self.below.get(&(node, message)) {
                Some(&known) => {
                    node = known;
                    after = Some(self.first[node]);
                    keep += 1;
                }
                None => {
                    self.below.insert((node, message), self.first.len());
                    node = self.first.len();
                    self.first.push(call);
                }
            }
        }
        Told { after, keep, tools }
    }
}

/// A recording that does not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("call {call} of dialogue `{dialogue}` goes on from a call that the recording does not have")]
pub struct Incomplete {
    /// The dialogue.
    pub dialogue: String,
    /// The call.
    pub call: u32,
}

/// What a model was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The system message.
    pub system: Option<String>,
    /// The tools' definitions as JSON.
    pub tools: Option<String>,
    /// All messages after the system message.
    pub messages: Vec<Message>,
}

/// The whole requests of one dialogue's calls, given all of its rows in order.
///
/// # Errors
/// When rows are missing.
pub fn requests(rows: &[CallRow]) -> Result<Vec<Asked>, Incomplete> {
    let mut asked: Vec<Asked> = Vec::with_capacity(rows.len());
    for row in rows {
        let CallRow { after, keep, system, tools, .. } = row;
        let mut whole = match after {
            None => Asked { system: system.clone(), tools: tools.clone(), messages: Vec::new() },
            Some(after) => {
                let incomplete = || Incomplete { dialogue: row.dialogue.clone(), call: row.call };
                let before = asked.get(*after as usize).ok_or_else(incomplete)?;
                let messages = before.messages.get(..*keep as usize).ok_or_else(incomplete)?.to_vec();
                Asked { messages, ..before.clone() }
            }
        };
        whole.messages.extend(row.messages.iter().cloned());
        asked.push(whole);
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::join_all;
    use proptest::prelude::*;

    use super::*;
    use crate::chat::Chat;
    use crate::llm::Sampling;

    fn request(system: Option<&str>, chat: &Chat, seed: u64) -> ChatRequest {
        let sampling = Sampling {
            temperature: 0.5,
            top_k: Some(3),
            top_p: 0.9,
            max_tokens: 8,
            stop: vec!["x".into()],
            ..Sampling::default()
        };
        let tools = (seed % 2 == 1).then(|| Arc::from([serde_json::json!({"name": "a"})]));
        ChatRequest {
            system: system.map(|text| Arc::new(Message::system(text))),
            chat: chat.clone(),
            tools,
            sampling,
            seed,
        }
    }

    /// Makes a call whose answer takes so many turns of the runtime to come.
    async fn call(request: ChatRequest, delay: usize) {
        let (dialogue, place) = Dialogue::here().unwrap();
        for _ in 0..delay {
            tokio::task::yield_now().await;
        }
        let reply = Reply {
            text: format!("{} said", request.seed),
            tool_calls: Vec::new(),
            prompt_tokens: 1,
            completion_tokens: 2,
            cut_off: false,
        };
        let key = key("m", &request);
        dialogue.note(Made {
            place,
            model: "m".into(),
            key,
            request,
            completion: Completion { reply, logprob: None, full: None },
        });
    }

    /// Branches that each take two calls, after a call of their own dialogue's beginning.
    async fn branches(delays: &[usize]) -> Vec<CallRow> {
        let opening: Chat = [Message::user("hi"), Message::assistant("hello")].into_iter().collect();
        let play = async {
            call(request(Some("be kind"), &opening, 1), 1).await;
            let branches = delays.iter().enumerate().map(|(branch, &delay)| {
                let mut chat = opening.clone();
                turn(async move {
                    chat.push(Message::user(format!("branch {branch}")));
                    call(request(Some("be kind"), &chat, 3), delay).await;
                    chat.push(Message::assistant("and"));
                    call(request(Some("be kind"), &chat, 5), delay % 2).await;
                })
            });
            join_all(branches).await;
            call(request(None, &opening, 2), 0).await;
        };
        dialogue("d", play).await.1
    }

    #[tokio::test]
    async fn the_order_of_calls_is_that_of_turns_and_not_of_answers() {
        let calm = branches(&[0, 0, 0]).await;
        assert_eq!(calm, branches(&[5, 0, 2]).await);
        let places: Vec<_> = calm.iter().map(|row| (row.call, row.turn, row.step)).collect();
        let expected = [(0, 0, 0), (1, 1, 0), (2, 1, 1), (3, 2, 0), (4, 2, 1), (5, 3, 0), (6, 3, 1), (7, 4, 0)];
        assert_eq!(places, expected);
        let told: Vec<_> = calm.iter().map(|row| (row.after, row.keep, row.messages.len())).collect();
        let expected = [
            (None, 0, 2),
            (Some(0), 2, 1),
            (Some(1), 3, 1),
            (Some(0), 2, 1),
            (Some(3), 3, 1),
            (Some(0), 2, 1),
            (Some(5), 3, 1),
            (None, 0, 2),
        ];
        assert_eq!(told, expected);
        assert!(calm[1].system.is_none() && calm[0].system.as_deref() == Some("be kind"));
        let asked = requests(&calm).unwrap();
        assert_eq!(asked[4].messages[2..], [Message::user("branch 1"), Message::assistant("and")]);
        assert_eq!((asked[4].system.as_deref(), asked[7].system.as_deref()), (Some("be kind"), None));
        let lost = requests(&calm[2..]).unwrap_err().to_string();
        assert_eq!(lost, "call 2 of dialogue `d` goes on from a call that the recording does not have");
    }

    /// The request of a row, put together again.
    fn whole(row: &CallRow, asked: Asked) -> ChatRequest {
        let tools: Option<Vec<Value>> = asked.tools.map(|tools| serde_json::from_str(&tools).unwrap());
        ChatRequest {
            system: asked.system.map(|text| Arc::new(Message::system(text))),
            chat: asked.messages.into_iter().collect(),
            tools: tools.map(Arc::from),
            sampling: Sampling {
                temperature: row.temperature,
                top_k: row.top_k.map(|k| k as usize),
                top_p: row.top_p,
                min_p: row.min_p,
                repetition_penalty: row.repetition_penalty,
                max_tokens: row.max_tokens as usize,
                stop: row.stop.clone(),
                calls: None,
            },
            seed: row.seed,
        }
    }

    proptest! {
        #[test]
        fn every_request_can_be_put_together(chats in prop::collection::vec((0..3_u64, prop::collection::vec(0..3_u8, 0..6)), 1..12)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let play = async {
                for (seed, chat) in &chats {
                    let chat: Chat = chat.iter().map(|word| Message::user(word.to_string())).collect();
                    call(request((*seed == 1).then_some("s"), &chat, *seed), 0).await;
                }
            };
            let (_, rows) = runtime.block_on(dialogue("d", play));
            let asked = requests(&rows).unwrap();
            prop_assert_eq!(rows.len(), chats.len());
            for ((row, asked), (seed, chat)) in rows.iter().zip(asked).zip(&chats) {
                prop_assert_eq!((row.seed, asked.messages.len()), (*seed, chat.len()));
                prop_assert_eq!(&key("m", &whole(row, asked)), &row.key);
            }
        }
    }

    #[test]
    fn the_row_is_a_table() {
        assert_eq!(crate::table::schema::<CallRow>().fields().len(), 26);
    }
}
