//! Runs a graph: looks every result up, computes what is missing, several stages side by side.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::event::{Event, Summary};
use super::fingerprint::{Fields, fingerprint};
use super::graph::Graph;
use super::history::{self, Attempt, Newest, Outcome, RunRecord, StageRecord};
use super::job::{Ended, Job, Message, Watch};
use super::labels::Labels;
use super::log::StageLog;
use super::plan::fields_of;
use super::pools::{NoPool, Pools};
use super::profile::Profile;
use super::stage::{Notice, in_full};
use super::states::States;
use super::store::{Found, Manifest, Store, StoreError};
use super::usage::Crowd;

/// How a run is done; nothing here changes a result.
pub struct Options {
    /// The project's root.
    pub project: PathBuf,
    /// Where stages run.
    pub profile: Arc<dyn Profile>,
    /// Stages whose results are computed anew even where they are there.
    pub force: BTreeSet<usize>,
    /// Whether results with broken rows are computed again: only those rows.
    pub retry_broken: bool,
    /// Whether stages that need nothing that failed still start after a failure.
    pub keep_going: bool,
    /// The stages that are wanted; those that they need are among them.
    pub wanted: Vec<bool>,
    /// The stages that may be computed; a wanted one that may not must have its result.
    pub allowed: Vec<bool>,
    /// The pipeline's file, for the record.
    pub file: String,
    /// Changes from the command line, for the record.
    pub set: Vec<String>,
    /// Set from outside to end the run: running stages stop at the next place where they can go on later.
    pub stop: Arc<AtomicBool>,
}

/// The least time between two states of a run's record on the disk: a run of many quick stages must not do little else.
const SAVE_PAUSE: Duration = Duration::from_secs(1);

/// How often the runner looks at what sends no message: the wish to stop, time limits, results that other processes compute.
const TICK: Duration = Duration::from_millis(100);

const NOT_ALLOWED: &str = "it has no result for these values, and is not among the stages to run";

/// Runs a graph and reports as it goes; the summary is also the last event.
///
/// # Errors
/// When the store itself cannot be used, or a stage wants a pool that the profile does not have. A stage that fails is no
/// error here: it stands in the summary.
pub async fn run(
    graph: &Graph,
    store: &Store,
    options: &Options,
    mut report: impl FnMut(&Event),
) -> Result<Ran, RunError> {
    let began = Instant::now();
    let _used = store.used();
    let _ = store.sweep(); // One that cannot be swept can still serve.
    let (run, started) = history::name_now(&graph.name);
    let (sender, receiver) = unbounded_channel();
    let pools = Pools::new(graph, &options.wanted, options.profile.as_ref())?;
    let mut running = Run {
        began,
        graph,
        store,
        options,
        states: States::new(graph, &options.wanted, pools.of()),
        pools,
        looked_up: HashMap::new(),
        told: BTreeSet::new(),
        computed: BTreeSet::new(),
        results: vec![None; graph.nodes.len()],
        frozen: frozen(graph, store, options)?,
        watches: HashMap::new(),
        logs: HashMap::new(),
        record: RunRecord {
            run: run.clone(),
            pipeline: graph.name.clone(),
            file: options.file.clone(),
            set: options.set.clone(),
            started,
            seconds: None,
            stages: graph.nodes.iter().map(|node| StageRecord::blank(graph, node)).collect(),
            labels: Labels::default(),
        },
        sender,
        crowd: Arc::default(),
        failed: false,
        saved: None,
        unsaved: false,
        unrecorded: false,
        report: &mut report,
    };
    let stages = options.wanted.iter().filter(|&&wanted| wanted).count();
    (running.report)(&Event::RunStarted { run: run.clone(), stages });
    running.drive(receiver).await;
    running.record.seconds = Some(began.elapsed().as_secs_f64());
    running.save();
    let (record, results) = (running.record, running.results);
    let summary = Summary {
        run,
        computed: record.count(Outcome::Computed),
        fresh: record.count(Outcome::Fresh) + record.count(Outcome::Frozen),
        failed: record.count(Outcome::Failed),
        skipped: options.wanted.iter().zip(&record.stages).filter(|(wanted, stage)| **wanted && unrun(stage)).count(),
        seconds: began.elapsed().as_secs_f64(),
        stopped: options.stop.load(Ordering::Relaxed),
    };
    report(&Event::RunFinished(summary.clone()));
    Ok(Ran { summary, record, results })
}

