//! What happens during a run, told to whoever reports it.

use std::collections::BTreeMap;

use super::stage::Notice;

/// One event; stages are named by their index in the graph.
#[derive(Clone, Debug)]
pub enum Event {
    /// The run has a name and a number of stages.
    RunStarted { run: String, stages: usize },
    /// A stage begins to compute.
    StageStarted { stage: usize },
    /// A stage says something.
    Said { stage: usize, notice: Notice },
    /// The result of a stage is being computed by another process, or by another stage of this run: it waits for that.
    Blocked { stage: usize },
    /// An attempt of a stage failed, and it is tried again after a pause of so many seconds.
    Retried { stage: usize, attempt: usize, error: String, pause: f64 },
    /// A stage has its result; the figures are those that it gave on the way.
    StageFinished { stage: usize, computed: bool, seconds: f64, figures: BTreeMap<String, f64> },
    /// A stage failed; the text is the whole message, causes included.
    StageFailed { stage: usize, message: String, seconds: f64 },
    /// A stage cannot run because one that it needs failed.
    StageSkipped { stage: usize, because_of: usize },
    /// A stored result turned out to be damaged and is computed again.
    Damaged { stage: usize, what: String },
    /// The record of the run cannot be written; the run goes on.
    NotRecorded { why: String },
    /// All is said.
    RunFinished(Summary),
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The run's name.
    pub run: String,
    /// Stages that were computed.
    pub computed: usize,
    /// Stages whose results were there.
    pub fresh: usize,
    /// Stages that failed.
    pub failed: usize,
    /// Stages that did not run because others failed or the run was stopped.
    pub skipped: usize,
    /// Wall seconds.
    pub seconds: f64,
    /// Whether the run was stopped from outside.
    pub stopped: bool,
}
