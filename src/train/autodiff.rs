//! Training through burn's autodiff: on any device that burn knows, and the yardstick for the learners that do without.
//!
//! It keeps the scores of attention, [seq, seq] for every head, so that long sequences need much memory.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::batch::{Limits, Part, PartTensors, Sequence, parts};
use super::learner::{Learner, LearnerState, Slope, Under};
use super::loss::{sequence_log_probs, token_log_probs};
use super::optimise::{AdamW, AdamWConfig, Gradients, Moments, untracked};
use super::{TrainError, workers::part_budget};
use crate::model::Decoder;

/// A model under training on burn's autodiff. Where it has adapters, they alone are trained.
pub struct AutodiffLearner {
    policy: Decoder,
    adapters_only: bool,
    adam: AdamW,
    gradients: Gradients,
}

impl AutodiffLearner {
    /// A learner that has not stepped yet.
    ///
    /// # Errors
    /// When an adapter asks for dropout: the decoder's own forward pass has none.
    pub fn new(policy: Decoder, adam: AdamWConfig) -> Result<Self, TrainError> {
        let policy = untracked(policy);
        let adapters = policy.linears().into_iter().filter_map(|(_, map)| map.adapter.as_ref());
        let dropouts: Vec<f64> = adapters.map(|adapter| adapter.dropout).collect();
        if dropouts.iter().any(|&dropout| dropout > 0.0) {
            return Err(TrainError::Device("it trains adapters without dropout only; set `dropout: 0`".to_owned()));
        }
        let adapters_only = !dropouts.is_empty();
        Ok(Self { policy, adapters_only, adam: AdamW::new(adam), gradients: Gradients::default() })
    }

    fn limits(&self) -> Limits {
        Limits { tokens: part_budget(&self.device()), width: self.policy.config().max_position_embeddings }
    }

    fn device(&self) -> Device {
        self.policy.embed_tokens.val().device()
    }

    fn check(&self, sequences: &[&Sequence]) -> Result<(), TrainError> {
        let limit = self.policy.config().max_position_embeddings;
        match sequences.iter().find(|sequence| sequence.ids.len() > limit) {
            None => Ok(()),
            Some(Sequence { dialogue, ids, .. }) => {
                Err(TrainError::TooLong { dialogue: dialogue.clone(), tokens: ids.len(), limit })
            }
        }
    }

    /// Parts whose rows are whole groups.
    fn groups(&self, sequences: &[&Sequence], group: usize) -> Vec<Part> {
        if group == 1 {
            return parts(sequences, self.limits());
        }
        let starts = (0..sequences.len()).step_by(group);
        let limits = Limits { tokens: usize::MAX, ..self.limits() };
        starts
            .flat_map(|start| {
                let end = (start + group).min(sequences.len());
                let mut of_group = parts(&sequences[start..end], limits);
                of_group.iter_mut().for_each(|part| part.rows.iter_mut().for_each(|row| *row += start));
                of_group
            })
            .collect()
    }
}

/// The sums of scored tokens' log-probabilities of a part's rows, [rows].
fn part_log_probs(model: &Decoder, part: &PartTensors) -> Tensor<1> {
    let hidden = model.hidden(part.tokens.clone()); // [rows, width, hidden]
    let [rows, width, size] = hidden.dims();
    let scored = hidden.reshape([rows * width, size]).select(0, part.places.clone()); // [n, hidden]
    sequence_log_probs(token_log_probs(model.logits(scored), part.targets.clone()), part.membership.clone())
}

fn host(tensor: Tensor<1>) -> Result<Vec<f64>, TrainError> {
    let failed = |error: &dyn std::fmt::Debug| TrainError::Device(format!("{error:?}"));
    let data = tensor.try_into_data().map_err(|error| failed(&error))?;
    Ok(data.convert::<f64>().iter::<f64>().collect())
}

impl Learner for AutodiffLearner {
    fn log_probs(&mut self, sequences: &[&Sequence], under: Under) -> Result<Vec<f64>, TrainError> {
        self.check(sequences)?;
        let model = match under {
            Under::Policy => self.policy.clone(),
            Under::Reference => without_adapters(self.policy.clone()),
        };
        let mut all = vec![0.0; sequences.len()];
        for part in parts(sequences, self.limits()) {
            let values = host(part_log_probs(&model, &part.tensors(&self.device())))?;
            part.rows.iter().zip(values).for_each(|(&row, value)| all[row] = value);
        }
        Ok(all)
    }

    fn accumulate(
        &mut self,
        sequences: &[&Sequence],
        group: usize,
        slope: &Slope,
        _seed: u64,
    ) -> Result<Vec<f64>, TrainError> {
        self.check(sequences)?;
        let mut all = vec![0.0; sequences.len()];
        for part in self.groups(sequences, group) {
            let model = tracked(self.policy.clone(), self.adapters_only);
            let tensors = part.tensors(&self.device());
            let values = part_log_probs(&model, &tensors);
            let found = host(values.clone())?;
            part.rows.iter().zip(&found).for_each(|(&row, &value)| all[row] = value);
            let mut slopes = vec![0.0; part.rows.len()];
            for start in part.rows.iter().copied().filter(|row| row % group == 0) {
                let end = (start + group).min(sequences.len());
                for (row, slope) in (start..end).zip(slope(start, &all[start..end])) {
                    let place = part.rows.iter().position(|&other| other == row);
                    slopes[place.expect("a group's rows are in one part")] = slope as f32;
                }
            }
            let count = slopes.len();
            let slopes = Tensor::<1>::from_data(TensorData::new(slopes, [count]), &values.device());
            self.gradients.add(Gradients::backward(&model, &(values * slopes).sum()));
        }
        Ok(all)
    }