/// What a run came to.
pub struct Ran {
    /// The counts.
    pub summary: Summary,
    /// What became of each stage.
    pub record: RunRecord,
    /// The results of those stages that have one, in the graph's order.
    pub results: Vec<Option<Arc<Manifest>>>,
}

/// Why a run could not be done.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stage wants a pool in which the profile has no slots.
    #[error(transparent)]
    NoPool(#[from] NoPool),
}

fn unrun(stage: &StageRecord) -> bool {
    matches!(stage.outcome, Outcome::Skipped | Outcome::Pending)
}

/// The newest results of frozen stages, or what is wrong with them.
fn frozen(
    graph: &Graph,
    store: &Store,
    options: &Options,
) -> Result<HashMap<usize, Result<Manifest, String>>, StoreError> {
    let nodes = || graph.nodes.iter().enumerate().filter(|(index, node)| node.policy.frozen && options.wanted[*index]);
    if nodes().next().is_none() {
        return Ok(HashMap::new());
    }
    let names: Vec<&str> = nodes().map(|(_, node)| node.name.as_str()).collect();
    let (records, _) = history::recent(store, &graph.name, &names)?;
    let newest = Newest::of(&records, &graph.name);
    let mut results = HashMap::new();
    for (index, node) in nodes() {
        let Some((_, fingerprint)) = newest.get(&node.name) else { continue };
        match store.find(fingerprint)? {
            Found::Whole(manifest) => _ = results.insert(index, Ok(*manifest)),
            Found::Damaged(what) => {
                _ = results.insert(index, Err(format!("it is frozen, and its result is damaged: {what}")))
            }
            Found::Absent => {}
        }
    }
    Ok(results)
}

struct Run<'a, R: FnMut(&Event)> {
    began: Instant,
    graph: &'a Graph,
    store: &'a Store,
    options: &'a Options,
    states: States,
    pools: Pools,
    /// What stages depend on that wait for a slot.
    looked_up: HashMap<usize, (Fields, String)>,
    /// What was said of which stage, to say it once.
    told: BTreeSet<(usize, &'static str)>,
    /// The fingerprints of what this run has computed.
    computed: BTreeSet<String>,
    results: Vec<Option<Arc<Manifest>>>,
    /// The newest results of frozen stages, or what is wrong with them.
    frozen: HashMap<usize, Result<Manifest, String>>,
    watches: HashMap<usize, Arc<Watch>>,
    logs: HashMap<usize, StageLog>,
    record: RunRecord,
    sender: UnboundedSender<Message>,
    crowd: Arc<Crowd>,
    failed: bool,
    saved: Option<Instant>,
    unsaved: bool,
    unrecorded: bool,
    report: &'a mut R,
}

