//! A comparison as one table: a row for everything that an arm has a value of. For spreadsheets and data frames.

use serde::{Deserialize, Serialize};

use super::gate::SPENT;
use super::{Change, Comparison, Ending, Flip, Presence};
use crate::table::Row;

/// One value of one arm. What does not apply is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ComparisonLine {
    /// `parameter`, `stage`, `metric`, `flip`, `figure`, `cost` or `gate`.
    pub section: String,
    /// The stage or the score table; empty of a sum over stages.
    pub stage: String,
    /// The parameter, the metric, the dialogue, the figure.
    pub name: String,
    /// The arm.
    pub arm: String,
    /// The arm's value, where it is a number; of a flip its mean reward.
    pub value: Option<f64>,
    /// The arm's value, where it is none; of a flip what became of it and why.
    pub text: Option<String>,
    /// The lower end of the value's 95 % interval.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
    /// The standard deviation from replicate to replicate.
    pub spread: Option<f64>,
    /// How many values it is of.
    pub count: Option<u64>,
    /// The arm less the baseline.
    pub difference: Option<f64>,
    /// The lower end of its 95 % interval.
    pub difference_low: Option<f64>,
    /// The upper end.
    pub difference_high: Option<f64>,
    /// The difference's p value.
    pub p: Option<f64>,
    /// The p value that counts the chance of dialogues only.
    pub p_dialogues: Option<f64>,
}

impl Row for ComparisonLine {
    const TYPE: &'static str = "report.comparison/v1";
}

/// The rows, in the order of the comparison.
pub fn lines(comparison: &Comparison) -> Vec<ComparisonLine> {
    let mut lines = settings(comparison);
    lines.extend(metrics(comparison));
    for flips in &comparison.flips {
        let line = |flip: &Flip| ComparisonLine {
            section: "flip".to_owned(),
            stage: flips.table.clone(),
            name: flip.dialogue.clone(),
            arm: comparison.arms[flips.arm].name.clone(),
            value: flip.after.reward,
            text: Some(why(flip)),
            difference: flip.after.reward.zip(flip.before.reward).map(|(after, before)| after - before),
            ..ComparisonLine::default()
        };
        lines.extend(flips.dialogues.iter().map(line));
    }
    lines.extend(numbers(comparison));
    for verdict in &comparison.gates {
        lines.extend(verdict.cases.iter().map(|case| ComparisonLine {
            section: "gate".to_owned(),
            stage: case.table.clone(),
            name: verdict.condition.clone(),
            arm: case.arm.clone(),
            text: Some(if case.failed { "failed" } else { "passed" }.to_owned()),
            ..ComparisonLine::default()
        }));
    }
    lines
}

fn settings(comparison: &Comparison) -> Vec<ComparisonLine> {
    let arms = || comparison.arms.iter().map(|arm| arm.name.clone());
    let mut lines = Vec::new();
    for parameter in &comparison.parameters {
        lines.extend(arms().zip(&parameter.values).map(|(arm, value)| ComparisonLine {
            section: "parameter".to_owned(),
            stage: parameter.stage.clone(),
            name: parameter.field.clone(),
            arm,
            text: value.clone(),
            ..ComparisonLine::default()
        }));
    }
    for stage in &comparison.lone_stages {
        lines.extend(arms().zip(&stage.arms).map(|(arm, presence)| ComparisonLine {
            section: "stage".to_owned(),
            stage: stage.stage.clone(),
            name: stage.kind.clone(),
            arm,
            text: Some(self::presence(*presence).to_owned()),
            ..ComparisonLine::default()
        }));
    }
    lines
}

/// What is known of a stage, in words.
pub(super) fn presence(presence: Presence) -> &'static str {
    match presence {
        Presence::Present => "present",
        Presence::WithoutResult => "without a result",
        Presence::Absent => "absent",
    }
}

