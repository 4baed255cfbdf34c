//! Training through burn's own tensors and their automatic differentiation: slow, but on any device that burn knows, and
//! what the other learners are tested against.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};

use super::TrainError;
use super::batch::{Limits, Part, Sequence, parts};
use super::learner::{Learner, LearnerSettings, LearnerState, Slope, Under, check_sequences, device, trained};
use super::loss;
use super::optimise::{AdamW, Gradients, Moments, parameters, tracked, untracked, with_parameters};
use super::workers::{Workers, part_budget};
use crate::model::Decoder;

/// A learner that runs [`Decoder`] under automatic differentiation.
pub struct PlainLearner {
    model: Decoder,
    trained: Vec<bool>,
    workers: Workers,
    adam: AdamW,
    gradients: Gradients,
}

/// What a worker found in one part.
struct Found {
    rows: Vec<usize>,
    log_probs: Vec<f64>,
    gradients: Gradients,
}

impl PlainLearner {
    /// A learner that begins with this model.
    ///
    /// # Errors
    /// When an adapter wants dropout, which plain tensors do not have, or threads cannot be started.
    pub fn new(base: Decoder, settings: LearnerSettings) -> Result<Self, TrainError> {
        let model = untracked(base);
        if model.linears().iter().any(|(_, map)| map.adapter.as_ref().is_some_and(|adapter| adapter.dropout > 0.0)) {
            return Err(TrainError::Unsupported(
                "this device trains adapters without dropout only: set it to 0".to_owned(),
            ));
        }
        let workers = Workers::new(&device(&model))?;
        let trained = trained(&model);
        Ok(Self { model, trained, workers, adam: AdamW::new(settings.adam), gradients: Gradients::default() })
    }

    /// The gradients so far, in visiting order, `None` where a parameter has none.
    #[cfg(test)]
    pub(super) fn gradients(&self) -> Vec<Option<Vec<f32>>> {
        self.gradients.tensors().iter().map(|gradient| gradient.clone().map(numbers)).collect()
    }

    fn limits(&self) -> Limits {
        Limits { tokens: part_budget(&device(&self.model)), width: self.model.architecture().context }
    }
}

impl Learner for PlainLearner {
    fn log_probs(&mut self, sequences: &[&Sequence], under: Under) -> Result<Vec<f64>, TrainError> {
        check_sequences(self.model.architecture(), sequences)?;
        let model = match under {
            Under::Policy => self.model.clone(),
            Under::Reference => self.model.without_adapters(),
        };
        let jobs: Vec<(Decoder, Part)> =
            parts(sequences, 1, self.limits()).into_iter().map(|part| (model.clone(), part)).collect();
        let work = |(model, part): (Decoder, Part)| {
            let (_, log_probs) = forward(&model, &part);
            (part.rows, log_probs)
        };
        let mut all = vec![0.0; sequences.len()];
        self.workers.in_order(jobs, work, |(rows, values)| place(&mut all, &rows, &values));
        Ok(all)
    }

    fn accumulate(
        &mut self,
        sequences: &[&Sequence],
        group: usize,
        slope: &Slope,
        _seed: u64,
    ) -> Result<Vec<f64>, TrainError> {
        check_sequences(self.model.architecture(), sequences)?;
        let jobs: Vec<(Decoder, Part)> =
            parts(sequences, group, self.limits()).into_iter().map(|part| (self.model.clone(), part)).collect();
        let trained = &self.trained;
        let work = |(model, part): (Decoder, Part)| {
            let model = tracked(model, trained);
            let (tokens, log_probs) = forward(&model, &part);
            let slopes: Vec<f64> = part
                .rows
                .chunks(group)
                .zip(log_probs.chunks(group))
                .flat_map(|(rows, values)| slope(rows[0], values))
                .collect();
            let loss = (tokens * weights(&model, &part, &slopes)).sum();
            Found { gradients: Gradients::backward(&model, &loss), rows: part.rows, log_probs }
        };
        let mut all = vec![0.0; sequences.len()];
        let gradients = &mut self.gradients;
        self.workers.in_order(jobs, work, |found| {
            place(&mut all, &found.rows, &found.log_probs);
            gradients.add(found.gradients);
        });
        Ok(all)
    }

    fn gradient_norm(&mut self) -> Result<f64, TrainError> {
        Ok(self.gradients.norm())
    }

