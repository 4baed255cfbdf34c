//! `toolwoz.convert`: MultiWOZ becomes ToolWOZ.

use std::collections::BTreeSet;

use anyhow::bail;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::compat::{self, Compatible};
use crate::compat::{Compat, Quirk, Quirks, Rules};
use crate::dialogue::convert::{Converter, Report, Unrecorded, world_items};
use crate::dialogue::corpus::Corpus;
use crate::dialogue::multiwoz::Outline;
use crate::dialogue::rules::CONVERSION;
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
    /// Single quirks that another mode decides: `{Q5: fixed, Q12: repo-head}`; `docs/src/reference/compat.md` lists them.
    #[serde(default)]
    pub quirks: Quirks,
    /// What becomes of a booking that a goal asks for and the dialogue does not record: `drop`, `leave-out` (the dialogue) or
    /// `keep` (quirk Q11). MultiWOZ 2.0 has 454.
    #[serde(default)]
    pub unrecorded_bookings: Unrecorded,
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

impl Compatible for ToolwozConvert {
    const QUIRKS: &'static [&'static [Quirk]] = &[CONVERSION];
}

impl Stage for ToolwozConvert {
    const KIND: &'static str = "toolwoz.convert";
    const VERSION: u32 = 2;
    const EXAMPLE: &'static str = "\
toolwoz:
  kind: toolwoz.convert
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
        let mut problems = compat::check::<Self>(&self.quirks);
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
        let rules = Rules::new(self.compat, &self.quirks);
        let items = world_items(&corpus.databases()?, &rules);
        let mut converter = Converter::new(&items, corpus.splits()?, rules)?.with_unrecorded(self.unrecorded_bookings);
        let mut tasks = context.writer(&TASKS)?;
        let limit = self.limit.unwrap_or(usize::MAX);
        let mut taken = vec![0; self.splits.len()];
        let read = corpus.for_each_dialogue(|name, outline: Outline| {
            context.check_stop()?;
            if let Some(task) = converter.convert(&name, &outline)?
                && let Some(part) = self.splits.iter().position(|split| split.name() == task.split)
                && taken[part] < limit
            {
                taken[part] += 1;
                tasks.push(task)?;
            }
            Ok::<(), anyhow::Error>(())
        });
        // A stop is no fault of the corpus.
        context.check_stop()?;
        read?;
        let written = tasks.finish()?;
        if written.rows == 0 {
            bail!(
                "the corpus gave no task in the parts {:?}",
                self.splits.iter().map(|split| split.name()).collect::<Vec<_>>()
            );
        }
        context.write(&WORLD, items)?;
        say(converter.report(), context);
        self.warn(converter.report(), rules, context);
        for (split, count) in self.splits.iter().zip(taken) {
            context.figure(format!("tasks_{}", split.name()), count as f64);
        }
        Ok(())
    }
}

impl ToolwozConvert {
    /// The reference leaves bookings out without a word (quirk Q11).
    fn warn(&self, report: &Report, rules: Rules, context: &Context) {
        let lost = report.unrecorded_bookings.iter().sum::<usize>() - report.made_up_bookings;
        if lost > 0 && self.unrecorded_bookings != Unrecorded::LeaveOut && rules.tells_of_unrecorded_bookings() {
            context.warn(format!(
                "{lost} bookings that goals ask for earn nothing, since no dialogue records them; see `unrecorded_bookings`"
            ));
        }
    }
}

