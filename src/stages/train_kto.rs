//! `train.kto`: Kahneman-Tversky optimisation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::training::{self, BASE, LOG, Listener, MODEL};
use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Problem, Profile, Stage};
use crate::examples::KtoExample;
use crate::train::batch::TooLong;
use crate::train::kto::{self, KtoRow, KtoSettings};
use crate::train::loss::{KtoConstants, KtoLoss, balanced_weights};
use crate::train::optimise::AdamWConfig;
use crate::train::schedule::Schedule;
use crate::train::{Settings, encode};

const EXAMPLES: Port<KtoExample> = Port::new("examples");

/// Makes desirable completions likelier and undesirable ones less likely, both against the frozen base model.
///
/// Within each batch the completions also move on by one row, and those mismatched pairs estimate how far the model as a whole
/// has moved from the base; so a batch has at least two rows, and the order of rows is the same in every epoch. The optimiser
/// is that of `train.sft`. An interrupted training goes on from its last checkpoint, to the same weights.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainKto {
    /// The loss.
    #[serde(default)]
    pub loss: KtoLoss,
    /// How steeply the loss follows the log ratio of model and base.
    #[serde(default = "beta")]
    pub beta: f64,
    /// The weight of desirable rows.
    #[serde(default = "one")]
    pub desirable_weight: f64,
    /// The weight of undesirable rows.
    #[serde(default = "one")]
    pub undesirable_weight: f64,
    /// Weigh the rarer kind of rows up so that both kinds weigh alike, instead of the two weights.
    #[serde(default)]
    pub balance: bool,
    /// Passes over the examples; 0.5 is half a pass.
    #[serde(default = "one")]
    pub epochs: f64,
    /// Optimiser steps, instead of `epochs`.
    #[serde(default)]
    pub max_steps: Option<u64>,
    /// Rows of a batch, at least 2.
    #[serde(default = "batch_size")]
    pub batch_size: usize,
    /// Batches of an optimiser step, each with its own estimate.
    #[serde(default = "one_batch")]
    pub accumulation: usize,
    /// The highest learning rate; the default suits models of a few million parameters.
    #[serde(default = "learning_rate")]
    pub learning_rate: f64,
    /// How the learning rate falls.
    #[serde(default)]
    pub schedule: Schedule,
    /// The share of all steps in which the learning rate rises from 0.
    #[serde(default)]
    pub warmup_ratio: f64,
    /// Decoupled weight decay.
    #[serde(default)]
    pub weight_decay: f64,
    /// The greatest norm of the whole gradient; a greater one is scaled down. 0: no limit.
    #[serde(default = "one")]
    pub max_grad_norm: f64,
    /// The most tokens of a row; what the base model takes, where absent.
    #[serde(default)]
    pub max_length: Option<usize>,
    /// What happens to longer rows; none is ever cut.
    #[serde(default)]
    pub too_long: TooLong,
    /// Shuffle the rows once, by the seed; else they keep their order.
    #[serde(default)]
    pub shuffle: bool,
    /// Decides the order of the rows where `shuffle` is set.
    #[serde(default)]
    pub seed: u64,
    /// Steps from one checkpoint to the next; 0: only when stopped.
    #[serde(default = "checkpoint_every")]
    pub checkpoint_every: u64,
    /// Train on the first rows only.
    #[serde(default)]
    pub limit: Option<usize>,
}

fn one() -> f64 {
    1.0
}

fn one_batch() -> usize {
    1
}

fn beta() -> f64 {
    0.1
}

fn batch_size() -> usize {
    8
}

fn learning_rate() -> f64 {
    1e-4
}

fn checkpoint_every() -> u64 {
    100
}

impl TrainKto {
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

    fn kto_settings(&self, rows: &[KtoRow], max_length: usize) -> KtoSettings {
        let desirable_rows = rows.iter().filter(|row| row.desirable).count();
        let (desirable, undesirable) = match self.balance {
            true => balanced_weights(desirable_rows, rows.len() - desirable_rows),
            false => (self.desirable_weight, self.undesirable_weight),
        };
        let constants = KtoConstants { beta: self.beta, desirable, undesirable };
        KtoSettings { loss: self.loss, constants, max_length, shuffle: self.shuffle }
    }

    fn warn(&self, context: &Context, rows: &[KtoRow], kto: &KtoSettings) {
        let desirable = rows.iter().filter(|row| row.desirable).count();
        if desirable == 0 || desirable == rows.len() {
            context.warn(format!("of {} rows {desirable} are desirable: KTO needs both kinds", rows.len()));
        } else {
            let weight = kto.constants.desirable * desirable as f64;
            let ratio = weight / (kto.constants.undesirable * (rows.len() - desirable) as f64);
            if !(0.999..=1.3301).contains(&ratio) {
                context.warn(format!(
                    "desirable rows weigh {ratio:.2} times as much as undesirable ones; 1 to 1.33 is advised, see `balance`"
                ));
            }
        }
        let cut = kto::cut_pairs(rows, self.batch_size, kto, self.seed);
        if cut > 0 {
            let (count, limit) = (rows.len(), kto.max_length);
            context.warn(format!("{cut} of {count} mismatched pairs are cut at `max_length`, {limit} tokens"));
        }
    }
}

impl Stage for TrainKto {
    const KIND: &'static str = "train.kto";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "\
kto:
  kind: train.kto
  in: {examples: kto_data.examples, base: sft.model}
  with: {epochs: 1, batch_size: 16, learning_rate: 1e-4, beta: 0.1, balance: true, seed: 20}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![EXAMPLES.one(), BASE.one()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![MODEL.one(), LOG.one()]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = training::check(&self.settings(), self.max_length, self.limit);
        if self.batch_size == 1 {
            problems.push(Problem::new("batch_size", "must be at least 2: a row meets another row's completion"));
        }
        problems.extend(training::positive("beta", self.beta));
        for (name, value) in
            [("desirable_weight", self.desirable_weight), ("undesirable_weight", self.undesirable_weight)]
        {
            problems.extend(training::not_negative(name, value));
            if self.balance && value != 1.0 {
                problems.push(Problem::new(name, "has no effect where `balance` is set"));
            }
        }
        problems
    }

    fn pool(&self, profile: &dyn Profile) -> &'static str {
        profile.device_pool()
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let base = training::load_base(context)?;
        let max_length = training::max_length(self.max_length, &base)?;
        let examples = training::limited(context.read(&EXAMPLES)?, self.limit);
        let encoded = encode::kto(&base.tokenizer, &examples, max_length, self.too_long)?;
        training::warn_left_out(context, &encoded, max_length);
        let kto_settings = self.kto_settings(&encoded.rows, max_length);
        self.warn(context, &encoded.rows, &kto_settings);
        let listener = Listener::new(context);
        let settings = self.settings();
        let trained =
            kto::train(base.decoder.clone(), &encoded.rows, &settings, &kto_settings, context.scratch()?, &listener);
        training::finish(context, base, trained, &listener)
    }
}
