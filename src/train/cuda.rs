//! Training on a CUDA device: [`crate::model::cuda::trainer`] behind the learner's border.
//!
//! The decoder stays on the processor; its numbers go to the device at the beginning, and the trained ones come back at the
//! end and for checkpoints.
//!
//! A call's sequences are computed in parts as large as the device has room for when the learner is opened. What an adapter's
//! dropout drops follows the part and the place in it. So a training with dropout that goes on after an interruption while
//! the device has other room (or on another device) drops other numbers than it would have: as likely, but not the same.

use std::collections::BTreeMap;
use std::ops::Range;

use burn::tensor::{Tensor, TensorData};

use super::TrainError;
use super::batch::Sequence;
use super::learner::{
    Learner, LearnerSettings, LearnerState, Precision, Slope, Under, check_sequences, slopes, trained,
};
use super::optimise::{parameters, untracked, with_parameters};
use crate::model::Decoder;
use crate::model::cuda::CudaError;
use crate::model::cuda::batch::{Packed, Scored};
use crate::model::cuda::blas::Number;
use crate::model::cuda::driver::Gpu;
use crate::model::cuda::table::AdapterShape;
use crate::model::cuda::trainer::{Adam, Plan, Trainer};
use crate::model::cuda::weights::Kept;
use crate::model::device::CudaPlace;

/// A learner on a CUDA device.
pub struct CudaLearner {
    model: Decoder,
    trainer: Trainer,
    /// The trained parameters' paths, in visiting order.
    trained: Vec<String>,
    /// Tokens of one part: what the device has room for.
    tokens: usize,
}

impl From<CudaError> for TrainError {
    fn from(error: CudaError) -> Self {
        Self::Device(error.to_string())
    }
}

impl CudaLearner {
    /// A learner that begins with this model.
    ///
    /// # Errors
    /// When the device is not there, does not take the model, or has no room for it.
    pub fn new(base: Decoder, settings: LearnerSettings, place: &CudaPlace) -> Result<Self, TrainError> {
        let model = untracked(base);
        let adapters = adapters(&model);
        let number = match settings.precision {
            Precision::F32 => Number::F32,
            Precision::Bf16 => Number::Bf16,
        };
        let plan = Plan {
            shape: model.architecture(),
            adapters: &adapters,
            number,
            checkpointing: settings.checkpointing,
            cache: &place.cache,
        };
        let adam = Adam {
            beta_1: settings.adam.beta_1,
            beta_2: settings.adam.beta_2,
            epsilon: settings.adam.epsilon,
            weight_decay: settings.adam.weight_decay,
        };
        let mut trainer = Trainer::new(&Gpu::open(place.index)?, &plan, adam)?;
        trainer.fill(|path| model.numbers(path).map_err(TrainError::Device))?;
        let tokens = trainer.tokens_at_once()?;
        let wanted = trained(&model);
        let trained =
            model.paths().into_iter().zip(wanted).filter_map(|(path, wanted)| wanted.then_some(path)).collect();
        Ok(Self { model, trainer, trained, tokens })
    }

    /// The gradient so far of the trained parameters, in visiting order.
    ///
    /// # Errors
    /// When the device fails.
    pub fn gradients(&self) -> Result<Vec<Vec<f32>>, TrainError> {
        self.read(Kept::Gradient)
    }

    fn read(&self, kept: Kept) -> Result<Vec<Vec<f32>>, TrainError> {
        let weights = &self.trainer.network().weights;
        self.trained.iter().map(|path| Ok(weights.read(kept, path)?)).collect()
    }

    fn put(&mut self, kept: Kept, values: Vec<Vec<f32>>) -> Result<(), TrainError> {
        let values: BTreeMap<&str, Vec<f32>> = self.trained.iter().map(String::as_str).zip(values).collect();
        self.trainer.restore(kept, |path| {
            values.get(path).cloned().ok_or_else(|| TrainError::State(format!("it lacks the parameter `{path}`")))
        })
    }
}

