//! The synthesizer: a corpus in MultiWOZ's layout about an invented town, written by letting the agenda user and the rule
//! agent talk. It stands in for the real corpus where that may not be fetched, and grows to any size.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt;
use serde_json::{Map, Value, json};

use super::agent::{ChatAgent, Style};
use super::agent_rule::RuleAgent;
use super::convert::{ConvertError, Converter, Splits, world_items};
use super::episode::{Cast, Episode, EpisodeError, MESSAGE_LIMIT};
use super::lexicon::Lexicon;
use super::multiwoz::{Dialogue, Outline, Turn};
use super::reward::reward;
use super::seed::{derive, generator};
use super::synth_goal::{GoalMix, SampledGoal, sample};
use super::synth_world::databases;
use super::task::Task;
use super::tools::{DOMAINS, parameter_names, parts, unique_key};
use super::user::User;
use super::user_agenda::END;
use super::world::{Record, World, WorldError};
use crate::compat::Rules;
use crate::fs::{self, PathError};
use crate::llm::Sampling;

/// Goals that are drawn for one dialogue before giving up.
const ATTEMPTS: u32 = 50;

/// Why a corpus cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// A goal could not be turned into a task.
    #[error("synthetic dialogue `{dialogue}`: {source}")]
    Convert { dialogue: String, source: ConvertError },
    /// A task could not be played.
    #[error(transparent)]
    Episode(#[from] EpisodeError),
    /// The records make no world.
    #[error(transparent)]
    World(#[from] WorldError),
    /// No goal that was drawn led to a dialogue that reaches it.
    #[error("synthetic dialogue `{dialogue}`: none of {ATTEMPTS} goals was reached; are too many domains asked for?")]
    Unreached { dialogue: String },
    /// A file could not be written.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A file could not be written on.
    #[error("cannot write `{path}`: {source}")]
    Write { path: String, source: io::Error },
}

/// A town and who talks in it.
pub struct Synthesizer {
    seed: u64,
    mix: GoalMix,
    databases: Vec<(String, Vec<Record>)>,
    world: Arc<World>,
    converter: Converter,
    cast: Cast,
}

/// A dialogue of the corpus.
#[derive(Clone, Debug, PartialEq)]
pub struct Synthetic {
    /// Its name in `data.json`.
    pub name: String,
    /// Goal and log.
    pub dialogue: Dialogue,
    /// The dialogue as the agent saw it.
    pub internal: Vec<crate::chat::Message>,
}

impl Synthesizer {
    /// The town of a seed.
    ///
    /// # Errors
    /// When the records make no world.
    pub fn new(seed: u64, mix: GoalMix) -> Result<Self, SynthError> {
        let databases = databases(seed);
        let items = world_items(&databases, &Rules::default());
        let converter = Converter::new(&items, Splits::default(), Rules::default())?;
        let world = Arc::new(World::from_items(items)?);
        let lexicon = Arc::new(Lexicon::new(&world));
        let agent = ChatAgent {
            model: std::rc::Rc::new(RuleAgent::new(lexicon.clone(), 0.0)),
            system: None,
            sampling: Sampling { max_tokens: 256, ..Sampling::default() },
            seed: None,
            tries: 3,
            style: Style::React,
        };
        let cast = Cast { user: User::Agenda { lexicon, patience: 4 }, agent };
        Ok(Self { seed, mix, databases, world, converter, cast })
    }

    /// The same town whose agent spoils a decision with this probability (0 to 1), and mends it when the customer objects:
    /// people make mistakes when they are recorded, too.
    pub fn noisy(mut self, noise: f64) -> Self {
        if let User::Agenda { lexicon, .. } = &self.cast.user {
            self.cast.agent.model = std::rc::Rc::new(RuleAgent::new(lexicon.clone(), noise));
        }
        self
    }

    /// The dialogue of a number: a goal that its dialogue reaches. It does not depend on the dialogues before it.
    ///
    /// # Errors
    /// When a goal is no goal, or none is reached.
    pub fn dialogue(&mut self, index: usize) -> Result<Synthetic, SynthError> {
        let name = format!("SYN{index:06}.json");
        for attempt in 0..ATTEMPTS {
            let seed = derive(self.seed, &[&name, &attempt.to_string()]);
            let sampled = sample(&mut generator(seed, &["goal"]), &self.databases, &self.mix);
            let outline = Outline { goal: sampled.goal.clone(), state: final_state(&sampled) };
            let task = self.converter.convert(&name, &outline);
            let task = task.map_err(|source| SynthError::Convert { dialogue: name.clone(), source })?;
            let Some(task) = task else { continue };
            if let Some((log, internal)) = self.talk(Arc::new(task), &sampled, seed)? {
                let dialogue = Dialogue { goal: sampled.goal, log };
                return Ok(Synthetic { name, dialogue, internal });
            }
        }
        Err(SynthError::Unreached { dialogue: name })
    }

    /// Lets the two talk; `None` when the goal was not reached or the customer was cut off.
    fn talk(&self, task: Arc<Task>, sampled: &SampledGoal, seed: u64) -> Result<Option<Talk>, SynthError> {
        let mut episode = Episode::begin(&self.cast, self.world.clone(), task.clone(), Rules::default())?;
        let mut log = Vec::new();
        let mut state = empty_state();
        while episode.visible.len() < MESSAGE_LIMIT {
            let step = episode.visible.len().to_string();
            let user = episode.user_step(&self.cast, derive(seed, &["user", &step]));
            // Rules answer at once: a future that waits would be a defect here, and gives no dialogue.
            let Some(Ok(user)) = user.now_or_never() else { return Ok(None) };
            log.push(Turn { text: user.text.replace(END, "").trim().to_owned(), metadata: Map::new() });
            if user.ended {
                log.push(Turn { text: "goodbye.".to_owned(), metadata: state });
                let reached = reward(&task, episode.session.calls(), episode.session.rules()) >= 1.0;
                return Ok(reached.then_some((log, episode.internal.to_vec())));
            }
            let before = episode.session.calls().len();
            let agent = episode.agent_step(&self.cast, derive(seed, &["agent", &step]));
            let Some(Ok(agent)) = agent.now_or_never() else { return Ok(None) };
            for call in &episode.session.calls()[before..] {
                annotate(&mut state, &call.api, &call.arguments, &call.returned, sampled);
            }
            log.push(Turn { text: agent.said, metadata: state.clone() });
        }
        Ok(None)
    }
}

type Talk = (Vec<Turn>, Vec<crate::chat::Message>);

fn domain_state(domain: &str) -> Value {
    let slots = |api: String, besides: &str| -> Map<String, Value> {
        parameter_names(&api).filter(|name| *name != besides).map(|name| (name.to_owned(), json!(""))).collect()
    };
    let mut book = slots(format!("book_{domain}"), unique_key(domain));
    book.insert("booked".to_owned(), json!([]));
    json!({ "book": book, "semi": slots(format!("search_{domain}"), "") })
}

fn empty_state() -> Map<String, Value> {
    DOMAINS.iter().map(|domain| ((*domain).to_owned(), domain_state(domain))).collect()
}

/// The state that the conversion reads: what was booked.
fn final_state(sampled: &SampledGoal) -> Map<String, Value> {
    let mut state = empty_state();
    for (domain, booked) in &sampled.booked {
        state[domain]["book"]["booked"] = json!([booked]);
    }
    state
}

/// Notes a call in the state, as the system's side annotates: the constraints of the last search, the details of the last
/// booking, and what was booked.
fn annotate(state: &mut Map<String, Value>, api: &str, arguments: &Value, returned: &Value, sampled: &SampledGoal) {
    let Some((_, domain)) = parts(api) else { return };
    let part = if api.starts_with("search") { "semi" } else { "book" };
    let Some(slots) = state.get_mut(domain).and_then(|state| state.get_mut(part)).and_then(Value::as_object_mut) else {
        return;
    };
    for (name, value) in slots.iter_mut().filter(|(name, _)| *name != "booked") {
        *value = arguments.get(name).cloned().unwrap_or_else(|| json!(""));
    }
    if returned.get("success") == Some(&Value::Bool(true)) {
        let booked: Vec<&Value> = sampled.booked.iter().filter(|(name, _)| name == domain).map(|(_, b)| b).collect();
        slots.insert("booked".to_owned(), json!(booked));
    }
}

/// Writes a corpus of `size` dialogues, in constant memory: `data.json`, `db/DOMAIN_db.json`, `valListFile.json` and
/// `testListFile.json`. `val` and `test` are shares of the dialogues, spread evenly. `each` is told how many are done and may
/// stop the work by an error.
///
/// # Errors
/// When a dialogue cannot be made or a file not be written, and what `each` returns.
pub fn write_corpus<E: From<SynthError>>(
    synthesizer: &mut Synthesizer,
    folder: &Path,
    size: usize,
    (val, test): (f64, f64),
    mut each: impl FnMut(usize) -> Result<(), E>,
) -> Result<(), E> {
    write_databases(&synthesizer.databases, &folder.join("db")).map_err(E::from)?;
    let mut lists = Spread { shares: [test, val], due: [0.0, 0.5], names: [String::new(), String::new()] };
    let mut data = Sink::create(&folder.join("data.json")).map_err(E::from)?;
    data.write("{").map_err(E::from)?;
    for index in 0..size {
        let made = synthesizer.dialogue(index).map_err(E::from)?;
        lists.place(&made.name);
        let body = serde_json::to_string(&made.dialogue).expect("JSON values are JSON");
        let comma = if index == 0 { "" } else { "," };
        data.write(&format!("{comma}\n\"{}\": {body}", made.name)).map_err(E::from)?;
        each(index + 1)?;
    }
    data.write("\n}\n").map_err(E::from)?;
    data.finish().map_err(E::from)?;
    for (name, list) in ["testListFile.json", "valListFile.json"].iter().zip(&lists.names) {
        fs::write_whole(folder.join(name), list.as_bytes()).map_err(SynthError::Path).map_err(E::from)?;
    }
    Ok(())
}

/// Spreads shares evenly over a sequence: a list takes a name whenever its share of the names so far is due.
struct Spread {
    shares: [f64; 2],
    due: [f64; 2],
    names: [String; 2],
}

impl Spread {
    fn place(&mut self, name: &str) {
        for (due, share) in self.due.iter_mut().zip(self.shares) {
            *due += share;
        }
        if let Some(at) = (0..2).find(|at| self.due[*at] >= 1.0 - 1e-9) {
            self.due[at] -= 1.0;
            self.names[at].push_str(name);
            self.names[at].push('\n');
        }
    }
}

fn write_databases(databases: &[(String, Vec<Record>)], folder: &Path) -> Result<(), SynthError> {
    fs::create_dir_all(folder)?;
    for (domain, records) in databases {
        let text = serde_json::to_string_pretty(records).expect("JSON values are JSON");
        fs::write_whole(folder.join(format!("{domain}_db.json")), text.as_bytes())?;
    }
    Ok(())
}

/// A buffered file whose errors name it.
struct Sink {
    path: String,
    file: BufWriter<std::fs::File>,
}

impl Sink {
    fn create(path: &Path) -> Result<Self, SynthError> {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        Ok(Self { path: path.display().to_string(), file: BufWriter::new(fs::create(path)?) })
    }

    fn write(&mut self, text: &str) -> Result<(), SynthError> {
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|source| SynthError::Write { path: self.path.clone(), source })
    }

    fn finish(mut self) -> Result<(), SynthError> {
        let flushed = self.file.flush();
        flushed.map_err(|source| SynthError::Write { path: self.path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synthesizer(seed: u64) -> Synthesizer {
        let mix = GoalMix { domains: DOMAINS.map(str::to_owned).to_vec(), max_domains: 2, failing: 0.1 };
        Synthesizer::new(seed, mix).unwrap()
    }

    #[test]
    fn a_dialogue_depends_on_the_seed_and_its_number_alone() {
        let (mut one, mut other) = (synthesizer(5), synthesizer(5));
        one.dialogue(0).unwrap();
        assert_eq!(one.dialogue(7).unwrap(), other.dialogue(7).unwrap());
        assert_ne!(one.dialogue(7).unwrap(), synthesizer(6).dialogue(7).unwrap());
    }

    #[test]
    fn the_corpus_is_read_as_multiwoz() {
        let folder = tempfile::tempdir().unwrap();
        let mut synthesizer = synthesizer(5);
        write_corpus(&mut synthesizer, folder.path(), 40, (0.1, 0.2), |_| Ok::<(), SynthError>(())).unwrap();
        let corpus = super::super::corpus::Corpus::open(folder.path()).unwrap();
        assert_eq!(corpus.databases().unwrap().len(), synthesizer.databases.len());
        let splits = corpus.splits().unwrap();
        assert_eq!((splits.val.len(), splits.test.len()), (4, 8));
        let items = world_items(&corpus.databases().unwrap(), &Rules::default());
        let mut converter = Converter::new(&items, splits, Rules::default()).unwrap();
        let mut bookings = 0;
        corpus
            .for_each_dialogue(|name, dialogue: Outline| {
                let task = converter.convert(&name, &dialogue).unwrap().unwrap();
                bookings += task.goals.iter().filter(|goal| goal.unique_id.is_some()).count();
                Ok::<(), String>(())
            })
            .unwrap();
        assert_eq!(converter.report().tasks, 40);
        assert_eq!(converter.report().unrecorded_bookings, [0; 4]);
        assert!(bookings > 10);
    }

    #[test]
    fn logs_alternate_and_end_with_the_system() {
        let made = synthesizer(5).dialogue(3).unwrap();
        let states: Vec<bool> = made.dialogue.log.iter().map(|turn| turn.metadata.is_empty()).collect();
        assert!(states.len().is_multiple_of(2) && states.chunks(2).all(|pair| pair == [true, false]));
        assert!(made.dialogue.log.iter().all(|turn| !turn.text.contains(END) && !turn.text.is_empty()));
    }
}
