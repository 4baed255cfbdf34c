//! Gradients as one flat list, clipped by their global norm, and AdamW as the reference runs it.
//!
//! Own code, because burn clips each tensor by its own norm, decays every parameter, and keys its state by random ids. Here
//! the order in which a module visits its parameters is the order of everything, so that sums and checkpoints are the same
//! on every run.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// The gradients of a module's float parameters in visiting order, each flat; `None` where a parameter got none.
#[derive(Clone, Debug)]
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

    /// The sum of gradients of one module, added in their order; none give an empty list.
    #[must_use]
    pub fn sum(all: impl IntoIterator<Item = Self>) -> Self {
        all.into_iter().reduce(Self::plus).unwrap_or_else(|| Self(Vec::new()))
    }

    fn plus(self, other: Self) -> Self {
        let add = |pair| match pair {
            (Some(left), Some(right)) => Some(left + right),
            (left, right) => left.or(right),
        };
        Self(self.0.into_iter().zip(other.0).map(add).collect())
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

/// The module with every float parameter a fresh tracked leaf on the same memory: what one worker runs forward and
/// backward without meeting another worker's graph.
pub fn tracked<M: Module>(module: M) -> M {
    struct Track;
    impl ModuleMapper for Track {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|value| value.without_autodiff().autodiff().require_grad())
        }
    }
    module.map(&mut Track)
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
