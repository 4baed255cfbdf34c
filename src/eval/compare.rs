//! Several agents over the same dialogues: is one better than another, and could that be chance?

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bootstrap::{Interval, effect_size, paired_p, percentile_interval, reference_p};
use super::mean;
use super::permutation::sign_flip_p;
use super::score::{Resampling, ScoreRow, SummaryRow, summarise};
use crate::seed::derive;
use crate::table::Row;

/// How a p value of a difference is found. All three stand in the table; this says which one is meant by `reward_p` and
/// `success_p`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Test {
    /// Flip the signs of the differences: paired, two-sided.
    #[default]
    Permutation,
    /// Resample the differences: paired, two-sided.
    Bootstrap,
    /// As the reference does (quirk Q40): unpaired and one-sided, for "the arm is better". Seeded as numpy is.
    Reference,
}

/// How arms are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The intervals, and the samples and the seed of the p values.
    pub resampling: Resampling,
    /// The p values that count.
    pub test: Test,
}

/// One arm and how it stands against the baseline.
///
/// The means are over all of the arm's own scored dialogues; the differences and what follows over the dialogues that both
/// have a score of. The baseline has no differences.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ComparisonRow {
    /// The arm.
    pub arm: String,
    /// The arm that it is compared with.
    pub baseline: String,
    /// How many dialogues it has.
    pub dialogues: u64,
    /// How many of them are broken, and in no average.
    pub broken: u64,
    /// The mean reward.
    pub reward: Option<f64>,
    /// The lower end of its confidence interval.
    pub reward_low: Option<f64>,
    /// The upper end.
    pub reward_high: Option<f64>,
    /// The share of successes.
    pub success: Option<f64>,
    /// The lower end of its confidence interval.
    pub success_low: Option<f64>,
    /// The upper end.
    pub success_high: Option<f64>,
    /// The mean reward over the mean of what is reachable.
    pub of_ceiling: Option<f64>,
    /// The highest mean reward that any agent can reach in the arm's dialogues, where that was measured of all.
    pub ceiling_reward: Option<f64>,
    /// The highest share of successes.
    pub ceiling_success: Option<f64>,
    /// How many dialogues both the arm and the baseline have a score of.
    pub matched: Option<u64>,
    /// How many dialogues only one of them has, or has a score of.
    pub unmatched: Option<u64>,
    /// The mean of the arm's reward less the baseline's.
    pub reward_difference: Option<f64>,
    /// The lower end of its confidence interval: resampled pairs.
    pub reward_difference_low: Option<f64>,
    /// The upper end.
    pub reward_difference_high: Option<f64>,
    /// Its p value by the test that was chosen.
    pub reward_p: Option<f64>,
    /// By flipped signs: paired, two-sided.
    pub reward_p_permutation: Option<f64>,
    /// By resampled differences: paired, two-sided.
    pub reward_p_bootstrap: Option<f64>,
    /// As the reference finds it: unpaired, one-sided (quirk Q40). `None` with a seed of more than 32 bits.
    pub reward_p_reference: Option<f64>,
    /// The difference in units of its standard deviation from dialogue to dialogue (Cohen's d_z); `None` where that is 0.
    pub reward_effect: Option<f64>,
    /// The arm's share of successes less the baseline's.
    pub success_difference: Option<f64>,
    /// The lower end of its confidence interval: resampled pairs.
    pub success_difference_low: Option<f64>,
    /// The upper end.
    pub success_difference_high: Option<f64>,
    /// Its p value by the test that was chosen.
    pub success_p: Option<f64>,
    /// By flipped signs: paired, two-sided.
    pub success_p_permutation: Option<f64>,
    /// By resampled differences: paired, two-sided.
    pub success_p_bootstrap: Option<f64>,
    /// As the reference finds it: unpaired, one-sided (quirk Q40). `None` with a seed of more than 32 bits.
    pub success_p_reference: Option<f64>,
    /// The difference in units of its standard deviation from dialogue to dialogue (Cohen's d_z); `None` where that is 0.
    pub success_effect: Option<f64>,
    /// Dialogues in which only the arm succeeded.
    pub gained: Option<u64>,
    /// Dialogues in which only the baseline succeeded.
    pub lost: Option<u64>,
}

impl Row for ComparisonRow {
    const TYPE: &'static str = "eval.comparison/v3";
}

/// Why arms cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    /// No arm has the baseline's name.
    #[error("`baseline` is `{baseline}`, which is no arm; the arms are {}", names(arms))]
    Baseline { baseline: String, arms: Vec<String> },
    /// An arm has two scores of one dialogue.
    #[error("arm `{arm}` has dialogue `{dialogue}` twice")]
    Twice { arm: String, dialogue: String },
}

fn names(arms: &[String]) -> String {
    arms.iter().map(|arm| format!("`{arm}`")).collect::<Vec<_>>().join(", ")
}

