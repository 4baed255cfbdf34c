//! Gradients as one flat list, clipped by their global norm, and AdamW as the reference runs it.
//!
//! Own code, because burn clips each tensor by its own norm, decays every parameter, and keys its state by random ids. Here
//! the order in which a module visits its parameters is the order of everything, so that sums and checkpoints are the same
//! on every run.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// The gradients of a module's float parameters in visiting order, each flat; `None` where a parameter got none.
#[derive(Clone, Debug, Default)]
pub struct Gradients(Vec<Option<Tensor<1>>>);

impl Gradients {
    /// Runs the loss backward and collects the gradients of `module`, whose parameters are tracked leaves.
    pub fn backward<M: Module>(module: &M, loss: &Tensor<1>) -> Self {
        struct Collect {
            grads: burn::tensor::Gradients,
            found: Vec<Option<Tensor<1>>>,
        }
        impl ModuleVisitor for Collect {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                self.found.push(param.val().grad_remove(&mut self.grads).map(flat));
            }
        }
        let mut collect = Collect { grads: loss.backward(), found: Vec::new() };
        module.visit(&mut collect);
        Self(collect.found)
    }

    /// The gradients.
    #[cfg(test)]
    pub(super) fn tensors(&self) -> &[Option<Tensor<1>>] {
        &self.0
    }

    /// Adds gradients of the same module; to none at all, they are the sum.
    pub fn add(&mut self, other: Self) {
        if self.0.is_empty() {
            *self = other;
            return;
        }
        for (sum, new) in self.0.iter_mut().zip(other.0) {
            *sum = match (sum.take(), new) {
                (Some(left), Some(right)) => Some(left + right),
                (left, right) => left.or(right),
            };
        }
    }

    /// The L2 norm over all gradients together.
    pub fn norm(&self) -> f64 {
        self.0.iter().flatten().map(|grad| sum_of_squares(grad.clone())).sum::<f64>().sqrt()
    }

    /// Every gradient times `factor`.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self(self.0.into_iter().map(|grad| grad.map(|grad| grad.mul_scalar(factor))).collect())
    }
}

/// The factor that brings gradients of this norm down to `max`, or 1; `max` 0 means no clipping. The small addend is
/// the reference's.
pub fn clip_factor(norm: f64, max: f64) -> f64 {
    if max > 0.0 { (max / (norm + 1e-6)).min(1.0) } else { 1.0 }
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let count = tensor.shape().num_elements();
    tensor.reshape([count])
}

/// Rows are summed on the device and added up in `f64` in a fixed order: one full sum of a large tensor would depend on
/// how threads share it.
fn sum_of_squares(tensor: Tensor<1>) -> f64 {
    let count = tensor.shape().num_elements();
    let columns = (1 << count.trailing_zeros().min(12)).min(count.max(1));
    let rows = tensor.clone().mul(tensor).reshape([count / columns, columns]).sum_dim(1);
    rows.into_data().convert::<f64>().iter::<f64>().sum()
}

/// The settings of [`AdamW`] beyond the learning rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the mean of gradients.
    pub beta_1: f64,
    /// Decay of the mean of their squares.
    pub beta_2: f64,
    /// Added to the root in the denominator.
    pub epsilon: f64,
    /// Decoupled weight decay; parameters of one dimension (norms, biases) get none.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// AdamW: `p *= 1 - lr * wd`, then `p -= lr / (1 - b1^t) * m / (sqrt(v / (1 - b2^t)) + eps)`.
#[derive(Clone, Debug)]
pub struct AdamW {
    config: AdamWConfig,
    step: u64,
    moments: Vec<Option<Moments>>,
}

/// The running means for one parameter, flat.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Of the gradients.
    pub first: Tensor<1>,
    /// Of their squares.
    pub second: Tensor<1>,
}

impl AdamW {
    /// An optimiser that has not stepped yet.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, step: 0, moments: Vec::new() }
    }

    /// An optimiser that goes on after `step` steps with the moments of then, in visiting order.
    pub fn resumed(config: AdamWConfig, step: u64, moments: Vec<Option<Moments>>) -> Self {
        Self { config, step, moments }
    }

    /// The settings.
    pub fn config(&self) -> AdamWConfig {
        self.config
    }

    /// How many updates it has made.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The running means in visiting order, `None` for parameters that never had a gradient.
    pub fn moments(&self) -> &[Option<Moments>] {
        &self.moments
    }

    /// The module after one update. Its parameters must not be tracked; those without a gradient stay as they are.
    pub fn update<M: Module>(&mut self, module: M, gradients: Gradients, learning_rate: f64) -> M {
        self.step += 1;
        self.moments.resize(gradients.0.len(), None);
        let mut update = Update {
            config: self.config,
            rate: learning_rate,
            correction_1: 1.0 - self.config.beta_1.powf(self.step as f64),
            correction_2: 1.0 - self.config.beta_2.powf(self.step as f64),
            gradients: gradients.0.into_iter(),
            moments: self.moments.iter_mut(),
        };
        module.map(&mut update)
    }
}

