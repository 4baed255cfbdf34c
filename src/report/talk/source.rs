//! Where dialogues lie: a table of episodes or of trees, and the tasks that its stage was given.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use anyhow::bail;

use super::dialogue::{Headline, HeadlineRow, Talk};
use super::goal::Briefs;
use super::tree::{Tree, TreeHeadline, TreeHeadlineRow};
use crate::dialogue::episode::EpisodeRow;
use crate::dialogue::task::Task;
use crate::engine::history::{RunRecord, StageRecord};
use crate::engine::store::{Found, Store, StoreError};
use crate::josh::node::NodeRow;
use crate::josh::paths::trees;
use crate::table::{self, Row, TableReader};

/// What a table holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Played dialogues, one a row.
    Episodes,
    /// Trees, one node a row.
    Trees,
}

/// A table of dialogues.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    tasks: Option<PathBuf>,
    /// What it holds.
    pub holds: Holds,
}

impl Source {
    /// A Parquet file, and one with the tasks that its dialogues are about, where there is one.
    ///
    /// # Errors
    /// When the file cannot be read, or holds neither episodes nor trees.
    pub fn open(path: &Path, tasks: Option<PathBuf>) -> anyhow::Result<Self> {
        let holds = match table::read_type(path)?.as_deref() {
            Some(EpisodeRow::TYPE) => Holds::Episodes,
            Some(NodeRow::TYPE) => Holds::Trees,
            found => bail!(
                "`{}` holds `{}` rows, expected `{}` or `{}`",
                path.display(),
                found.unwrap_or("unnamed"),
                EpisodeRow::TYPE,
                NodeRow::TYPE
            ),
        };
        Ok(Self { path: path.to_owned(), tasks, holds })
    }

    /// One dialogue of a table of episodes: quick however large the table is.
    pub fn talk(&self, dialogue: &str) -> anyhow::Result<Option<Talk>> {
        let Some(row) = TableReader::<EpisodeRow>::open_where(&self.path, "dialogue", dialogue)?.next() else {
            return Ok(None);
        };
        Ok(Some(Talk::new(row?, &self.brief(dialogue)?)))
    }

    /// One tree of a table of trees: quick however large the table is.
    pub fn tree(&self, dialogue: &str) -> anyhow::Result<Option<Tree>> {
        let rows = TableReader::<NodeRow>::open_where(&self.path, "dialogue", dialogue)?;
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        Ok(if rows.is_empty() { None } else { Some(Tree::new(rows, &self.brief(dialogue)?)?) })
    }

    /// All dialogues of a table of episodes in its order, read piece by piece.
    pub fn talks(&self) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Talk>> + use<>> {
        let briefs = self.briefs()?;
        let rows = TableReader::<EpisodeRow>::open(&self.path)?;
        Ok(rows.map(move |row| Ok(Talk::new(row?, &briefs))))
    }

    /// All trees of a table of trees in its order, read piece by piece.
    pub fn trees(&self) -> anyhow::Result<impl Iterator<Item = anyhow::Result<Tree>> + use<>> {
        let briefs = self.briefs()?;
        let rows = TableReader::<NodeRow>::open(&self.path)?;
        Ok(trees(rows).map(move |rows| Ok(Tree::new(rows?, &briefs)?)))
    }

    /// A line for each dialogue of a table of episodes, in its order. Reads no message.
    pub fn headlines(&self) -> anyhow::Result<Vec<Headline>> {
        Ok(TableReader::<HeadlineRow>::open(&self.path)?.map(|row| row.map(Into::into)).collect::<Result<_, _>>()?)
    }

    /// A line for each tree of a table of trees, in its order. Reads no message.
    pub fn tree_headlines(&self) -> anyhow::Result<Vec<TreeHeadline>> {
        let mut lines: Vec<TreeHeadline> = Vec::new();
        for row in TableReader::<TreeHeadlineRow>::open(&self.path)? {
            let row = row?;
            match lines.last_mut().filter(|line| line.dialogue == row.dialogue) {
                Some(line) => line.add(&row),
                None => lines.push(row.into()),
            }
        }
        Ok(lines)
    }

    fn brief(&self, dialogue: &str) -> anyhow::Result<Briefs> {
        Ok(self.tasks.as_deref().map(|tasks| Briefs::read_one(tasks, dialogue)).transpose()?.unwrap_or_default())
    }

