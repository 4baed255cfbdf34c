//! `thresh runs`: what was run.

use std::cmp::Ordering;
use std::path::Path;
use std::time::SystemTime;

use anyhow::anyhow;
use clap::{Args, ValueEnum};

use super::gc::time;
use super::{Common, Failure, Outcome, records, say};
use crate::config::Project;
use crate::engine::gc::pins;
use crate::engine::history::{self, Outcome as Became, RunRecord};
use crate::engine::store::Store;
use crate::report::compare::condition::Comparator;
use crate::report::compare::library::Library;

#[derive(Args)]
pub(super) struct RunsArgs {
    /// Only runs of this pipeline, by its name.
    pipeline: Option<String>,
    /// Only runs that came out so.
    #[arg(long, value_enum)]
    outcome: Option<State>,
    /// Only runs with this tag; several times: with all of them.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Only runs that began since: `2 d`, `90 min` ago, or a date and time (UTC) or the beginning of one: `2026-11-23`.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only runs that began before.
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
    /// Only runs of which this holds: a stage's parameter or figure against a value, with `=`, `!=`, `<`, `<=`, `>` or `>=`:
    /// `harvest.beam=8`, `kto_scores.success>0.5`. Several times: all of them.
    #[arg(long = "where", value_name = "STAGE.NAME=VALUE")]
    conditions: Vec<String>,
    /// The order: `started` (the newest first), `seconds` (the longest first), `pipeline`, or a stage's parameter or figure (the
    /// largest first). Runs without it come last.
    #[arg(long, value_name = "KEY", default_value = "started")]
    sort: String,
    /// Turn the order around.
    #[arg(long)]
    reverse: bool,
    /// Show a stage's parameter or figure, too.
    #[arg(long, value_name = "STAGE.NAME")]
    show: Vec<String>,
    /// Only the first so many.
    #[arg(long, value_name = "RUNS")]
    limit: Option<usize>,
}

/// How a run came out.
#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum State {
    /// All that was asked for is there.
    Done,
    /// A stage failed.
    Failed,
    /// It goes on, or was killed.
    Unfinished,
}

fn state(record: &RunRecord) -> State {
    match record.seconds {
        None => State::Unfinished,
        Some(_) if record.count(Became::Failed) > 0 => State::Failed,
        Some(_) => State::Done,
    }
}

pub(super) fn run(args: &RunsArgs, common: &Common) -> Outcome {
    let store = store()?;
    let records = records(&store)?;
    let library = Library::new(&store, &records);
    let mut chosen = Vec::new();
    let filter = Filter::new(args)?;
    for record in &records {
        if filter.admits(&library, record)? {
            chosen.push(record);
        }
    }
    let mut chosen = sorted(&library, chosen, &args.sort)?;
    if args.reverse {
        chosen.reverse();
    }
    chosen.truncate(args.limit.unwrap_or(usize::MAX));
    let pinned = pins(&store)?;
    for record in chosen {
        let shown = args.show.iter().map(|key| Ok((key.as_str(), value(&library, record, key)?)));
        let shown = shown.collect::<Result<Vec<_>, Failure>>()?;
        if common.json {
            say(json(record, pinned.contains(&record.run), &shown)?.to_string())?;
        } else {
            say(line(record, pinned.contains(&record.run), &shown))?;
        }
    }
    Ok(())
}

fn line(record: &RunRecord, pinned: bool, shown: &[(&str, Option<Value>)]) -> String {
    let seconds = record.seconds.map_or_else(|| "unfinished".to_owned(), |seconds| format!("{seconds:.1} s"));
    let counts = [("computed", Became::Computed), ("fresh", Became::Fresh), ("failed", Became::Failed)]
        .map(|(name, outcome)| format!("{} {name}", record.count(outcome)))
        .join(", ");
    let mut line = format!("{}  {}  {counts}  {seconds}", record.run, record.started);
    if !record.set.is_empty() {
        line.push_str(&format!("  --set {}", record.set.join(" --set ")));
    }
    for (key, value) in shown {
        line.push_str(&format!("  {key} {}", value.as_ref().map_or("-".to_owned(), Value::text)));
    }
    for tag in &record.labels.tags {
        line.push_str(&format!("  #{tag}"));
    }
    if pinned {
        line.push_str("  pinned");
    }
    if let Some(note) = &record.labels.note {
        line.push_str(&format!("  {}", note.replace('\n', " ")));
    }
    line
}

/// The record, and what is known of it beside.
fn json(record: &RunRecord, pinned: bool, shown: &[(&str, Option<Value>)]) -> Result<serde_json::Value, Failure> {
    let mut object = serde_json::to_value(record)?;
    object["tags"] = serde_json::json!(record.labels.tags);
    object["note"] = serde_json::json!(record.labels.note);
    object["pinned"] = pinned.into();
    for (key, value) in shown {
        object["shown"][*key] = match value {
            Some(Value::Number(number)) => serde_json::json!(number),
            Some(Value::Text(text)) => text.as_str().into(),
            None => serde_json::Value::Null,
        };
    }
    Ok(object)
}

/// What runs are to have.
struct Filter<'a> {
    args: &'a RunsArgs,
    since: Option<String>,
    before: Option<String>,
    conditions: Vec<(&'a str, Comparator, &'a str)>,
}

