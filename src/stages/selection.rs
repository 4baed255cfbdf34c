//! Which tasks of a table a stage takes.

use std::collections::BTreeSet;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::compat::Rules;
use crate::dialogue::oracle::reachable;
use crate::dialogue::task::Task;
use crate::dialogue::world::World;
use crate::engine::port::Port;
use crate::engine::stage::{Context, Problem};
use crate::eval::stratify::stratified;
use crate::table::{Aside, Place};

/// Where the tasks to choose from come in.
pub const TASKS: Port<Task> = Port::new("tasks");

const SPLITS: [&str; 6] = ["train", "val", "test", "full_test", "stratified", "solvable"];

/// How many test tasks the paper uses (reference, section 1.2; quirk Q15).
const PAPER_TEST: usize = 450;

/// A choice of tasks: those of a split, in the order of the dialogues' names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// All tasks where absent, else one of these:
    ///
    /// - `train`, `val`
    /// - `full_test`: all test tasks.
    /// - `test`: the paper's, the first 450 of them by name. They are all of two domains (quirk Q15).
    /// - `stratified`: 450 of them, or `limit`, that look like all of them: short for `{split: full_test, stratified: true, limit: 450}`.
    /// - `solvable`: those that can be solved: short for `{split: full_test, solvable: true}`.
    #[serde(default)]
    pub split: Option<String>,
    /// Only tasks whose every goal an agent that knows the goals can reach under the stage's `compat` and `quirks`. Some goals of
    /// MultiWOZ contradict its databases.
    #[serde(default)]
    pub solvable: bool,
    /// Take `limit` tasks that have the shares of domains and of numbers of goals that all have, and not the first ones by name.
    /// Which ones depends on the names alone.
    #[serde(default)]
    pub stratified: bool,
    /// Leave out this many at the beginning.
    #[serde(default)]
    pub skip: usize,
    /// Take at most this many.
    #[serde(default)]
    pub limit: Option<usize>,
}

/// A task that may be chosen.
struct Candidate {
    dialogue: String,
    place: Place,
    stratum: String,
}

impl Selection {
    /// The paper's test tasks.
    pub fn test() -> Self {
        Self { split: Some("test".to_owned()), ..Self::default() }
    }

    /// The training tasks.
    pub fn train() -> Self {
        Self { split: Some("train".to_owned()), ..Self::default() }
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
        if self.stratified && self.size().is_none() {
            problems.push(Problem::new("tasks.stratified", "needs `limit`, which says how many tasks to take"));
        }
        if self.is_stratified() && self.skip > 0 {
            problems.push(Problem::new("tasks.skip", "goes by name, which a stratified choice does not"));
        }
        problems
    }

    /// Chooses tasks of the table on the port `tasks`.
    ///
    /// # Errors
    /// When the table is damaged, nothing is left of it, or the disk is full.
    pub fn choose(&self, context: &Context, world: &Arc<World>, rules: Rules) -> anyhow::Result<Tasks> {
        let (aside, mut pool, seen) = self.pool(context)?;
        if self.split.as_deref() == Some("test") {
            pool.truncate(PAPER_TEST);
        }
        let found = pool.len();
        if self.solvable || self.split.as_deref() == Some("solvable") {
            pool = solvable(pool, &aside, world, rules, if self.is_stratified() { usize::MAX } else { self.end() })?;
        }
        let solved = pool.len();
        let chosen: Vec<_> = self.cut(pool).into_iter().map(|task| (task.dialogue, task.place)).collect();
        anyhow::ensure!(
            !chosen.is_empty(),
            "no task is chosen: {seen} tasks, {found} of split `{}`{}, the first {} left out",
            self.split.as_deref().unwrap_or("any"),
            if solved < found { format!(", {solved} of them solvable") } else { String::new() },
            self.skip
        );
        Ok(Tasks { aside, chosen })
    }

    /// The tasks of the split by name, and how many tasks there are at all.
    fn pool(&self, context: &Context) -> anyhow::Result<(Aside<Task>, Vec<Candidate>, usize)> {
        let split = self.split.as_deref().map(|split| match split {
            "full_test" | "stratified" | "solvable" => "test",
            split => split,
        });
        let mut aside = Aside::new(context.scratch()?);
        let mut pool = Vec::new();
        let mut seen = 0;
        for task in context.rows(&TASKS)? {
            let task = task?;
            seen += 1;
            if split.is_none_or(|split| split == task.split) {
                let place = aside.push(&task)?;
                let stratum = if self.is_stratified() { stratum(&task) } else { String::new() };
                pool.push(Candidate { dialogue: task.dialogue, place, stratum });
            }
        }
        pool.sort_by(|a, b| a.dialogue.cmp(&b.dialogue));
        Ok((aside, pool, seen))
    }

    /// What `skip` and `limit` leave.
    fn cut(&self, pool: Vec<Candidate>) -> Vec<Candidate> {
        if !self.is_stratified() {
            return pool.into_iter().skip(self.skip).take(self.size().unwrap_or(usize::MAX)).collect();
        }
        let items: Vec<(&str, &str)> = pool.iter().map(|task| (&*task.dialogue, &*task.stratum)).collect();
        let drawn: BTreeSet<usize> = stratified(&items, self.size().unwrap_or(usize::MAX)).into_iter().collect();
        pool.into_iter().enumerate().filter(|(place, _)| drawn.contains(place)).map(|(_, task)| task).collect()
    }

    fn is_stratified(&self) -> bool {
        self.stratified || self.split.as_deref() == Some("stratified")
    }

    fn size(&self) -> Option<usize> {
        let usual = (self.split.as_deref() == Some("stratified")).then_some(PAPER_TEST);
        self.limit.or(usual)
    }

