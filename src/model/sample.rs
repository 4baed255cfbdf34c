//! Drawing a token from logits.

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// 0 takes the likeliest token.
    pub temperature: f32,
    /// Only the k likeliest tokens; `None` keeps all.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
}

/// A source of tokens for one request: the same seed and logits give the same tokens, whatever else is drawn beside it.
#[derive(Debug)]
pub struct Sampler {
    draw: Draw,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// A sampler with a random sequence of its own.
    pub fn new(draw: Draw, seed: u64) -> Self {
        Self { draw, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// A token for one row of logits; ties go to the smaller id. A logit that is no number counts as impossible.
    pub fn next(&mut self, logits: &[f32]) -> u32 {
        // One number is taken even where none is needed: what follows does not depend on what was asked before.
        let uniform = f64::from(self.rng.next_u32()) / (f64::from(u32::MAX) + 1.0);
        if self.draw.temperature <= 0.0 || self.draw.top_k == Some(1) {
            return likeliest(logits);
        }
        let mut candidates = self.candidates(logits);
        if self.draw.top_k.is_some() || self.draw.top_p < 1.0 {
            candidates.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            self.cut(&mut candidates);
        }
        pick(&candidates, uniform).unwrap_or_else(|| likeliest(logits))
    }

    /// Tokens and their weights, the likeliest one weighing 1; those lighter than a millionth of a millionth are left out.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let top = logits.iter().copied().filter(|x| !x.is_nan()).fold(f32::NEG_INFINITY, f32::max);
        let scale = 1.0 / f64::from(self.draw.temperature);
        let weigh = |(id, &logit): (usize, &f32)| {
            let exponent = f64::from(logit - top) * scale;
            (exponent > -27.7).then(|| (id as u32, exponent.exp()))
        };
        logits.iter().enumerate().filter_map(weigh).collect()
    }

    fn cut(&self, sorted: &mut Vec<(u32, f64)>) {
        sorted.truncate(self.draw.top_k.unwrap_or(usize::MAX).max(1));
        if self.draw.top_p < 1.0 {
            let enough = f64::from(self.draw.top_p) * sorted.iter().map(|(_, weight)| weight).sum::<f64>();
            let mut sum = 0.0;
            let kept = sorted.iter().position(|(_, weight)| {
                sum += weight;
                sum >= enough
            });
            sorted.truncate(kept.map_or(sorted.len(), |last| last + 1));
        }
    }
}

fn likeliest(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > logits[best] || (logits[best].is_nan() && !logit.is_nan()) {
            best = id;
        }
    }
    best as u32
}

fn pick(candidates: &[(u32, f64)], uniform: f64) -> Option<u32> {
    let mut left = uniform * candidates.iter().map(|(_, weight)| weight).sum::<f64>();
    for &(id, weight) in candidates {
        left -= weight;
        if left < 0.0 {
            return Some(id);
        }
    }
    candidates.last().map(|&(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Draw = Draw { temperature: 1.0, top_k: None, top_p: 1.0 };

    fn drawn(draw: Draw, logits: &[f32], count: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(draw, 11);
        (0..count).map(|_| sampler.next(logits)).collect()
    }

    #[test]
    fn frequencies_follow_the_probabilities() {
        let logits = [0.0, 2.0_f32.ln(), 5.0_f32.ln(), f32::NEG_INFINITY, f32::NAN];
        let tokens = drawn(ALL, &logits, 8_000);
        let count = |id| tokens.iter().filter(|&&token| token == id).count();
        assert!(count(0).abs_diff(1_000) < 120 && count(1).abs_diff(2_000) < 160 && count(2).abs_diff(5_000) < 180);
        assert_eq!(count(3) + count(4), 0);
    }

    #[test]
    fn cuts_leave_only_the_likeliest() {
        let logits = [0.0, 2.0_f32.ln(), 5.0_f32.ln(), 2.0_f32.ln()];
        let seen = |draw| drawn(draw, &logits, 300).into_iter().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(seen(Draw { top_k: Some(2), ..ALL }), [1, 2].into());
        assert_eq!(seen(Draw { top_p: 0.5, ..ALL }), [2].into());
        assert_eq!(seen(Draw { top_p: 0.51, ..ALL }), [1, 2].into());
        assert_eq!(seen(Draw { temperature: 0.0, ..ALL }), [2].into());
        assert_eq!(seen(ALL), [0, 1, 2, 3].into());
    }

    proptest! {
        #[test]
        fn greedy_is_the_limit_of_every_cut(logits in prop::collection::vec(-20.0f32..20.0, 1..40), seed: u64) {
            let greedy = Sampler::new(Draw { temperature: 0.0, ..ALL }, seed).next(&logits);
            let top_k = Sampler::new(Draw { top_k: Some(1), ..ALL }, seed).next(&logits);
            let top_p = Sampler::new(Draw { top_p: 0.0, ..ALL }, seed).next(&logits);
            let cold = Sampler::new(Draw { temperature: 1e-4, ..ALL }, seed).next(&logits);
            prop_assert_eq!([top_k, top_p], [greedy; 2]);
            prop_assert!(logits[greedy as usize] - logits[cold as usize] < 0.01);
        }
    }
}
