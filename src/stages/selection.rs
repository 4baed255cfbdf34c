//! Which tasks of a table a stage takes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dialogue::task::Task;
use crate::engine::port::Port;
use crate::engine::stage::{Context, Problem};
use crate::table::{Aside, Place};

/// Where the tasks to choose from come in.
pub const TASKS: Port<Task> = Port::new("tasks");

const SPLITS: [&str; 4] = ["train", "val", "test", "full_test"];

/// How many test tasks the paper uses (reference, section 1.2; quirk Q15).
const PAPER_TEST: usize = 450;

/// A choice of tasks: those of a split, in the order of the dialogues' names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// `train`, `val`, `test` (the paper's: the first 450 of the test tasks) or `full_test` (all of them); all tasks where absent.
    #[serde(default)]
    pub split: Option<String>,
    /// Leave out this many at the beginning.
    #[serde(default)]
    pub skip: usize,
    /// Take at most this many.
    #[serde(default)]
    pub limit: Option<usize>,
}

impl Selection {
    /// The paper's test tasks.
    pub fn test() -> Self {
        Self { split: Some("test".to_owned()), skip: 0, limit: None }
    }

    /// The training tasks.
    pub fn train() -> Self {
        Self { split: Some("train".to_owned()), skip: 0, limit: None }
    }

    /// What is wrong beyond types.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Some(split) = self.split.as_deref().filter(|split| !SPLITS.contains(split)) {
            let known = SPLITS.map(|split| format!("`{split}`")).join(", ");
            problems.push(Problem::new("tasks.split", format!("is `{split}`; known are {known}")));
        }
        if self.limit == Some(0) {
            problems.push(Problem::new("tasks.limit", "must be at least 1"));
        }
        problems
    }

    /// Chooses tasks of the table on the port `tasks`.
    ///
    /// # Errors
    /// When the table is damaged, nothing is left of it, or the disk is full.
    pub fn choose(&self, context: &Context) -> anyhow::Result<Tasks> {
        let split = self.split.as_deref().map(|split| if split == "full_test" { "test" } else { split });
        let mut aside = Aside::new(context.scratch()?);
        let mut chosen: Vec<(String, Place)> = Vec::new();
        let mut seen = 0;
        for task in context.rows(&TASKS)? {
            let task = task?;
            seen += 1;
            if split.is_none_or(|split| split == task.split) {
                let place = aside.push(&task)?;
                chosen.push((task.dialogue, place));
            }
        }
        chosen.sort_by(|(a, _), (b, _)| a.cmp(b));
        if self.split.as_deref() == Some("test") {
            chosen.truncate(PAPER_TEST);
        }
        let found = chosen.len();
        let chosen: Vec<_> = chosen.into_iter().skip(self.skip).take(self.limit.unwrap_or(usize::MAX)).collect();
        anyhow::ensure!(
            !chosen.is_empty(),
            "no task is chosen: {seen} tasks, {found} of split `{}`, the first {} left out",
            self.split.as_deref().unwrap_or("any"),
            self.skip
        );
        Ok(Tasks { aside, chosen })
    }
}

/// Chosen tasks in the order of the dialogues' names. Only names and places are held; each task is read when it is needed.
pub struct Tasks {
    aside: Aside<Task>,
    chosen: Vec<(String, Place)>,
}

impl Tasks {
    /// How many there are; never none.
    pub fn count(&self) -> usize {
        self.chosen.len()
    }

    /// Names and places, in order.
    pub fn chosen(&self) -> &[(String, Place)] {
        &self.chosen
    }

    /// Forgets the names.
    pub fn nameless(self) -> (Aside<Task>, Vec<Place>) {
        (self.aside, self.chosen.into_iter().map(|(_, place)| place).collect())
    }

    /// Reads a task.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, place: Place) -> anyhow::Result<Task> {
        Ok(self.aside.read(place)?)
    }
}
