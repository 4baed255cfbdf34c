//! `train.sft`: supervised fine-tuning.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::training::{self, BASE, LOG, Listener, MODEL, ROWS};
use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Problem, Profile, Stage};
use crate::examples::SftExample;
use crate::train::batch::TooLong;
use crate::train::optimise::AdamWConfig;
use crate::train::schedule::Schedule;
use crate::train::{Settings, encode, sft};

const EXAMPLES: Port<SftExample> = Port::new("examples");

/// Trains a model on what the assistant says in chats.
///
/// The loss is the mean over all assistant tokens of a step. The optimiser is AdamW with betas 0.9 and 0.999; norms are not
/// decayed. An interrupted training goes on from its last checkpoint, to the same weights. Output `rows` says of every example
/// how many tokens it has, how many of them are trained on and how often, and why one is not.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainSft {
    /// Passes over the examples; 0.5 is half a pass.
    #[serde(default = "one")]
    pub epochs: f64,
    /// Optimiser steps, instead of `epochs`.
    #[serde(default)]
    pub max_steps: Option<u64>,
    /// Examples of a batch.
    #[serde(default = "batch_size")]
    pub batch_size: usize,
    /// Batches of an optimiser step.
    #[serde(default = "one_batch")]
    pub accumulation: usize,
    /// The highest learning rate; the default suits models of a million parameters, larger ones want less.
    #[serde(default = "learning_rate")]
    pub learning_rate: f64,
    /// How the learning rate falls.
    #[serde(default)]
    pub schedule: Schedule,
    /// The share of all steps in which the learning rate rises from 0.
    #[serde(default = "warmup_ratio")]
    pub warmup_ratio: f64,
    /// Decoupled weight decay.
    #[serde(default)]
    pub weight_decay: f64,
    /// The greatest norm of the whole gradient; a greater one is scaled down. 0: no limit.
    #[serde(default = "one")]
    pub max_grad_norm: f64,
    /// The most tokens of an example; what the base model takes, where absent.
    #[serde(default)]
    pub max_length: Option<usize>,
    /// What happens to longer examples; none is ever cut.
    #[serde(default)]
    pub too_long: TooLong,
    /// Decides the order of the examples.
    #[serde(default)]
    pub seed: u64,
    /// Steps from one checkpoint to the next; 0: only when stopped.
    #[serde(default = "checkpoint_every")]
    pub checkpoint_every: u64,
    /// Train on the first examples only.
    #[serde(default)]
    pub limit: Option<usize>,
}

fn one() -> f64 {
    1.0
}

fn one_batch() -> usize {
    1
}

fn batch_size() -> usize {
    32
}

fn learning_rate() -> f64 {
    3e-3
}

fn warmup_ratio() -> f64 {
    0.1
}

fn checkpoint_every() -> u64 {
    100
}

impl TrainSft {
    fn settings(&self) -> Settings {
        Settings {
            epochs: self.epochs,
            max_steps: self.max_steps,
            batch_size: self.batch_size,
            accumulation: self.accumulation,
            learning_rate: self.learning_rate,
            schedule: self.schedule,
            warmup_ratio: self.warmup_ratio,
            adam: AdamWConfig { weight_decay: self.weight_decay, ..AdamWConfig::default() },
            max_grad_norm: self.max_grad_norm,
            seed: self.seed,
            checkpoint_every: self.checkpoint_every,
        }
    }
}

impl Stage for TrainSft {
    const KIND: &'static str = "train.sft";
    const VERSION: u32 = 2;
    const EXAMPLE: &'static str = "\
sft:
  kind: train.sft
  in: {examples: sft_data.examples, base: base.model}
  with: {epochs: 3, batch_size: 32, learning_rate: 3e-3, schedule: cosine, seed: 20}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![EXAMPLES.one(), BASE.one()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![MODEL.one(), LOG.one(), ROWS.one()]
    }

    fn check(&self) -> Vec<Problem> {
        training::check(&self.settings(), self.max_length, self.limit)
    }

    fn pool(&self, profile: &dyn Profile) -> &'static str {
        profile.device_pool()
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let base = training::load_base(context)?;
        let max_length = training::max_length(self.max_length, &base)?;
        let mut examples = context.read(&EXAMPLES)?;
        let beyond = training::beyond(&mut examples, self.limit).into_iter().map(|example| (example.dialogue, None));
        let mut encoded = encode::sft(&base.tokenizer, &examples, max_length, self.too_long)?;
        let settings = self.settings();
        let times = sft::times(&encoded.rows, &settings);
        training::tell_rows(context, &mut encoded, &times, beyond, max_length)?;
        let listener = Listener::new(context);
        let trained = sft::train(base.decoder.clone(), &encoded.rows, &settings, context.scratch()?, &listener);
        training::finish(context, base, trained, &listener)
    }
}
