//! Learning curves: what trainings wrote down about each step, thinned so that no extreme is lost.

use serde_json::{Value, json};

use super::{Content, Material, Section};
use crate::table::{self, Row};
use crate::train::log::TrainLog;

pub(super) const SECTION: Section = Section {
    id: "curves",
    title: "Learning curves",
    style: include_str!("assets/curves.css"),
    script: include_str!("assets/curves.js"),
    make,
};

/// How many places a curve has at most: a panel is not much wider in pixels.
const PLACES: usize = 240;

type Column = (&'static str, fn(&TrainLog) -> Option<f64>);

/// What is drawn, in the order of the panels.
const COLUMNS: [Column; 9] = [
    ("loss", |row| Some(row.loss)),
    ("eval_loss", |row| row.eval_loss),
    ("rewards_margin", |row| row.rewards_margin),
    ("rewards_accuracy", |row| row.rewards_accuracy),
    ("rewards_chosen", |row| row.rewards_chosen),
    ("rewards_rejected", |row| row.rewards_rejected),
    ("kl", |row| row.kl),
    ("grad_norm", |row| Some(row.grad_norm)),
    ("learning_rate", |row| Some(row.learning_rate)),
];

fn make(material: &Material) -> anyhow::Result<Option<Content>> {
    let mut trainings = Vec::new();
    for found in material.outputs(TrainLog::TYPE)? {
        let rows: Vec<TrainLog> = table::read(&found.path)?;
        let curves: Vec<Value> = COLUMNS.iter().filter_map(|(name, value)| curve(name, &rows, value)).collect();
        let (steps, epochs) = rows.last().map_or((0, 0.0), |row| (row.step, row.epoch));
        let tokens: u64 = rows.iter().map(|row| row.tokens).sum();
        trainings.push(json!({
            "run": found.run, "stage": found.stage.name, "kind": found.stage.kind,
            "steps": steps, "epochs": rounded(epochs), "tokens": tokens, "curves": curves,
        }));
    }
    Ok((!trainings.is_empty()).then(|| json!(trainings).into()))
}

/// One curve; `None` where no step has a finite value. Steps that have none (they were not measured, or the training went out
/// of bounds) are left out and counted.
fn curve(name: &str, rows: &[TrainLog], value: impl Fn(&TrainLog) -> Option<f64>) -> Option<Value> {
    let measured: Vec<(u64, f64)> = rows.iter().filter_map(|row| Some((row.step, value(row)?))).collect();
    let points: Vec<(u64, f64)> = measured.iter().copied().filter(|(_, value)| value.is_finite()).collect();
    let thin = thinned(&points, PLACES);
    let last = thin.last()?.last;
    let mut curve = json!({"name": name, "last": rounded(last)});
    let regular = thin.windows(2).all(|pair| pair[1].from - pair[0].from == thin[1].from - thin[0].from);
    if regular {
        let every = thin.get(1).map_or(1, |second| second.from - thin[0].from);
        curve["from"] = json!([thin[0].from, every]);
    } else {
        curve["at"] = thin.iter().map(|place| json!(place.from)).collect();
    }
    curve["low"] = thin.iter().map(|place| rounded(place.low)).collect();
    if points.len() > thin.len() {
        curve["high"] = thin.iter().map(|place| rounded(place.high)).collect();
    }
    if measured.len() > points.len() {
        curve["unbounded"] = json!(measured.len() - points.len());
    }
    Some(curve)
}

/// Steps that share a place of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    from: u64,
    low: f64,
    high: f64,
    last: f64,
}

/// Points as so many places at most, each with the lowest and the highest of its points.
fn thinned(points: &[(u64, f64)], places: usize) -> Vec<Place> {
    let share = points.len().div_ceil(places).max(1);
    let place = |part: &[(u64, f64)]| Place {
        from: part[0].0,
        low: part.iter().map(|point| point.1).fold(f64::INFINITY, f64::min),
        high: part.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max),
        last: part[part.len() - 1].1,
    };
    points.chunks(share).map(place).collect()
}

/// A number to five significant digits: more cannot be seen in a curve, and would be most of the page.
fn rounded(value: f64) -> Value {
    let short: f64 = format!("{value:.4e}").parse().unwrap_or(value);
    // Whole numbers without `.0`.
    if short.fract() == 0.0 && short.abs() < 1e9 { json!(short as i64) } else { json!(short) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_short_curve_is_whole_and_says_where_it_begins() {
        let row = |step: u64, loss: f64| TrainLog { step, loss, ..TrainLog::default() };
        let rows = [row(1, 0.123456), row(2, 3.0), row(3, 1e-7)];
        let curve = curve("loss", &rows, |row| Some(row.loss)).unwrap();
        assert_eq!(curve, json!({"name": "loss", "last": 1e-7, "from": [1, 1], "low": [0.12346, 3, 1e-7]}));
    }

    #[test]
    fn what_was_not_measured_is_no_point_and_what_is_no_number_is_counted() {
        let row = |step: u64, eval_loss: Option<f64>| TrainLog { step, eval_loss, ..TrainLog::default() };
        let rows = [row(1, None), row(2, Some(1.0)), row(4, Some(f64::NAN)), row(7, Some(2.0)), row(8, Some(0.5))];
        let found = curve("eval_loss", &rows, |row| row.eval_loss).unwrap();
        assert_eq!(
            found,
            json!({"name": "eval_loss", "last": 0.5, "at": [2, 7, 8], "low": [1, 2, 0.5], "unbounded": 1})
        );
        assert_eq!(curve("kl", &rows, |row| row.kl), None);
    }

    proptest! {
        #[test]
        fn no_extreme_is_lost(values in prop::collection::vec(-1e6..1e6, 1..2000), places in 1_usize..200) {
            let points: Vec<(u64, f64)> = values.iter().enumerate().map(|(at, value)| (at as u64 + 1, *value)).collect();
            let thin = thinned(&points, places);
            prop_assert!(thin.len() <= places && thin.len() <= points.len());
            let (lowest, highest) = (values.iter().copied().fold(f64::INFINITY, f64::min), values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            prop_assert_eq!(thin.iter().map(|place| place.low).fold(f64::INFINITY, f64::min), lowest);
            prop_assert_eq!(thin.iter().map(|place| place.high).fold(f64::NEG_INFINITY, f64::max), highest);
            prop_assert!(thin.windows(2).all(|pair| pair[0].from < pair[1].from));
            prop_assert_eq!(thin.last().unwrap().last, *values.last().unwrap());
        }
    }
}