    fn update(&mut self, learning_rate: f64, factor: f64) -> Result<(), TrainError> {
        let gradients = std::mem::take(&mut self.gradients);
        let gradients = if factor == 1.0 { gradients } else { gradients.scaled(factor) };
        self.model = self.adam.update(self.model.clone(), gradients, learning_rate);
        Ok(())
    }

    fn state(&mut self) -> Result<LearnerState, TrainError> {
        let wanted = |index: &usize| self.trained[*index];
        let all = parameters(&self.model);
        let moments = self.adam.moments();
        let one = |index: usize| {
            moments
                .get(index)
                .and_then(Option::as_ref)
                .map(|Moments { first, second }| [first, second].map(|one| numbers(one.clone())))
        };
        Ok(LearnerState {
            step: self.adam.steps(),
            parameters: (0..all.len()).filter(wanted).map(|index| numbers(all[index].clone())).collect(),
            moments: (0..all.len()).filter(wanted).map(one).collect(),
        })
    }

    fn restore(&mut self, state: LearnerState) -> Result<(), TrainError> {
        let mut all = parameters(&self.model);
        let sizes = all.iter().zip(&self.trained).filter(|(_, wanted)| **wanted).map(|(one, _)| one.dims()[0]);
        state.check(sizes)?;
        let mut moments = vec![None; all.len()];
        let places = (0..all.len()).filter(|index| self.trained[*index]);
        for ((index, values), pair) in places.zip(state.parameters).zip(state.moments) {
            let like = all[index].clone();
            let tensor = |values: Vec<f32>| {
                let count = values.len();
                Tensor::<1>::from_data(TensorData::new(values, [count]), (&like.device(), like.dtype()))
            };
            moments[index] = pair.map(|[first, second]| Moments { first: tensor(first), second: tensor(second) });
            all[index] = tensor(values);
        }
        self.model = with_parameters(self.model.clone(), all);
        let config = self.adam.config();
        self.adam = AdamW::resumed(config, state.step, moments);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Decoder, TrainError> {
        Ok(self.model.no_grad())
    }
}

/// Log-probabilities of a part's scored tokens, padded, and of its rows. The head is computed at the scored places alone.
fn forward(model: &Decoder, part: &Part) -> (Tensor<1>, Vec<f64>) {
    let tensors = part.tensors(&device(model));
    let hidden = model.hidden(tensors.tokens); // [rows, width, hidden]
    let [rows, width, size] = hidden.dims();
    let scored = hidden.reshape([rows * width, size]).select(0, tensors.places); // [n, hidden]
    let tokens = loss::token_log_probs(model.logits(scored), tensors.targets);
    let mut sums = vec![0.0; part.rows.len()];
    for (row, value) in part.scored_rows().zip(numbers(tokens.clone())) {
        sums[row] += f64::from(value);
    }
    (tokens, sums)
}

/// The slope of every scored token, which is its row's, padded with 0.
fn weights(model: &Decoder, part: &Part, slopes: &[f64]) -> Tensor<1> {
    let mut values: Vec<f32> = part.scored_rows().map(|row| slopes[row] as f32).collect();
    let count = part.padded_scored();
    values.resize(count, 0.0);
    Tensor::from_data(TensorData::new(values, [count]), &device(model))
}

fn place(all: &mut [f64], rows: &[usize], values: &[f64]) {
    rows.iter().zip(values).for_each(|(row, value)| all[*row] = *value);
}

/// A tensor's numbers on the host.
fn numbers(tensor: Tensor<1>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().iter::<f32>().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::tests::{adapted, decoder, sequences};

    fn learner(model: Decoder) -> PlainLearner {
        PlainLearner::new(model, LearnerSettings::default()).unwrap()
    }

    #[test]
    fn slopes_are_asked_group_by_group_and_scale_the_gradient() {
        let sequences = sequences(24);
        let rows: Vec<&Sequence> = sequences.iter().collect();
        let mut learner = learner(decoder());
        let alone = learner.log_probs(&rows, Under::Policy).unwrap();
        let asked = std::sync::Mutex::new(Vec::new());
        let slope = |first: usize, values: &[f64]| {
            asked.lock().unwrap().push(first);
            assert!(values.iter().zip(&alone[first..]).all(|(left, right)| (left - right).abs() < 1e-4));
            vec![2.0; values.len()]
        };
        let found = learner.accumulate(&rows, 2, &slope, 0).unwrap();
        assert!(found.iter().zip(&alone).all(|(left, right)| (left - right).abs() < 1e-4));
        let mut asked = asked.into_inner().unwrap();
        asked.sort_unstable();
        assert_eq!(asked, (0..24).step_by(2).collect::<Vec<_>>());
        let twice = learner.gradient_norm().unwrap();
        learner.update(0.0, 1.0).unwrap();
        learner.accumulate(&rows, 1, &|_, values| vec![1.0; values.len()], 0).unwrap();
        assert!((twice / learner.gradient_norm().unwrap() - 2.0).abs() < 1e-4);
    }

    #[test]
    fn adapters_alone_are_trained_and_the_reference_has_none() {
        let sequences = sequences(6);
        let rows: Vec<&Sequence> = sequences.iter().collect();
        let mut learner = learner(adapted(decoder(), 2, 0.0));
        let before = learner.log_probs(&rows, Under::Policy).unwrap();
        let reference = learner.log_probs(&rows, Under::Reference).unwrap();
        assert!(before.iter().zip(&reference).any(|(left, right)| (left - right).abs() > 1e-3));
        learner.accumulate(&rows, 1, &|_, values| vec![-1.0; values.len()], 0).unwrap();
        let gradients = learner.gradients();
        assert_eq!(gradients.iter().flatten().count(), 2 * 7 * 2);
        learner.update(1e-2, 1.0).unwrap();
        let after = learner.log_probs(&rows, Under::Policy).unwrap();
        assert!(after.iter().sum::<f64>() > before.iter().sum::<f64>());
        assert_eq!(learner.log_probs(&rows, Under::Reference).unwrap(), reference);
        let state = learner.state().unwrap();
        assert_eq!((state.step, state.parameters.len(), state.moments.len()), (1, 28, 28));
        let mut other = self::learner(adapted(decoder(), 2, 0.0));
        other.restore(state.clone()).unwrap();
        assert_eq!(other.state().unwrap(), state);
        assert_eq!(other.log_probs(&rows, Under::Policy).unwrap(), after);
        let refused = self::learner(decoder()).restore(state).unwrap_err().to_string();
        assert!(refused.ends_with("it has 28 parameters instead of 20"), "{refused}");
    }

    #[test]
    fn dropout_is_refused() {
        let settings = LearnerSettings::default();
        assert!(PlainLearner::new(adapted(decoder(), 2, 0.1), settings).is_err());
    }
}

/// On a graphics device, or on a software driver for one (Mesa's lavapipe).
#[cfg(all(test, feature = "wgpu"))]
mod wgpu_tests {
    use super::*;
    use crate::model::ModelConfig;
    use crate::train::tests::{decoder, sequences};
    use burn::tensor::{Device, DeviceKind};

