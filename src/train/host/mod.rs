//! Training on processors: every operation forward and backward by hand, without automatic differentiation.
//!
//! A pass takes a batch of sequences, one after the other and without padding, through all layers and back. All threads share
//! every step of it, cut into tasks that follow from sizes alone; each number is written by one task, in one order, so that
//! results are the same to the bit for any number of threads.

mod back;
mod batch;
mod head;
mod layer;
mod linear;
#[cfg(test)]
mod tests;
mod weights;

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use thresh_kernels::train::elements::{add_scaled, scale};
use thresh_kernels::train::update::{Adam, adam, sum_of_squares};

use self::back::Slopes;
use self::batch::{Batch, batches};
use self::head::Head;
use self::layer::{Pass, Tape};
use self::linear::Panels;
use self::weights::Weights;
use super::TrainError;
use super::batch::Sequence;
use super::learner::{Learner, LearnerSettings, LearnerState, Slope, Under, check_sequences, slopes};
use super::optimise::{AdamWConfig, parameters, untracked, with_parameters};
use crate::model::Decoder;
use crate::model::rope::RopeTable;

/// Numbers of a parameter that one task updates.
const UPDATED: usize = 1 << 16;

/// A learner that computes on the processor.
pub struct HostLearner {
    model: Decoder,
    weights: Weights,
    ropes: Vec<RopeTable>,
    /// In visiting order, empty where a parameter is not trained.
    gradients: Vec<Vec<f32>>,
    moments: Vec<Option<[Vec<f32>; 2]>>,
    step: u64,
    settings: LearnerSettings,
    work: Work,
    pool: rayon::ThreadPool,
}

/// Memory that is used again in every pass.
#[derive(Default)]
struct Work {
    /// The layers' inputs and the last one's output.
    states: Vec<Vec<f32>>,
    tapes: Vec<Tape>,
    panels: [Panels; 7],
    head: Head,
    slope: Vec<f32>,
    slopes: Slopes,
}

impl HostLearner {
    /// A learner that begins with this model, with a thread for every core.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn new(base: Decoder, settings: LearnerSettings) -> Result<Self, TrainError> {
        Self::with_threads(base, settings, std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// The same with so many threads.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn with_threads(base: Decoder, settings: LearnerSettings, threads: usize) -> Result<Self, TrainError> {
        let model = untracked(base);
        let weights = Weights::new(&model);
        let gradient =
            |(values, kind): (&Vec<f32>, &weights::Kind)| vec![0.0; if kind.trained { values.len() } else { 0 }];
        Ok(Self {
            gradients: weights.values.iter().zip(&weights.kinds).map(gradient).collect(),
            moments: vec![None; weights.values.len()],
            ropes: model.ropes().to_vec(),
            step: 0,
            settings,
            work: Work::default(),
            pool: rayon::ThreadPoolBuilder::new().num_threads(threads).build()?,
            weights,
            model,
        })
    }

    /// The gradients so far in visiting order, empty where a parameter is not trained.
    #[cfg(test)]
    pub(super) fn gradients(&self) -> &[Vec<f32>] {
        &self.gradients
    }

    fn pass<'a>(weights: &'a Weights, ropes: &'a [RopeTable], batch: &'a Batch, under: Under) -> Pass<'a> {
        Pass { weights, ropes, batch, adapted: under == Under::Policy, seed: None }
    }
}

impl Work {
    /// Log-probabilities of the scored tokens. Where `keep` is set, all that the way back needs stays.
    fn forward(&mut self, pass: Pass, keep: bool, checkpointing: bool) -> Vec<f64> {
        let (layers, hidden) = (pass.weights.layers.len(), pass.weights.architecture.hidden);
        self.states.resize_with(layers + 1, Vec::new);
        self.tapes.resize_with(if keep && !checkpointing { layers } else { 1 }, Tape::default);
        self.states[0].resize(pass.batch.tokens() * hidden, 0.0);
        embed(pass, &mut self.states[0]);
        for index in 0..layers {
            let (input, output) = if keep { (index, index + 1) } else { (index % 2, 1 - index % 2) };
            let [input, output] = self.states.get_disjoint_mut([input, output]).expect("two places");
            output.resize(input.len(), 0.0);
            let tape = if keep && !checkpointing { index } else { 0 };
            layer::forward(pass, index, input, output, &mut self.tapes[tape], &mut self.panels);
        }
        let last = if keep { layers } else { layers % 2 };
        self.head.forward(pass, &self.states[last], keep)
    }

    /// Adds the gradients, given the slope along each scored token's log-probability.
    fn backward(&mut self, pass: Pass, token_slopes: &[f32], all: &mut [Vec<f32>], checkpointing: bool) {
        let layers = pass.weights.layers.len();
        self.slope.clear();
        self.slope.resize(self.states[0].len(), 0.0);
        self.head.backward(pass, token_slopes, &mut self.slope, all, true);
        for index in (0..layers).rev() {
            let tape = if checkpointing { 0 } else { index };
            if checkpointing {
                let [input, output] = self.states.get_disjoint_mut([index, index + 1]).expect("two places");
                layer::forward(pass, index, input, output, &mut self.tapes[0], &mut self.panels);
            }
            let (input, tape) = (&self.states[index], &mut self.tapes[tape]);
            back::backward(pass, index, input, &mut self.slope, tape, &mut self.slopes, all);
        }
        unembed(pass, &mut self.slope, all);
    }
}

/// The rows of the tokens' embeddings.
fn embed(pass: Pass, rows: &mut [f32]) {
    let hidden = pass.weights.architecture.hidden;
    let table = &pass.weights.values[pass.weights.embedding];
    for (id, row) in pass.batch.ids.iter().zip(rows.chunks_exact_mut(hidden)) {
        row.copy_from_slice(&table[id * hidden..(id + 1) * hidden]);
    }
    if let Some(factor) = pass.weights.architecture.embed_scale {
        scale(rows, factor as f32);
    }
}

