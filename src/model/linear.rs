//! A linear map, with a bias and a low-rank adapter where it has them.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, module::linear};

/// `y = x W + b`, plus `scale * (x A) B` where it is adapted. Weights lie [in, out] in memory; files hold them [out, in].
#[derive(Module, Debug)]
pub struct Linear {
    /// [in, out]
    pub weight: Param<Tensor<2>>,
    /// [out]
    pub bias: Option<Param<Tensor<1>>>,
    /// What LoRA training learns beside the weight.
    pub adapter: Option<Adapter>,
}

/// A low-rank adapter (LoRA, arXiv 2106.09685): `scale * (x A) B`, computed on activations, so that the product `A B` is
/// never made.
#[derive(Module, Debug)]
pub struct Adapter {
    /// [in, rank]
    pub a: Param<Tensor<2>>,
    /// [rank, out]
    pub b: Param<Tensor<2>>,
    /// alpha / rank
    pub scale: f64,
    /// The share of the input's numbers that training drops on the way into `a`.
    pub dropout: f64,
}

impl Linear {
    /// A map without bias and adapter.
    pub fn new(weight: Tensor<2>) -> Self {
        Self { weight: Param::from_tensor(weight), bias: None, adapter: None }
    }

    /// [.., in] to [.., out], without dropout.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let y = linear(x.clone(), self.weight.val(), self.bias.as_ref().map(|bias| bias.val()));
        match &self.adapter {
            Some(Adapter { a, b, scale, .. }) => y + linear(linear(x, a.val(), None), b.val(), None) * *scale,
            None => y,
        }
    }

    /// Inputs and outputs.
    pub fn dims(&self) -> [usize; 2] {
        self.weight.shape().dims()
    }
}
