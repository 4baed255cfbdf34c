//! `train.dpo`: direct preference optimisation and its relatives.

use super::training::parameters::{self, not_negative, positive, training_stage};
use super::training::{self, BASE, EVAL_EXAMPLES, Prepared};
use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Problem, Profile, Stage};
use crate::examples::PairExample;
use crate::train::dpo::PairSettings;
use crate::train::objective::{PairConstants, PairLoss};
use crate::train::{dpo, encode};

const EXAMPLES: Port<PairExample> = Port::new("examples");

training_stage! {
    /// Makes the chosen completion of each pair likelier than the rejected one, both against the frozen base model.
    ///
    /// `data.pairs` makes pairs of trees. The loss of a step is the mean over its pairs; every epoch sees each pair once, in an
    /// order that the seed decides. The optimiser, adapters, held-out examples and checkpoints are as in `train.sft`; with `lora`
    /// the base is the model with adapters switched off. The log has the rewards of both sides and the share of pairs whose chosen
    /// side has the higher one. Output `rows` says of every pair how many tokens its two sides have, how many of them are
    /// trained on and how often, and why one is not.
    pub struct TrainDpo {
        /// The loss.
        #[serde(default)]
        pub loss: PairLoss,
        /// How steeply the loss follows the log ratios of model and base.
        #[serde(default = "beta")]
        pub beta: f64,
        /// The share of pairs that are taken to be the wrong way round: for judges that err. Not with `spin`.
        #[serde(default)]
        pub label_smoothing: f64,
        /// With `selm` alone: how much it counts that the model leaves what the base says; 0.001, where absent.
        #[serde(default)]
        pub alpha: Option<f64>,
    }
}

fn beta() -> f64 {
    0.1
}

/// What `alpha` is where it is absent.
const ALPHA: f64 = 0.001;

fn batch_size() -> usize {
    8
}

fn learning_rate() -> f64 {
    1e-4
}

fn warmup_ratio() -> f64 {
    0.1
}

impl TrainDpo {
    fn pair_settings(&self) -> PairSettings {
        let Self { loss, beta, label_smoothing, alpha, .. } = *self;
        PairSettings { loss, constants: PairConstants { beta, label_smoothing, alpha: alpha.unwrap_or(ALPHA) } }
    }
}

impl Stage for TrainDpo {
    const KIND: &'static str = "train.dpo";
    const VERSION: u32 = 2;
    const EXAMPLE: &'static str = "\
dpo:
  kind: train.dpo
  in: {examples: pairs.examples, base: sft.model}
  with: {epochs: 1, batch_size: 16, learning_rate: 1e-4, beta: 0.1, lora: {rank: 16}, seed: 20}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![EXAMPLES.one(), BASE.one(), Port::<PairExample>::new(EVAL_EXAMPLES).optional()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        training::outputs(&self.preparation())
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = parameters::check(&self.settings(), &self.preparation(), false);
        problems.extend(positive("beta", self.beta));
        problems.extend(self.alpha.and_then(|alpha| not_negative("alpha", alpha)));
        if self.alpha.is_some() && self.loss != PairLoss::Selm {
            problems.push(Problem::new("alpha", "counts with `loss: selm` alone: leave it out"));
        }
        if !(0.0..0.5).contains(&self.label_smoothing) {
            problems.push(Problem::new("label_smoothing", "must be at least 0 and less than 0.5"));
        } else if self.loss == PairLoss::Spin && self.label_smoothing > 0.0 {
            let message = "must be 0 with `loss: spin`: no judge errs about what people said";
            problems.push(Problem::new("label_smoothing", message));
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
            Prepared::read(context, &preparation, &EXAMPLES, |tokenizer, examples: &[PairExample], limit| {
                encode::pairs(tokenizer, examples, limit, self.too_long)
            })?;
        let pairs = self.pair_settings();
        prepared.train(
            context,
            &settings,
            |base, examples, scratch, listener| dpo::train(base, examples, &settings, pairs, scratch, listener),
            |rows, steps| dpo::times(rows, &settings, steps),
        )
    }
}
