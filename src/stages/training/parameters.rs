//! The parameters that all training stages have. They stand once, in a macro: a flattened struct would lose the places of
//! mistakes, and a nested one would make users nest what belongs together.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::stage::Problem;
use crate::model::lora::{ALL, LoraConfig, LoraError};
use crate::train::Settings;
use crate::train::schedule::Warmup;

/// Adapters to train instead of the weights (LoRA, arXiv 2106.09685).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// The rank of every adapter.
    #[serde(default = "rank")]
    pub rank: usize,
    /// Adapters count `alpha / rank` times; twice the rank, where absent.
    #[serde(default)]
    pub alpha: Option<f64>,
    /// Divide by the rank's square root instead (rsLoRA).
    #[serde(default)]
    pub rank_stabilised: bool,
    /// The share of an adapter's inputs that a step drops. Losses against a base model take none.
    #[serde(default)]
    pub dropout: f64,
    /// Which maps get an adapter: some of `q_proj`, `k_proj`, `v_proj`, `o_proj`, `gate_proj`, `up_proj`, `down_proj`, or
    /// `all-linear`.
    #[serde(default = "target_modules")]
    pub target_modules: Vec<String>,
}

fn rank() -> usize {
    16
}

fn target_modules() -> Vec<String> {
    vec![ALL.to_owned()]
}

impl Lora {
    /// The same as the model layer takes it.
    pub fn config(&self) -> LoraConfig {
        LoraConfig {
            rank: self.rank,
            alpha: self.alpha.unwrap_or(2.0 * self.rank as f64),
            rank_stabilised: self.rank_stabilised,
            dropout: self.dropout,
            targets: self.target_modules.clone(),
        }
    }

    /// What is wrong with it. `dropout` says whether the loss takes any.
    pub fn check(&self, dropout: bool) -> Vec<Problem> {
        let field = |error: &LoraError| match error {
            LoraError::Rank => "lora.rank",
            LoraError::Alpha(_) => "lora.alpha",
            LoraError::Dropout(_) => "lora.dropout",
            _ => "lora.target_modules",
        };
        let wrong = self.config().check().err();
        let mut problems: Vec<Problem> =
            wrong.iter().map(|error| Problem::new(field(error), format!("is wrong: {error}"))).collect();
        if !dropout && self.dropout > 0.0 && !matches!(wrong, Some(LoraError::Dropout(_))) {
            let message = "must be 0: a loss against a base model compares the two as they are";
            problems.push(Problem::new("lora.dropout", message));
        }
        problems
    }
}

/// What a training stage is told beyond [`Settings`].
#[derive(Clone, Debug)]
pub struct Preparation {
    /// The most tokens of an example.
    pub max_length: Option<usize>,
    /// How many examples are read.
    pub limit: Option<usize>,
    /// The adapters that are trained; else all weights are.
    pub lora: Option<Lora>,
    /// Whether they are worked into the weights at the end.
    pub merge: bool,
    /// Which share of the dialogues is held out.
    pub eval_share: f64,
    /// Decides which.
    pub seed: u64,
    /// Whether evaluations are asked for.
    pub evaluates: bool,
}

