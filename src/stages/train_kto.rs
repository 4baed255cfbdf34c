//! `train.kto`: Kahneman-Tversky optimisation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::training::{self, BASE, LOG, Listener, MODEL, ROWS};
use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Problem, Profile, Stage};
use crate::examples::KtoExample;
use crate::train::batch::TooLong;
use crate::train::kto::{self, KtoRow, KtoSettings};
use crate::train::objective::{KtoConstants, KtoLoss};
use crate::train::optimise::AdamWConfig;
use crate::train::schedule::Schedule;
use crate::train::weights::{HIGHEST_RATIO, Weight, Weights};
use crate::train::{Settings, encode};

const EXAMPLES: Port<KtoExample> = Port::new("examples");

/// Makes desirable completions likelier and undesirable ones less likely, both against the frozen base model.
///
/// Within each batch the completions also move on by one row, and those mismatched pairs estimate how far the model as a whole
/// has moved from the base; so a batch has at least two rows, and the order of rows is the same in every epoch. The optimiser
/// is that of `train.sft`. An interrupted training goes on from its last checkpoint, to the same weights. Output `rows` says of
/// every example how many tokens it has, how many of them are trained on and how often, and why one is not.
///
/// By default the rarer kind of rows weighs as much more as there are fewer of them. Weights that are given should keep
/// (desirable_weight x desirable rows) / (undesirable_weight x undesirable rows) between 1 and 4/3; the figures of a run show
/// the weights and this ratio. The paper's are 1 and 2.71.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainKto {
    /// The loss.
    #[serde(default)]
    pub loss: KtoLoss,
    /// How steeply the loss follows the log ratio of model and base.
    #[serde(default = "beta")]
    pub beta: f64,
    /// The weight of a desirable row, or `auto`: so much that both kinds of rows weigh alike.
    #[serde(default)]
    pub desirable_weight: Weight,
    /// The weight of an undesirable row, or `auto`. Where both are, the kind with more rows weighs 1 a row.
    #[serde(default)]
    pub undesirable_weight: Weight,
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

    fn weights(&self, rows: &[KtoRow]) -> Weights {
        let desirable = rows.iter().filter(|row| row.desirable).count();
        Weights::of(self.desirable_weight, self.undesirable_weight, (desirable, rows.len() - desirable))
    }

    fn kto_settings(&self, weights: &Weights, max_length: usize) -> KtoSettings {
        let Weights { desirable, undesirable, .. } = *weights;
        let constants = KtoConstants { beta: self.beta, desirable, undesirable };
        KtoSettings { loss: self.loss, constants, max_length, shuffle: self.shuffle }
    }

    fn tell_weights(context: &Context, rows: &[KtoRow], weights: &Weights) {
        context.figure("desirable_weight", weights.desirable);
        context.figure("undesirable_weight", weights.undesirable);
        let desirable = rows.iter().filter(|row| row.desirable).count();
        if desirable == 0 || desirable == rows.len() {
            context.warn(format!("of {} rows {desirable} are desirable: KTO needs both kinds", rows.len()));
        } else if let Some(ratio) = weights.ratio {
            context.figure("weight_ratio", ratio);
            if !(0.999..=HIGHEST_RATIO + 0.001).contains(&ratio) {
                context.warn(format!(
                    "desirable rows weigh {ratio:.2} times as much as undesirable ones; 1 to 1.33 is advised, and a weight of \
                     `auto` gives 1"
                ));
            }
        }
    }

    fn warn_of_cut_pairs(&self, context: &Context, rows: &[KtoRow], kto: &KtoSettings) {
        let cut = kto::cut_pairs(rows, self.batch_size, kto, self.seed);
        if cut > 0 {
            let (count, limit) = (rows.len(), kto.max_length);
            context.warn(format!("{cut} of {count} mismatched pairs are cut at `max_length`, {limit} tokens"));
        }
    }
}

impl Stage for TrainKto {
    const KIND: &'static str = "train.kto";
    const VERSION: u32 = 2;
    const REPLACED: &'static [(&'static str, &'static str)] =
        &[("balance", "`desirable_weight: auto` and `undesirable_weight: auto`, the defaults, balance the rows")];
    const EXAMPLE: &'static str = "\
kto:
  kind: train.kto
  in: {examples: kto_data.examples, base: sft.model}
  with: {epochs: 1, batch_size: 16, learning_rate: 1e-4, beta: 0.1, seed: 20}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![EXAMPLES.one(), BASE.one()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![MODEL.one(), LOG.one(), ROWS.one()]
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
            if let Weight::Given(weight) = value {
                problems.extend(training::not_negative(name, weight));
            }
        }
        let none = |weight: Weight| weight == Weight::Given(0.0);
        let (desirable, undesirable) = (self.desirable_weight, self.undesirable_weight);
        if none(desirable) && (none(undesirable) || undesirable == Weight::Auto)
            || none(undesirable) && desirable == Weight::Auto
        {
            let message = "nothing balances a weight of 0: give both weights, one of them more than 0";
            problems.push(Problem::new("desirable_weight", message));
        }
        problems
    }

    fn pool(&self, profile: &dyn Profile) -> &'static str {
        profile.device_pool()
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let base = training::load_base(context)?;
        let max_length = training::max_length(self.max_length, &base)?;
        let mut examples = context.read(&EXAMPLES)?;
        let beyond = training::beyond(&mut examples, self.limit);
        let beyond = beyond.into_iter().map(|example| (example.dialogue, Some(example.label)));
        let mut encoded = encode::kto(&base.tokenizer, &examples, max_length, self.too_long)?;
        let (settings, weights) = (self.settings(), self.weights(&encoded.rows));
        let kto_settings = self.kto_settings(&weights, max_length);
        let times = kto::times(&encoded.rows, &settings, &kto_settings);
        training::tell_rows(context, &mut encoded, &times, beyond, max_length)?;
        Self::tell_weights(context, &encoded.rows, &weights);
        self.warn_of_cut_pairs(context, &encoded.rows, &kto_settings);
        let listener = Listener::new(context);
        let trained =
            kto::train(base.decoder.clone(), &encoded.rows, &settings, &kto_settings, context.scratch()?, &listener);
        training::finish(context, base, trained, &listener)
    }
}