impl<R: FnMut(&Event)> Run<'_, R> {
    async fn drive(&mut self, mut receiver: UnboundedReceiver<Message>) {
        let mut clock = tokio::time::interval(TICK);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.advance();
            if self.watches.is_empty() && (!self.states.any_blocked() || self.ending()) {
                return;
            }
            tokio::select! {
                // The runner holds a sender itself, so the channel never closes under it.
                Some(message) = receiver.recv() => self.hear(message),
                _ = clock.tick() => self.look(),
            }
        }
    }

    /// Whether nothing new is to start.
    fn ending(&self) -> bool {
        self.options.stop.load(Ordering::Relaxed) || (self.failed && !self.options.keep_going)
    }

    /// Looks up and starts whatever can be.
    fn advance(&mut self) {
        while !self.ending() {
            if let Some(index) = self.states.next_ready() {
                self.look_up(index);
                continue;
            }
            let Some(index) = self.pools.free().find_map(|pool| self.states.next_due(pool)) else { return };
            self.start(index);
        }
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Said(stage, notice) => self.said(stage, notice),
            Message::Tried(stage, attempt, again) => self.tried(stage, attempt, again),
            Message::Ended(index, ended, seconds) => {
                self.pools.give_back(index);
                self.watches.remove(&index);
                self.ended(index, ended, seconds);
                self.unsaved = true;
            }
        }
    }

    /// Passes the wish to stop on, ends attempts whose time is over, and looks whether blocked stages can go on.
    fn look(&mut self) {
        let stops = self.options.stop.load(Ordering::Relaxed);
        self.watches.values().for_each(|watch| watch.look(stops));
        if !self.ending() {
            self.states.unblock();
        }
        if self.unsaved && self.saved.is_none_or(|saved| saved.elapsed() > SAVE_PAUSE) {
            self.save();
        }
    }

    /// Writes the record down. A run whose record cannot be written (a full disk, a store that is read-only) goes on.
    fn save(&mut self) {
        self.saved = Some(Instant::now());
        self.unsaved = false;
        if let Err(error) = history::write(self.store, &self.record)
            && !std::mem::replace(&mut self.unrecorded, true)
        {
            (self.report)(&Event::NotRecorded { why: error.to_string() });
        }
    }

    /// Looks a stage's result up; where it is missing, the stage waits for a slot.
    fn look_up(&mut self, index: usize) {
        if self.graph.nodes[index].policy.frozen {
            return match self.frozen.remove(&index) {
                Some(Ok(manifest)) => self.finish(index, manifest, Outcome::Frozen, 0.0),
                Some(Err(why)) => self.fail(index, why, 0.0),
                None => self.fail(index, "it is frozen and has no result yet".to_owned(), 0.0),
            };
        }
        let fields = match fields_of(self.graph, index, &self.results, &self.options.project) {
            Ok(fields) => fields,
            Err(error) => return self.fail(index, in_full(&error), 0.0),
        };
        let id = fingerprint(&fields);
        let found = match self.store.find(&id) {
            Ok(found) => found,
            Err(error) => return self.fail(index, error.to_string(), 0.0),
        };
        match found {
            Found::Whole(manifest) if !self.wants_again(index, &manifest) => {
                return self.finish(index, *manifest, Outcome::Fresh, 0.0);
            }
            Found::Damaged(what) if self.told.insert((index, "damaged")) => {
                (self.report)(&Event::Damaged { stage: index, what });
            }
            _ => {}
        }
        if self.options.allowed[index] {
            self.looked_up.insert(index, (fields, id));
            self.states.wait_for_slot(index);
        } else {
            // No reason to stop looking: all that is missing is to be told.
            let failed = self.failed;
            self.fail(index, NOT_ALLOWED.to_owned(), 0.0);
            self.failed = failed;
        }
    }

    /// Whether a result that is there is to be computed again. Once is enough where several stages have the same.
    fn wants_again(&self, index: usize, manifest: &Manifest) -> bool {
        let asked = self.options.force.contains(&index) || (self.options.retry_broken && manifest.broken > 0);
        asked && self.options.allowed[index] && !self.computed.contains(&manifest.fingerprint)
    }

    /// Has a thread compute a stage, unless another process does so already.
    fn start(&mut self, index: usize) {
        let Some((fields, id)) = self.looked_up.remove(&index) else { return };
        let lock = match self.store.lock(&id) {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                if self.told.insert((index, "blocked")) {
                    (self.report)(&Event::Blocked { stage: index });
                }
                return self.states.block(index);
            }
            Err(error) => return self.fail(index, error.to_string(), 0.0),
        };
        if self.saved.is_none() {
            // From here on a killed run leaves a trace.
            self.save();
        }
        let job = self.job(index, fields, id);
        self.watches.insert(index, job.watch.clone());
        self.open_log(index);
        self.pools.take(index);
        (self.report)(&Event::StageStarted { stage: index });
        tokio::task::spawn_blocking(move || job.run(lock));
    }

    fn job(&self, index: usize, fields: Fields, fingerprint: String) -> Job {
        let node = &self.graph.nodes[index];
        let input = |edge: &super::graph::Edge| {
            let result = self.results[edge.from].clone()?;
            Some((edge.input.clone(), edge.from, result, edge.output.clone()))
        };
        // In the order of their names: the order in the file must not matter, as it is not part of the fingerprint.
        let mut inputs: Vec<_> = node.inputs.iter().filter_map(input).collect();
        inputs.sort_by(|a, b| a.0.cmp(&b.0));
        Job {
            index,
            name: node.name.clone(),
            stage: node.stage.clone(),
            policy: node.policy.clone(),
            ports: node.stage.outputs(),
            store: self.store.clone(),
            run: self.record.run.clone(),
            run_began: self.began,
            fields,
            fingerprint,
            inputs,
            force: self.options.force.contains(&index),
            retry_broken: self.options.retry_broken,
            logs: self.log_folder(),
            project: self.options.project.clone(),
            profile: self.options.profile.clone(),
            watch: Arc::default(),
            crowd: self.crowd.clone(),
            sender: self.sender.clone(),
        }
    }

    fn log_folder(&self) -> PathBuf {
        history::logs(self.store, &self.record.run)
    }

    /// The log of a stage's next attempt, whose clock starts now.
    fn open_log(&mut self, stage: usize) {
        let attempt = self.record.stages[stage].attempts.len() + 1;
        let path = self.log_folder().join(history::log_name(&self.graph.nodes[stage].name, attempt, "log"));
        self.logs.insert(stage, StageLog::new(&path));
    }

    fn said(&mut self, stage: usize, notice: Notice) {
        if let Some(log) = self.logs.get_mut(&stage) {
            log.notice(&notice);
        }
        match &notice {
            Notice::Warning(text) => self.record.stages[stage].warnings.push(text.clone()),
            Notice::Figure { name, value } => {
                self.record.stages[stage].figures.insert(name.clone(), *value);
            }
            Notice::Progress { .. } => {}
        }
        (self.report)(&Event::Said { stage, notice });
    }

    fn tried(&mut self, stage: usize, attempt: Attempt, again: Option<Duration>) {
        if let (Some(error), Some(log)) = (&attempt.error, self.logs.get_mut(&stage)) {
            log.line(&format!("failed: {error}"));
        }
        self.logs.remove(&stage);
        if let (Some(pause), Some(error)) = (again, attempt.error.clone()) {
            let number = self.record.stages[stage].attempts.len() + 1;
            (self.report)(&Event::Retried { stage, attempt: number, error, pause: pause.as_secs_f64() });
        }
        self.record.stages[stage].attempts.push(attempt);
        if again.is_some() {
            self.open_log(stage);
        }
    }

    fn ended(&mut self, index: usize, ended: Ended, seconds: f64) {
        match ended {
            Ended::Result { manifest, computed } => {
                let outcome = if computed { Outcome::Computed } else { Outcome::Fresh };
                self.finish(index, *manifest, outcome, seconds);
            }
            Ended::Failed(message) => self.fail(index, message, seconds),
            Ended::Stopped => {}
            Ended::Damaged { upstream, result, what } => self.damaged(index, upstream, &result, what, seconds),
        }
    }

    /// A stage found a result damaged that it was to read: that is computed again, unless it was meanwhile.
    fn damaged(&mut self, index: usize, upstream: usize, result: &Arc<Manifest>, what: String, seconds: f64) {
        match &self.results[upstream] {
            Some(now) if !Arc::ptr_eq(now, result) => return self.states.again(index),
            Some(_) if self.graph.nodes[upstream].policy.frozen => {
                let name = &self.graph.nodes[upstream].name;
                return self.fail(
                    index,
                    format!("the result of `{name}`, which is frozen, is damaged: {what}"),
                    seconds,
                );
            }
            Some(_) => {
                if let Err(why) = self.store.discard_damaged(&result.fingerprint) {
                    return self.fail(index, format!("{what}, and it cannot be thrown away: {why}"), seconds);
                }
                self.results[upstream] = None;
                (self.report)(&Event::Damaged { stage: upstream, what });
            }
            None => {}
        }
        if !self.states.reopen(self.graph, upstream, index) {
            let name = &self.graph.nodes[upstream].name;
            self.fail(index, format!("the result of `{name}` is damaged and cannot be computed again"), seconds);
        }
    }

    fn finish(&mut self, index: usize, manifest: Manifest, outcome: Outcome, seconds: f64) {
        let record = &mut self.record.stages[index];
        record.outcome = outcome;
        record.fingerprint = Some(manifest.fingerprint.clone());
        record.seconds = seconds;
        let figures = record.figures.clone();
        let computed = outcome == Outcome::Computed;
        if computed {
            self.computed.insert(manifest.fingerprint.clone());
        }
        self.results[index] = Some(Arc::new(manifest));
        (self.report)(&Event::StageFinished { stage: index, computed, seconds, figures });
        self.states.finish(self.graph, &self.options.wanted, index);
    }

    fn fail(&mut self, index: usize, message: String, seconds: f64) {
        self.failed = true;
        let record = &mut self.record.stages[index];
        record.outcome = Outcome::Failed;
        record.seconds = seconds;
        record.error = Some(message.clone());
        (self.report)(&Event::StageFailed { stage: index, message, seconds });
        for skipped in self.states.fail(self.graph, index) {
            if self.options.wanted[skipped] {
                self.record.stages[skipped].outcome = Outcome::Skipped;
                (self.report)(&Event::StageSkipped { stage: skipped, because_of: index });
            }
        }
    }
}