struct Update<'a> {
    config: AdamWConfig,
    rate: f64,
    correction_1: f64,
    correction_2: f64,
    gradients: std::vec::IntoIter<Option<Tensor<1>>>,
    moments: std::slice::IterMut<'a, Option<Moments>>,
}

impl ModuleMapper for Update<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (Some(gradient), Some(moments)) = (self.gradients.next().flatten(), self.moments.next()) else {
            return param;
        };
        let AdamWConfig { beta_1, beta_2, epsilon, weight_decay } = self.config;
        let old = moments.take();
        let (first, second) = match old {
            Some(Moments { first, second }) => (first.mul_scalar(beta_1), second.mul_scalar(beta_2)),
            None => (gradient.zeros_like(), gradient.zeros_like()),
        };
        let first = first + gradient.clone().mul_scalar(1.0 - beta_1);
        let second = second + gradient.clone().mul(gradient).mul_scalar(1.0 - beta_2);
        let denominator = second.clone().sqrt().div_scalar(self.correction_2.sqrt()).add_scalar(epsilon);
        let change = first.clone().div(denominator).mul_scalar(self.rate / self.correction_1);
        *moments = Some(Moments { first, second });
        let keep = if D > 1 { 1.0 - self.rate * weight_decay } else { 1.0 };
        param.map(|value| {
            let shape = value.shape();
            value.mul_scalar(keep) - change.reshape(shape)
        })
    }
}

/// The module with its float parameters fresh tracked leaves on the same memory: what one worker runs forward and
/// backward without meeting another worker's graph. Where `trained` is false (in visiting order; what lies beyond its end is
/// trained) a parameter gets no gradient.
pub fn tracked<M: Module>(module: M, trained: &[bool]) -> M {
    struct Track<'a>(std::slice::Iter<'a, bool>);
    impl ModuleMapper for Track<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let wanted = *self.0.next().unwrap_or(&true);
            param.map(|value| value.without_autodiff().autodiff().set_require_grad(wanted))
        }
    }
    module.map(&mut Track(trained.iter()))
}

/// The module with every float parameter a plain tensor: what is saved, updated, and run without gradients.
pub fn untracked<M: Module>(module: M) -> M {
    struct Untrack;
    impl ModuleMapper for Untrack {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| value.without_autodiff().set_require_grad(false))
        }
    }
    module.map(&mut Untrack)
}

/// The float parameters in visiting order, each flat.
pub fn parameters<M: Module>(module: &M) -> Vec<Tensor<1>> {
    struct List(Vec<Tensor<1>>);
    impl ModuleVisitor for List {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(flat(param.val().without_autodiff()));
        }
    }
    let mut list = List(Vec::new());
    module.visit(&mut list);
    list.0
}