    fn gradient_norm(&mut self) -> Result<f64, TrainError> {
        Ok(self.gradients.norm())
    }

    fn update(&mut self, learning_rate: f64, factor: f64) -> Result<(), TrainError> {
        let gradients = std::mem::take(&mut self.gradients);
        let gradients = if factor == 1.0 { gradients } else { gradients.scaled(factor) };
        self.policy = self.adam.update(self.policy.clone(), gradients, learning_rate);
        Ok(())
    }

    fn state(&mut self) -> Result<LearnerState, TrainError> {
        let narrow = |tensor: Tensor<1>| -> Result<Vec<f32>, TrainError> {
            Ok(host(tensor)?.into_iter().map(|value| value as f32).collect())
        };
        let trained = trained(&self.policy, self.adapters_only);
        let parameters: Vec<_> = trained.iter().map(|(_, tensor)| narrow(tensor.clone())).collect::<Result<_, _>>()?;
        let moments = trained.iter().map(|(place, _)| match self.adam.moments().get(*place).cloned().flatten() {
            Some(Moments { first, second }) => Ok(Some([narrow(first)?, narrow(second)?])),
            None => Ok(None),
        });
        let moments = moments.collect::<Result<_, TrainError>>()?;
        Ok(LearnerState { step: self.adam.steps(), parameters, moments })
    }

    fn restore(&mut self, state: LearnerState) -> Result<(), TrainError> {
        let trained = trained(&self.policy, self.adapters_only);
        let sizes = trained.iter().map(|(_, tensor)| tensor.dims()[0]);
        if !sizes.eq(state.parameters.iter().map(Vec::len)) || state.moments.len() != trained.len() {
            return Err(TrainError::Device("the state is that of another model".to_owned()));
        }
        let device = self.device();
        let tensor = |values: Vec<f32>| {
            let count = values.len();
            Tensor::<1>::from_data(TensorData::new(values, [count]), &device)
        };
        let mut moments = vec![None; trained.last().map_or(0, |(place, _)| place + 1)];
        for ((place, _), pair) in trained.iter().zip(state.moments) {
            moments[*place] = pair.map(|[first, second]| Moments { first: tensor(first), second: tensor(second) });
        }
        let places = trained.iter().map(|(place, _)| *place);
        let mut put = Put { place: 0, values: places.zip(state.parameters.into_iter().map(tensor)).collect() };
        self.policy = self.policy.clone().map(&mut put);
        self.adam = AdamW::resumed(self.adam.config(), state.step, moments);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Decoder, TrainError> {
        Ok(self.policy.no_grad())
    }
}

/// The decoder with its adapters taken off: what it was before they were trained.
fn without_adapters(mut model: Decoder) -> Decoder {
    for layer in &mut model.layers {
        let (attention, mlp) = (&mut layer.self_attn, &mut layer.mlp);
        let maps = [&mut attention.q_proj, &mut attention.k_proj, &mut attention.v_proj, &mut attention.o_proj];
        maps.into_iter().for_each(|map| map.adapter = None);
        [&mut mlp.gate_proj, &mut mlp.up_proj, &mut mlp.down_proj].into_iter().for_each(|map| map.adapter = None);
    }
    model
}

/// The field of a linear map that holds its adapter.
const ADAPTER: &str = "adapter";

/// The decoder with every trained parameter a fresh tracked leaf on the same memory.
fn tracked(model: Decoder, adapters_only: bool) -> Decoder {
    struct Track {
        inside: usize,
        adapters_only: bool,
    }
    impl ModuleMapper for Track {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.inside += usize::from(name == ADAPTER);
        }
        fn exit_module(&mut self, name: &str, _: &str) {
            self.inside -= usize::from(name == ADAPTER);
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let trained = !self.adapters_only || self.inside > 0;
            param.map(|value| value.without_autodiff().autodiff().set_require_grad(trained))
        }
    }
    model.map(&mut Track { inside: 0, adapters_only })
}

/// The trained parameters, flat, each with its place among all.
fn trained(model: &Decoder, adapters_only: bool) -> Vec<(usize, Tensor<1>)> {
    struct List {
        inside: usize,
        adapters_only: bool,
        place: usize,
        found: Vec<(usize, Tensor<1>)>,
    }
    impl ModuleVisitor for List {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.inside += usize::from(name == ADAPTER);
        }
        fn exit_module(&mut self, name: &str, _: &str) {
            self.inside -= usize::from(name == ADAPTER);
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if !self.adapters_only || self.inside > 0 {
                let value = param.val().without_autodiff();
                let count = value.shape().num_elements();
                self.found.push((self.place, value.reshape([count])));
            }
            self.place += 1;
        }
    }
    let mut list = List { inside: 0, adapters_only, place: 0, found: Vec::new() };
    model.visit(&mut list);
    list.found
}

