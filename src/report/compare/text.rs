//! A comparison for people: as tables on a terminal, or as Markdown.

use comfy_table::{LineStyle, Table, TableStyle, presets};

use super::gate::SPENT;
use super::lines::{presence, why};
use super::{Arm, Comparison, Difference, Figure, Flips, Mean, Method, Metric, Presence, Source, Verdict};
use crate::report::duration;
use crate::report::table::layout;

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Lines and columns that fit the terminal.
    Terminal,
    /// Markdown.
    Markdown,
}

/// How many flipped dialogues of an arm are listed where not all are asked for.
pub const LISTED: usize = 10;

/// A part of the text: sentences, and a table.
struct Part {
    title: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    below: Vec<String>,
}

/// The whole comparison. `listed` is how many flipped dialogues of each table and arm are named.
pub fn render(comparison: &Comparison, style: Style, listed: usize) -> String {
    let mut parts = vec![arms(comparison)];
    parts.extend(parameters(comparison));
    parts.extend(metrics(comparison));
    parts.extend(comparison.flips.iter().map(|flips| flipped(&comparison.arms, flips, listed)));
    parts.extend(figures(comparison));
    parts.extend(costs(comparison));
    let mut texts: Vec<String> = parts.iter().map(|part| part.render(style)).collect();
    let bullet = if style == Style::Markdown { "- " } else { "" };
    let notes = comparison.notes.iter().map(|note| format!("{bullet}{note}"));
    let gates = comparison.gates.iter().map(|verdict| format!("{bullet}{}", self::verdict(verdict)));
    let last: Vec<String> = notes.chain(gates).collect();
    if !last.is_empty() {
        texts.push(last.join("\n"));
    }
    texts.join("\n\n")
}

impl Part {
    fn render(&self, style: Style) -> String {
        let mut texts = Vec::new();
        if !self.title.is_empty() {
            texts.push(if style == Style::Markdown { format!("### {}\n", self.title) } else { self.title.clone() });
        }
        if !self.rows.is_empty() {
            let mut table = match style {
                Style::Terminal => {
                    let mut table = layout();
                    // A line below each row would hide where the parts end.
                    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─')));
                    table
                }
                Style::Markdown => {
                    let mut table = Table::new();
                    table.load_style(presets::ASCII_MARKDOWN);
                    table
                }
            };
            let cell = |text: &String| match style {
                Style::Terminal => text.clone(),
                Style::Markdown => text.replace('|', "\\|").replace('\n', "<br>"),
            };
            table.set_header(self.header.iter().map(cell));
            for row in &self.rows {
                table.add_row(row.iter().map(cell));
            }
            texts.push(table.to_string());
        }
        let between = if style == Style::Markdown { "\n" } else { "" };
        texts.extend(self.below.iter().map(|line| format!("{between}{line}")));
        texts.join("\n")
    }
}

fn header(first: &[&str], arms: &[Arm]) -> Vec<String> {
    first.iter().map(|name| (*name).to_owned()).chain(arms.iter().map(|arm| arm.name.clone())).collect()
}

fn arms(comparison: &Comparison) -> Part {
    let row = |(place, arm): (usize, &Arm)| {
        let what = |replicate: &super::Replicate| {
            let parts = [&replicate.run, &replicate.stage, &replicate.file];
            parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
        };
        let runs = arm.replicates.iter().map(what).collect::<Vec<_>>().join("\n");
        let seeds =
            arm.replicates.iter().map(|one| one.seed.clone().unwrap_or_default()).collect::<Vec<_>>().join("\n");
        vec![arm.name.clone(), runs, seeds, if place == 0 { "baseline" } else { "" }.to_owned()]
    };
    let rows: Vec<Vec<String>> = comparison.arms.iter().enumerate().map(row).collect();
    let from = if files(comparison) { "file" } else { "run" };
    let header = ["arm", from, "seed", ""].map(str::to_owned).to_vec();
    Part { title: String::new(), header, rows, below: Vec::new() }
}

/// Whether the scores are from files: nobody knows the parameters then.
fn files(comparison: &Comparison) -> bool {
    comparison.arms.iter().flat_map(|arm| &arm.replicates).all(|one| one.file.is_some())
}