    /// Behind the last task that can be chosen by name.
    fn end(&self) -> usize {
        self.size().map_or(usize::MAX, |size| size.saturating_add(self.skip))
    }
}

/// Which tasks are alike: those of the same domains with as many goals.
fn stratum(task: &Task) -> String {
    let domains: BTreeSet<&str> = task.domains.iter().map(|goal| goal.domain.as_str()).collect();
    format!("{} {}", domains.into_iter().collect::<Vec<_>>().join("+"), task.goals.len())
}

/// The first `most` of the tasks whose every goal can be reached.
fn solvable(
    pool: Vec<Candidate>,
    tasks: &Aside<Task>,
    world: &Arc<World>,
    rules: Rules,
    most: usize,
) -> anyhow::Result<Vec<Candidate>> {
    let mut left = Vec::new();
    for candidate in pool {
        if left.len() >= most {
            break;
        }
        let task = Arc::new(tasks.read(candidate.place)?);
        if reachable(world, &task, rules)?.len() == task.goals.len() {
            left.push(candidate);
        }
    }
    Ok(left)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::task::{DomainGoal, GoalCall, Slot};
    use crate::stages::bench::Bench;
    use crate::table;

    /// A task of a split. Its attraction exists; its second goal, where it has one, books what no record has.
    fn task(dialogue: &str, split: &str, goals: usize) -> Task {
        let slot = |name: &str, value: &str| Slot { name: name.to_owned(), value: value.to_owned() };
        let search = |area: &str| GoalCall {
            api: "search_attraction".to_owned(),
            parameters: vec![slot("type", "park"), slot("name", ""), slot("area", area)],
            unique_id: None,
            returns: None,
        };
        let domain = DomainGoal {
            domain: "attraction".to_owned(),
            info: Vec::new(),
            fail_info: Vec::new(),
            book: Vec::new(),
            fail_book: Vec::new(),
            requests: Vec::new(),
        };
        Task {
            dialogue: dialogue.to_owned(),
            split: split.to_owned(),
            message: String::new(),
            domains: vec![domain],
            goals: [search("north"), search("nowhere")][..goals].to_vec(),
        }
    }

    fn world() -> Arc<World> {
        let park = serde_json::from_str(r#"{"name": "milton", "type": "park", "area": "north"}"#).unwrap();
        let items = crate::dialogue::convert::world_items(&[("attraction".to_owned(), vec![park])], &Rules::default());
        Arc::new(World::from_items(items).unwrap())
    }

    fn chosen(tasks: &[Task], selection: &Selection) -> Result<Vec<String>, String> {
        let bench = Bench::new();
        let path = bench.write("tasks.parquet", "");
        table::write(&path, tasks.iter().cloned()).unwrap();
        let mut names = Vec::new();
        let run = bench.run_with(&[("tasks", &path)], |context| {
            let tasks = selection.choose(context, &world(), Rules::default())?;
            names = tasks.chosen().iter().map(|(name, _)| name.clone()).collect();
            Ok(())
        });
        run.map(|()| names).map_err(|error| error.to_string())
    }

    fn selection(yaml: &str) -> Selection {
        serde_json::from_str(yaml).unwrap()
    }

    #[test]
    fn splits_are_what_they_say() {
        let mut tasks: Vec<Task> =
            (0..600).map(|n| task(&format!("T{n:03}"), "test", 1 + usize::from(n % 3 == 0))).collect();
        tasks.push(task("A", "train", 2));
        tasks.push(task("B", "train", 1));
        tasks.reverse();
        let of = |yaml: &str| chosen(&tasks, &selection(yaml)).unwrap();
        assert_eq!(of(r#"{"split": "full_test"}"#).len(), 600);
        let test = of(r#"{"split": "test"}"#);
        assert_eq!((test.len(), test[0].as_str(), test[449].as_str()), (450, "T000", "T449"));
        let solvable = of(r#"{"split": "solvable"}"#);
        assert_eq!((solvable.len(), solvable[0].as_str()), (400, "T001"));
        assert_eq!(of(r#"{"split": "test", "solvable": true, "skip": 1, "limit": 2}"#), ["T002", "T004"]);
        assert_eq!(of(r#"{"split": "train", "solvable": true}"#), ["B"]);
        assert_eq!(of(r#"{}"#).len(), 602);
        let sample = of(r#"{"split": "stratified"}"#);
        assert_eq!((sample.len(), sample.is_sorted()), (450, true));
        let of_two = |names: &[String]| names.iter().filter(|name| name[1..].parse::<u32>().unwrap() % 3 == 0).count();
        assert_eq!(of_two(&sample), 150);
        assert!(of_two(&sample[..225]) > 60, "not the first ones of each");
        let small = of(r#"{"split": "full_test", "stratified": true, "limit": 9}"#);
        assert_eq!((small.len(), of_two(&small)), (9, 3));
        assert_eq!(of(r#"{"split": "stratified", "solvable": true, "limit": 5}"#).len(), 5);
    }

    #[test]
    fn what_leaves_nothing_is_said() {
        let tasks = [task("A", "test", 2), task("B", "train", 1)];
        let error = chosen(&tasks, &selection(r#"{"split": "solvable"}"#)).unwrap_err();
        assert_eq!(
            error,
            "no task is chosen: 2 tasks, 1 of split `solvable`, 0 of them solvable, the first 0 left out"
        );
        let fields = |yaml: &str| selection(yaml).check().into_iter().map(|problem| problem.field).collect::<Vec<_>>();
        assert_eq!(fields(r#"{"stratified": true}"#), ["tasks.stratified"]);
        assert_eq!(fields(r#"{"split": "stratified", "skip": 3}"#), ["tasks.skip"]);
        assert!(fields(r#"{"split": "stratified", "limit": 3, "solvable": true}"#).is_empty());
    }
}