/// A training stage: its own parameters, and behind them those that all training stages have.
///
/// The file that uses it has the defaults that differ: functions `batch_size`, `learning_rate` and `warmup_ratio`.
macro_rules! training_stage {
    ($(#[$about:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, ::serde::Serialize, ::serde::Deserialize, ::schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($own)*
            /// Passes over the examples; 0.5 is half a pass.
            #[serde(default = "crate::stages::training::parameters::one")]
            pub epochs: f64,
            /// Optimiser steps, instead of `epochs`.
            #[serde(default)]
            pub max_steps: Option<u64>,
            /// Examples of a batch.
            #[serde(default = "batch_size")]
            pub batch_size: usize,
            /// Batches of an optimiser step.
            #[serde(default = "crate::stages::training::parameters::one_batch")]
            pub accumulation: usize,
            /// The highest learning rate; the default suits models of a few million parameters, larger ones want less.
            #[serde(default = "learning_rate")]
            pub learning_rate: f64,
            /// How the learning rate falls.
            #[serde(default)]
            pub schedule: $crate::train::schedule::Schedule,
            /// The share of all steps in which the learning rate rises from 0.
            #[serde(default = "warmup_ratio")]
            pub warmup_ratio: f64,
            /// The steps in which it rises, instead of `warmup_ratio`.
            #[serde(default)]
            pub warmup_steps: Option<u64>,
            /// AdamW's decay of the mean of gradients.
            #[serde(default = "crate::stages::training::parameters::adam_beta_1")]
            pub adam_beta_1: f64,
            /// AdamW's decay of the mean of their squares.
            #[serde(default = "crate::stages::training::parameters::adam_beta_2")]
            pub adam_beta_2: f64,
            /// What AdamW adds to the root that it divides by.
            #[serde(default = "crate::stages::training::parameters::adam_epsilon")]
            pub adam_epsilon: f64,
            /// Decoupled weight decay; norms and biases get none.
            #[serde(default)]
            pub weight_decay: f64,
            /// The greatest norm of the whole gradient; a greater one is scaled down. 0: no limit.
            #[serde(default = "crate::stages::training::parameters::one")]
            pub max_grad_norm: f64,
            /// The most tokens of an example; what the base model takes, where absent.
            #[serde(default)]
            pub max_length: Option<usize>,
            /// What happens to longer examples; none is ever cut.
            #[serde(default)]
            pub too_long: $crate::train::batch::TooLong,
            /// Train adapters of this kind; where absent, all weights are trained. Output `adapter` has them as PEFT reads them.
            #[serde(default)]
            pub lora: Option<$crate::stages::training::parameters::Lora>,
            /// With `lora`: work the adapters into the weights at the end, as output `model`; else there is output `adapter` alone.
            #[serde(default = "crate::stages::training::parameters::merge")]
            pub merge: bool,
            /// In how many bits the device computes.
            #[serde(default)]
            pub precision: $crate::train::learner::Precision,
            /// Compute again in the backward pass what the forward pass found: less memory, more time, the same weights.
            #[serde(default)]
            pub gradient_checkpointing: bool,
            /// The share of the dialogues that is held out, all examples of a dialogue together; their loss is measured
            /// instead of learnt. Input `eval_examples` is another way.
            #[serde(default)]
            pub eval_share: f64,
            /// Steps from one measurement to the next; once an epoch, where absent. The last step is always measured.
            #[serde(default)]
            pub eval_every: Option<u64>,
            /// End after so many measurements in a row that were no better than the best, and keep the weights of the best.
            #[serde(default)]
            pub patience: Option<u64>,
            /// Decides the order of the examples, what is held out, and how adapters begin.
            #[serde(default)]
            pub seed: u64,
            /// Steps from one checkpoint to the next; 0: only when stopped.
            #[serde(default = "crate::stages::training::parameters::checkpoint_every")]
            pub checkpoint_every: u64,
            /// Read the first examples only.
            #[serde(default)]
            pub limit: Option<usize>,
        }

        impl $name {
            fn settings(&self) -> $crate::train::Settings {
                use $crate::train::{Evaluation, Settings, learner::LearnerSettings, optimise::AdamWConfig, schedule::Warmup};
                let adam = AdamWConfig {
                    beta_1: self.adam_beta_1,
                    beta_2: self.adam_beta_2,
                    epsilon: self.adam_epsilon,
                    weight_decay: self.weight_decay,
                };
                Settings {
                    epochs: self.epochs,
                    max_steps: self.max_steps,
                    batch_size: self.batch_size,
                    accumulation: self.accumulation,
                    learning_rate: self.learning_rate,
                    schedule: self.schedule,
                    warmup: self.warmup_steps.map_or(Warmup::Ratio(self.warmup_ratio), Warmup::Steps),
                    max_grad_norm: self.max_grad_norm,
                    seed: self.seed,
                    checkpoint_every: self.checkpoint_every,
                    evaluation: Evaluation { every: self.eval_every, patience: self.patience },
                    learner: LearnerSettings {
                        adam,
                        checkpointing: self.gradient_checkpointing,
                        precision: self.precision,
                    },
                }
            }

            fn preparation(&self) -> $crate::stages::training::parameters::Preparation {
                $crate::stages::training::parameters::Preparation {
                    max_length: self.max_length,
                    limit: self.limit,
                    lora: self.lora.clone(),
                    merge: self.merge,
                    eval_share: self.eval_share,
                    seed: self.seed,
                    evaluates: self.eval_every.is_some() || self.patience.is_some(),
                }
            }
        }
    };
}
pub(in crate::stages) use training_stage;

pub(in crate::stages) fn one() -> f64 {
    1.0
}

pub(in crate::stages) fn one_batch() -> usize {
    1
}

pub(in crate::stages) fn merge() -> bool {
    true
}

pub(in crate::stages) fn adam_beta_1() -> f64 {
    0.9
}

pub(in crate::stages) fn adam_beta_2() -> f64 {
    0.999
}

pub(in crate::stages) fn adam_epsilon() -> f64 {
    1e-8
}

