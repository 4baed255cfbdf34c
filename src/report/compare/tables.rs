//! Score tables of arms, and the episodes that were scored.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::Options;
use super::arms::{Party, Seeds, Side};
use super::library::Library;
use super::stages::{Matched, instances};
use crate::dialogue::episode::{EpisodeRow, Outcome};
use crate::dialogue::task::Task;
use crate::engine::history::{RunRecord, StageRecord};
use crate::engine::store::Manifest;
use crate::eval::ScoreRow;
use crate::table::Row;

/// What a comparison reads of an episode: a part of its columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct EpisodePart {
    pub dialogue: String,
    pub outcome: Outcome,
    pub reason: Option<String>,
    pub ended: bool,
    pub messages: Vec<Said>,
    pub calls: Vec<Called>,
    pub goals: Vec<String>,
    pub goals_hit: Vec<u32>,
    pub agent_completion_tokens: u64,
    pub user_completion_tokens: u64,
}

/// A message that only counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Said {}

/// A call that only counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Called {
    pub api: String,
}

impl Row for EpisodePart {
    const TYPE: &'static str = EpisodeRow::TYPE;
}

/// The dialogues that are the same: by name, within one set of tasks where replicates played several.
pub(super) type Key = (usize, String);

/// A score table of a replicate.
#[derive(Clone, Debug, Default)]
pub(super) struct Scored {
    pub scores: BTreeMap<Key, ScoreRow>,
    /// The episodes by dialogue, where they are known.
    pub episodes: Option<HashMap<Key, EpisodePart>>,
    /// The seed that tells its replicate from others.
    pub seed: Option<String>,
    /// The content of the tasks that were played.
    pub tasks: Option<String>,
    /// The content of the table, where it is a stage's.
    pub digest: Option<String>,
}

/// A score table of all arms: for each its replicates.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub name: String,
    pub arms: Vec<Vec<Scored>>,
    /// Whether replicates played other tasks each, so that they share no dialogue.
    pub apart: bool,
}

impl Table {
    /// Whether all arms' replicates hold the same scores.
    pub fn is_the_same(&self) -> bool {
        let alike = |pair: &[Vec<Scored>]| {
            let same = |(a, b): (&Scored, &Scored)| match (&a.digest, &b.digest) {
                (Some(a), Some(b)) => a == b,
                // Of an arm in a file the rows are all there is.
                _ => a.scores == b.scores,
            };
            pair[0].len() == pair[1].len() && pair[0].iter().zip(&pair[1]).all(same)
        };
        self.arms.windows(2).all(alike)
    }
}