impl<'a> Filter<'a> {
    fn new(args: &'a RunsArgs) -> Result<Self, Failure> {
        let since = args.since.as_deref().map(moment).transpose()?;
        let before = args.before.as_deref().map(moment).transpose()?;
        let split = |text: &'a String| {
            let (key, comparator, value) = Comparator::split(text).ok_or_else(|| wrong_condition(text))?;
            if key.contains('.') || key == "seconds" {
                Ok((key, comparator, value))
            } else {
                Err(wrong_condition(text))
            }
        };
        let conditions = args.conditions.iter().map(split).collect::<Result<_, _>>()?;
        Ok(Self { args, since, before, conditions })
    }

    fn admits(&self, library: &Library, record: &RunRecord) -> Result<bool, Failure> {
        let args = self.args;
        let plain = args.pipeline.as_ref().is_none_or(|name| *name == record.pipeline)
            && args.outcome.is_none_or(|outcome| outcome == state(record))
            && args.tags.iter().all(|tag| record.labels.tags.contains(tag))
            && self.since.as_ref().is_none_or(|since| record.started >= *since)
            && self.before.as_ref().is_none_or(|before| record.started < *before);
        if !plain {
            return Ok(false);
        }
        for (key, comparator, wanted) in &self.conditions {
            let Some(found) = value(library, record, key)? else { return Ok(false) };
            if !comparator.holds(found.compared_with(wanted)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn wrong_condition(text: &str) -> Failure {
    Failure::Wrong(anyhow!("`{text}` is no condition; expected `stage.parameter=VALUE`, as in `harvest.beam=8`"))
}

/// A moment as records write it: so long ago, or a date, or the beginning of a date and time.
fn moment(text: &str) -> Result<String, Failure> {
    let date = text.len() >= 4 && text.bytes().take(4).all(|byte| byte.is_ascii_digit());
    if date && text.bytes().all(|byte| byte.is_ascii_digit() || b"-:TZ".contains(&byte)) {
        return Ok(text.to_owned());
    }
    let ago = time(text).map_err(|_| {
        Failure::Wrong(anyhow!(
            "`{text}` is no time; write `2 d`, `90 min`, or a date: `2026-11-23`, `2026-11-23T14:30`"
        ))
    })?;
    Ok(SystemTime::now().checked_sub(ago).map(history::time).unwrap_or_default())
}

/// A parameter or a figure.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Number(f64),
    Text(String),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => format!("{number}"),
            Self::Text(text) => text.clone(),
        }
    }

    /// How it compares with a text from the command line: as numbers where both are, else as texts, which have no order.
    fn compared_with(&self, wanted: &str) -> Option<Ordering> {
        match (self, wanted.parse::<f64>()) {
            (Self::Number(number), Ok(wanted)) => number.partial_cmp(&wanted),
            (Self::Text(text), _) if text == wanted => Some(Ordering::Equal),
            _ => None,
        }
    }
}

/// A stage's figure, or else its parameter; `None` where the run has no such stage, or it no such value.
fn value(library: &Library, record: &RunRecord, key: &str) -> Result<Option<Value>, Failure> {
    if key == "seconds" {
        return Ok(record.seconds.map(Value::Number));
    }
    for (dot, _) in key.match_indices('.') {
        let Some(stage) = record.stage(&key[..dot]) else { continue };
        let name = &key[dot + 1..];
        if let Some(figure) = library.computation(stage)?.and_then(|computed| computed.figures.get(name)) {
            return Ok(Some(Value::Number(*figure)));
        }
        let Some(manifest) = library.result(stage)? else { continue };
        if let Some(text) = manifest.fields.get(&format!("with.{name}")).or_else(|| manifest.fields.get(name)) {
            return Ok(Some(match serde_json::from_str(text) {
                Ok(serde_json::Value::Number(number)) => Value::Number(number.as_f64().unwrap_or(f64::NAN)),
                Ok(serde_json::Value::String(text)) => Value::Text(text),
                _ => Value::Text(text.clone()),
            }));
        }
    }
    Ok(None)
}

fn sorted<'a>(library: &Library, records: Vec<&'a RunRecord>, key: &str) -> Result<Vec<&'a RunRecord>, Failure> {
    let keyed = |record: &'a RunRecord| {
        let value = match key {
            "started" => None,
            "pipeline" => Some(Value::Text(record.pipeline.clone())),
            _ => value(library, record, key)?,
        };
        Ok((value, record))
    };
    let mut keyed = records.into_iter().map(keyed).collect::<Result<Vec<_>, Failure>>()?;
    if !["started", "pipeline", "seconds"].contains(&key) && keyed.iter().all(|(value, _)| value.is_none()) {
        let what = if keyed.is_empty() { return Ok(Vec::new()) } else { key };
        return Err(Failure::Wrong(anyhow!(
            "no run has `{what}`; expected `started`, `seconds`, `pipeline`, or `stage.figure` as `thresh log` shows it"
        )));
    }
    // Stable: among equal ones the newest stays first.
    keyed.sort_by(|(a, _), (b, _)| match (a, b) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => b.total_cmp(a),
        (Some(Value::Text(a)), Some(Value::Text(b))) => a.cmp(b),
        (Some(Value::Number(_)), Some(Value::Text(_))) | (Some(_), None) => Ordering::Less,
        (Some(Value::Text(_)), Some(Value::Number(_))) | (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    });
    Ok(keyed.into_iter().map(|(_, record)| record).collect())
}

/// The store of the project that the current folder is of.
pub(super) fn store() -> Result<Store, Failure> {
    let project = Project::find(Path::new("any"), None).map_err(|error| Failure::Wrong(error.into()))?;
    Ok(Store::open(project.store())?)
}