impl Learner for CudaLearner {
    fn log_probs(&mut self, sequences: &[&Sequence], under: Under) -> Result<Vec<f64>, TrainError> {
        check_sequences(self.model.architecture(), sequences)?;
        let mut all = Vec::with_capacity(sequences.len());
        for part in parts(sequences, 1, self.tokens) {
            let packed = pack(&sequences[part.clone()]);
            let tokens = self.trainer.log_probs(&packed, under == Under::Policy)?;
            all.extend(sums(&packed, &tokens, part.len()));
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
        check_sequences(self.model.architecture(), sequences)?;
        let mut all = Vec::with_capacity(sequences.len());
        for (number, part) in parts(sequences, group, self.tokens).into_iter().enumerate() {
            let packed = pack(&sequences[part.clone()]);
            let seed = crate::seed::derive(seed, &["part", &number.to_string()]);
            self.trainer.accumulate(&packed, seed, |tokens| {
                let found = sums(&packed, tokens, part.len());
                let slopes = slopes(slope, part.start, group, &found);
                all.extend(found);
                Ok::<_, TrainError>(packed.owners.iter().map(|owner| slopes[*owner] as f32).collect())
            })?;
        }
        Ok(all)
    }

    fn gradient_norm(&mut self) -> Result<f64, TrainError> {
        Ok(self.trainer.gradient_squares()?.sqrt())
    }

    fn update(&mut self, learning_rate: f64, factor: f64) -> Result<(), TrainError> {
        Ok(self.trainer.update(learning_rate, factor)?)
    }

    fn state(&mut self) -> Result<LearnerState, TrainError> {
        let moments = if self.trainer.step == 0 {
            vec![None; self.trained.len()]
        } else {
            self.read(Kept::Mean)?.into_iter().zip(self.read(Kept::Square)?).map(|(m, s)| Some([m, s])).collect()
        };
        Ok(LearnerState { step: self.trainer.step, parameters: self.read(Kept::Parameter)?, moments })
    }

    fn restore(&mut self, state: LearnerState) -> Result<(), TrainError> {
        let sizes: Vec<usize> = state.parameters.iter().map(Vec::len).collect();
        let known = &self.trainer.network().weights.table.pieces;
        let expected = self.trained.iter().map(|path| known.get(path).map_or(0, |piece| piece.rows * piece.columns));
        state.check(expected)?;
        let (mut means, mut squares) = (Vec::new(), Vec::new());
        for (moments, size) in state.moments.into_iter().zip(sizes) {
            let [mean, square] = moments.unwrap_or_else(|| [vec![0.0; size], vec![0.0; size]]);
            means.push(mean);
            squares.push(square);
        }
        self.put(Kept::Parameter, state.parameters)?;
        self.put(Kept::Mean, means)?;
        self.put(Kept::Square, squares)?;
        self.trainer.step = state.step;
        Ok(self.trainer.forget()?)
    }

    fn finish(self: Box<Self>) -> Result<Decoder, TrainError> {
        let mut trained: BTreeMap<&str, Vec<f32>> =
            self.trained.iter().map(String::as_str).zip(self.read(Kept::Parameter)?).collect();
        let old = self.model.paths().into_iter().zip(parameters(&self.model));
        let new = old.map(|(path, old)| match trained.remove(path.as_str()) {
            Some(values) => {
                let count = values.len();
                Tensor::<1>::from_data(TensorData::new(values, [count]), &old.device())
            }
            None => old,
        });
        let new = new.collect();
        Ok(with_parameters(self.model.clone(), new))
    }
}

/// Consecutive sequences, whole groups, of so many tokens; a longer group is a part of its own.
fn parts(sequences: &[&Sequence], group: usize, most: usize) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut taken = 0;
    for (at, group_) in sequences.chunks(group).enumerate() {
        let (start, tokens) = (at * group, group_.iter().map(|sequence| sequence.ids.len()).sum::<usize>());
        match parts.last_mut().filter(|_| taken + tokens <= most) {
            Some(part) => part.end = start + group_.len(),
            None => {
                parts.push(start..start + group_.len());
                taken = 0;
            }
        }
        taken += tokens;
    }
    parts
}

fn pack(sequences: &[&Sequence]) -> Packed {
    let scored: Vec<Scored> = sequences.iter().map(|s| Scored { ids: &s.ids, scored: &s.scored }).collect();
    Packed::new(&scored)
}

/// The sums of the scored tokens' log-probabilities, by sequence.
fn sums(packed: &Packed, tokens: &[f32], sequences: usize) -> Vec<f64> {
    let mut sums = vec![0.0; sequences];
    for (owner, log_prob) in packed.owners.iter().zip(tokens) {
        sums[*owner] += f64::from(*log_prob);
    }
    sums
}

/// The adapters of a model by the paths of their maps.
fn adapters(model: &Decoder) -> BTreeMap<String, AdapterShape> {
    let named = model.linears().into_iter();
    let adapted = named.filter_map(|(name, map)| Some((name, map.adapter.as_ref()?)));
    adapted
        .map(|(name, adapter)| {
            let [_, rank] = adapter.a.dims();
            let path = name.strip_prefix("model.").unwrap_or(&name).to_owned();
            (path, AdapterShape { rank, scale: adapter.scale, dropout: adapter.dropout })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::model::cuda::table::Table;
    use crate::model::lora::{ALL, LoraConfig};
    use crate::model::{ModelConfig, config};

    fn sequence(length: usize) -> Sequence {
        Sequence { dialogue: "d".to_owned(), ids: vec![1; length], scored: vec![true; length] }
    }

    #[test]
    fn parts_keep_groups_together_and_miss_nothing() {
        let sequences: Vec<Sequence> = [5, 5, 30, 1, 2, 3, 4, 4].into_iter().map(sequence).collect();
        let borrowed: Vec<&Sequence> = sequences.iter().collect();
        assert_eq!(parts(&borrowed, 2, 16), [0..2, 2..4, 4..8]);
        assert_eq!(parts(&borrowed, 1, 16), [0..2, 2..3, 3..8]);
        assert!(parts(&[], 2, 16).is_empty());
    }

    #[test]
    fn every_parameter_of_a_decoder_has_its_place() {
        let config =
            ModelConfig { hidden_size: 64, head_dim: Some(16), intermediate_size: 64, ..config::tests::tiny() };
        for tied in [true, false] {
            let config = ModelConfig { tie_word_embeddings: tied, ..config.clone() };
            let plain = Decoder::init(&config, 3, &Device::flex()).unwrap();
            let targets = vec![ALL.to_owned()];
            let lora = LoraConfig { rank: 8, alpha: 8.0, rank_stabilised: false, dropout: 0.0, targets };
            for model in [plain.adapt(&lora, 1).unwrap(), plain] {
                let table = Table::new(model.architecture(), &adapters(&model), true).unwrap();
                let (mut ours, wanted) = (model.paths(), trained(&model));
                for (path, wanted) in ours.iter().zip(wanted) {
                    let piece = table.pieces[path];
                    assert_eq!(model.numbers(path).unwrap().len(), piece.rows * piece.columns, "{path}");
                    assert_eq!(table.slots[piece.slot].trained, wanted, "{path}");
                }
                ours.sort();
                assert_eq!(ours, table.pieces.keys().cloned().collect::<Vec<_>>());
            }
        }
    }
}
