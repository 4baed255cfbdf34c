//! Served models whose calls are recorded, and answered from what was recorded before.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;

use super::completion::Completion;
use super::http::HttpModel;
use super::record::{CallRow, Dialogue, Made, Place, key};
use super::{ChatModel, ChatRequest, ModelError, Reply};

/// Answers of earlier runs, by dialogue and request.
#[derive(Debug, Default)]
pub struct Recording {
    answers: HashMap<[u8; 32], Vec<(Place, Completion)>>,
}

impl Recording {
    /// A recording of these calls.
    ///
    /// # Errors
    /// That of the first call that cannot be read.
    pub fn read<E>(calls: impl IntoIterator<Item = Result<CallRow, E>>) -> Result<Self, E> {
        let mut answers: HashMap<[u8; 32], Vec<(Place, Completion)>> = HashMap::new();
        for call in calls {
            let call = call?;
            answers.entry(slot(&call.dialogue, &call.key)).or_default().push((call.place(), call.completion()));
        }
        Ok(Self { answers })
    }

    /// The answer to a request. Of several equal requests of a dialogue that of the same place is taken, else the first.
    fn find(&self, dialogue: &str, place: Place, key: &str) -> Option<Completion> {
        let answers = self.answers.get(&slot(dialogue, key))?;
        let same = answers.iter().find(|(known, _)| *known == place).or(answers.first());
        same.map(|(_, completion)| completion.clone())
    }
}

fn slot(dialogue: &str, key: &str) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(&(dialogue.len() as u64).to_le_bytes()).update(dialogue.as_bytes()).update(key.as_bytes());
    *hash.finalize().as_bytes()
}

/// Which call of a run it is: what finished calls are kept under.
#[derive(Clone, Copy, Debug)]
pub struct CallId<'c> {
    /// The dialogue.
    pub dialogue: &'c str,
    /// Where in the dialogue.
    pub place: Place,
    /// The digest of model and request.
    pub key: &'c str,
}

/// Keeps finished calls as soon as they are finished, so that a run that goes on later need not pay for them again.
pub trait Shelf {
    /// The answer to a call that was finished before.
    fn find(&self, call: CallId) -> Option<Completion>;

    /// Keeps an answer.
    fn keep(&self, call: CallId, completion: &Completion);
}

/// Where the answers of a recorded model come from.
pub enum Source {
    /// From a recording alone: what it does not have breaks the dialogue.
    Recording(Rc<Recording>),
    /// From a recording as far as it goes, then from the server.
    RecordingThenServer(Rc<Recording>, Rc<HttpModel>),
    /// From the server.
    Server(Rc<HttpModel>),
}

/// A served model whose calls are recorded in the dialogue in which they are made.
pub struct Recorded {
    name: Rc<str>,
    source: Source,
    shelf: Option<Rc<dyn Shelf>>,
    logprobs: bool,
    found: Cell<Found>,
}

/// Answers for which no server was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// From a recording.
    pub recorded: u64,
    /// From the shelf of finished calls.
    pub kept: u64,
}

impl Recorded {
    /// A model that pipelines call `name`. With `logprobs` the server is asked for log-probabilities.
    pub fn new(name: &str, source: Source, shelf: Option<Rc<dyn Shelf>>, logprobs: bool) -> Self {
        Self { name: name.into(), source, shelf, logprobs, found: Cell::default() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many answers came from where no server is.
    pub fn found(&self) -> Found {
        self.found.get()
    }

    async fn answer(&self, call: CallId<'_>, request: &ChatRequest) -> Result<Completion, ModelError> {
        let recording = match &self.source {
            Source::Recording(recording) | Source::RecordingThenServer(recording, _) => Some(recording),
            Source::Server(_) => None,
        };
        if let Some(completion) = recording.and_then(|found| found.find(call.dialogue, call.place, call.key)) {
            let found = self.found.get();
            self.found.set(Found { recorded: found.recorded + 1, ..found });
            return Ok(completion);
        }
        let server = match &self.source {
            Source::Recording(_) => return Err(ModelError::NotRecorded { endpoint: self.name.to_string() }),
            Source::RecordingThenServer(_, server) | Source::Server(server) => server,
        };
        let kept = self.shelf.as_ref().and_then(|shelf| shelf.find(call));
        if let Some(completion) = kept.filter(|kept| kept.full.is_none()) {
            let found = self.found.get();
            self.found.set(Found { kept: found.kept + 1, ..found });
            return Ok(completion);
        }
        let completion = server.call(request, self.logprobs).await?;
        // A request that does not fit is not paid for, and the server may take in more the next time.
        if let Some(shelf) = self.shelf.as_ref().filter(|_| completion.full.is_none()) {
            shelf.keep(call, &completion);
        }
        Ok(completion)
    }

    async fn outside(&self, request: &ChatRequest) -> Result<Reply, ModelError> {
        match &self.source {
            Source::Recording(_) => Err(ModelError::NotRecorded { endpoint: self.name.to_string() }),
            Source::RecordingThenServer(_, server) | Source::Server(server) => {
                server.call(request, self.logprobs).await?.reply(&self.name)
            }
        }
    }
}

impl ChatModel for Recorded {
    fn complete(&self, request: ChatRequest) -> LocalBoxFuture<'_, Result<Reply, ModelError>> {
        // Looked up here, not at the first poll: the order of calls is their order in the turn.
        let here = Dialogue::here();
        Box::pin(async move {
            let Some((dialogue, place)) = here else { return self.outside(&request).await };
            let key = key(&self.name, &request);
            let completion = self.answer(CallId { dialogue: &dialogue.name, place, key: &key }, &request).await?;
            let reply = completion.clone().reply(&self.name);
            dialogue.note(Made { place, model: self.name.clone(), key, request, completion });
            reply
        })
    }
}
