//! Drawing a token from logits.

use std::collections::BTreeSet;

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use thresh_kernels as kernels;

/// How tokens are drawn: first the penalty, then the temperature, then the cuts, each on what the one before it left.
///
/// A cut is a bound on probabilities, so that tokens which are equally likely stay or go together. The tokens that are left
/// share the numbers from 0 to 1 in the order of their ids and by their weights; a random number falls into the share of one.
/// So a device needs no sorting to draw the same token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// 0 takes the likeliest token.
    pub temperature: f32,
    /// Only the k likeliest tokens; `None` keeps all.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Only tokens at least this share as likely as the likeliest one; 0 keeps all.
    pub min_p: f32,
    /// What logits of tokens that stand in the prompt or were drawn before are divided by where they are positive, and
    /// multiplied by where not; 1 changes nothing (CTRL, arXiv 1909.05858, section 4.1).
    pub repetition_penalty: f32,
}

impl Default for Draw {
    /// The likeliest token.
    fn default() -> Self {
        Self { temperature: 0.0, top_k: None, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 }
    }
}

impl Draw {
    /// Whether it takes the likeliest token.
    pub fn is_greedy(&self) -> bool {
        self.temperature <= 0.0 || self.top_k == Some(1)
    }

    /// Whether all tokens stay in.
    pub fn keeps_all(&self) -> bool {
        self.top_k.is_none() && self.top_p >= 1.0 && self.min_p <= 0.0
    }
}

/// A token and how likely it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawn {
    /// The token.
    pub id: u32,
    /// Its log-probability under the model itself, before penalty, temperature and cuts; `None` where nobody asked.
    pub logprob: Option<f32>,
}

/// Which tokens may be drawn: bit `id % 64` of word `id / 64`.
pub type Allowed = [u64];

/// A source of tokens for one request: the same seed and logits give the same tokens, whatever else is drawn beside it.
#[derive(Debug)]
pub struct Sampler {
    draw: Draw,
    seed: u64,
    logprobs: bool,
    rng: ChaCha8Rng,
    seen: BTreeSet<u32>,
    logits: Vec<f32>,
    weights: Vec<f32>,
}

impl Sampler {
    /// A sampler with a random sequence of its own, behind a prompt.
    pub fn new(draw: Draw, seed: u64, logprobs: bool, prompt: &[u32]) -> Self {
        let penalised = draw.repetition_penalty != 1.0;
        let seen = if penalised { prompt.iter().copied().collect() } else { BTreeSet::new() };
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { draw, seed, logprobs, rng, seen, logits: Vec::new(), weights: Vec::new() }
    }

    /// How it draws.
    pub fn draw(&self) -> &Draw {
        &self.draw
    }

    /// The seed of its random sequence.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Whether log-probabilities are wanted.
    pub fn logprobs(&self) -> bool {
        self.logprobs
    }

    /// The next random number, at least 0 and below 1. Every token takes one, also where it is not needed: what follows does
    /// not depend on what was asked before.
    pub fn uniform(&mut self) -> f32 {
        (self.rng.next_u32() >> 8) as f32 / (1 << 24) as f32
    }

    /// A token for one row of logits, among the allowed ones where some are not; ties go to the smaller id. A logit that is no
    /// number counts as impossible.
    pub fn next(&mut self, logits: &[f32], allowed: Option<&Allowed>) -> Drawn {
        let uniform = self.uniform();
        let id = self.pick(logits, allowed, uniform);
        if self.draw.repetition_penalty != 1.0 {
            self.seen.insert(id);
        }
        let logprob = self.logprobs.then(|| {
            let top = kernels::largest(logits);
            self.weights.resize(logits.len(), 0.0);
            kernels::weigh(logits, top, 1.0, &mut self.weights);
            logits[id as usize] - top - kernels::total(&self.weights).ln() as f32
        });
        Drawn { id, logprob }
    }

    fn pick(&mut self, logits: &[f32], allowed: Option<&Allowed>, uniform: f32) -> u32 {
        let changed = allowed.is_some() || self.draw.repetition_penalty != 1.0;
        if changed {
            self.change(logits, allowed);
        }
        let logits = if changed { &self.logits } else { logits };
        let top = kernels::largest(logits);
        let likeliest = || logits.iter().position(|logit| *logit == top).unwrap_or(0) as u32;
        if self.draw.is_greedy() {
            return likeliest();
        }
        self.weights.resize(logits.len(), 0.0);
        kernels::weigh(logits, top, 1.0 / self.draw.temperature, &mut self.weights);
        cut(&mut self.weights, &self.draw);
        let target = f64::from(uniform) * kernels::total(&self.weights);
        kernels::place(&self.weights, target).map_or_else(likeliest, |id| id as u32)
    }

