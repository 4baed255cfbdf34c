//! The served models of a stage over dialogues: what they cost, what is recorded of them, and which of their calls were made
//! before.

use std::cell::RefCell;
use std::rc::Rc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::by_task::BESIDE;
use super::endpoint::{record_account, served_model};
use crate::engine::port::Port;
use crate::engine::rows::{Journal, Key};
use crate::engine::stage::{Context, Problem};
use crate::llm::completion::Completion;
use crate::llm::http::HttpModel;
use crate::llm::record::CallRow;
use crate::llm::replay::{CallId, Recorded, Recording, Shelf, Source};

/// The calls of served models: an output of what was called, an input of what was called in an earlier run.
pub const CALLS: Port<CallRow> = Port::new("calls");

/// What a model does whose calls were recorded: the table on the input port `calls` answers the requests that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Replay {
    /// No server is asked, and none needed: a dialogue with a request that the recording does not have is broken.
    Only,
    /// The server is asked for what the recording does not have.
    First,
}

/// What is wrong with the setting `replay` of those who are played by served models, given the names of connected inputs.
pub fn check_replay(players: &[(&str, Option<Replay>)], connected: &[&str]) -> Vec<Problem> {
    let recorded = connected.contains(&CALLS.name);
    let replayed = players.iter().any(|(_, replay)| replay.is_some());
    let mut problems: Vec<Problem> = players
        .iter()
        .filter(|(_, replay)| replay.is_some() && !recorded)
        .map(|(field, _)| Problem::new(*field, "needs the calls of an earlier run on the input `calls`"))
        .collect();
    if recorded && !replayed {
        let fields: Vec<String> = players.iter().map(|(field, _)| format!("`{field}`")).collect();
        let message = match fields.as_slice() {
            [] => "answers nobody: neither agent nor user is a served model".to_owned(),
            fields => format!("answers nobody: say `only` or `first` in {}", fields.join(" or ")),
        };
        problems.push(Problem::new("calls", message));
    }
    problems
}

/// The served models of a stage, by the names that the pipeline has for them.
pub struct Served<'c> {
    context: &'c Context,
    recording: Option<Rc<Recording>>,
    shelf: Option<Rc<dyn Shelf>>,
    servers: Vec<(String, Rc<HttpModel>)>,
    models: Vec<Rc<Recorded>>,
}

impl<'c> Served<'c> {
    /// None as yet.
    pub fn new(context: &'c Context) -> Self {
        Self { context, recording: None, shelf: None, servers: Vec::new(), models: Vec::new() }
    }

    /// The served model of a name.
    ///
    /// # Errors
    /// When the recording cannot be read, or a server is needed that the profile does not know or that cannot be used.
    pub fn serve(&mut self, name: &str, replay: Option<Replay>, logprobs: bool) -> anyhow::Result<Rc<Recorded>> {
        let source = match replay {
            None => Source::Server(self.server(name)?),
            Some(Replay::Only) => Source::Recording(self.recording()?),
            Some(Replay::First) => Source::RecordingThenServer(self.recording()?, self.server(name)?),
        };
        let context = self.context;
        let shelf = self.shelf.get_or_insert_with(|| Rc::new(Calls::open(context))).clone();
        let model = Rc::new(Recorded::new(name, source, Some(shelf), logprobs));
        self.models.push(model.clone());
        Ok(model)
    }

    fn server(&mut self, name: &str) -> anyhow::Result<Rc<HttpModel>> {
        if let Some((_, model)) = self.servers.iter().find(|(known, _)| known == name) {
            return Ok(model.clone());
        }
        let model = Rc::new(served_model(self.context, name)?);
        self.servers.push((name.to_owned(), model.clone()));
        Ok(model)
    }

    fn recording(&mut self) -> anyhow::Result<Rc<Recording>> {
        if let Some(recording) = &self.recording {
            return Ok(recording.clone());
        }
        let recording = Rc::new(Recording::read(self.context.rows(&CALLS)?)?);
        self.recording = Some(recording.clone());
        Ok(recording)
    }

    /// Whether there are any, so that calls are recorded.
    pub fn any(&self) -> bool {
        !self.models.is_empty()
    }

    /// How many dialogues at once keep every server as busy as it may be: each waits for one of them at a time, and a few more
    /// are about to ask.
    pub fn width(&self) -> usize {
        let in_flight: usize = self.servers.iter().map(|(_, server)| server.in_flight()).sum();
        if in_flight == 0 { 0 } else { in_flight + (in_flight / 8).max(1) }
    }

    /// Records what the models did and cost, as figures of this run.
    pub fn record(&self) {
        for (name, server) in &self.servers {
            record_account(self.context, name, server.account());
        }
        let mut names: Vec<&str> = self.models.iter().map(|model| model.name()).collect();
        names.dedup();
        for name in names {
            let found = self.models.iter().filter(|model| model.name() == name).map(|model| model.found());
            let (recorded, kept) = found.fold((0, 0), |sum, found| (sum.0 + found.recorded, sum.1 + found.kept));
            for (figure, count) in [("recorded", recorded), ("kept", kept)] {
                if count > 0 {
                    self.context.figure(format!("{name}.{figure}"), count as f64);
                }
            }
        }
    }
}

/// The finished calls of a stage in a journal of their own, each written down as soon as it is answered. Those of dialogues
/// that were not finished with them answer the same requests when the dialogues are played again.
struct Calls(RefCell<Journal<Completion>>);

impl Calls {
    fn open(context: &Context) -> Self {
        Self(RefCell::new(context.journal_of("calls", BESIDE)))
    }
}

fn row_key(call: CallId) -> Key {
    Key::of(&(call.dialogue, call.place, call.key)).expect("texts and numbers have a form in JSON")
}

impl Shelf for Calls {
    fn find(&self, call: CallId) -> Option<Completion> {
        self.0.borrow_mut().read(&row_key(call))
    }

    fn keep(&self, call: CallId, completion: &Completion) {
        self.0.borrow_mut().keep(row_key(call), completion);
    }
}