/// The score tables: of parts of runs the one that was named, of runs all.
pub(super) fn tables(
    library: &Library,
    options: &Options,
    parties: &[Party],
    rows: &[Matched],
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Table>> {
    let mut tables = Vec::new();
    if parties.iter().any(|party| party.sides[0].root.is_some()) {
        let mut arms = Vec::new();
        for party in parties {
            let mut arm = Vec::new();
            for (side, replicate) in party.sides.iter().zip(&party.arm.replicates) {
                let Some((stage, port)) = &side.root else {
                    bail!("`{}` is a run, others are stages: compare runs with runs", side.name)
                };
                let scored = read(library, side.run, stage, Some(port))?.with_context(|| {
                    format!(
                        "`{}` of run `{}` has no scores: they were removed, or never computed",
                        stage.name, side.run.run
                    )
                })?;
                arm.push(Scored { seed: replicate.seed.clone(), ..scored });
            }
            arms.push(arm);
        }
        let labels: BTreeSet<&Option<String>> =
            rows.iter().filter(|row| is_root(parties, row)).flat_map(|row| &row.names).collect();
        let name = match labels.first() {
            Some(Some(name)) if labels.len() == 1 => name.clone(),
            _ => "scores".to_owned(),
        };
        tables.push(Table { name, arms, apart: false });
    } else {
        for row in rows {
            let mut arms = Vec::new();
            for (name, party) in row.names.iter().zip(parties) {
                arms.push(replicates(library, options, party, name.as_deref())?);
            }
            if arms.iter().any(|arm| !arm.is_empty()) {
                tables.push(Table { name: row.label.clone(), arms, apart: false });
            }
        }
    }
    for table in &mut tables {
        tell_tasks_apart(table, notes);
    }
    Ok(tables)
}

fn is_root(parties: &[Party], row: &Matched) -> bool {
    let root = parties[0].sides[0].root.as_ref().map(|(stage, _)| stage.name.as_str());
    root.zip(row.names[0].as_deref()).is_some_and(|(root, name)| root == name || root.starts_with(&format!("{name}[")))
}

fn replicates(library: &Library, options: &Options, party: &Party, name: Option<&str>) -> anyhow::Result<Vec<Scored>> {
    let mut found = Vec::new();
    let Some(name) = name else { return Ok(found) };
    for stage in instances(options, party, name) {
        let has = |side: &&Side| side.stages.iter().any(|one| std::ptr::eq(*one, stage));
        let Some((side, replicate)) = party.sides.iter().zip(&party.arm.replicates).find(|(side, _)| has(side)) else {
            continue;
        };
        let axes = Seeds(options).apart(&stage.name).1.join(",");
        let seed = replicate.seed.clone().or((!axes.is_empty()).then_some(axes));
        found.extend(read(library, side.run, stage, None)?.map(|scored| Scored { seed, ..scored }));
    }
    Ok(found)
}

/// The score table of a stage; `None` where it has none.
fn read(library: &Library, run: &RunRecord, stage: &StageRecord, port: Option<&str>) -> anyhow::Result<Option<Scored>> {
    let Some(manifest) = library.result(stage)? else { return Ok(None) };
    let wanted = |(name, _): &(&String, _)| port.is_none_or(|port| port == name.as_str());
    let found = manifest.outputs.iter().filter(wanted).find(|(_, artifact)| artifact.holds == ScoreRow::TYPE);
    let Some((port, artifact)) = found else { return Ok(None) };
    let mut scores = BTreeMap::new();
    for score in crate::table::read::<ScoreRow>(&library.intact(&manifest, artifact)?)? {
        let key = (0, score.dialogue.clone());
        if let Some(twice) = scores.insert(key, score) {
            bail!("`{}.{port}` of run `{}` has dialogue `{}` twice", stage.name, run.run, twice.dialogue);
        }
    }
    let (mut episodes, mut tasks) = (None, None);
    for source in stage.inputs.values() {
        let Some(from) = source.rsplit_once('.').and_then(|(from, _)| run.stage(from)) else { continue };
        let Some(played) = library.result(from)? else { continue };
        if let Some(rows) = library.rows::<EpisodePart>(&played)? {
            episodes = Some(rows.into_iter().map(|row| ((0, row.dialogue.clone()), row)).collect());
            tasks = tasks_of(&played);
        }
    }
    Ok(Some(Scored { scores, episodes, seed: None, tasks, digest: Some(artifact.digest.clone()) }))
}

/// The content of the tasks that a stage read.
fn tasks_of(played: &Manifest) -> Option<String> {
    let tasks =
        |(field, value): &(&String, &String)| field.starts_with("in.") && value.ends_with(&format!("({})", Task::TYPE));
    played.fields.iter().find(tasks).map(|(_, value)| value.clone())
}

/// Dialogues of one name in two sets of tasks are not the same: replicates with another corpus each share none. Where arms have
/// no set of tasks in common, names are all there is.
fn tell_tasks_apart(table: &mut Table, notes: &mut Vec<String>) {
    let sets: Vec<BTreeSet<&Option<String>>> =
        table.arms.iter().filter(|arm| !arm.is_empty()).map(|arm| arm.iter().map(|one| &one.tasks).collect()).collect();
    let Some((first, others)) = sets.split_first() else { return };
    if others.iter().any(|set| set.is_disjoint(first)) {
        notes.push(format!(
            "`{}`: the arms did not play the same tasks; dialogues are matched by their names, and may differ in what the customer wants",
            table.name
        ));
        return;
    }
    let all: BTreeSet<Option<String>> = sets.into_iter().flatten().cloned().collect();
    if all.len() < 2 {
        return;
    }
    let places: Vec<Option<String>> = all.into_iter().collect();
    for one in table.arms.iter_mut().flatten() {
        let place = places.iter().position(|tasks| *tasks == one.tasks).unwrap_or_default();
        one.scores = std::mem::take(&mut one.scores).into_iter().map(|((_, name), row)| ((place, name), row)).collect();
        one.episodes =
            one.episodes.take().map(|rows| rows.into_iter().map(|((_, name), row)| ((place, name), row)).collect());
    }
    table.apart = true;
    notes.push(format!("`{}`: replicates played other tasks each, and share no dialogue", table.name));
}
