//! `toolwoz.convert`: MultiWOZ becomes ToolWOZ.

use std::collections::BTreeSet;

use anyhow::bail;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dialogue::convert::{Converter, Report, world_items};
use crate::dialogue::corpus::Corpus;
use crate::dialogue::multiwoz::Outline;
use crate::dialogue::rules::{Compat, Rules};
use crate::dialogue::task::{Task, WorldItem};
use crate::dialogue::tools::DOMAINS;
use crate::engine::port::{Folder, Port, PortSpec};
use crate::engine::stage::{Context, Problem, Stage};

const CORPUS: Folder = Folder::new("corpus", "files/v1");
const TASKS: Port<Task> = Port::new("tasks");
const WORLD: Port<WorldItem> = Port::new("world");

/// A part of the corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What neither list names.
    Train,
    /// What `valListFile.json` names.
    Val,
    /// What `testListFile.json` names.
    Test,
}

impl Split {
    const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

/// Turns a MultiWOZ corpus into ToolWOZ: tasks whose goals are tool calls, and the world that the tools look at.
///
/// The folder holds `data.json` (layout of MultiWOZ 2.0) or `dataset.zip` with it inside, `restaurant_db.json`,
/// `hotel_db.json`, `attraction_db.json` and `train_db.json`, `valListFile.json` and `testListFile.json`, in whatever
/// subfolders. Dialogues about taxis, police and hospitals have no place in ToolWOZ. The tasks come in the order of
/// `data.json`; the paper's 450 test tasks are the first 450 of split `test` in the order of their names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolwozConvert {
    /// Whose quirks are kept: `fixed` (none), `repo-head`, `pypi-0.1.4` or `paper`.
    #[serde(default)]
    pub compat: Compat,
    /// Which parts become tasks.
    #[serde(default = "all_splits")]
    pub splits: Vec<Split>,
    /// The most tasks of each part, the first ones in the order of `data.json`; all when absent.
    #[serde(default)]
    pub limit: Option<usize>,
}

fn all_splits() -> Vec<Split> {
    vec![Split::Train, Split::Val, Split::Test]
}

impl Stage for ToolwozConvert {
    const KIND: &'static str = "toolwoz.convert";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "kind: toolwoz.convert
in: {corpus: woz.files}
with: {compat: fixed, splits: [train, test]}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![CORPUS.one()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![TASKS.one(), WORLD.one()]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.splits.is_empty() {
            problems.push(Problem::new("splits", "must name at least one of `train`, `val`, `test`"));
        }
        if self.splits.iter().collect::<BTreeSet<_>>().len() < self.splits.len() {
            problems.push(Problem::new("splits", "must name each part once"));
        }
        if self.limit == Some(0) {
            problems.push(Problem::new("limit", "must be at least 1"));
        }
        problems
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let corpus = Corpus::open(context.input(CORPUS.name)?)?;
        let rules = Rules::of(self.compat);
        let items = world_items(&corpus.databases()?, &rules);
        let mut converter = Converter::new(&items, corpus.splits()?, rules)?;
        let mut tasks = context.writer(&TASKS)?;
        let mut left = vec![self.limit.unwrap_or(usize::MAX); self.splits.len()];
        corpus.for_each_dialogue(|name, outline: Outline| {
            context.check_stop()?;
            if let Some(task) = converter.convert(&name, &outline)?
                && let Some(part) = self.splits.iter().position(|split| split.name() == task.split)
                && left[part] > 0
            {
                left[part] -= 1;
                tasks.push(task)?;
            }
            Ok::<(), anyhow::Error>(())
        })?;
        let written = tasks.finish()?;
        if written.rows == 0 {
            bail!(
                "the corpus gave no task in the parts {:?}",
                self.splits.iter().map(|split| split.name()).collect::<Vec<_>>()
            );
        }
        context.write(&WORLD, items)?;
        say(converter.report(), context);
        Ok(())
    }
}

fn say(report: &Report, context: &Context) {
    context.figure("dialogues", report.dialogues as f64);
    context.figure("dialogues_without_tools", report.untooled.iter().sum::<usize>() as f64);
    context.figure("dialogues_without_goals", report.without_goals as f64);
    for (domain, count) in DOMAINS.iter().zip(report.unrecorded_bookings) {
        context.figure(format!("unrecorded_bookings_{domain}"), count as f64);
    }
}