pub(in crate::stages) fn checkpoint_every() -> u64 {
    100
}

/// What is wrong with the parameters that all training stages have. `dropout` says whether the loss takes dropout.
pub fn check(settings: &Settings, preparation: &Preparation, dropout: bool) -> Vec<Problem> {
    let Preparation { max_length, limit, lora, eval_share, .. } = preparation;
    let counts = [
        ("max_steps", settings.max_steps != Some(0), 1),
        ("batch_size", settings.batch_size > 0, 1),
        ("accumulation", settings.accumulation > 0, 1),
        ("max_length", max_length.is_none_or(|length| length > 1), 2),
        ("limit", *limit != Some(0), 1),
        ("eval_every", settings.evaluation.every != Some(0), 1),
        ("patience", settings.evaluation.patience != Some(0), 1),
    ];
    let least = |(name, _, least): (&str, bool, usize)| Problem::new(name, format!("must be at least {least}"));
    let mut problems: Vec<Problem> = counts.into_iter().filter(|(_, right, _)| !right).map(least).collect();
    let adam = settings.learner.adam;
    problems.extend(positive("epochs", settings.epochs));
    problems.extend(positive_in_32_bits("learning_rate", settings.learning_rate));
    problems.extend(positive_in_32_bits("adam_epsilon", adam.epsilon));
    problems.extend(not_negative("weight_decay", adam.weight_decay));
    problems.extend(not_negative("max_grad_norm", settings.max_grad_norm));
    if let Warmup::Ratio(ratio) = settings.warmup {
        problems.extend(share("warmup_ratio", ratio, true));
    }
    problems.extend(decay("adam_beta_1", adam.beta_1));
    problems.extend(decay("adam_beta_2", adam.beta_2));
    if let (Some(steps), Warmup::Steps(warmup)) = (settings.max_steps, settings.warmup)
        && steps > 0
        && warmup >= steps
    {
        let message =
            format!("must be less than `max_steps`, {steps}: the learning rate would never get to its height");
        problems.push(Problem::new("warmup_steps", message));
    }
    problems.extend(share("eval_share", *eval_share, false));
    problems.extend(lora.iter().flat_map(|lora| lora.check(dropout)));
    if lora.is_none() && !preparation.merge {
        problems.push(Problem::new("merge", "must be true without `lora`: there are no adapters to keep apart"));
    }
    problems
}

/// What is wrong with the parameters given the connected inputs.
pub fn check_inputs(preparation: &Preparation, connected: &[&str]) -> Vec<Problem> {
    let (share, port) = (preparation.eval_share > 0.0, connected.contains(&super::EVAL_EXAMPLES));
    if share && port {
        let message = "and input `eval_examples` are two ways to the same: give one of them";
        return vec![Problem::new("eval_share", message)];
    }
    if preparation.evaluates && !share && !port {
        let message = "must be more than 0 or input `eval_examples` connected: there is nothing to measure";
        return vec![Problem::new("eval_share", message)];
    }
    Vec::new()
}

/// A problem unless the value is a finite number above 0.
pub fn positive(name: &str, value: f64) -> Option<Problem> {
    (!(value.is_finite() && value > 0.0)).then(|| Problem::new(name, "must be a number above 0"))
}

/// A problem unless the value is a finite number above 0, in the 32 bits in which devices compute too.
fn positive_in_32_bits(name: &str, value: f64) -> Option<Problem> {
    let message = "must be a number above 0 that 32 bits hold: between 1e-37 and 1e38";
    positive(name, value).or_else(|| (!(1e-37..=1e38).contains(&value)).then(|| Problem::new(name, message)))
}

/// A problem unless the value is at least 0 and below 1, in the 32 bits in which devices compute too.
fn decay(name: &str, value: f64) -> Option<Problem> {
    let message = "is 1 in the 32 bits in which devices compute: must be at most 0.9999999";
    share(name, value, false).or_else(|| (value as f32 >= 1.0).then(|| Problem::new(name, message)))
}

/// A problem unless the value is a finite number, 0 or above.
pub fn not_negative(name: &str, value: f64) -> Option<Problem> {
    (!(value.is_finite() && value >= 0.0)).then(|| Problem::new(name, "must be 0 or above"))
}

/// A problem unless the value is at least 0, and below 1 or, where that may be, 1.
fn share(name: &str, value: f64, whole: bool) -> Option<Problem> {
    let right = (0.0..1.0).contains(&value) || whole && value == 1.0;
    let message = if whole { "must lie between 0 and 1" } else { "must be at least 0 and less than 1" };
    (!right).then(|| Problem::new(name, message))
}
