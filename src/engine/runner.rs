//! Runs a graph: looks every result up, computes what is missing, several stages side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::event::{Event, Summary};
use super::fingerprint::{Fields, fingerprint};
use super::graph::Graph;
use super::history::{self, Outcome, RunRecord, StageRecord};
use super::plan::fields_of;
use super::port::PortSpec;
use super::stage::{AnyStage, Context, Input, Notice, Profile, Stopped, in_full};
use super::states::States;
use super::store::{Found, Manifest, Store, StoreError};
use crate::fs;

/// How a run is done; nothing here changes a result.
pub struct Options {
    /// The project's root.
    pub project: PathBuf,
    /// Where stages run.
    pub profile: Arc<dyn Profile>,
    /// The most stages side by side.
    pub jobs: usize,
    /// Stages whose results are computed anew even where they are there.
    pub force: BTreeSet<usize>,
    /// Whether results with broken rows are computed again: only those rows.
    pub retry_broken: bool,
    /// The stages that are wanted; those that they need are among them.
    pub wanted: Vec<bool>,
    /// The pipeline's file, for the record.
    pub file: String,
    /// Changes from the command line, for the record.
    pub set: Vec<String>,
    /// Set from outside to end the run: running stages stop at the next place where they can go on later.
    pub stop: Arc<AtomicBool>,
}

/// The least time between two states of a run's record on the disk: a run of many quick stages must not do little else.
const SAVE_PAUSE: Duration = Duration::from_secs(1);

enum Message {
    Said(usize, Notice),
    Ended(usize, Ended, f64),
}

enum Ended {
    Result { manifest: Box<Manifest>, computed: bool },
    Damaged { upstream: usize, what: String },
    Failed(String),
    Stopped,
}

/// What a computing thread needs; it sends, and owns nothing of the run.
struct Job {
    index: usize,
    stage: Arc<dyn AnyStage>,
    ports: Vec<PortSpec>,
    store: Store,
    run: String,
    fields: Fields,
    fingerprint: String,
    /// Name, result and port of each input.
    inputs: Vec<(String, usize, Manifest, String)>,
    force: bool,
    /// Whether a result whose rows are partly broken is computed again.
    retry_broken: bool,
    logs: PathBuf,
    project: PathBuf,
    profile: Arc<dyn Profile>,
    stop: Arc<AtomicBool>,
    sender: UnboundedSender<Message>,
}

/// Runs a graph and reports as it goes; returns the summary, which is also the last event, and the record.
///
/// # Errors
/// When the store itself cannot be used. A stage that fails is no error here: it stands in the summary.
pub async fn run(
    graph: &Graph,
    store: &Store,
    options: &Options,
    mut report: impl FnMut(&Event),
) -> Result<(Summary, RunRecord), StoreError> {
    let began = Instant::now();
    let (run, started) = history::name_now(&graph.name);
    let record = RunRecord {
        run: run.clone(),
        pipeline: graph.name.clone(),
        file: options.file.clone(),
        set: options.set.clone(),
        started,
        seconds: None,
        stages: graph.nodes.iter().map(|node| blank(&node.name, node.stage.kind())).collect(),
    };
    let (sender, receiver) = unbounded_channel();
    let mut running = Run {
        graph,
        store,
        options,
        states: States::new(graph, &options.wanted),
        results: vec![None; graph.nodes.len()],
        record,
        sender,
        busy: 0,
        saved: Instant::now(),
        unrecorded: false,
        report: &mut report,
    };
    (running.report)(&Event::RunStarted {
        run: run.clone(),
        stages: options.wanted.iter().filter(|&&wanted| wanted).count(),
    });
    running.save();
    running.drive(receiver).await?;
    running.record.seconds = Some(began.elapsed().as_secs_f64());
    running.save();
    let record = running.record;
    let summary = Summary {
        run,
        computed: record.count(Outcome::Computed),
        fresh: record.count(Outcome::Fresh),
        failed: record.count(Outcome::Failed),
        skipped: options.wanted.iter().zip(&record.stages).filter(|(wanted, stage)| **wanted && unrun(stage)).count(),
        seconds: began.elapsed().as_secs_f64(),
        stopped: options.stop.load(Ordering::Relaxed),
    };
    report(&Event::RunFinished(summary.clone()));
    Ok((summary, record))
}

