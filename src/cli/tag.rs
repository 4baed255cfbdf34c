//! `thresh tag` and `thresh note`: what people write on runs.

use anyhow::anyhow;
use clap::Args;

use super::reference::run_of;
use super::{Common, Failure, Outcome, records, runs, say};
use crate::engine::history::RunRecord;
use crate::engine::labels::{self, Labels};
use crate::engine::store::Store;

#[derive(Args)]
pub(super) struct TagArgs {
    /// The run: its name or the beginning of one, `latest`, a pipeline, or a tag that it has.
    run: String,
    /// The tags: letters, digits, `-` and `_`. A run can be called by its tags. Without any, those that it has are printed.
    tags: Vec<String>,
    /// Take these tags away.
    #[arg(long, requires = "tags")]
    remove: bool,
    /// Take these tags from all other runs.
    #[arg(long = "move", requires = "tags", conflicts_with = "remove")]
    moved: bool,
}

#[derive(Args)]
pub(super) struct NoteArgs {
    /// The run: its name or the beginning of one, `latest`, a pipeline or a tag.
    run: String,
    /// The note, in place of an earlier one; an empty text takes it away. Without it, the note is printed.
    text: Option<String>,
}

pub(super) fn run(args: &TagArgs, common: &Common) -> Outcome {
    let store = runs::store()?;
    let records = records(&store)?;
    let record = run_of(&records, &args.run)?;
    if args.tags.is_empty() {
        return show(record, common, &record.labels);
    }
    let mut labels = record.labels.clone();
    for tag in &args.tags {
        if args.remove {
            if !labels.tags.remove(tag) {
                return Err(Failure::Wrong(anyhow!("run `{}` has no tag `{tag}`", record.run)));
            }
            continue;
        }
        if let Some(objection) = labels::objection(tag) {
            return Err(Failure::Wrong(anyhow!("`{tag}` cannot be a tag: {objection}")));
        }
        if records.iter().any(|record| record.pipeline == *tag) {
            return Err(Failure::Wrong(anyhow!("`{tag}` cannot be a tag: a pipeline is called so")));
        }
        labels.tags.insert(tag.clone());
    }
    labels::write(&store, &record.run, &labels)?;
    if args.moved {
        take_from_others(&store, &records, record, &args.tags)?;
    }
    show(record, common, &labels)
}

fn take_from_others(store: &Store, records: &[RunRecord], to: &RunRecord, tags: &[String]) -> Outcome {
    for other in records.iter().filter(|other| other.run != to.run) {
        let mut labels = other.labels.clone();
        labels.tags.retain(|tag| !tags.contains(tag));
        if labels != other.labels {
            labels::write(store, &other.run, &labels)?;
        }
    }
    Ok(())
}

pub(super) fn run_note(args: &NoteArgs, common: &Common) -> Outcome {
    let store = runs::store()?;
    let records = records(&store)?;
    let record = run_of(&records, &args.run)?;
    let mut labels = record.labels.clone();
    if let Some(text) = &args.text {
        labels.note = Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        labels::write(&store, &record.run, &labels)?;
    }
    if common.json {
        return show(record, common, &labels);
    }
    match &labels.note {
        Some(note) => Ok(say(format!("{}  {note}", record.run))?),
        None => Ok(say(&record.run)?),
    }
}

fn show(record: &RunRecord, common: &Common, labels: &Labels) -> Outcome {
    if common.json {
        let found = serde_json::json!({"run": record.run, "tags": labels.tags, "note": labels.note});
        return Ok(say(found.to_string())?);
    }
    let tags: String = labels.tags.iter().map(|tag| format!("  #{tag}")).collect();
    Ok(say(format!("{}{tags}", record.run))?)
}
