//! The same experiment several times with other seeds: means and differences that know what is repeated.
//!
//! The replicates of an arm mostly play the same dialogues, so their values are not independent: a hard dialogue is hard in
//! all of them. And all dialogues of a replicate share its agent: where that came out badly, it is bad in all. Who counts every
//! pair of dialogue and seed as one more observation finds differences where there are none (in the simulations below, 40 of 100
//! times where trainings with other seeds differ much). So there are two sources of chance, each with its own degrees of freedom:
//!
//! - Dialogues. The values of a dialogue are averaged over the replicates; what is left varies from dialogue to dialogue.
//! - Seeds, with replicates on both sides. The means of an arm's replicates vary; the part of it that dialogues' own
//!   noise explains is taken off (two-way analysis of variance, over the dialogues that all replicates have). Where replicates
//!   play other dialogues each, it is the differences of the replicates' means that vary, and nothing is taken off.
//!
//! The variances add up, Satterthwaite's formula gives the degrees of freedom, and Student's t the interval and the p value.
//! Seeds are not paired unless that is asked for: that two arms' trainings used the number 20 does not make their chance the
//! same. Where one arm's training goes on from the other's of the same seed, it does, and [`paired_difference`] compares each with
//! its own: then it is the differences within seeds that vary from seed to seed. With two replicates the chance of seeds is known badly. The simulations below say what that comes to.

use std::collections::{BTreeMap, BTreeSet};

use super::bootstrap::TOLERANCE;
use super::mean;
use super::student::{critical, two_sided_p};

/// The values of a replicate by their dialogues; equal keys in two replicates are the same dialogue.
pub type Values<K> = BTreeMap<K, f64>;

/// A mean, or a difference of means, and how sure it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The value.
    pub mean: f64,
    /// The lower end of its interval; `None` where chance cannot be told, as with one dialogue.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
    /// The two-sided p value against 0; `None` where chance cannot be told.
    pub p: Option<f64>,
    /// What was counted for each dialogue: its mean, or its difference of means.
    pub by_dialogue: Vec<f64>,
    /// Whether the chance of seeds is in it.
    pub seeds: bool,
}

/// A part of a variance, and its degrees of freedom.
#[derive(Clone, Copy, Debug)]
struct Part {
    variance: f64,
    freedom: f64,
}

/// The mean over dialogues of their means over replicates. `None` of no values.
pub fn pooled_mean<K: Ord>(replicates: &[Values<K>], confidence: f64) -> Option<Estimate> {
    let keys: BTreeSet<&K> = replicates.iter().flat_map(BTreeMap::keys).collect();
    let by_dialogue: Vec<f64> = keys.iter().filter_map(|key| dialogue_mean(replicates, key)).collect();
    let seeds = match seed_part(replicates) {
        Some(part) => vec![part],
        None => unshared_part(replicates, &|_, value| Some(value)).into_iter().collect(),
    };
    estimate(by_dialogue, &seeds, confidence)
}

/// The arm's mean less the baseline's, over the dialogues that both have a value of. `None` where there is none.
pub fn pooled_difference<K: Ord>(arm: &[Values<K>], base: &[Values<K>], confidence: f64) -> Option<Estimate> {
    let keys: BTreeSet<&K> = arm.iter().flat_map(BTreeMap::keys).collect();
    let difference = |key: &&K| Some(dialogue_mean(arm, key)? - dialogue_mean(base, key)?);
    let by_dialogue: Vec<f64> = keys.iter().filter_map(difference).collect();
    let seeds = match (seed_part(arm), seed_part(base)) {
        _ if arm.len() < 2 || base.len() < 2 => Vec::new(),
        (Some(arm), Some(base)) => vec![arm, base],
        _ => unshared_part(arm, &|key, value| Some(value - dialogue_mean(base, key)?)).into_iter().collect(),
    };
    estimate(by_dialogue, &seeds, confidence)
}

/// The same where each replicate of the arm belongs to one of the baseline, `(arm, base)`: the mean over dialogues of their
/// differences within the pairs. `None` where no pair has a dialogue in common.
pub fn paired_difference<K: Ord>(pairs: &[(&Values<K>, &Values<K>)], confidence: f64) -> Option<Estimate> {
    let differences: Vec<Values<&K>> = pairs
        .iter()
        .map(|(arm, base)| arm.iter().filter_map(|(key, value)| Some((key, value - base.get(key)?))).collect())
        .collect();
    let found = pooled_mean(&differences, confidence)?;
    Some(Estimate { seeds: pairs.len() > 1, ..found })
}

