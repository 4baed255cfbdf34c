//! `train.sft`: supervised fine-tuning.

use super::training::parameters::{self, training_stage};
use super::training::{self, BASE, EVAL_EXAMPLES, Prepared};
use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Problem, Profile, Stage};
use crate::examples::SftExample;
use crate::train::batch::BUCKETING;
use crate::train::sft::SftSettings;
use crate::train::{encode, sft};

const EXAMPLES: Port<SftExample> = Port::new("examples");

training_stage! {
    /// Trains a model on what the assistant says in chats.
    ///
    /// The loss is the mean over all assistant tokens of a step. With `lora` adapters are trained, else the weights. Where examples are held out (`eval_share`, or input `eval_examples`) their loss stands in the log; with
    /// `patience` the training ends when it falls no more, and the best weights are kept. An interrupted training goes on from
    /// its last checkpoint, to the same weights. Output `rows` says of every example how many tokens it has, how many of them
    /// are trained on and how often, and why one is not.
    pub struct TrainSft {
        /// So many batches at once are sorted by length, so that little is padded; 1: batches are as the shuffle made them.
        #[serde(default = "bucketing")]
        pub bucketing: usize,
    }
}

fn bucketing() -> usize {
    BUCKETING
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

impl Stage for TrainSft {
    const KIND: &'static str = "train.sft";
    const VERSION: u32 = 4;
    const EXAMPLE: &'static str = "\
sft:
  kind: train.sft
  in: {examples: sft_data.examples, base: base.model}
  with: {epochs: 3, batch_size: 32, learning_rate: 3e-3, schedule: cosine, eval_share: 0.05, seed: 20}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![EXAMPLES.one(), BASE.one(), Port::<SftExample>::new(EVAL_EXAMPLES).optional()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        training::outputs(&self.preparation())
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = parameters::check(&self.settings(), &self.preparation(), true);
        if self.bucketing == 0 {
            problems.push(Problem::new("bucketing", "must be at least 1"));
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
            Prepared::read(context, &preparation, &EXAMPLES, |tokenizer, examples: &[SftExample], limit| {
                encode::sft(tokenizer, examples, limit, self.too_long)
            })?;
        let sft = SftSettings { bucketing: self.bucketing };
        prepared.train(
            context,
            &settings,
            |base, examples, scratch, listener| sft::train(base, examples, &settings, sft, scratch, listener),
            |rows, steps| sft::times(rows, &settings, sft, steps),
        )
    }
}
