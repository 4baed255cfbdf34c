//! Single numbers of stages, and what they took.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::arms::Party;
use super::library::Library;
use super::stages::{Matched, instances};
use super::tables::{EpisodePart, Table};
use super::{Cost, Figure, Options, Source, Spent};
use crate::engine::history::StageRecord;
use crate::eval::replicates::deviation;
use crate::eval::score::{Resampling, summarise};
use crate::eval::{ScoreRow, SummaryRow, mean};
use crate::table::Row;
use crate::train::log::TrainLog;

/// How a run went rather than what came of it: nothing to compare, or the costs say it.
const BOOKKEEPING: &[&str] = &["rows", "rows.computed", "rows.journalled", "tokens_per_second"];

/// How the names of such figures end.
const BOOKKEEPING_ENDS: &[&str] = &[
    ".prompt_tokens",
    ".completion_tokens",
    ".cached_tokens",
    ".reused_tokens",
    ".generated_tokens",
    "_seconds",
    ".cost",
];

/// What the metrics say already, with its interval.
const OF_METRICS: &[&str] =
    &["reward", "reward_low", "reward_high", "success", "success_low", "success_high", "broken"];

/// The figures of every stage that has some.
pub(super) fn figures(
    library: &Library,
    options: &Options,
    parties: &[Party],
    rows: &[Matched],
) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for row in rows {
        // By source and name, for each arm the values of its replicates.
        let mut found: BTreeMap<(Source, String), Vec<Vec<f64>>> = BTreeMap::new();
        for (arm, (name, party)) in row.names.iter().zip(parties).enumerate() {
            let Some(name) = name else { continue };
            for stage in instances(options, party, name) {
                for (source, name, value) in of_stage(library, stage)? {
                    found.entry((source, name)).or_insert_with(|| vec![Vec::new(); parties.len()])[arm].push(value);
                }
            }
        }
        figures.extend(found.into_iter().map(|((source, name), arms)| Figure {
            stage: row.label.clone(),
            source,
            name,
            values: arms.iter().map(|values| mean(values)).collect(),
            spreads: arms.iter().map(|values| deviation(values)).collect(),
        }));
    }
    Ok(figures)
}

fn of_stage(library: &Library, stage: &StageRecord) -> anyhow::Result<Vec<(Source, String, f64)>> {
    let mut found = Vec::new();
    let scores = match library.result(stage)? {
        None => false,
        Some(manifest) => {
            let holds = |kind: &str| manifest.outputs.values().any(|artifact| artifact.holds == kind);
            if holds(SummaryRow::TYPE) {
                for row in library.rows::<SummaryRow>(&manifest)?.unwrap_or_default() {
                    found.extend(numbers(&row).into_iter().map(|(name, value)| (Source::Summary, name, value)));
                }
            }
            if holds(TrainLog::TYPE) {
                let log = library.rows::<TrainLog>(&manifest)?.unwrap_or_default();
                found.extend(training(&log).into_iter().map(|(name, value)| (Source::Training, name, value)));
            }
            holds(SummaryRow::TYPE)
        }
    };
    let Some(computation) = library.computation(stage)? else { return Ok(found) };
    let told = |name: &&String| {
        let twice = found.iter().any(|(_, other, _)| other == *name);
        let bookkeeping =
            BOOKKEEPING.contains(&name.as_str()) || BOOKKEEPING_ENDS.iter().any(|end| name.ends_with(end));
        let in_metrics = scores && OF_METRICS.contains(&name.as_str());
        !(bookkeeping || twice || in_metrics)
    };
    let own: Vec<(Source, String, f64)> = computation
        .figures
        .iter()
        .filter(|(name, _)| told(name))
        .map(|(name, value)| (Source::Stage, name.clone(), *value))
        .collect();
    found.extend(own);
    Ok(found)
}

/// The numbers of summaries of a table whose stages are not known: those that `eval.toolwoz` would sum up.
pub(super) fn of_scores(table: &Table) -> Vec<Figure> {
    let none = Resampling { samples: 0, confidence: 0.95, seed: 0 };
    let mut found: BTreeMap<String, Vec<Vec<f64>>> = BTreeMap::new();
    for (place, arm) in table.arms.iter().enumerate() {
        for one in arm {
            let scores: Vec<ScoreRow> = one.scores.values().cloned().collect();
            for (name, value) in numbers(&summarise(&scores, none)) {
                found.entry(name).or_insert_with(|| vec![Vec::new(); table.arms.len()])[place].push(value);
            }
        }
    }
    let figure = |(name, arms): (String, Vec<Vec<f64>>)| Figure {
        stage: table.name.clone(),
        source: Source::Summary,
        name,
        values: arms.iter().map(|values| mean(values)).collect(),
        spreads: arms.iter().map(|values| deviation(values)).collect(),
    };
    found.into_iter().map(figure).collect()
}

/// The numbers of a summary that no metric shows.
fn numbers(row: &SummaryRow) -> Vec<(String, f64)> {
    let Ok(Value::Object(entries)) = serde_json::to_value(row) else { return Vec::new() };
    let number = |(name, value): (String, Value)| Some((name, value.as_f64()?));
    entries.into_iter().filter_map(number).filter(|(name, _)| !OF_METRICS.contains(&name.as_str())).collect()
}

