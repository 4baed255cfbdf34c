//! `train.kto`: Kahneman-Tversky optimisation.

use super::training::parameters::{self, not_negative, positive, training_stage};
use super::training::{self, BASE, EVAL_EXAMPLES, Prepared};
use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Problem, Profile, Stage};
use crate::examples::KtoExample;
use crate::train::encode;
use crate::train::kto::{self, KtoRow, KtoSettings};
use crate::train::objective::{KtoConstants, KtoLoss};
use crate::train::weights::{HIGHEST_RATIO, Weight, Weights};

const EXAMPLES: Port<KtoExample> = Port::new("examples");

training_stage! {
    /// Makes desirable completions likelier and undesirable ones less likely, both against the frozen base model.
    ///
    /// Within each batch the completions also move on by one row, and those mismatched pairs estimate how far the model as a
    /// whole has moved from the base; so a batch has at least two rows, and the order of rows is the same in every epoch. The
    /// optimiser, adapters, held-out examples and checkpoints are as in `train.sft`; with `lora` the base is the model with
    /// adapters switched off. Output `rows` says of every example how many tokens it has, how many of them are trained on and how
    /// often, and why one is not.
    ///
    /// By default the rarer kind of rows weighs as much more as there are fewer of them. Weights that are given should keep
    /// (desirable_weight x desirable rows) / (undesirable_weight x undesirable rows) between 1 and 4/3; the figures of a run
    /// show the weights and this ratio. The paper's are 1 and 2.71.
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
        /// Shuffle the rows once, by the seed; else they keep their order.
        #[serde(default)]
        pub shuffle: bool,
    }
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

fn warmup_ratio() -> f64 {
    0.0
}

impl TrainKto {
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

    fn warn_of_cut_pairs(&self, context: &Context, rows: &[KtoRow], which: &str, kto: &KtoSettings) {
        let cut = kto::cut_pairs(rows, self.batch_size, kto, self.seed);
        if cut > 0 {
            let (count, limit) = (rows.len(), kto.max_length);
            context.warn(format!("{cut} of {count} mismatched pairs{which} are cut at `max_length`, {limit} tokens"));
        }
    }
}

impl Stage for TrainKto {
    const KIND: &'static str = "train.kto";
    const VERSION: u32 = 4;
    const REPLACED: &'static [(&'static str, &'static str)] =
        &[("balance", "`desirable_weight: auto` and `undesirable_weight: auto`, the defaults, balance the rows")];
    const EXAMPLE: &'static str = "\
kto:
  kind: train.kto
  in: {examples: kto_data.examples, base: sft.model}
  with: {epochs: 1, batch_size: 16, learning_rate: 1e-4, beta: 0.1, seed: 20}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![EXAMPLES.one(), BASE.one(), Port::<KtoExample>::new(EVAL_EXAMPLES).optional()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        training::outputs(&self.preparation())
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = parameters::check(&self.settings(), &self.preparation(), false);
        if self.batch_size == 1 {
            problems.push(Problem::new("batch_size", "must be at least 2: a row meets another row's completion"));
        }
        problems.extend(positive("beta", self.beta));
        for (name, value) in
            [("desirable_weight", self.desirable_weight), ("undesirable_weight", self.undesirable_weight)]
        {
            if let Weight::Given(weight) = value {
                problems.extend(not_negative(name, weight));
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

    fn check_inputs(&self, connected: &[&str]) -> Vec<Problem> {
        parameters::check_inputs(&self.preparation(), connected)
    }

    fn pool(&self, profile: &dyn Profile) -> &'static str {
        profile.device_pool()
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let (settings, preparation) = (self.settings(), self.preparation());
        let prepared =
            Prepared::read(context, &preparation, &EXAMPLES, |tokenizer, examples: &[KtoExample], limit| {
                encode::kto(tokenizer, examples, limit, self.too_long)
            })?;
        let weights = self.weights(&prepared.train);
        let kto = self.kto_settings(&weights, prepared.max_length);
        Self::tell_weights(context, &prepared.train, &weights);
        self.warn_of_cut_pairs(context, &prepared.train, "", &kto);
        let unshuffled = KtoSettings { shuffle: false, ..kto.clone() };
        self.warn_of_cut_pairs(context, &prepared.held_out, " of held-out examples", &unshuffled);
        prepared.train(
            context,
            &settings,
            |base, examples, scratch, listener| kto::train(base, examples, &settings, &kto, scratch, listener),
            |rows, steps| kto::times(rows, &settings, &kto, steps),
        )
    }
}
