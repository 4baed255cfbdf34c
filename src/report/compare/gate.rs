//! The regression gate: conditions under which a comparison fails.

use std::collections::{BTreeMap, BTreeSet};

use super::condition::{ASPECTS, Condition};
use super::{Case, Comparison, Cost, Spent, Verdict};

/// Why a condition cannot be judged. What is not known is no pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// Nothing of this name was measured.
    #[error("there is no metric `{name}`; there are {}", known.join(", "))]
    Unknown { name: String, known: Vec<String> },
    /// An arm, or the baseline, has none.
    #[error("`{name}` cannot be compared in `{table}` of `{arm}`: one of the two has none")]
    Missing { name: String, table: String, arm: String },
}

/// Looks at a condition in every table and every arm but the baseline.
///
/// A name is that of a metric, or of a figure, `seconds`, `cpu_seconds`, `tokens_read`, `tokens_written` or `money` (sums over all
/// stages); `STAGE.` before it chooses a stage. It stands for the arm's value less the baseline's.
///
/// # Errors
/// When there is no such metric, or a side has no value of it.
pub fn judge(comparison: &Comparison, condition: &Condition) -> Result<Verdict, GateError> {
    let found = places(comparison, &condition.terms[0].name)?;
    let mut cases = Vec::new();
    for (table, arm, aspects) in found {
        let arm_name = comparison.arms[arm].name.clone();
        let missing =
            |name: &str| GateError::Missing { name: name.to_owned(), table: table.clone(), arm: arm_name.clone() };
        let (mut values, mut failed) = (BTreeMap::new(), true);
        let main = &condition.terms[0].name;
        for term in &condition.terms {
            let value = if term.name == *main {
                aspects.get("difference").copied().flatten()
            } else if ASPECTS.contains(&term.name.as_str()) {
                aspects.get(term.name.as_str()).copied().flatten()
            } else {
                let others = places(comparison, &term.name)?;
                let here = |(at, of, _): &&(String, usize, Aspects)| {
                    *of == arm && (*at == table || others.len() == 1 || at.is_empty())
                };
                others.iter().find(here).and_then(|(_, _, aspects)| aspects.get("difference").copied().flatten())
            };
            let value = value.ok_or_else(|| missing(&term.name))?;
            failed &= term.comparator.holds(value.partial_cmp(&term.limit));
            values.insert(term.name.clone(), value);
        }
        cases.push(Case { table, arm: arm_name, values, failed });
    }
    Ok(Verdict { condition: condition.text.clone(), failed: cases.iter().any(|case| case.failed), cases })
}

/// What is known of a metric in a place: its difference, and the aspects by their names.
type Aspects = BTreeMap<&'static str, Option<f64>>;

/// Where a metric of this name is: tables or stages, and arms.
fn places(comparison: &Comparison, name: &str) -> Result<Vec<(String, usize, Aspects)>, GateError> {
    let arms = 1..comparison.arms.len();
    let mut found = Vec::new();
    for metric in comparison.metrics.iter().filter(|metric| is_called(name, &metric.table, &metric.name)) {
        for arm in arms.clone() {
            let difference = metric.differences[arm].as_ref();
            let aspects = Aspects::from([
                ("difference", difference.map(|found| found.mean)),
                ("p", difference.and_then(|found| found.p)),
                ("p_dialogues", difference.and_then(|found| found.p_dialogues)),
                ("low", difference.and_then(|found| found.low)),
                ("high", difference.and_then(|found| found.high)),
                ("value", metric.values[arm].mean),
                ("baseline", metric.values[0].mean),
            ]);
            found.push((metric.table.clone(), arm, aspects));
        }
    }
    let plain = |value: Option<f64>, base: Option<f64>| {
        let difference = value.zip(base).map(|(value, base)| value - base);
        Aspects::from([("difference", difference), ("value", value), ("baseline", base)])
    };
    if found.is_empty() {
        for figure in comparison.figures.iter().filter(|figure| is_called(name, &figure.stage, &figure.name)) {
            found.extend(
                arms.clone().map(|arm| (figure.stage.clone(), arm, plain(figure.values[arm], figure.values[0]))),
            );
        }
    }
    if found.is_empty() {
        for cost in &comparison.costs {
            let stage = cost.stage.as_deref().unwrap_or_default();
            let Some((_, of)) = SPENT.iter().find(|(own, _)| match &cost.stage {
                Some(stage) => {
                    name.strip_prefix(stage.as_str()).is_some_and(|rest| rest.strip_prefix('.') == Some(own))
                }
                None => name == *own,
            }) else {
                continue;
            };
            found
                .extend(arms.clone().map(|arm| (stage.to_owned(), arm, plain(of(&cost.arms[arm]), of(&cost.arms[0])))));
        }
    }
    if found.is_empty() {
        Err(GateError::Unknown { name: name.to_owned(), known: known(comparison) })
    } else {
        Ok(found)
    }
}