    #[test]
    fn wgpu_trains_as_the_processor_does() {
        let sequences = sequences(2);
        let rows: Vec<&Sequence> = sequences.iter().collect();
        let settings = LearnerSettings::default();
        let run = |device: &Device| {
            let config: ModelConfig = decoder().config().clone();
            let model = Decoder::init(&config, 3, device).unwrap();
            let mut learner = PlainLearner::new(model, settings).unwrap();
            let slope = |_: usize, values: &[f64]| vec![-0.02; values.len()];
            let before = learner.accumulate(&rows, 1, &slope, 0).unwrap();
            let norm = learner.gradient_norm().unwrap();
            learner.update(1e-3, 1.0).unwrap();
            (before, norm, learner.log_probs(&rows, Under::Policy).unwrap())
        };
        let (before, norm, after) = run(&Device::flex());
        let (other_before, other_norm, other_after) = run(&Device::wgpu(DeviceKind::DefaultDevice));
        let close = |a: &f64, b: &f64| (a - b).abs() < 1e-4 * a.abs().max(1.0);
        assert!(before.iter().zip(&other_before).all(|(a, b)| close(a, b)), "{before:?} {other_before:?}");
        assert!(after.iter().zip(&other_after).all(|(a, b)| close(a, b)), "{after:?} {other_after:?}");
        assert!(close(&norm, &other_norm), "{norm} {other_norm}");
    }
}
