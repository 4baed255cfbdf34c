//! `thresh compare`: what differs between runs.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Args;

use super::reference::{result, run_of};
use super::{Common, Outcome, intact, records, runs, say};
use crate::engine::fingerprint::changes;
use crate::engine::history::{RunRecord, StageRecord};
use crate::engine::store::Store;
use crate::eval::score::Resampling;
use crate::eval::{self, ScoreRow, Settings, Test};
use crate::report::{comparison, frame};
use crate::table::{self, Row};

/// As `eval.compare` does by default.
const SETTINGS: Settings =
    Settings { resampling: Resampling { samples: 10_000, confidence: 0.95, seed: 0 }, test: Test::Permutation };

#[derive(Args)]
pub(super) struct CompareArgs {
    /// Runs by name or the beginning of one; `latest` is the newest, `latest~1` the one before. The first is the baseline.
    #[arg(num_args = 2.., required = true)]
    runs: Vec<String>,
    /// List the dialogues whose outcome differs.
    #[arg(long)]
    flips: bool,
}

pub(super) fn run(args: &CompareArgs, _: &Common) -> Outcome {
    let store = runs::store()?;
    let records = records(&store)?;
    let chosen: Vec<&RunRecord> = args.runs.iter().map(|name| run_of(&records, name)).collect::<Result<_, _>>()?;
    let Some((base, others)) = chosen.split_first() else { return Ok(()) };
    for other in others {
        parameters(&store, base, other)?;
    }
    let named: Vec<_> = chosen.iter().map(|record| (record.run.as_str(), record.by_name())).collect();
    for stage in &base.stages {
        scores(&store, stage, &named, args.flips)?;
    }
    Ok(())
}

/// The stages whose own parameters differ; what differs only because its inputs do is left out.
fn parameters(store: &Store, base: &RunRecord, other: &RunRecord) -> Outcome {
    say(format!("{} -> {}", base.run, other.run))?;
    let mut any = false;
    let (before, after) = (base.by_name(), other.by_name());
    for stage in &other.stages {
        let Some(old) = before.get(stage.name.as_str()) else {
            say(format!("  {}: only in the second", stage.name))?;
            any = true;
            continue;
        };
        let (Some(old), Some(new)) = (result(store, old)?, result(store, stage)?) else {
            say(format!("  {}: without a result in one of them", stage.name))?;
            any = true;
            continue;
        };
        for change in changes(&old.fields, &new.fields).iter().filter(|change| !change.field.starts_with("in.")) {
            let (old, new) = (change.old.as_deref().unwrap_or("(absent)"), change.new.as_deref().unwrap_or("(absent)"));
            say(format!("  {}: {}: {old} -> {new}", stage.name, change.field))?;
            any = true;
        }
    }
    for stage in base.stages.iter().filter(|stage| !after.contains_key(stage.name.as_str())) {
        say(format!("  {}: only in the first", stage.name))?;
        any = true;
    }
    if !any {
        say("  no parameter differs")?;
    }
    Ok(())
}

/// The score tables that a stage has in every run, against each other; nothing where they are all the same.
fn scores(
    store: &Store,
    stage: &StageRecord,
    runs: &[(&str, HashMap<&str, &StageRecord>)],
    list_flips: bool,
) -> Outcome {
    let mut arms: Vec<(String, PathBuf, String)> = Vec::new();
    for (run, stages) in runs {
        let Some(stage) = stages.get(stage.name.as_str()) else { return Ok(()) };
        let Some(manifest) = result(store, stage)? else { return Ok(()) };
        let Some(artifact) = manifest.outputs.values().find(|artifact| artifact.holds == ScoreRow::TYPE) else {
            return Ok(());
        };
        let path = intact(store, &manifest.fingerprint, artifact)?;
        arms.push(((*run).to_owned(), path, artifact.digest.clone()));
    }
    if arms.windows(2).all(|pair| pair[0].2 == pair[1].2) {
        say(format!("\n{}: the same scores", stage.name))?;
        return Ok(());
    }
    arms.dedup_by(|later, earlier| later.0 == earlier.0);
    let tables = arms.iter().map(|(run, path, _)| Ok((run.clone(), table::read::<ScoreRow>(path)?)));
    let tables = tables.collect::<Result<Vec<_>, table::TableError>>()?;
    say(format!("\n{}\n{}", stage.name, comparison::render(&eval::compare(&tables, &arms[0].0, SETTINGS)?)))?;
    if list_flips {
        for (run, path, _) in &arms[1..] {
            for flip in frame::flips(&arms[0].1, path)? {
                say(format!("  {run}: {}: {} -> {}", flip.dialogue, flip.before, flip.after))?;
            }
        }
    }
    Ok(())
}