fn say(report: &Report, context: &Context) {
    context.figure("dialogues", report.dialogues as f64);
    context.figure("dialogues_without_tools", report.untooled.iter().sum::<usize>() as f64);
    context.figure("dialogues_without_goals", report.without_goals as f64);
    for (domain, count) in DOMAINS.iter().zip(report.unrecorded_bookings).filter(|(_, count)| *count > 0) {
        context.figure(format!("unrecorded_bookings_{domain}"), count as f64);
    }
    for (name, count) in [("dialogues_left_out", report.left_out), ("made_up_bookings", report.made_up_bookings)] {
        if count > 0 {
            context.figure(name, count as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::stage::{Input, NoSettings, Notice};
    use crate::table;
    use std::io::{Cursor, Write};
    use std::path::{Path, PathBuf};
    use std::sync::{Arc, Mutex};

    fn corpus() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/multiwoz")
    }

    fn run(stage: &ToolwozConvert, corpus: &Path, out: &Path) -> anyhow::Result<Vec<Notice>> {
        let notices = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&notices);
        let context = Context {
            out: out.to_owned(),
            notify: Arc::new(move |notice| heard.lock().unwrap().push(notice)),
            ..Context::below(
                out,
                vec![Input { name: "corpus".to_owned(), path: corpus.to_owned() }],
                Arc::new(NoSettings),
            )
        };
        stage.run(&context)?;
        Ok(notices.lock().unwrap().clone())
    }

    fn all() -> ToolwozConvert {
        ToolwozConvert {
            compat: Compat::Fixed,
            quirks: Quirks::default(),
            unrecorded_bookings: Unrecorded::Drop,
            splits: all_splits(),
            limit: None,
        }
    }

    #[test]
    fn writes_tasks_and_world_byte_for_byte_the_same_from_files_and_from_an_archive() {
        let folder = tempfile::tempdir().unwrap();
        let packed = folder.path().join("packed");
        crate::fs::create_dir_all(packed.join("db")).unwrap();
        for path in crate::fs::list(corpus()).unwrap() {
            let name = path.file_name().unwrap().to_str().unwrap();
            if name == "data.json" {
                let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
                for (name, bytes) in [("delex.json", vec![1]), ("MULTIWOZ2/data.json", crate::fs::read(&path).unwrap())]
                {
                    zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
                    zip.write_all(&bytes).unwrap();
                }
                crate::fs::write_whole(packed.join("dataset.zip"), zip.finish().unwrap().get_ref()).unwrap();
            } else {
                crate::fs::copy(&path, packed.join("db").join(name)).unwrap();
            }
        }
        let mut outputs = Vec::new();
        for (name, corpus) in [("a", corpus()), ("b", packed)] {
            let out = folder.path().join(name);
            crate::fs::create_dir_all(&out).unwrap();
            let notices = run(&all(), &corpus, &out).unwrap();
            assert!(notices.contains(&Notice::Figure { name: "dialogues".to_owned(), value: 25.0 }));
            outputs.push([
                crate::fs::read(out.join("tasks.parquet")).unwrap(),
                crate::fs::read(out.join("world.parquet")).unwrap(),
            ]);
        }
        assert_eq!(outputs[0], outputs[1]);
        let world: Vec<WorldItem> = table::read(&folder.path().join("a/world.parquet")).unwrap();
        assert_eq!(world.iter().filter(|item| item.part == "tool").count(), 8);
        assert_eq!(world.len(), 33 + 79 + 416 + 110 + 8);
    }

    #[test]
    fn takes_the_first_tasks_of_the_parts_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        run(&all(), &corpus(), folder.path()).unwrap();
        let tasks: Vec<Task> = table::read(&folder.path().join("tasks.parquet")).unwrap();
        assert_eq!(tasks.len(), 25);
        run(&ToolwozConvert { splits: vec![Split::Test], limit: Some(2), ..all() }, &corpus(), folder.path()).unwrap();
        let some: Vec<Task> = table::read(&folder.path().join("tasks.parquet")).unwrap();
        let expected: Vec<Task> = tasks.into_iter().filter(|task| task.split == "test").take(2).collect();
        assert_eq!(some, expected);
    }

    #[test]
    fn says_what_a_folder_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let message = run(&all(), folder.path(), folder.path()).unwrap_err().to_string();
        assert!(
            message.ends_with("neither itself nor in its folders") && message.contains("`hotel_db.json`"),
            "{message}"
        );
        for path in crate::fs::list(corpus()).unwrap() {
            crate::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
        crate::fs::write_whole(
            folder.path().join("data.json"),
            b"{\"A.json\": {\"goal\": {\"taxi\": 1}, \"log\": []}}",
        )
        .unwrap();
        let message = run(&all(), folder.path(), folder.path()).unwrap_err().to_string();
        let expected = "dialogue `A.json` (0 dialogues before it): `goal.taxi` is a number, expected an object";
        assert!(message.ends_with(expected), "{message}");
        crate::fs::create_dir_all(folder.path().join("copy")).unwrap();
        crate::fs::copy(folder.path().join("data.json"), folder.path().join("copy/data.json")).unwrap();
        let message = run(&all(), folder.path(), folder.path()).unwrap_err().to_string();
        assert!(message.starts_with("two files are called `data.json`: "), "{message}");
    }

    #[test]
    fn the_example_is_a_stage_and_parameters_are_checked() {
        let example: serde_json::Value = serde_yaml::from_str(ToolwozConvert::EXAMPLE).unwrap();
        let stage: ToolwozConvert = serde_json::from_value(example["toolwoz"]["with"].clone()).unwrap();
        assert_eq!((stage.splits.as_slice(), stage.check()), ([Split::Train, Split::Test].as_slice(), Vec::new()));
        let bad = ToolwozConvert { splits: vec![], limit: Some(0), ..all() };
        assert_eq!(bad.check().iter().map(|problem| problem.field.as_str()).collect::<Vec<_>>(), ["splits", "limit"]);
        let twice = ToolwozConvert { splits: vec![Split::Val, Split::Val], ..all() };
        assert_eq!(twice.check().len(), 1);
    }
}
