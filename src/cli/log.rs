//! `thresh log`: what a run did, stage by stage, and what its stages said.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use serde_json::{Value, json};

use super::gc::size;
use super::reference::run_of;
use super::{Common, Failure, Outcome, records, runs, say, say_json};
use crate::config::diagnostic::nearest;
use crate::engine::history::{self, RunRecord, StageRecord};
use crate::engine::store::Store;
use crate::fs;
use crate::report::duration;
use crate::report::table::layout;

#[derive(Args)]
pub(super) struct LogArgs {
    /// The run, by name or the beginning of one; `latest` is the newest, `latest~1` the one before.
    #[arg(default_value = "latest")]
    run: String,
    /// A stage: everything that is kept of it.
    stage: Option<String>,
}

pub(super) fn run(args: &LogArgs, common: &Common) -> Outcome {
    let store = runs::store()?;
    let records = records(&store)?;
    let record = run_of(&records, &args.run)?;
    match &args.stage {
        None if common.json => say_json(record),
        None => overview(record),
        Some(name) => {
            let stage = record.stage(name).ok_or_else(|| {
                let near = nearest(name, record.stages.iter().map(|stage| stage.name.as_str()));
                let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                Failure::Wrong(anyhow!("run `{}` has no stage `{name}`{hint}", record.run))
            })?;
            if common.json { object(&store, record, stage) } else { whole(&store, record, stage) }
        }
    }
}

fn overview(record: &RunRecord) -> Outcome {
    let state = record.seconds.map_or("not finished".to_owned(), |seconds| format!("{} in all", duration(seconds)));
    say(format!("{}: {}, began {}, {state}", record.run, record.file, record.started))?;
    let mut table = layout();
    table.set_header(["stage", "", "seconds", "CPU s", "peak memory", "attempts", "figures and warnings"]);
    for stage in &record.stages {
        let last = stage.attempts.last();
        // Figures of the whole process are marked where other stages ran in it.
        let shared = if last.is_some_and(|attempt| attempt.shared) { "*" } else { "" };
        let mut remarks: Vec<String> = stage.figures.iter().map(|(name, value)| format!("{name} {value}")).collect();
        remarks.extend(stage.warnings.iter().map(|warning| format!("warning: {warning}")));
        remarks.extend(stage.error.iter().map(|error| error.lines().next().unwrap_or_default().to_owned()));
        table.add_row([
            stage.name.clone(),
            format!("{:?}", stage.outcome).to_lowercase(),
            last.map_or(String::new(), |_| format!("{:.2}", stage.seconds)),
            last.map_or(String::new(), |attempt| format!("{:.2}{shared}", attempt.cpu_seconds)),
            last.map_or(String::new(), |attempt| format!("{}{shared}", size(attempt.peak_memory))),
            if stage.attempts.len() > 1 { stage.attempts.len().to_string() } else { String::new() },
            remarks.join("; "),
        ]);
    }
    say(table.to_string())?;
    if record.stages.iter().flat_map(|stage| &stage.attempts).any(|attempt| attempt.shared) {
        say("* of the whole process, in which other stages ran as well")?;
    }
    Ok(())
}

/// The files that are kept of a stage's attempts, by the attempts' numbers from 1.
fn kept(store: &Store, record: &RunRecord, stage: &StageRecord) -> Vec<Vec<PathBuf>> {
    let folder = history::logs(store, &record.run);
    let files = |number: usize| {
        let paths = ["log", "output.txt"].map(|kind| folder.join(history::log_name(&stage.name, number, kind)));
        paths.into_iter().filter(|path| path.is_file()).collect::<Vec<_>>()
    };
    // An attempt of a run that goes on, or was killed, is not in its record yet.
    let known = |(number, files): &(usize, Vec<PathBuf>)| *number <= stage.attempts.len() || !files.is_empty();
    (1..).map(|number| (number, files(number))).take_while(known).map(|(_, files)| files).collect()
}

/// The record of a stage, and its logs.
fn object(store: &Store, record: &RunRecord, stage: &StageRecord) -> Outcome {
    let mut logs = Vec::new();
    for (attempt, paths) in (1..).zip(kept(store, record, stage)) {
        for path in paths {
            let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
            logs.push(json!({"attempt": attempt, "path": fs::short(&path), "text": text}));
        }
    }
    let mut object = json!({"run": record.run, "stage": stage});
    object["logs"] = Value::Array(logs);
    say_json(&object)
}

/// The logs of all attempts of a stage.
fn whole(store: &Store, record: &RunRecord, stage: &StageRecord) -> Outcome {
    let mut found = false;
    for (number, paths) in (1..).zip(kept(store, record, stage)) {
        for path in paths {
            found = true;
            say(format!("--- attempt {number}: {}", fs::short(&path).display()))?;
            say(String::from_utf8_lossy(&fs::read(&path)?).trim_end())?;
        }
        if let Some(error) = stage.attempts.get(number - 1).and_then(|attempt| attempt.error.as_ref()) {
            found = true;
            say(format!("--- attempt {number} failed: {error}"))?;
        }
    }
    match &stage.error {
        Some(error) if stage.attempts.is_empty() => say(format!("--- failed before the first attempt: {error}"))?,
        _ if !found => say(format!("`{}` said nothing in this run", stage.name))?,
        _ => {}
    }
    Ok(())
}