/// Adds the slopes along the embeddings' rows to the gradient.
fn unembed(pass: Pass, slope: &mut [f32], all: &mut [Vec<f32>]) {
    let hidden = pass.weights.architecture.hidden;
    let gradient = &mut all[pass.weights.embedding];
    if gradient.is_empty() {
        return;
    }
    let factor = pass.weights.architecture.embed_scale.unwrap_or(1.0) as f32;
    for (id, slope) in pass.batch.ids.iter().zip(slope.chunks_exact(hidden)) {
        add_scaled(&mut gradient[id * hidden..(id + 1) * hidden], slope, factor);
    }
}

impl Learner for HostLearner {
    fn log_probs(&mut self, sequences: &[&Sequence], under: Under) -> Result<Vec<f64>, TrainError> {
        check_sequences(&self.weights.architecture, sequences)?;
        let Self { weights, ropes, work, pool, .. } = self;
        let mut all = Vec::with_capacity(sequences.len());
        for batch in batches(sequences, 1) {
            let pass = Self::pass(weights, ropes, &batch, under);
            let tokens = pool.install(|| work.forward(pass, false, false));
            all.extend(batch.sums(&tokens));
        }
        Ok(all)
    }

    fn accumulate(
        &mut self,
        sequences: &[&Sequence],
        group: usize,
        slope: &Slope,
        seed: u64,
    ) -> Result<Vec<f64>, TrainError> {
        check_sequences(&self.weights.architecture, sequences)?;
        let Self { weights, ropes, work, pool, gradients, settings, .. } = self;
        let mut all = Vec::with_capacity(sequences.len());
        for batch in batches(sequences, group) {
            let pass = Pass { seed: Some(seed), ..Self::pass(weights, ropes, &batch, Under::Policy) };
            let tokens = pool.install(|| work.forward(pass, true, settings.checkpointing));
            let values = batch.sums(&tokens);
            let slopes = slopes(slope, batch.first, group, &values);
            let token_slopes: Vec<f32> = batch.owners.iter().map(|owner| slopes[*owner] as f32).collect();
            pool.install(|| work.backward(pass, &token_slopes, gradients, settings.checkpointing));
            all.extend(values);
        }
        Ok(all)
    }

    fn gradient_norm(&mut self) -> Result<f64, TrainError> {
        let sum = |gradient: &Vec<f32>| -> f64 {
            let parts: Vec<f64> = gradient.par_chunks(UPDATED).map(sum_of_squares).collect();
            parts.iter().sum()
        };
        let gradients = &self.gradients;
        Ok(self.pool.install(|| gradients.iter().map(sum).sum::<f64>()).sqrt())
    }

    fn update(&mut self, learning_rate: f64, factor: f64) -> Result<(), TrainError> {
        self.step += 1;
        let AdamWConfig { beta_1, beta_2, epsilon, weight_decay } = self.settings.adam;
        let step = self.step as f64;
        let numbers = |keep: f64| Adam {
            beta_1: beta_1 as f32,
            beta_2: beta_2 as f32,
            rest_1: (1.0 - beta_1) as f32,
            rest_2: (1.0 - beta_2) as f32,
            epsilon: epsilon as f32,
            factor: factor as f32,
            keep: keep as f32,
            rate: (learning_rate / (1.0 - beta_1.powf(step))) as f32,
            root: (1.0 - beta_2.powf(step)).sqrt().recip() as f32,
        };
        let Self { weights, gradients, moments, pool, .. } = self;
        let Weights { values, kinds, .. } = weights;
        pool.install(|| {
            for (((values, kind), gradient), moments) in values.iter_mut().zip(kinds).zip(gradients).zip(moments) {
                if !kind.trained {
                    continue;
                }
                let numbers = numbers(if kind.decays { 1.0 - learning_rate * weight_decay } else { 1.0 });
                let [first, second] = moments.get_or_insert_with(|| [vec![0.0; values.len()], vec![0.0; values.len()]]);
                let moments = first.par_chunks_mut(UPDATED).zip(second.par_chunks_mut(UPDATED));
                let gradients = gradient.par_chunks_mut(UPDATED);
                values.par_chunks_mut(UPDATED).zip(moments).zip(gradients).for_each(
                    |((value, (first, second)), gradient)| {
                        adam(value, first, second, gradient, numbers);
                        gradient.fill(0.0);
                    },
                );
            }
        });
        Ok(())
    }

    fn state(&mut self) -> Result<LearnerState, TrainError> {
        Ok(LearnerState {
            step: self.step,
            parameters: self.weights.trained().map(|place| self.weights.values[place].clone()).collect(),
            moments: self.weights.trained().map(|place| self.moments[place].clone()).collect(),
        })
    }

    fn restore(&mut self, state: LearnerState) -> Result<(), TrainError> {
        state.check(self.weights.trained().map(|place| self.weights.values[place].len()))?;
        let places: Vec<usize> = self.weights.trained().collect();
        for ((place, values), moments) in places.into_iter().zip(state.parameters).zip(state.moments) {
            self.weights.values[place] = values;
            self.moments[place] = moments;
        }
        self.step = state.step;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Decoder, TrainError> {
        let old = parameters(&self.model);
        let tensor = |(values, old): (Vec<f32>, Tensor<1>)| {
            let count = values.len();
            Tensor::from_data(TensorData::new(values, [count]), (&old.device(), old.dtype()))
        };
        let values = self.weights.values.into_iter().zip(old).map(tensor).collect();
        Ok(with_parameters(self.model, values).no_grad())
    }
}