fn metrics(comparison: &Comparison) -> Vec<ComparisonLine> {
    let mut lines = Vec::new();
    for metric in &comparison.metrics {
        for (place, arm) in comparison.arms.iter().enumerate() {
            let (value, difference) = (&metric.values[place], metric.differences[place].as_ref());
            lines.push(ComparisonLine {
                section: "metric".to_owned(),
                stage: metric.table.clone(),
                name: metric.name.clone(),
                arm: arm.name.clone(),
                value: value.mean,
                text: None,
                low: value.low,
                high: value.high,
                spread: value.spread,
                count: Some(value.count),
                difference: difference.map(|found| found.mean),
                difference_low: difference.and_then(|found| found.low),
                difference_high: difference.and_then(|found| found.high),
                p: difference.and_then(|found| found.p),
                p_dialogues: difference.and_then(|found| found.p_dialogues),
            });
        }
    }
    lines
}

fn numbers(comparison: &Comparison) -> Vec<ComparisonLine> {
    let mut lines = Vec::new();
    let less = |value: Option<f64>, base: Option<f64>, place: usize| {
        value.zip(base).filter(|_| place > 0).map(|(value, base)| value - base)
    };
    for figure in &comparison.figures {
        for (place, arm) in comparison.arms.iter().enumerate() {
            lines.push(ComparisonLine {
                section: "figure".to_owned(),
                stage: figure.stage.clone(),
                name: figure.name.clone(),
                arm: arm.name.clone(),
                value: figure.values[place],
                spread: figure.spreads[place],
                difference: less(figure.values[place], figure.values[0], place),
                ..ComparisonLine::default()
            });
        }
    }
    for cost in &comparison.costs {
        for (name, of) in SPENT.iter().filter(|(_, of)| cost.arms.iter().any(|spent| of(spent).is_some())) {
            for (place, arm) in comparison.arms.iter().enumerate() {
                lines.push(ComparisonLine {
                    section: "cost".to_owned(),
                    stage: cost.stage.clone().unwrap_or_default(),
                    name: (*name).to_owned(),
                    arm: arm.name.clone(),
                    value: of(&cost.arms[place]),
                    difference: less(of(&cost.arms[place]), of(&cost.arms[0]), place),
                    ..ComparisonLine::default()
                });
            }
        }
    }
    lines
}

/// What became of a dialogue and why: `lost: success -> failure; missed book_hotel; cut off by the limit of messages`.
pub fn why(flip: &Flip) -> String {
    let mut parts = vec![format!("{}: {} -> {}", word(flip.change), ended(&flip.before), ended(&flip.after))];
    if !flip.missed.is_empty() {
        parts.push(format!("missed {}", flip.missed.join(", ")));
    }
    if !flip.reached.is_empty() {
        parts.push(format!("reached {}", flip.reached.join(", ")));
    }
    if flip.after.cut_off > flip.before.cut_off {
        parts.push("cut off by the limit of messages".to_owned());
    }
    let reasons = if flip.change == Change::Mended { &flip.before.reasons } else { &flip.after.reasons };
    parts.extend(reasons.iter().cloned());
    parts.extend(flip.seed.iter().map(|seed| format!("seed {seed}")));
    parts.join("; ")
}

/// The name of a change.
pub(super) fn word(change: Change) -> &'static str {
    match change {
        Change::Broken => "broken",
        Change::Lost => "lost",
        Change::Gained => "gained",
        Change::Mended => "mended",
    }
}

/// How a dialogue ended; over several replicates, how often.
fn ended(ending: &Ending) -> String {
    let counts = [(ending.successes, "success"), (ending.failures, "failure"), (ending.broken, "broken")];
    let all: u64 = counts.iter().map(|(count, _)| count).sum();
    let there = counts.iter().filter(|(count, _)| *count > 0);
    let named = there.map(|(count, name)| if all == 1 { (*name).to_owned() } else { format!("{count} {name}") });
    named.collect::<Vec<_>>().join(" ")
}