/// Compares named tables of scores with one of them, dialogue by dialogue: one row an arm, in their order.
pub fn compare(
    arms: &[(String, Vec<ScoreRow>)],
    baseline: &str,
    settings: Settings,
) -> Result<Vec<ComparisonRow>, CompareError> {
    let tables = arms.iter().map(|(arm, scores)| Ok((arm, by_dialogue(arm, scores)?)));
    let tables = tables.collect::<Result<Vec<_>, CompareError>>()?;
    let Some((_, base)) = tables.iter().find(|(arm, _)| *arm == baseline) else {
        let arms = arms.iter().map(|(arm, _)| arm.clone()).collect();
        return Err(CompareError::Baseline { baseline: baseline.to_owned(), arms });
    };
    let rows = arms.iter().zip(&tables).map(|((arm, scores), (_, table))| {
        let row = alone(arm, baseline, summarise(scores, settings.resampling));
        if arm == baseline { row } else { against(row, table, base, settings) }
    });
    Ok(rows.collect())
}

type Table<'s> = BTreeMap<&'s str, &'s ScoreRow>;

fn by_dialogue<'s>(arm: &str, scores: &'s [ScoreRow]) -> Result<Table<'s>, CompareError> {
    let mut table = BTreeMap::new();
    for score in scores {
        if table.insert(score.dialogue.as_str(), score).is_some() {
            return Err(CompareError::Twice { arm: arm.to_owned(), dialogue: score.dialogue.clone() });
        }
    }
    Ok(table)
}

/// An arm's own figures.
fn alone(arm: &str, baseline: &str, summary: SummaryRow) -> ComparisonRow {
    ComparisonRow {
        arm: arm.to_owned(),
        baseline: baseline.to_owned(),
        dialogues: summary.dialogues,
        broken: summary.broken,
        reward: summary.reward,
        reward_low: summary.reward_low,
        reward_high: summary.reward_high,
        success: summary.success,
        success_low: summary.success_low,
        success_high: summary.success_high,
        of_ceiling: summary.of_ceiling,
        ceiling_reward: summary.ceiling_reward,
        ceiling_success: summary.ceiling_success,
        ..ComparisonRow::default()
    }
}

/// The same figures with what sets the arm apart from the baseline.
fn against(row: ComparisonRow, table: &Table, base: &Table, settings: Settings) -> ComparisonRow {
    let pairs = |value: fn(&ScoreRow) -> Option<f64>| -> Vec<(f64, f64)> {
        let both = table.iter().filter_map(|(dialogue, score)| Some((value(score)?, value(base.get(dialogue)?)?)));
        both.collect()
    };
    let (rewards, successes) = (pairs(|score| score.reward), pairs(ScoreRow::success_value));
    let all = table.keys().chain(base.keys().filter(|dialogue| !table.contains_key(*dialogue))).count();
    let (reward, success) =
        (Paired::new(&rewards, &row.arm, "reward", settings), Paired::new(&successes, &row.arm, "success", settings));
    let flips = differences(&successes);
    ComparisonRow {
        matched: Some(rewards.len() as u64),
        unmatched: Some((all - rewards.len()) as u64),
        reward_difference: reward.difference,
        reward_difference_low: reward.interval.map(|Interval { low, .. }| low),
        reward_difference_high: reward.interval.map(|Interval { high, .. }| high),
        reward_p: reward.p(settings.test),
        reward_p_permutation: reward.permutation,
        reward_p_bootstrap: reward.bootstrap,
        reward_p_reference: reward.reference,
        reward_effect: reward.effect,
        success_difference: success.difference,
        success_difference_low: success.interval.map(|Interval { low, .. }| low),
        success_difference_high: success.interval.map(|Interval { high, .. }| high),
        success_p: success.p(settings.test),
        success_p_permutation: success.permutation,
        success_p_bootstrap: success.bootstrap,
        success_p_reference: success.reference,
        success_effect: success.effect,
        gained: Some(flips.iter().filter(|difference| **difference > 0.0).count() as u64),
        lost: Some(flips.iter().filter(|difference| **difference < 0.0).count() as u64),
        ..row
    }
}

/// What pairs of an arm's and the baseline's values say.
struct Paired {
    difference: Option<f64>,
    interval: Option<Interval>,
    permutation: Option<f64>,
    bootstrap: Option<f64>,
    reference: Option<f64>,
    effect: Option<f64>,
}

impl Paired {
    fn new(pairs: &[(f64, f64)], arm: &str, figure: &str, settings: Settings) -> Self {
        let Resampling { samples, seed, confidence } = settings.resampling;
        let own = |what: &str| derive(seed, &["eval", what, arm, figure]);
        let differences = differences(pairs);
        let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        let narrow = u32::try_from(samples).ok().zip(u32::try_from(seed).ok());
        Self {
            difference: mean(&differences),
            interval: percentile_interval(&differences, samples, confidence, own("difference")),
            permutation: sign_flip_p(&differences, samples, own("p")),
            bootstrap: paired_p(&differences, samples, own("p")),
            reference: narrow.and_then(|(samples, seed)| reference_p(&a, &b, samples, seed)),
            effect: effect_size(&differences),
        }
    }

