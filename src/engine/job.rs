//! One stage being computed, on a thread of its own: checks what it reads, tries as often as it may, commits the result.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::context::{Context, Input, Logs, Notice};
use super::fingerprint::Fields;
use super::graph::Policy;
use super::history::Attempt;
use super::port::PortSpec;
use super::profile::Profile;
use super::stage::{AnyStage, Stopped, in_full};
use super::store::{Found, Lock, Manifest, Store, Workspace};
use super::usage::{Crowd, Meter};
use crate::fs;

/// The pause before the second attempt; each further one is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What a computing thread tells the runner.
pub(super) enum Message {
    /// The stage said something.
    Said(usize, Notice),
    /// An attempt is over; with what comes next where it failed and is tried again.
    Tried(usize, Attempt, Option<Duration>),
    /// The stage is over, after so many seconds.
    Ended(usize, Ended, f64),
}

/// How a stage ended.
pub(super) enum Ended {
    /// It has its result; `computed` unless another process had computed it meanwhile.
    Result { manifest: Box<Manifest>, computed: bool },
    /// What it reads is damaged: the stage that made it has to run again.
    Damaged { upstream: usize, result: Arc<Manifest>, what: String },
    /// It failed.
    Failed(String),
    /// It was told to stop.
    Stopped,
}

/// What the runner sees of an attempt: it stops the attempt when the run stops, or when its time is over.
#[derive(Default)]
pub(super) struct Watch {
    state: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    /// Raised to stop the present attempt.
    stop: Arc<AtomicBool>,
    deadline: Option<Instant>,
    late: bool,
    run_stops: bool,
}

impl Watch {
    /// Stops the present attempt where its time is over, and any attempt where the run stops.
    pub(super) fn look(&self, run_stops: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.run_stops |= run_stops;
        let late = state.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        state.late |= late;
        if late || state.run_stops {
            state.stop.store(true, Ordering::Relaxed);
        }
    }

    /// A new attempt: the flag that stops it.
    fn begin(&self, timeout: Option<Duration>) -> Arc<AtomicBool> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let run_stops = state.run_stops;
        *state = Watched {
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            run_stops,
            ..Watched::default()
        };
        state.stop.store(run_stops, Ordering::Relaxed);
        state.stop.clone()
    }

    /// Whether the present attempt was stopped because its time was over, and the run goes on.
    fn late(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.late && !state.run_stops
    }

    fn run_stops(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).run_stops
    }
}

/// A stage to compute; it sends, and owns nothing of the run.
pub(super) struct Job {
    pub index: usize,
    pub name: String,
    pub stage: Arc<dyn AnyStage>,
    pub policy: Policy,
    pub ports: Vec<PortSpec>,
    pub store: Store,
    pub run: String,
    /// When the run began.
    pub run_began: Instant,
    pub fields: Fields,
    pub fingerprint: String,
    /// Name, stage, result and port of each input.
    pub inputs: Vec<(String, usize, Arc<Manifest>, String)>,
    /// Whether a result that is there counts for nothing.
    pub force: bool,
    /// Whether a result whose rows are partly broken is computed again.
    pub retry_broken: bool,
    pub logs: PathBuf,
    pub project: PathBuf,
    pub profile: Arc<dyn Profile>,
    pub watch: Arc<Watch>,
    pub crowd: Arc<Crowd>,
    pub sender: UnboundedSender<Message>,
}

