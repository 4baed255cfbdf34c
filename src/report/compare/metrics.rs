//! What score tables and episodes come to, and how the arms differ in it.

use super::arms::Pairing;
use super::tables::{EpisodePart, Scored, Table};
use super::{Arm, Difference, Mean, Method, Metric};
use crate::eval::bootstrap::percentile_interval;
use crate::eval::mean;
use crate::eval::permutation::sign_flip_p;
use crate::eval::replicates::{Estimate, Values, deviation, paired_difference, pooled_difference, pooled_mean};
use crate::eval::score::{EpisodeOutcome, Resampling, ScoreRow};
use crate::seed::derive;

/// As `eval.compare` does by default.
const RESAMPLING: Resampling = Resampling { samples: 10_000, confidence: 0.95, seed: 0 };

/// Something that is measured in each dialogue.
struct Measure {
    name: &'static str,
    share: bool,
    more_is_better: Option<bool>,
    of: Of,
}

/// What it is measured of. A broken dialogue has no value of anything but of being broken.
enum Of {
    Score(fn(&ScoreRow) -> Option<f64>),
    Episode(fn(&EpisodePart) -> f64),
}

const MEASURES: &[Measure] = &[
    Measure { name: "reward", share: false, more_is_better: Some(true), of: Of::Score(|score| score.reward) },
    Measure { name: "success", share: true, more_is_better: Some(true), of: Of::Score(ScoreRow::success_value) },
    Measure {
        name: "broken",
        share: true,
        more_is_better: Some(false),
        of: Of::Score(|score| Some(f64::from(u8::from(score.outcome == EpisodeOutcome::Broken)))),
    },
    Measure { name: "messages", share: false, more_is_better: None, of: Of::Episode(|row| row.messages.len() as f64) },
    Measure { name: "calls", share: false, more_is_better: None, of: Of::Episode(|row| row.calls.len() as f64) },
    Measure {
        name: "agent_tokens",
        share: false,
        more_is_better: None,
        of: Of::Episode(|row| row.agent_completion_tokens as f64),
    },
    Measure {
        name: "user_tokens",
        share: false,
        more_is_better: None,
        of: Of::Episode(|row| row.user_completion_tokens as f64),
    },
];

/// The metrics of a table.
pub(super) fn metrics(table: &Table, arms: &[Arm], pairings: &[Pairing]) -> Vec<Metric> {
    MEASURES.iter().filter_map(|measure| metric(table, arms, pairings, measure)).collect()
}

fn metric(table: &Table, named: &[Arm], pairings: &[Pairing], measure: &Measure) -> Option<Metric> {
    let arms: Vec<Vec<Values<&super::tables::Key>>> =
        table.arms.iter().map(|arm| arm.iter().map(|one| values(one, measure)).collect()).collect();
    let any = arms.iter().flatten().flatten().any(|(_, value)| *value != 0.0);
    // What nobody counts, such as tokens of rules, is no metric.
    if matches!(measure.of, Of::Episode(_)) && !any {
        return None;
    }
    let single =
        arms.iter().all(|arm| arm.len() < 2) && !matches!(measure.of, Of::Episode(_)) && measure.name != "broken";
    let mut means = Vec::new();
    for (place, arm) in arms.iter().enumerate() {
        means.push(mean_of(&table.arms[place], arm, measure, single));
    }
    let mut differences = vec![None];
    for ((arm, named), pairing) in arms.iter().zip(named).zip(pairings).skip(1) {
        // A table that some replicates lack pairs nothing.
        let pairing = pairing.as_ref().filter(|pairing| pairing.len() == arm.len() && arm.len() == arms[0].len());
        differences.push(difference(arm, &arms[0], pairing, (measure, &named.name), single));
    }
    Some(Metric {
        table: table.name.clone(),
        name: measure.name.to_owned(),
        share: measure.share,
        more_is_better: measure.more_is_better,
        values: means,
        differences,
    })
}

