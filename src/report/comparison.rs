//! The table that an experiment ends with.

use std::path::Path;

use super::table::layout;
use crate::eval::ComparisonRow;
use crate::table::{self, Row};

/// Whether artifacts of a type are shown when a run ends.
pub fn shows(holds: &str) -> bool {
    holds == ComparisonRow::TYPE
}

/// A stored comparison as text.
pub fn text(path: &Path) -> anyhow::Result<String> {
    Ok(render(&table::read(path)?))
}

/// Arms under each other: means with their intervals, differences to the baseline with their p values.
pub fn render(rows: &[ComparisonRow]) -> String {
    let ceiling = rows.iter().any(|row| row.of_ceiling.is_some());
    let mut table = layout();
    let mut header = vec!["agent", "dialogues", "average reward", "success"];
    if ceiling {
        header.push("of ceiling");
    }
    header.extend(["Δ reward", "Δ success", "gained / lost"]);
    table.set_header(header);
    for row in rows {
        let mut cells = vec![
            row.arm.clone(),
            if row.broken == 0 {
                row.dialogues.to_string()
            } else {
                format!("{} ({} broken)", row.dialogues, row.broken)
            },
            interval(row.reward, row.reward_low, row.reward_high, 1.0, ""),
            interval(row.success, row.success_low, row.success_high, 100.0, " %"),
        ];
        if ceiling {
            cells.push(row.of_ceiling.map(|share| format!("{:.1} %", share * 100.0)).unwrap_or_default());
        }
        cells.push(difference(row.reward_difference, row.reward_p, 1.0));
        cells.push(difference(row.success_difference, row.success_p, 100.0));
        cells.push(match (row.gained, row.lost) {
            (Some(gained), Some(lost)) => format!("{gained} / {lost}"),
            _ => String::new(),
        });
        table.add_row(cells);
    }
    let baseline = rows.first().map(|row| row.baseline.as_str()).unwrap_or_default();
    let notes = "in brackets 95 % intervals; Δ is against";
    format!("{table}\n{notes} `{baseline}`, paired by dialogue, with its p value{}", ceilings(rows))
}

/// What the arms could have reached at most; once where it is the same for all.
fn ceilings(rows: &[ComparisonRow]) -> String {
    let mut known: Vec<(&str, String)> = Vec::new();
    for row in rows {
        let (Some(reward), Some(success)) = (row.ceiling_reward, row.ceiling_success) else { continue };
        known.push((&row.arm, format!("average reward {reward:.4}, success {:.1} %", success * 100.0)));
    }
    let Some((_, first)) = known.first() else { return String::new() };
    if known.len() == rows.len() && known.iter().all(|(_, ceiling)| ceiling == first) {
        return format!("\nno agent can reach more than {first}");
    }
    known
        .iter()
        .map(|(arm, ceiling)| format!("\nno agent can reach more than {ceiling} in the dialogues of `{arm}`"))
        .collect()
}

fn interval(mean: Option<f64>, low: Option<f64>, high: Option<f64>, unit: f64, sign: &str) -> String {
    let digits = if unit == 1.0 { 3 } else { 1 };
    match (mean, low, high) {
        (Some(mean), Some(low), Some(high)) => {
            format!("{:.digits$}{sign} [{:.digits$}, {:.digits$}]", mean * unit, low * unit, high * unit)
        }
        (Some(mean), ..) => format!("{:.digits$}{sign}", mean * unit),
        _ => "no score".to_owned(),
    }
}

fn difference(difference: Option<f64>, p: Option<f64>, unit: f64) -> String {
    let digits = if unit == 1.0 { 3 } else { 1 };
    match (difference, p) {
        (Some(difference), Some(p)) => format!("{:+.digits$} (p {})", difference * unit, p_value(p)),
        (Some(difference), None) => format!("{:+.digits$}", difference * unit),
        _ => String::new(),
    }
}

fn p_value(p: f64) -> String {
    if p < 0.001 { "< 0.001".to_owned() } else { format!("{p:.3}") }
}