fn unrun(stage: &StageRecord) -> bool {
    matches!(stage.outcome, Outcome::Skipped | Outcome::Pending)
}

fn blank(name: &str, kind: &str) -> StageRecord {
    StageRecord {
        name: name.to_owned(),
        kind: kind.to_owned(),
        outcome: Outcome::Pending,
        fingerprint: None,
        seconds: 0.0,
        figures: BTreeMap::new(),
        warnings: Vec::new(),
        error: None,
    }
}

struct Run<'a, R: FnMut(&Event)> {
    graph: &'a Graph,
    store: &'a Store,
    options: &'a Options,
    states: States,
    results: Vec<Option<Manifest>>,
    record: RunRecord,
    sender: UnboundedSender<Message>,
    busy: usize,
    saved: Instant,
    unrecorded: bool,
    report: &'a mut R,
}

impl<R: FnMut(&Event)> Run<'_, R> {
    async fn drive(&mut self, mut receiver: UnboundedReceiver<Message>) -> Result<(), StoreError> {
        loop {
            while self.busy < self.options.jobs.max(1) && !self.options.stop.load(Ordering::Relaxed) {
                let Some(index) = self.states.start() else { break };
                self.start(index)?;
            }
            if self.busy == 0 {
                return Ok(());
            }
            // The runner holds a sender itself, so the channel never closes under it.
            let Some(message) = receiver.recv().await else { return Ok(()) };
            match message {
                Message::Said(stage, notice) => self.said(stage, notice),
                Message::Ended(index, ended, seconds) => {
                    self.busy -= 1;
                    self.ended(index, ended, seconds);
                    if self.saved.elapsed() > SAVE_PAUSE {
                        self.save();
                    }
                }
            }
        }
    }

    /// Writes the record down. A run whose record cannot be written (a full disk, a store that is read-only) goes on.
    fn save(&mut self) {
        self.saved = Instant::now();
        if let Err(error) = history::write(self.store, &self.record)
            && !std::mem::replace(&mut self.unrecorded, true)
        {
            (self.report)(&Event::NotRecorded { why: error.to_string() });
        }
    }

    /// Looks a stage's result up; where it is missing, a thread begins to compute it.
    fn start(&mut self, index: usize) -> Result<(), StoreError> {
        let fields = match fields_of(self.graph, index, &self.results, &self.options.project) {
            Ok(fields) => fields,
            Err(error) => {
                self.fail(index, in_full(&error), 0.0);
                return Ok(());
            }
        };
        let id = fingerprint(&fields);
        let force = self.options.force.contains(&index);
        match self.store.find(&id)? {
            Found::Whole(manifest) if !force && !(self.options.retry_broken && manifest.broken > 0) => {
                self.finish(index, *manifest, false, 0.0)
            }
            found => {
                if let Found::Damaged(what) = found {
                    (self.report)(&Event::Damaged { stage: index, what });
                }
                let job = self.job(index, fields, id, force);
                self.busy += 1;
                (self.report)(&Event::StageStarted { stage: index });
                tokio::task::spawn_blocking(move || job.run());
            }
        }
        Ok(())
    }

    fn job(&self, index: usize, fields: Fields, fingerprint: String, force: bool) -> Job {
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
            stage: node.stage.clone(),
            ports: node.stage.outputs(),
            store: self.store.clone(),
            run: self.record.run.clone(),
            fields,
            fingerprint,
            inputs,
            force,
            retry_broken: self.options.retry_broken,
            logs: self.store.runs().join(&self.record.run).join(&node.name),
            project: self.options.project.clone(),
            profile: self.options.profile.clone(),
            stop: self.options.stop.clone(),
            sender: self.sender.clone(),
        }
    }

    fn said(&mut self, stage: usize, notice: Notice) {
        match &notice {
            Notice::Warning(text) => self.record.stages[stage].warnings.push(text.clone()),
            Notice::Figure { name, value } => {
                self.record.stages[stage].figures.insert(name.clone(), *value);
            }
            Notice::Progress { .. } => {}
        }
        (self.report)(&Event::Said { stage, notice });
    }

    fn ended(&mut self, index: usize, ended: Ended, seconds: f64) {
        match ended {
            Ended::Result { manifest, computed } => self.finish(index, *manifest, computed, seconds),
            Ended::Failed(message) => self.fail(index, message, seconds),
            Ended::Stopped => {}
            Ended::Damaged { upstream, what } => {
                (self.report)(&Event::Damaged { stage: upstream, what });
                self.states.reopen(self.graph, upstream, index);
            }
        }
    }

    fn finish(&mut self, index: usize, manifest: Manifest, computed: bool, seconds: f64) {
        let record = &mut self.record.stages[index];
        record.outcome = if computed { Outcome::Computed } else { Outcome::Fresh };
        record.fingerprint = Some(manifest.fingerprint.clone());
        record.seconds = seconds;
        let figures = record.figures.clone();
        self.results[index] = Some(manifest);
        (self.report)(&Event::StageFinished { stage: index, computed, seconds, figures });
        self.states.finish(self.graph, &self.options.wanted, index);
    }

    fn fail(&mut self, index: usize, message: String, seconds: f64) {
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

impl Job {
    fn run(self) {
        let began = Instant::now();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.compute()))
            .unwrap_or_else(|panic| Ended::Failed(format!("the stage panicked: {}", panic_text(panic.as_ref()))));
        // The receiver is gone only when the run itself ended; there is nobody left to tell.
        let _ = self.sender.send(Message::Ended(self.index, ended, began.elapsed().as_secs_f64()));
    }

    fn compute(&self) -> Ended {
        match self.try_compute() {
            Ok(ended) => ended,
            Err(error) if error.is::<Stopped>() => Ended::Stopped,
            Err(error) => Ended::Failed(in_full(&error)),
        }
    }

    fn try_compute(&self) -> anyhow::Result<Ended> {
        for (_, upstream, result, port) in &self.inputs {
            if let Some(what) = self.store.damage(&result.fingerprint, &result.outputs[port]) {
                self.store.discard(&result.fingerprint)?;
                return Ok(Ended::Damaged { upstream: *upstream, what });
            }
        }
        let workspace = self.store.begin(&self.fingerprint)?;
        // Another process may have computed it while this one waited for the lock.
        if let (false, Found::Whole(manifest)) = (self.force, self.store.find(&self.fingerprint)?)
            && !(self.retry_broken && manifest.broken > 0)
        {
            return Ok(Ended::Result { manifest, computed: false });
        }
        let (sender, index) = (self.sender.clone(), self.index);
        let context = Context {
            inputs: self.paths(),
            out: workspace.out.clone(),
            scratch: workspace.scratch.clone(),
            project: self.project.clone(),
            profile: self.profile.clone(),
            stop: self.stop.clone(),
            notify: Arc::new(move |notice| {
                let _ = sender.send(Message::Said(index, notice));
            }),
            logs: self.logs.clone(),
            fields: self.fields.clone(),
            rows: self.store.rows(),
            anew: self.force,
            broken: Arc::default(),
        };
        if let Err(error) = self.stage.run(&context) {
            // What it wrote is of no use, and the disk may be full of it.
            let _ = fs::remove_dir_all(&workspace.out);
            return Err(error);
        }
        let broken = context.broken.load(Ordering::Relaxed);
        let fields = self.fields.clone();
        let manifest = self.store.commit(&workspace, fields, &self.fingerprint, &self.ports, &self.run, broken)?;
        Ok(Ended::Result { manifest: Box::new(manifest), computed: true })
    }

    fn paths(&self) -> Vec<Input> {
        let path = |(name, _, result, port): &(String, usize, Manifest, String)| Input {
            name: name.clone(),
            path: self.store.path(&result.fingerprint, &result.outputs[port]),
        };
        self.inputs.iter().map(path).collect()
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