    fn briefs(&self) -> anyhow::Result<Briefs> {
        Ok(self.tasks.as_deref().map(Briefs::read).transpose()?.unwrap_or_default())
    }
}

/// The table of tasks that a stage's results go back to: the nearest output of this type among what it reads, what that was made
/// of, and so on. None where there is none, where it was removed, and in records of versions that did not keep what stages read.
pub fn tasks_of(store: &Store, run: &RunRecord, stage: &StageRecord) -> Result<Option<PathBuf>, StoreError> {
    let mut waiting = VecDeque::from([stage]);
    let mut seen = BTreeSet::from([stage.name.as_str()]);
    while let Some(stage) = waiting.pop_front() {
        for (stage, port) in stage.inputs.values().filter_map(|input| input.rsplit_once('.')) {
            let Some(above) = run.stage(stage) else { continue };
            if let Some(path) = output_of(store, above, port, Task::TYPE)? {
                return Ok(Some(path));
            }
            if seen.insert(&above.name) {
                waiting.push_back(above);
            }
        }
    }
    Ok(None)
}

/// Where a stage's output lies, if its result is there and it holds rows of this type.
fn output_of(store: &Store, stage: &StageRecord, port: &str, holds: &str) -> Result<Option<PathBuf>, StoreError> {
    let Some(fingerprint) = &stage.fingerprint else { return Ok(None) };
    let Found::Whole(manifest) = store.find(fingerprint)? else { return Ok(None) };
    let artifact = manifest.outputs.get(port).filter(|artifact| artifact.holds == holds);
    Ok(artifact.map(|artifact| store.path(fingerprint, artifact)))
}

#[cfg(test)]
mod tests {
    use super::super::{dialogue, goal, tree};
    use super::*;
    use crate::dialogue::episode::Outcome;
    use crate::josh::tree::Outcome as TreeOutcome;

    #[test]
    fn episodes_are_listed_found_and_streamed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, tasks) = (folder.path().join("episodes.parquet"), folder.path().join("tasks.parquet"));
        let rows = (0..2000)
            .map(|n| dialogue::tests::row(&format!("d{n}"), if n == 5 { Outcome::Broken } else { Outcome::Failure }));
        table::write(&path, rows).unwrap();
        table::write(&tasks, [goal::tests::task("d7")]).unwrap();
        let source = Source::open(&path, Some(tasks)).unwrap();
        assert_eq!(source.holds, Holds::Episodes);
        let talk = source.talk("d7").unwrap().unwrap();
        assert!(talk.wish.is_some() && talk.goals[1].entity.as_deref() == Some("7"));
        assert!(source.talk("d").unwrap().is_none());
        assert!(source.talks().unwrap().map(Result::unwrap).nth(7) == Some(talk));
        let lines = source.headlines().unwrap();
        assert_eq!((lines.len(), lines[5].reward, lines[5].reason.as_deref()), (2000, None, Some("no reply")));
        assert_eq!((lines[6].reward, lines[6].reached, lines[6].goals), (Some(0.5), 1, 2));
    }

    #[test]
    fn trees_are_listed_found_and_streamed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trees.parquet");
        let rows = (0..600).flat_map(|n| tree::tests::rows(&format!("d{n}"), TreeOutcome::Partial));
        table::write(&path, rows).unwrap();
        let source = Source::open(&path, None).unwrap();
        assert_eq!(source.holds, Holds::Trees);
        let tree = source.tree("d300").unwrap().unwrap();
        assert_eq!(tree.nodes.len(), 4);
        assert!(source.tree("x").unwrap().is_none());
        assert!(source.trees().unwrap().map(Result::unwrap).nth(300) == Some(tree));
        let lines = source.tree_headlines().unwrap();
        assert_eq!((lines.len(), lines[9].nodes, lines[9].examples, lines[9].depth), (600, 4, 3, 2));
    }

    #[test]
    fn other_tables_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tasks.parquet");
        table::write(&path, [goal::tests::task("a")]).unwrap();
        let error = Source::open(&path, None).unwrap_err().to_string();
        assert!(
            error.contains("holds `toolwoz.task/v1` rows, expected `dialogue.episode/v2` or `josh.node/v2`"),
            "{error}"
        );
    }
}