/// A column of a training's log.
type Column = fn(&TrainLog) -> Option<f64>;

/// What a training's log comes to: its steps and tokens, and of each of its columns the last value.
fn training(log: &[TrainLog]) -> Vec<(String, f64)> {
    let Some(last) = log.last() else { return Vec::new() };
    let mut found = vec![
        ("steps".to_owned(), last.step as f64),
        ("tokens".to_owned(), log.iter().map(|row| row.tokens as f64).sum()),
        ("loss".to_owned(), last.loss),
        ("grad_norm".to_owned(), last.grad_norm),
    ];
    let columns: [(&str, Column); 8] = [
        ("eval_loss", |row| row.eval_loss),
        ("kl", |row| row.kl),
        ("rewards_chosen", |row| row.rewards_chosen),
        ("rewards_rejected", |row| row.rewards_rejected),
        ("rewards_margin", |row| row.rewards_margin),
        ("rewards_accuracy", |row| row.rewards_accuracy),
        ("logps_chosen", |row| row.logps_chosen),
        ("logps_rejected", |row| row.logps_rejected),
    ];
    for (name, of) in columns {
        found.extend(log.iter().rev().find_map(of).map(|value| (name.to_owned(), value)));
    }
    found
}

/// Time and tokens of every stage whose result is not the same in all arms, and the sums over all stages.
pub(super) fn costs(
    library: &Library,
    options: &Options,
    parties: &[Party],
    rows: &[Matched],
) -> anyhow::Result<Vec<Cost>> {
    let mut costs = Vec::new();
    let mut sums = vec![Spent::default(); parties.len()];
    for row in rows {
        let (mut arms, mut results) = (Vec::new(), BTreeSet::new());
        for (arm, (name, party)) in row.names.iter().zip(parties).enumerate() {
            let stages = name.as_deref().map(|name| instances(options, party, name)).unwrap_or_default();
            let spent = stages.iter().map(|stage| spent(library, stage)).collect::<anyhow::Result<Vec<Spent>>>()?;
            let spent = Spent::mean(&spent);
            sums[arm] = sums[arm].plus(spent);
            arms.push(spent);
            let fingerprints: Vec<_> = stages.iter().map(|stage| stage.fingerprint.clone()).collect();
            results.insert(fingerprints);
        }
        if (results.len() > 1 || options.all) && arms.iter().any(|spent| *spent != Spent::default()) {
            costs.push(Cost { stage: Some(row.label.clone()), arms });
        }
    }
    costs.push(Cost { stage: None, arms: sums });
    Ok(costs)
}

impl Spent {
    fn each(&self) -> [Option<f64>; 5] {
        [self.seconds, self.cpu_seconds, self.tokens_read, self.tokens_written, self.money]
    }

    fn of([seconds, cpu_seconds, tokens_read, tokens_written, money]: [Option<f64>; 5]) -> Self {
        Self { seconds, cpu_seconds, tokens_read, tokens_written, money }
    }

    fn mean(all: &[Self]) -> Self {
        let column = |place: usize| mean(&all.iter().filter_map(|spent| spent.each()[place]).collect::<Vec<_>>());
        Self::of(std::array::from_fn(column))
    }

    fn plus(&self, other: Self) -> Self {
        let (one, two) = (self.each(), other.each());
        Self::of(std::array::from_fn(|place| match (one[place], two[place]) {
            (None, None) => None,
            (one, two) => Some(one.unwrap_or_default() + two.unwrap_or_default()),
        }))
    }
}

/// What a stage took when its result was computed.
fn spent(library: &Library, stage: &StageRecord) -> anyhow::Result<Spent> {
    let mut spent = Spent::default();
    let computation = library.computation(stage)?;
    if let Some(computation) = computation {
        spent.seconds = Some(computation.seconds);
        let attempts = &computation.attempts;
        spent.cpu_seconds = (!attempts.is_empty()).then(|| attempts.iter().map(|attempt| attempt.cpu_seconds).sum());
        let sum = |ending: &str| {
            let named = computation.figures.iter().filter(|(name, _)| name.ends_with(ending));
            named.map(|(_, value)| *value).reduce(|sum, value| sum + value)
        };
        spent.tokens_read = sum(".prompt_tokens");
        spent.tokens_written = match (sum(".completion_tokens"), sum(".generated_tokens")) {
            (None, None) => None,
            (one, two) => Some(one.unwrap_or_default() + two.unwrap_or_default()),
        };
        spent.money = sum(".cost");
    }
    let Some(manifest) = library.result(stage)? else { return Ok(spent) };
    let holds = |kind: &str| manifest.outputs.values().any(|artifact| artifact.holds == kind);
    if holds(TrainLog::TYPE) {
        let log = library.rows::<TrainLog>(&manifest)?.unwrap_or_default();
        spent.tokens_read = Some(log.iter().map(|row| row.tokens as f64).sum());
    } else if holds(EpisodePart::TYPE) && spent.tokens_written.is_none() {
        let episodes = library.rows::<EpisodePart>(&manifest)?.unwrap_or_default();
        let written = episodes.iter().map(|row| row.agent_completion_tokens + row.user_completion_tokens).sum::<u64>();
        spent.tokens_written = (written > 0).then_some(written as f64);
    }
    Ok(spent)
}