/// The module with these values for its float parameters, in visiting order; their number and sizes must be its own.
pub fn with_parameters<M: Module>(module: M, values: Vec<Tensor<1>>) -> M {
    struct Put(std::vec::IntoIter<Tensor<1>>);
    impl ModuleMapper for Put {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            match self.0.next() {
                Some(new) => param.map(|old| new.reshape(old.shape())),
                None => param,
            }
        }
    }
    module.map(&mut Put(values.into_iter()))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    /// A matrix, which decays, and a vector, which does not.
    #[derive(Module, Debug)]
    struct Two {
        matrix: Param<Tensor<2>>,
        vector: Param<Tensor<1>>,
    }

    fn two(matrix: [[f32; 2]; 1], vector: [f32; 2]) -> Two {
        let device = Device::flex();
        Two {
            matrix: Param::from_tensor(Tensor::from_data(matrix, &device)),
            vector: Param::from_tensor(Tensor::from_data(vector, &device)),
        }
    }

    fn gradients(values: &[[f32; 2]]) -> Gradients {
        let one = |value: &[f32; 2]| Some(Tensor::from_data(TensorData::new(value.to_vec(), [2]), &Device::flex()));
        Gradients(values.iter().map(one).collect())
    }

    fn numbers(module: &Two) -> Vec<f64> {
        parameters(module)
            .into_iter()
            .flat_map(|tensor| tensor.into_data().convert::<f64>().iter::<f64>().collect::<Vec<_>>())
            .collect()
    }

    /// The formula in `f64`, one number at a time.
    fn by_hand(mut value: f64, gradients: &[f64], rate: f64, decay: f64) -> f64 {
        let (mut first, mut second) = (0.0, 0.0);
        for (step, gradient) in gradients.iter().enumerate() {
            let step = step as i32 + 1;
            first = 0.9 * first + 0.1 * gradient;
            second = 0.999 * second + 0.001 * gradient * gradient;
            value *= 1.0 - rate * decay;
            let (first_hat, second_hat) = (first / (1.0 - 0.9_f64.powi(step)), second / (1.0 - 0.999_f64.powi(step)));
            value -= rate * first_hat / (second_hat.sqrt() + 1e-8);
        }
        value
    }

    #[test]
    fn updates_as_the_formula_says_and_spares_norms_the_decay() {
        let mut adam = AdamW::new(AdamWConfig { weight_decay: 0.5, ..AdamWConfig::default() });
        let mut module = two([[1.0, -2.0]], [3.0, 0.5]);
        let steps = [[[0.1, -0.2], [1e-9, 4.0]], [[-0.3, 0.0], [2e-9, -1.0]], [[0.05, 0.7], [0.0, 0.25]]];
        for step in &steps {
            module = adam.update(module, gradients(step), 0.01);
        }
        let expected = |value: f64, tensor: usize, place: usize, decay: f64| {
            let gradients: Vec<f64> = steps.iter().map(|step| f64::from(step[tensor][place])).collect();
            by_hand(value, &gradients, 0.01, decay)
        };
        let expected =
            [expected(1.0, 0, 0, 0.5), expected(-2.0, 0, 1, 0.5), expected(3.0, 1, 0, 0.0), expected(0.5, 1, 1, 0.0)];
        for (found, expected) in numbers(&module).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert_eq!(adam.steps(), 3);
    }

    #[test]
    fn a_parameter_without_a_gradient_stays_and_keeps_the_others_in_place() {
        let mut adam = AdamW::new(AdamWConfig::default());
        let gradient = gradients(&[[1.0, 1.0]]).0.pop().unwrap();
        let module = adam.update(two([[1.0, 2.0]], [3.0, 4.0]), Gradients(vec![None, gradient]), 0.1);
        let found = numbers(&module);
        assert_eq!(found[..2], [1.0, 2.0]);
        assert!((found[2] - 2.9).abs() < 1e-6 && (found[3] - 3.9).abs() < 1e-6, "{found:?}");
        assert!(adam.moments()[0].is_none() && adam.moments()[1].is_some());
    }

    #[test]
    fn the_norm_is_over_all_tensors_and_clipping_brings_it_down() {
        let gradients = gradients(&[[3.0, 0.0], [0.0, 4.0]]);
        assert!((gradients.norm() - 5.0).abs() < 1e-6);
        assert_eq!((clip_factor(5.0, 0.0), clip_factor(0.5, 1.0)), (1.0, 1.0));
        assert!((gradients.scaled(clip_factor(5.0, 1.0)).norm() - 1.0).abs() < 1e-5);
        let long = Tensor::<1>::ones([3 * 5 * 4096], &Device::flex());
        assert!((Gradients(vec![Some(long), None]).norm() - 61440_f64.sqrt()).abs() < 1e-9);
    }

    #[test]
    fn gradients_add_up() {
        let mut sum = Gradients::default();
        sum.add(gradients(&[[1.0, 2.0]]));
        sum.add(Gradients(vec![None]));
        sum.add(gradients(&[[0.5, -2.0]]));
        assert!((sum.norm() - 1.5).abs() < 1e-6);
    }

    #[test]
    fn tracking_shares_the_numbers_and_brings_gradients() {
        let module = two([[1.0, 2.0]], [3.0, 4.0]);
        let first = tracked(module.clone(), &[]);
        let loss = (first.matrix.val().sum() * first.vector.val().sum()).reshape([1]);
        let found = Gradients::backward(&first, &loss);
        assert!((found.norm() - (7.0 * 7.0 * 2.0 + 3.0 * 3.0 * 2.0_f64).sqrt()).abs() < 1e-5);
        assert_eq!(numbers(&untracked(first)), numbers(&module));
    }
}