fn parameters(comparison: &Comparison) -> Option<Part> {
    if files(comparison) {
        return None;
    }
    let absent = || "-".to_owned();
    let rows = comparison.parameters.iter().map(|parameter| {
        let values = parameter.values.iter().map(|value| value.clone().unwrap_or_else(absent));
        let field = parameter.field.strip_prefix("with.").unwrap_or(&parameter.field);
        [parameter.stage.clone(), field.to_owned()].into_iter().chain(values).collect()
    });
    let rows: Vec<Vec<String>> = rows.collect();
    let lone = comparison.lone_stages.iter().map(|stage| {
        let known = comparison.arms.iter().zip(&stage.arms).filter(|(_, one)| **one != Presence::Present);
        let known: Vec<String> = known.map(|(arm, one)| format!("{} in `{}`", presence(*one), arm.name)).collect();
        format!("{} ({}): {}", stage.stage, stage.kind, known.join(", "))
    });
    let below: Vec<String> = lone.collect();
    let title = match (rows.is_empty(), below.is_empty()) {
        (true, true) => "no parameter differs",
        _ => "parameters",
    };
    Some(Part { title: title.to_owned(), header: header(&["stage", "parameter"], &comparison.arms), rows, below })
}

fn metrics(comparison: &Comparison) -> Option<Part> {
    let mut header = header(&["scores", "metric"], &comparison.arms[..1]);
    for arm in &comparison.arms[1..] {
        header.extend([arm.name.clone(), "Δ".to_owned(), "p".to_owned()]);
    }
    let row = |metric: &Metric| {
        let mut cells = vec![metric.table.clone(), metric.name.clone(), mean(metric, &metric.values[0])];
        for (value, difference) in metric.values.iter().zip(&metric.differences).skip(1) {
            cells.push(mean(metric, value));
            cells.push(difference.as_ref().map(|found| self::difference(metric, found)).unwrap_or_default());
            cells.push(difference.as_ref().and_then(|found| found.p).map(p_value).unwrap_or_default());
        }
        cells
    };
    let rows: Vec<Vec<String>> = comparison.metrics.iter().map(row).collect();
    let mut below = Vec::new();
    if !rows.is_empty() {
        below.push(format!(
            "in brackets 95 % intervals; Δ is against `{}`, dialogue by dialogue",
            comparison.arms[0].name
        ));
        let found = || comparison.metrics.iter().flat_map(|metric| metric.differences.iter().flatten());
        if found().any(|one| one.method == Method::SeedsInPairs) {
            below.push(
                "± is the standard deviation over seeds; Δ is within seeds, and intervals and p count the chance of dialogues \
                 and of seeds"
                    .to_owned(),
            );
        } else if found().any(|one| one.method == Method::DialoguesAndSeeds) {
            below.push(
                "± is the standard deviation over seeds; intervals and p count the chance of dialogues and of seeds"
                    .to_owned(),
            );
        } else if comparison.arms.iter().any(|arm| arm.replicates.len() > 1) {
            below.push(
                "one side has a single seed: intervals and p of differences count the chance of dialogues only"
                    .to_owned(),
            );
        }
    }
    (!rows.is_empty()).then(|| Part { title: "metrics".to_owned(), header, rows, below })
}

/// A number of a metric: shares in percent.
fn number(metric: &Metric, value: f64, sign: bool) -> String {
    let (value, digits) = if metric.share { (value * 100.0, 1) } else { (value, 3) };
    if sign { format!("{value:+.digits$}") } else { format!("{value:.digits$}") }
}

fn bracket(metric: &Metric, low: Option<f64>, high: Option<f64>, sign: bool) -> String {
    match low.zip(high) {
        Some((low, high)) => format!(" [{}, {}]", number(metric, low, sign), number(metric, high, sign)),
        None => String::new(),
    }
}

fn mean(metric: &Metric, value: &Mean) -> String {
    let Some(mean) = value.mean else { return "no score".to_owned() };
    let unit = if metric.share { " %" } else { "" };
    let spread = value.spread.map(|spread| format!(" ± {}", number(metric, spread, false))).unwrap_or_default();
    let broken =
        if value.broken > 0 && metric.name != "broken" { format!(" ({} broken)", value.broken) } else { String::new() };
    format!("{}{unit}{spread}{}{broken}", number(metric, mean, false), bracket(metric, value.low, value.high, false))
}

fn difference(metric: &Metric, found: &Difference) -> String {
    let only = if found.unmatched > 0 { format!(" ({} unmatched)", found.unmatched) } else { String::new() };
    format!("{}{}{only}", number(metric, found.mean, true), bracket(metric, found.low, found.high, true))
}

fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}