fn values<'s>(one: &'s Scored, measure: &Measure) -> Values<&'s super::tables::Key> {
    match measure.of {
        Of::Score(of) => one.scores.iter().filter_map(|(key, score)| Some((key, of(score)?))).collect(),
        Of::Episode(of) => {
            let whole = |(key, _): &(&_, &EpisodePart)| {
                one.scores.get(*key).is_some_and(|score| score.outcome != EpisodeOutcome::Broken)
            };
            let episodes = one.episodes.iter().flatten().filter(whole);
            episodes.map(|(key, episode)| (key, of(episode))).collect()
        }
    }
}

fn mean_of<K: Ord>(tables: &[Scored], arm: &[Values<K>], measure: &Measure, single: bool) -> Mean {
    let is_broken = |score: &&ScoreRow| score.outcome == EpisodeOutcome::Broken;
    let own = |values: &Values<K>| mean(&values.values().copied().collect::<Vec<_>>());
    let replicates: Vec<Option<f64>> = arm.iter().map(own).collect();
    let known: Vec<f64> = replicates.iter().flatten().copied().collect();
    let estimate = pooled_mean(arm, RESAMPLING.confidence);
    let (mut low, mut high) = estimate.as_ref().map_or((None, None), |found| (found.low, found.high));
    if let (true, Some(found)) = (single, &estimate) {
        let seed = derive(RESAMPLING.seed, &["eval", measure.name]);
        let interval = percentile_interval(&found.by_dialogue, RESAMPLING.samples, RESAMPLING.confidence, seed);
        (low, high) = (interval.map(|ends| ends.low), interval.map(|ends| ends.high));
    }
    Mean {
        mean: estimate.map(|found| found.mean),
        low,
        high,
        count: arm.iter().map(|values| values.len() as u64).sum(),
        broken: tables.iter().flat_map(|one| one.scores.values()).filter(is_broken).count() as u64,
        spread: deviation(&known),
        replicates,
    }
}

/// With one replicate each, scores are compared as `eval.compare` does it, so that both say the same.
fn difference<K: Ord>(
    arm: &[Values<K>],
    base: &[Values<K>],
    pairing: Option<&Vec<usize>>,
    (measure, name): (&Measure, &str),
    single: bool,
) -> Option<Difference> {
    let found = match pairing {
        Some(partners) => {
            let pairs: Vec<_> = arm.iter().zip(partners).map(|(arm, place)| (arm, &base[*place])).collect();
            paired_difference(&pairs, RESAMPLING.confidence)
        }
        None => pooled_difference(arm, base, RESAMPLING.confidence),
    };
    let Estimate { mean, low, high, p, by_dialogue, seeds } = found?;
    let keys: std::collections::BTreeSet<&K> = arm.iter().chain(base).flat_map(|values| values.keys()).collect();
    let own = |what: &str| derive(RESAMPLING.seed, &["eval", what, name, measure.name]);
    let flipped = sign_flip_p(&by_dialogue, RESAMPLING.samples, own("p"));
    let matched = by_dialogue.len() as u64;
    let found = Difference {
        mean,
        low,
        high,
        // Where nothing varies, Student's t says nothing; signs still do.
        p: p.or(flipped),
        p_dialogues: flipped,
        matched,
        unmatched: keys.len() as u64 - matched,
        method: match pairing {
            Some(_) if seeds => Method::SeedsInPairs,
            None if seeds => Method::DialoguesAndSeeds,
            _ => Method::Dialogues,
        },
    };
    if !single {
        return Some(found);
    }
    let interval = percentile_interval(&by_dialogue, RESAMPLING.samples, RESAMPLING.confidence, own("difference"));
    let (low, high) = (interval.map(|ends| ends.low), interval.map(|ends| ends.high));
    Some(Difference { low, high, p: flipped, method: Method::Resampled, ..found })
}
