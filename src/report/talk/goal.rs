//! What a dialogue is about: the calls that earn its reward, and the customer's wish in sentences.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;

use crate::dialogue::task::{Slot, Task};
use crate::table::{TableError, TableReader};

/// A call that earns a share of the reward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Goal {
    /// The tool: `search_hotel`, `book_train`; empty where only the number of goals is known.
    pub api: String,
    /// The arguments that it asks for, those that are not empty; none where the task is not known.
    pub wanted: Vec<Slot>,
    /// The entity that must be found or booked, where there is just one.
    pub entity: Option<String>,
    /// Whether it was reached.
    pub reached: bool,
    /// The first turn that reached it, where that is known.
    pub turn: Option<u32>,
}

impl Goal {
    /// A goal of which nothing but its tool is known, not reached.
    pub fn bare(api: &str) -> Self {
        Self { api: api.to_owned(), wanted: Vec::new(), entity: None, reached: false, turn: None }
    }

    /// `search_hotel(area: north, stars: 4) = 7`, as far as it is known.
    pub fn text(&self) -> String {
        let wanted: Vec<String> = self.wanted.iter().map(|slot| format!("{}: {}", slot.name, slot.value)).collect();
        let arguments = if wanted.is_empty() { String::new() } else { format!("({})", wanted.join(", ")) };
        let entity = self.entity.as_ref().map(|entity| format!(" = {entity}")).unwrap_or_default();
        format!("{}{arguments}{entity}", self.name())
    }

    /// The tool, or `goal` where only the number of goals is known.
    pub fn name(&self) -> &str {
        if self.api.is_empty() { "goal" } else { &self.api }
    }
}

/// The tasks of dialogues, by their names: none where no table of tasks is at hand.
#[derive(Clone, Debug, Default)]
pub struct Briefs(HashMap<String, Task>);

impl Briefs {
    /// All tasks of a table.
    pub fn read(tasks: &Path) -> Result<Self, TableError> {
        Self::collect(TableReader::open(tasks)?)
    }

    /// The task of one dialogue.
    pub fn read_one(tasks: &Path, dialogue: &str) -> Result<Self, TableError> {
        Self::collect(TableReader::open_where(tasks, "dialogue", dialogue)?)
    }

    fn collect(rows: TableReader<Task>) -> Result<Self, TableError> {
        rows.map(|task| task.map(|task| (task.dialogue.clone(), task))).collect::<Result<_, _>>().map(Self)
    }

    /// The customer's wish in sentences, one a line, without marks.
    pub fn wish(&self, dialogue: &str) -> Option<String> {
        self.0.get(dialogue).map(|task| plain(&task.message))
    }

    /// The goals of a dialogue, none reached yet.
    pub fn goals(&self, dialogue: &str) -> Option<Vec<Goal>> {
        let task = self.0.get(dialogue)?;
        let goal = |goal: &crate::dialogue::task::GoalCall| Goal {
            wanted: goal.parameters.iter().filter(|slot| !slot.value.is_empty()).cloned().collect(),
            entity: goal.unique_id.clone(),
            ..Goal::bare(&goal.api)
        };
        Some(task.goals.iter().map(goal).collect())
    }
}

/// A text without tags such as `<span class='emphasis'>`. A `<` that opens none stays.
fn plain(text: &str) -> String {
    let (mut plain, mut rest) = (String::new(), text);
    while let Some(open) = rest.find('<') {
        let tag = &rest[open + 1..];
        let close = tag.find('>').filter(|_| tag.starts_with(|c: char| c == '/' || c.is_ascii_alphabetic()));
        plain.push_str(&rest[..open]);
        match close {
            Some(close) => rest = &tag[close + 1..],
            None => {
                plain.push('<');
                rest = tag;
            }
        }
    }
    plain + rest
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::dialogue::task::GoalCall;

    /// A task of two goals: `search_hotel(area: north)` and `book_hotel` of entity 7.
    pub(in super::super) fn task(dialogue: &str) -> Task {
        let slot = |name: &str, value: &str| Slot { name: name.to_owned(), value: value.to_owned() };
        let goal = |api: &str, parameters, entity: Option<&str>| GoalCall {
            api: api.to_owned(),
            parameters,
            unique_id: entity.map(ToOwned::to_owned),
            returns: None,
        };
        Task {
            dialogue: dialogue.to_owned(),
            split: "test".to_owned(),
            message: "You need a <span class='emphasis'>hotel</span>.\nPay < 50 and > 3.".to_owned(),
            domains: Vec::new(),
            goals: vec![
                goal("search_hotel", vec![slot("area", "north"), slot("name", "")], None),
                goal("book_hotel", Vec::new(), Some("7")),
            ],
        }
    }

    pub(in super::super) fn briefs(dialogue: &str) -> Briefs {
        Briefs(HashMap::from([(dialogue.to_owned(), task(dialogue))]))
    }

    #[test]
    fn a_task_is_told_in_plain_words() {
        let briefs = briefs("a");
        assert_eq!(briefs.wish("a").as_deref(), Some("You need a hotel.\nPay < 50 and > 3."));
        let goals: Vec<String> = briefs.goals("a").unwrap().iter().map(Goal::text).collect();
        assert_eq!(goals, ["search_hotel(area: north)", "book_hotel = 7"]);
        assert_eq!((briefs.wish("b"), briefs.goals("b")), (None, None));
        assert_eq!(Goal::bare("").text(), "goal");
    }

    #[test]
    fn one_task_or_all_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tasks.parquet");
        crate::table::write(&path, [task("a"), task("b")]).unwrap();
        let (all, one) = (Briefs::read(&path).unwrap(), Briefs::read_one(&path, "b").unwrap());
        assert!(all.0.len() == 2 && one.0.len() == 1 && one.0.contains_key("b"));
    }
}