fn flipped(arms: &[Arm], flips: &Flips, listed: usize) -> Part {
    let counts = [(flips.gained, "gained"), (flips.lost, "lost"), (flips.broken, "broken"), (flips.mended, "mended")];
    let counts: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
    let title = format!("{}, `{}`: {}", flips.table, arms[flips.arm].name, counts.join(", "));
    let reward = |reward: Option<f64>| reward.map_or("-".to_owned(), |reward| format!("{reward:.3}"));
    // Some of each kind: a hundred lost ones must not hide the gained ones.
    let mut taken = std::collections::BTreeMap::new();
    let share = listed.div_ceil(counts.len().max(1));
    let some = flips.dialogues.iter().filter(|flip| {
        let count: &mut usize = taken.entry(flip.change).or_default();
        *count += 1;
        *count <= share
    });
    let rows: Vec<Vec<String>> = some
        .map(|flip| {
            vec![
                flip.dialogue.clone(),
                format!("{} -> {}", reward(flip.before.reward), reward(flip.after.reward)),
                why(flip),
            ]
        })
        .collect();
    let more = flips.dialogues.len() - rows.len();
    let below = if more > 0 { vec![format!("and {more} more; `--flips` lists all")] } else { Vec::new() };
    Part { title, header: ["dialogue", "reward", "what became of it"].map(str::to_owned).to_vec(), rows, below }
}

fn figures(comparison: &Comparison) -> Option<Part> {
    let row = |figure: &Figure| {
        let values = figure.values.iter().zip(&figure.spreads).map(|(value, spread)| match (value, spread) {
            (Some(value), Some(spread)) => format!("{} ± {}", plain(*value), plain(*spread)),
            (Some(value), None) => plain(*value),
            (None, _) => "-".to_owned(),
        });
        let name = match figure.source {
            Source::Training => format!("{} (log)", figure.name),
            Source::Summary | Source::Stage => figure.name.clone(),
        };
        [figure.stage.clone(), name].into_iter().chain(values).collect()
    };
    let rows: Vec<Vec<String>> = comparison.figures.iter().map(row).collect();
    let header = header(&["stage", "figure"], &comparison.arms);
    (!rows.is_empty()).then(|| Part { title: "figures".to_owned(), header, rows, below: Vec::new() })
}

/// A number of unknown size.
fn plain(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        format!("{value}")
    } else if value.abs() >= 0.001 && value.abs() < 1e6 {
        format!("{value:.4}")
    } else {
        format!("{value:.3e}")
    }
}

fn costs(comparison: &Comparison) -> Option<Part> {
    let mut rows = Vec::new();
    for cost in &comparison.costs {
        for (name, of) in SPENT.iter().filter(|(_, of)| cost.arms.iter().any(|spent| of(spent).is_some())) {
            let value = |value: Option<f64>| match value {
                None => "-".to_owned(),
                Some(value) if name.ends_with("seconds") => duration(value),
                Some(value) if *name == "money" => format!("{value:.4}"),
                Some(value) => format!("{value:.0}"),
            };
            let stage = cost.stage.clone().unwrap_or_else(|| "all stages".to_owned());
            // CPU seconds of single stages say little that their wall seconds do not.
            if cost.stage.is_some() && *name == "cpu_seconds" {
                continue;
            }
            let what = name.replace('_', " ").replace("cpu", "CPU");
            rows.push([stage, what].into_iter().chain(cost.arms.iter().map(|spent| value(of(spent)))).collect());
        }
    }
    let header = header(&["stage", "what it took"], &comparison.arms);
    let below = Vec::new();
    (!rows.is_empty()).then(|| Part { title: "time and tokens, when it was computed".to_owned(), header, rows, below })
}

/// What became of a condition: `failed: success < -0.02: kto_scores of `kto`: success -0.05, p 0.01`.
pub fn verdict(verdict: &Verdict) -> String {
    let failed: Vec<String> = verdict
        .cases
        .iter()
        .filter(|case| case.failed)
        .map(|case| {
            let values: Vec<String> =
                case.values.iter().map(|(name, value)| format!("{name} {}", plain(*value))).collect();
            let place = if case.table.is_empty() { "all stages" } else { case.table.as_str() };
            format!("{place} of `{}`: {}", case.arm, values.join(", "))
        })
        .collect();
    match failed.is_empty() {
        true => format!("passed: {}", verdict.condition),
        false => format!("failed: {}: {}", verdict.condition, failed.join("; ")),
    }
}