impl Job {
    /// Runs to the end and says how it came.
    pub(super) fn run(self, lock: Lock) {
        let began = Instant::now();
        // Whatever happens here, the runner waits to hear of it.
        let ended = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.try_run(lock))) {
            Ok(Ok(ended)) => ended,
            Ok(Err(error)) if error.is::<Stopped>() => Ended::Stopped,
            Ok(Err(error)) => Ended::Failed(in_full(&error)),
            Err(panic) => Ended::Failed(format!("the engine panicked: {}", panic_text(panic.as_ref()))),
        };
        self.send(Message::Ended(self.index, ended, began.elapsed().as_secs_f64()));
    }

    fn send(&self, message: Message) {
        // The receiver is gone only when the run itself ended; there is nobody left to tell.
        let _ = self.sender.send(message);
    }

    fn try_run(&self, lock: Lock) -> anyhow::Result<Ended> {
        for (_, upstream, result, port) in &self.inputs {
            if let Some(what) = self.store.damage(&result.fingerprint, &result.outputs[port])? {
                return Ok(Ended::Damaged { upstream: *upstream, result: result.clone(), what });
            }
        }
        // Another process may have computed it before it gave the lock back.
        if let (false, Found::Whole(manifest)) = (self.force, self.store.find(&self.fingerprint)?)
            && !(self.retry_broken && manifest.broken > 0)
        {
            return Ok(Ended::Result { manifest, computed: false });
        }
        let workspace = self.store.begin(lock)?;
        let mut pause = FIRST_PAUSE;
        for number in 1.. {
            let meter = Meter::start(&self.crowd);
            let began = Instant::now();
            let context = self.context(&workspace, number);
            let outcome = self.attempt(&workspace, &context);
            let programs = *context.took.lock().unwrap_or_else(PoisonError::into_inner);
            let (usage, shared) = meter.read(programs);
            drop(meter);
            let mut attempt = Attempt {
                began: Some(began.duration_since(self.run_began).as_secs_f64()),
                seconds: began.elapsed().as_secs_f64(),
                cpu_seconds: usage.cpu_seconds,
                peak_memory: usage.peak_memory,
                shared,
                error: None,
            };
            let error = match outcome {
                Ok(manifest) => {
                    self.send(Message::Tried(self.index, attempt, None));
                    return Ok(Ended::Result { manifest: Box::new(manifest), computed: true });
                }
                Err(error) => error,
            };
            // What it wrote is of no use, and the disk may be full of it.
            let _ = fs::remove_dir_all(&workspace.out);
            let again = number <= self.policy.retries && !error.is::<Stopped>();
            attempt.error = Some(in_full(&error));
            self.send(Message::Tried(self.index, attempt, again.then_some(pause)));
            if !again {
                return Err(error);
            }
            self.sleep(pause)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
            fs::create_dir_all(&workspace.out)?;
        }
        unreachable!("attempts are counted without end")
    }

    /// One attempt: the stage's work and its result into the store.
    fn attempt(&self, workspace: &Workspace, context: &Context) -> anyhow::Result<Manifest> {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.stage.run(context)));
        match ran {
            Err(panic) => anyhow::bail!("the stage panicked: {}", panic_text(panic.as_ref())),
            Ok(Err(error)) if error.is::<Stopped>() && self.watch.late() => {
                let seconds = self.policy.timeout.unwrap_or_default().as_secs_f64();
                anyhow::bail!("timed out after {seconds} s");
            }
            Ok(Err(error)) => return Err(error),
            Ok(Ok(())) => {}
        }
        let broken = context.broken.load(Ordering::Relaxed);
        let journals = context.journals.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        let facts = Manifest {
            fingerprint: self.fingerprint.clone(),
            fields: self.fields.clone(),
            outputs: Default::default(),
            run: self.run.clone(),
            broken,
            journals,
        };
        Ok(self.store.commit(workspace, facts, &self.ports)?)
    }

    fn context(&self, workspace: &Workspace, number: u32) -> Context {
        let (sender, index) = (self.sender.clone(), self.index);
        Context {
            inputs: self.paths(),
            out: workspace.out.clone(),
            scratch: workspace.scratch.clone(),
            project: self.project.clone(),
            profile: self.profile.clone(),
            stop: self.watch.begin(self.policy.timeout),
            notify: Arc::new(move |notice| {
                let _ = sender.send(Message::Said(index, notice));
            }),
            logs: Logs { folder: self.logs.clone(), stage: self.name.clone(), attempt: number as usize },
            fields: self.fields.clone(),
            rows: self.store.rows(),
            lock: Some(workspace.lock.held()),
            // What an attempt that failed has journalled need not be computed a third time.
            anew: self.force && number == 1,
            ..Context::below(&workspace.out, Vec::new(), self.profile.clone())
        }
    }

    fn paths(&self) -> Vec<Input> {
        let path = |(name, _, result, port): &(String, usize, Arc<Manifest>, String)| Input {
            name: name.clone(),
            path: self.store.path(&result.fingerprint, &result.outputs[port]),
        };
        self.inputs.iter().map(path).collect()
    }

    fn sleep(&self, pause: Duration) -> Result<(), Stopped> {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if self.watch.run_stops() {
                return Err(Stopped);
            }
            std::thread::sleep(Duration::from_millis(50).min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
