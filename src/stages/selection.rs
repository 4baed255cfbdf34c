//! Which tasks of a table a stage takes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dialogue::task::Task;
use crate::engine::stage::Problem;
use crate::table::TableReader;

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

    /// Reads the chosen tasks.
    ///
    /// # Errors
    /// When the table is damaged, or nothing is left of it.
    pub fn choose(&self, tasks: TableReader<Task>) -> anyhow::Result<Vec<Task>> {
        let split = self.split.as_deref().map(|split| if split == "full_test" { "test" } else { split });
        let mut chosen = Vec::new();
        let mut seen = 0;
        for task in tasks {
            let task = task?;
            seen += 1;
            if split.is_none_or(|split| split == task.split) {
                chosen.push(task);
            }
        }
        chosen.sort_by(|a, b| a.dialogue.cmp(&b.dialogue));
        if self.split.as_deref() == Some("test") {
            chosen.truncate(PAPER_TEST);
        }
        let found = chosen.len();
        let chosen: Vec<Task> = chosen.into_iter().skip(self.skip).take(self.limit.unwrap_or(usize::MAX)).collect();
        anyhow::ensure!(
            !chosen.is_empty(),
            "no task is chosen: {seen} tasks, {found} of split `{}`, the first {} left out",
            self.split.as_deref().unwrap_or("any"),
            self.skip
        );
        Ok(chosen)
    }
}