    fn p(&self, test: Test) -> Option<f64> {
        match test {
            Test::Permutation => self.permutation,
            Test::Bootstrap => self.bootstrap,
            Test::Reference => self.reference,
        }
    }
}

fn differences(pairs: &[(f64, f64)]) -> Vec<f64> {
    pairs.iter().map(|(arm, baseline)| arm - baseline).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::score::{EpisodeOutcome, EpisodeView};

    fn arm(name: &str, scores: &[(&str, Option<f64>)]) -> (String, Vec<ScoreRow>) {
        let row = |(dialogue, reward): &(&str, Option<f64>)| {
            let outcome = match reward {
                None => EpisodeOutcome::Broken,
                Some(reward) if *reward == 1.0 => EpisodeOutcome::Success,
                Some(_) => EpisodeOutcome::Failure,
            };
            let (reward, success) = (reward.unwrap_or(0.0), outcome == EpisodeOutcome::Success);
            ScoreRow::new(
                EpisodeView { dialogue: (*dialogue).to_owned(), reward, success, outcome, reason: None },
                None,
            )
        };
        (name.to_owned(), scores.iter().map(row).collect())
    }

    fn settings(test: Test) -> Settings {
        Settings { resampling: Resampling { samples: 500, confidence: 0.95, seed: 3 }, test }
    }

    #[test]
    fn arms_are_matched_by_dialogue_and_not_by_place() {
        let arms = [
            arm("base", &[("a", Some(0.0)), ("b", Some(1.0)), ("c", Some(0.5)), ("d", None), ("e", Some(1.0))]),
            arm("new", &[("c", Some(1.0)), ("b", Some(0.5)), ("a", Some(1.0)), ("d", Some(1.0)), ("f", Some(1.0))]),
        ];
        let rows = compare(&arms, "base", settings(Test::Permutation)).unwrap();
        let (base, new) = (&rows[0], &rows[1]);
        assert_eq!((base.dialogues, base.broken, base.matched, base.reward_p), (5, 1, None, None));
        assert_eq!((new.dialogues, new.broken), (5, 0));
        // Matched: a +1, b -0.5, c +0.5. Unmatched: d (broken in the baseline), e, f.
        assert_eq!((new.matched, new.unmatched), (Some(3), Some(3)));
        assert_eq!(new.reward_difference, Some(1.0 / 3.0));
        assert_eq!((new.gained, new.lost), (Some(2), Some(1)));
        assert_eq!(new.success_difference, Some(1.0 / 3.0));
        // Of 8 ways to sign 1, 0.5 and 0.5, six give a sum of at least 1 either way.
        assert_eq!(new.reward_p, Some(6.0 / 8.0));
        assert_eq!(new.reward, Some(0.9));
    }

    #[test]
    fn every_test_tells_a_clear_difference_from_none() {
        let names: Vec<String> = (0..60).map(|number| format!("d{number}")).collect();
        let table = |name: &str, reward: fn(usize) -> f64| {
            arm(name, &names.iter().enumerate().map(|(at, id)| (id.as_str(), Some(reward(at)))).collect::<Vec<_>>())
        };
        let arms = [
            table("base", |at| (at % 3) as f64 / 4.0),
            table("better", |at| (at % 3) as f64 / 4.0 + if at % 4 == 0 { 0.0 } else { 0.5 }),
            table("mixed", |at| (at % 3) as f64 / 4.0 + if at % 2 == 0 { 0.25 } else { -0.25 }),
        ];
        for test in [Test::Permutation, Test::Bootstrap, Test::Reference] {
            let rows = compare(&arms, "base", settings(test)).unwrap();
            let (better, mixed) = (rows[1].reward_p.unwrap(), rows[2].reward_p.unwrap());
            assert!(better < 0.01 && mixed > 0.2, "{test:?}: {better}, {mixed}");
            assert!(rows[1].reward_effect.unwrap() > 1.0 && rows[2].reward_effect == Some(0.0));
            let (low, high) = (rows[1].reward_difference_low.unwrap(), rows[1].reward_difference_high.unwrap());
            assert!(0.25 < low && low < 0.375 && 0.375 < high && high < 0.5, "{low} {high}");
            let all = [rows[1].reward_p_permutation, rows[1].reward_p_bootstrap, rows[1].reward_p_reference];
            assert!(all.contains(&rows[1].reward_p) && all.iter().all(|p| p.is_some_and(|p| p < 0.01)), "{all:?}");
            assert_eq!(compare(&arms, "base", settings(test)).unwrap(), rows);
        }
    }

    #[test]
    fn a_missing_baseline_and_a_doubled_dialogue_are_named() {
        let arms = [arm("base", &[("a", Some(1.0))]), arm("new", &[("a", Some(1.0)), ("a", Some(0.5))])];
        let error = compare(&arms, "base", settings(Test::Permutation)).unwrap_err();
        assert_eq!(error.to_string(), "arm `new` has dialogue `a` twice");
        let error = compare(&arms[..1], "bass", settings(Test::Permutation)).unwrap_err();
        assert_eq!(error.to_string(), "`baseline` is `bass`, which is no arm; the arms are `base`");
    }
}