fn dialogue_mean<K: Ord>(replicates: &[Values<K>], key: &K) -> Option<f64> {
    mean(&replicates.iter().filter_map(|values| values.get(key).copied()).collect::<Vec<_>>())
}

/// The variance of some values as a sample; `None` of fewer than two.
fn variance(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    Some(values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64)
}

/// The standard deviation of some values as a sample; `None` of fewer than two.
pub fn deviation(values: &[f64]) -> Option<f64> {
    variance(values).map(f64::sqrt)
}

/// What the chance of seeds adds to the variance of a mean over replicates that share dialogues; `None` where fewer than
/// two replicates share fewer than two.
fn seed_part<K: Ord>(replicates: &[Values<K>]) -> Option<Part> {
    let (first, others) = replicates.split_first().filter(|(_, others)| !others.is_empty())?;
    let keys: Vec<&K> = first.keys().filter(|key| others.iter().all(|values| values.contains_key(key))).collect();
    if keys.len() < 2 {
        return None;
    }
    let (count, repeated) = (keys.len() as f64, replicates.len() as f64);
    let rows: Vec<Vec<f64>> = keys.iter().map(|key| replicates.iter().map(|values| values[*key]).collect()).collect();
    // How far each replicate lies from the others, in the mean over the dialogues.
    let centred: Vec<Vec<f64>> = rows
        .iter()
        .map(|row| {
            let own = row.iter().sum::<f64>() / repeated;
            row.iter().map(|value| value - own).collect()
        })
        .collect();
    let effects: Vec<f64> =
        (0..replicates.len()).map(|place| centred.iter().map(|row| row[place]).sum::<f64>() / count).collect();
    let rest: f64 =
        centred.iter().flat_map(|row| row.iter().zip(&effects).map(|(value, effect)| (value - effect).powi(2))).sum();
    let noise = rest / ((count - 1.0) * (repeated - 1.0)) / count;
    let variance = (variance(&effects)? - noise).max(0.0) / repeated;
    Some(Part { variance, freedom: repeated - 1.0 })
}

/// What the chance of seeds adds where each replicate has dialogues of its own: how much the replicates' means of `value` vary.
fn unshared_part<K: Ord>(replicates: &[Values<K>], value: &dyn Fn(&K, f64) -> Option<f64>) -> Option<Part> {
    let mean_of =
        |values: &Values<K>| mean(&values.iter().filter_map(|(key, found)| value(key, *found)).collect::<Vec<_>>());
    let means: Vec<f64> = replicates.iter().filter_map(mean_of).collect();
    let repeated = means.len() as f64;
    Some(Part { variance: variance(&means)? / repeated, freedom: repeated - 1.0 })
}

fn estimate(by_dialogue: Vec<f64>, seeds: &[Part], confidence: f64) -> Option<Estimate> {
    let mean = mean(&by_dialogue)?;
    let (mut low, mut high, mut p) = (None, None, None);
    if let Some(own) = variance(&by_dialogue) {
        let count = by_dialogue.len() as f64;
        let parts: Vec<Part> =
            [Part { variance: own / count, freedom: count - 1.0 }].into_iter().chain(seeds.iter().copied()).collect();
        let sum: f64 = parts.iter().map(|part| part.variance).sum();
        let error = sum.sqrt();
        if error > TOLERANCE {
            let freedom = sum * sum / parts.iter().map(|part| part.variance.powi(2) / part.freedom).sum::<f64>();
            let reach = critical(confidence, freedom) * error;
            (low, high, p) = (Some(mean - reach), Some(mean + reach), Some(two_sided_p(mean / error, freedom)));
        } else if mean.abs() <= TOLERANCE {
            (low, high, p) = (Some(mean), Some(mean), Some(1.0));
        }
    }
    Some(Estimate { mean, low, high, p, by_dialogue, seeds: !seeds.is_empty() })
}

#[cfg(test)]
#[path = "replicates_tests.rs"]
mod tests;