/// A part of what a stage took.
type Part = fn(&Spent) -> Option<f64>;

/// The parts of what stages took, by the names that conditions give them.
pub(super) const SPENT: &[(&str, Part)] = &[
    ("seconds", |spent| spent.seconds),
    ("cpu_seconds", |spent| spent.cpu_seconds),
    ("tokens_read", |spent| spent.tokens_read),
    ("tokens_written", |spent| spent.tokens_written),
    ("money", |spent| spent.money),
];

fn is_called(name: &str, stage: &str, own: &str) -> bool {
    name == own || name.strip_prefix(stage).is_some_and(|rest| rest.strip_prefix('.') == Some(own))
}

fn known(comparison: &Comparison) -> Vec<String> {
    let metrics = comparison.metrics.iter().map(|metric| metric.name.as_str());
    let sums = |cost: &Cost| {
        SPENT
            .iter()
            .filter(|(_, of)| cost.arms.iter().any(|spent| of(spent).is_some()))
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
    };
    let costs = comparison.costs.iter().filter(|cost| cost.stage.is_none()).flat_map(sums);
    let names: BTreeSet<&str> = metrics.chain(costs).collect();
    let mut names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    let figures: BTreeSet<String> =
        comparison.figures.iter().map(|figure| format!("`{}.{}`", figure.stage, figure.name)).collect();
    names.extend(figures.into_iter().take(8));
    if names.is_empty() { vec!["none".to_owned()] } else { names }
}

#[cfg(test)]
mod tests {
    use super::super::{Arm, Difference, Mean, Method, Metric};
    use super::*;

    fn comparison() -> Comparison {
        let arm = |name: &str| Arm { name: name.to_owned(), replicates: Vec::new() };
        let difference = |mean: f64, p: f64| Difference {
            mean,
            low: Some(mean - 0.02),
            high: Some(mean + 0.02),
            p: Some(p),
            p_dialogues: Some(p),
            matched: 100,
            unmatched: 0,
            method: Method::Resampled,
        };
        let metric = |table: &str, differences: Vec<Option<Difference>>| Metric {
            table: table.to_owned(),
            name: "success".to_owned(),
            share: true,
            more_is_better: Some(true),
            values: vec![Mean { mean: Some(0.5), ..Mean::default() }; 3],
            differences,
        };
        let seconds = |seconds: f64| Spent { seconds: Some(seconds), ..Spent::default() };
        Comparison {
            arms: vec![arm("base"), arm("one"), arm("two")],
            metrics: vec![
                metric("hard", vec![None, Some(difference(-0.05, 0.03)), Some(difference(0.01, 0.6))]),
                metric("easy", vec![None, Some(difference(0.0, 1.0)), None]),
            ],
            costs: vec![Cost { stage: None, arms: vec![seconds(10.0), seconds(14.0), seconds(9.0)] }],
            ..Comparison::default()
        }
    }

    fn judged(text: &str) -> Result<Vec<bool>, String> {
        let verdict = judge(&comparison(), &Condition::parse(text)?).map_err(|error| error.to_string())?;
        let cases: Vec<bool> = verdict.cases.iter().map(|case| case.failed).collect();
        assert_eq!(verdict.failed, cases.contains(&true));
        Ok(cases)
    }

    #[test]
    fn a_condition_is_looked_at_everywhere() {
        assert_eq!(judged("hard.success < -0.02"), Ok(vec![true, false]));
        assert_eq!(judged("hard.success < -0.02 and p < 0.05"), Ok(vec![true, false]));
        assert_eq!(judged("hard.success < -0.02 and p < 0.01"), Ok(vec![false, false]));
        assert_eq!(judged("hard.success < 1 and high < 0"), Ok(vec![true, false]));
        assert_eq!(judged("seconds > 2"), Ok(vec![true, false]));
        assert_eq!(judged("hard.success < 0 and seconds > 2"), Ok(vec![true, false]));
        assert_eq!(judged("hard.success < 0 and value < 60%"), Ok(vec![true, false]));
    }

    #[test]
    fn what_is_not_known_is_no_pass() {
        let missing = "`success` cannot be compared in `easy` of `two`: one of the two has none";
        assert_eq!(judged("success < -0.02").unwrap_err(), missing);
        let unknown = "there is no metric `sucess`; there are `seconds`, `success`";
        assert_eq!(judged("sucess < -0.02").unwrap_err(), unknown);
        assert!(judged("seconds > 2 and p < 0.05").unwrap_err().contains("`p` cannot be compared"));
    }
}