/// Puts values into the parameters at given places.
struct Put {
    place: usize,
    values: std::collections::BTreeMap<usize, Tensor<1>>,
}

impl ModuleMapper for Put {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let value = self.values.remove(&self.place);
        self.place += 1;
        match value {
            Some(new) => param.map(|old| new.reshape(old.shape())),
            None => param,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::linear::Adapter;
    use crate::train::tests::{decoder, sequences};

    fn learner(model: Decoder) -> AutodiffLearner {
        AutodiffLearner::new(model, AdamWConfig::default()).unwrap()
    }

    /// An adapter on every query projection; `b` is not zero, so that it matters.
    fn adapted() -> Decoder {
        let mut model = decoder();
        let device = Device::flex();
        for layer in &mut model.layers {
            let [inputs, outputs] = layer.self_attn.q_proj.dims();
            let a = Tensor::<2>::full([inputs, 2], 0.05, &device);
            let b = Tensor::<2>::full([2, outputs], 0.1, &device);
            let adapter = Adapter { a: Param::from_tensor(a), b: Param::from_tensor(b), scale: 2.0, dropout: 0.0 };
            layer.self_attn.q_proj.adapter = Some(adapter);
        }
        model
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let sequences = sequences(3);
        let rows: Vec<&Sequence> = sequences.iter().collect();
        let loss = |learner: &mut AutodiffLearner| -> f64 {
            let values = learner.log_probs(&rows, Under::Policy).unwrap();
            values.iter().map(|value| value * value / 200.0).sum()
        };
        for model in [decoder(), adapted()] {
            let mut learner = learner(model);
            let before = loss(&mut learner);
            let slope = |_: usize, values: &[f64]| values.iter().map(|value| value / 100.0).collect();
            learner.accumulate(&rows, 1, &slope, 0).unwrap();
            let norm = learner.gradient_norm().unwrap();
            // AdamW's first step moves every parameter against the sign of its gradient by the learning rate.
            learner.update(1e-5, 1.0).unwrap();
            let after = loss(&mut learner);
            assert!(norm > 0.0 && after < before, "{before} {after}");
        }
    }

    #[test]
    fn only_adapters_are_trained_where_there_are_any_and_the_reference_is_without_them() {
        let sequences = sequences(4);
        let rows: Vec<&Sequence> = sequences.iter().collect();
        let mut learner = learner(adapted());
        let reference = learner.log_probs(&rows, Under::Reference).unwrap();
        assert_eq!(reference, self::learner(decoder()).log_probs(&rows, Under::Policy).unwrap());
        assert_ne!(reference, learner.log_probs(&rows, Under::Policy).unwrap());
        // Two to a group: the slope of each is asked for with both.
        let slope = |start: usize, values: &[f64]| {
            assert!(start.is_multiple_of(2) && values.len() == 2);
            vec![-0.1, 0.1]
        };
        learner.accumulate(&rows, 2, &slope, 0).unwrap();
        learner.update(1e-2, 1.0).unwrap();
        assert_eq!(learner.state().unwrap().parameters.len(), 4);
        assert_eq!(reference, learner.log_probs(&rows, Under::Reference).unwrap());
    }

    #[test]
    fn going_on_from_a_state_gives_the_same_bits() {
        let sequences = sequences(4);
        let rows: Vec<&Sequence> = sequences.iter().collect();
        let slope = |_: usize, values: &[f64]| vec![-0.01; values.len()];
        let step = |learner: &mut AutodiffLearner| {
            learner.accumulate(&rows, 1, &slope, 0).unwrap();
            learner.update(1e-3, 0.5).unwrap();
        };
        for model in [decoder(), adapted()] {
            let mut whole = learner(model.clone());
            step(&mut whole);
            let mut resumed = learner(model);
            resumed.restore(whole.state().unwrap()).unwrap();
            step(&mut whole);
            step(&mut resumed);
            assert_eq!(whole.state().unwrap(), resumed.state().unwrap());
        }
        assert!(learner(adapted()).restore(learner(decoder()).state().unwrap()).is_err());
    }
}

/// On a graphics device, or on a software driver for one (Mesa's lavapipe).
#[cfg(all(test, feature = "wgpu"))]
mod wgpu_tests {
    use super::*;
    use crate::model::ModelConfig;
    use crate::train::tests::{decoder, sequences};
    use burn::tensor::DeviceKind;

    #[test]
    fn wgpu_trains_as_the_processor_does() {
        let sequences = sequences(2);
        let rows: Vec<&Sequence> = sequences.iter().collect();
        let run = |device: &Device| {
            let config: ModelConfig = decoder().config().clone();
            let model = Decoder::init(&config, 3, device).unwrap();
            let mut learner = AutodiffLearner::new(model, AdamWConfig::default()).unwrap();
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