    /// Keeps the logits with the penalty, and without what is not allowed.
    fn change(&mut self, logits: &[f32], allowed: Option<&Allowed>) {
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        let penalty = self.draw.repetition_penalty;
        for &id in &self.seen {
            if let Some(logit) = self.logits.get_mut(id as usize) {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
        if let Some(allowed) = allowed {
            for (word, logits) in allowed.iter().chain(std::iter::repeat(&0)).zip(self.logits.chunks_mut(64)) {
                if *word != u64::MAX {
                    let forbidden = logits.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
                    forbidden.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
                }
            }
        }
    }
}

/// Sets the weights of tokens that do not survive the cuts to 0; the largest weight is 1.
fn cut(weights: &mut [f32], draw: &Draw) {
    if let Some(k) = draw.top_k.filter(|k| (1..weights.len()).contains(k)) {
        let mut sorted = weights.to_vec();
        let (_, bound, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        kernels::cut(weights, *bound);
    }
    if draw.top_p < 1.0 {
        let bound = kernels::reaching(weights, f64::from(draw.top_p));
        kernels::cut(weights, bound);
    }
    if draw.min_p > 0.0 {
        kernels::cut(weights, draw.min_p);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Draw = Draw { temperature: 1.0, top_k: None, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 };

    fn drawn(draw: Draw, logits: &[f32], count: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(draw, 11, false, &[]);
        (0..count).map(|_| sampler.next(logits, None).id).collect()
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
        let seen = |draw| drawn(draw, &logits, 300).into_iter().collect::<BTreeSet<_>>();
        // Equally likely tokens stay or go together.
        assert_eq!(seen(Draw { top_k: Some(2), ..ALL }), [1, 2, 3].into());
        assert_eq!(seen(Draw { top_p: 0.5, ..ALL }), [2].into());
        assert_eq!(seen(Draw { top_p: 0.51, ..ALL }), [1, 2, 3].into());
        assert_eq!(seen(Draw { min_p: 0.3, ..ALL }), [1, 2, 3].into());
        assert_eq!(seen(Draw { min_p: 0.5, ..ALL }), [2].into());
        assert_eq!(seen(Draw { temperature: 0.0, ..ALL }), [2].into());
        assert_eq!(seen(ALL), [0, 1, 2, 3].into());
    }

    #[test]
    fn what_was_said_is_said_again_less_readily() {
        let draw = Draw { repetition_penalty: 2.0, ..Draw::default() };
        let mut sampler = Sampler::new(draw, 1, false, &[0]);
        let logits = [3.0, 2.0, 1.6, -1.0];
        let said: Vec<u32> = (0..4).map(|_| sampler.next(&logits, None).id).collect();
        assert_eq!(said, [1, 2, 0, 0]); // 1.5, 1, 0.8 in the end
        let mut sampler = Sampler::new(draw, 1, false, &[0]);
        assert_eq!(sampler.next(&[-1.0, -1.5], None).id, 1);
    }

    #[test]
    fn log_probabilities_are_those_of_the_model_itself() {
        let logits = [0.0, 2.0_f32.ln(), 5.0_f32.ln()];
        let draw = Draw { temperature: 0.2, repetition_penalty: 3.0, ..ALL };
        let mut sampler = Sampler::new(draw, 1, true, &[2]);
        for _ in 0..20 {
            let Drawn { id, logprob } = sampler.next(&logits, None);
            let right = ([1.0_f32, 2.0, 5.0][id as usize] / 8.0).ln();
            assert!((logprob.unwrap() - right).abs() < 1e-6);
        }
    }

    #[test]
    fn only_allowed_tokens_are_drawn() {
        let logits: Vec<f32> = (0..130).map(|id| id as f32 / 10.0).collect();
        let allowed = [1 << 5, 0, 1];
        for temperature in [0.0, 30.0] {
            let mut sampler = Sampler::new(Draw { temperature, ..ALL }, 3, false, &[]);
            let seen: BTreeSet<u32> = (0..60).map(|_| sampler.next(&logits, Some(&allowed)).id).collect();
            assert_eq!(seen, if temperature > 0.0 { [5, 128].into() } else { [128].into() });
        }
    }

    proptest! {
        #[test]
        fn greedy_is_the_limit_of_every_cut(logits in prop::collection::vec(-20.0f32..20.0, 1..40), seed: u64) {
            let next = |draw| Sampler::new(draw, seed, false, &[]).next(&logits, None).id;
            let greedy = next(Draw { temperature: 0.0, ..ALL });
            prop_assert_eq!(next(Draw { top_k: Some(1), ..ALL }), greedy);
            for draw in [Draw { top_p: 0.0, ..ALL }, Draw { min_p: 1.0, ..ALL }, Draw { temperature: 1e-4, ..ALL }] {
                prop_assert!(logits[greedy as usize] - logits[next(draw) as usize] < 0.01);
            }
        }
    }
}
