//! One layer of a decoder: attention with grouped heads, then a gated feed-forward block, each behind a norm.

use burn::module::{Module, Param};
use burn::tensor::activation::{gelu_approximate, silu, softmax};
use burn::tensor::{Device, Tensor, TensorData};

use super::architecture::{Activation, Architecture};
use super::linear::Linear;
use super::rope::Rotation;

/// Root mean square normalisation with a learnt scale.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// [size]
    pub weight: Param<Tensor<1>>,
    /// What keeps the root mean square from zero.
    pub epsilon: f64,
    /// Whether the scale is 1 + weight (Gemma) instead of the weight.
    pub unit_offset: bool,
}

impl RmsNorm {
    /// Normalises the last dimension.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let scale = (x.clone().square().mean_dim(D - 1) + self.epsilon).sqrt().recip();
        x * scale * self.scale().unsqueeze()
    }

    /// What normed numbers are multiplied by, [size].
    pub fn scale(&self) -> Tensor<1> {
        if self.unit_offset { self.weight.val() + 1.0 } else { self.weight.val() }
    }
}

/// Attention with grouped heads.
#[derive(Module, Debug)]
pub struct Attention {
    /// [hidden, heads * head]
    pub q_proj: Linear,
    /// [hidden, kv_heads * head]
    pub k_proj: Linear,
    /// [hidden, kv_heads * head]
    pub v_proj: Linear,
    /// [heads * head, hidden]
    pub o_proj: Linear,
    /// The norm of every query head, [head] (Qwen 3, Gemma 3).
    pub q_norm: Option<RmsNorm>,
    /// The norm of every key head, [head].
    pub k_norm: Option<RmsNorm>,
    /// The number of query heads.
    pub heads: usize,
    /// The number of key and value heads.
    pub kv_heads: usize,
    /// What queries are multiplied by.
    pub query_scale: f64,
}

impl Attention {
    /// Queries, turned and scaled, with the heads that share a key side by side: [batch, kv_heads, group * seq, head];
    /// keys, turned, and values: [batch, kv_heads, seq, head].
    pub fn project(&self, x: Tensor<3>, rotation: &Rotation) -> [Tensor<4>; 3] {
        let [batch, seq, _] = x.dims();
        let split =
            |map: &Linear, heads: usize| map.forward(x.clone()).reshape([batch, seq, heads, map.dims()[1] / heads]);
        let normed = |norm: &Option<RmsNorm>, heads| match norm {
            Some(norm) => norm.forward(heads),
            None => heads,
        };
        let q = rotation.apply(normed(&self.q_norm, split(&self.q_proj, self.heads)));
        let head = q.dims()[3];
        let q = q * self.query_scale;
        let q = q.swap_dims(1, 2).reshape([batch, self.kv_heads, self.heads / self.kv_heads * seq, head]);
        let k = rotation.apply(normed(&self.k_norm, split(&self.k_proj, self.kv_heads))).swap_dims(1, 2);
        [q, k, split(&self.v_proj, self.kv_heads).swap_dims(1, 2)]
    }

    /// Attends and projects back: `bias` is added to the scores, 0 where a query may look and very negative elsewhere,
    /// [batch or 1, 1, group * seq, keys].
    pub fn attend(&self, [q, k, v]: [Tensor<4>; 3], bias: Tensor<4>) -> Tensor<3> {
        let [batch, _, rows, head] = q.dims();
        let seq = rows * self.kv_heads / self.heads;
        let mixed = if q.is_autodiff() { mix_tracked(q, k, v, bias) } else { mix(q, k, v, bias) };
        let mixed = mixed.reshape([batch, self.heads, seq, head]).swap_dims(1, 2);
        self.o_proj.forward(mixed.reshape([batch, seq, self.heads * head]))
    }
}

/// The values mixed by the softmax of the scores, [batch, kv_heads, group * seq, head].
fn mix(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Tensor<4>) -> Tensor<4> {
    softmax(q.matmul(k.transpose()) + bias, 3).matmul(v)
}

/// The same for training, with fewer passes over the scores, which are by far the largest tensors.
///
/// The softmax is computed outside the graph. Multiplied by `scores - scores + 1`, whose value is one, it becomes a function
/// of the scores that has the value of `exp(scores) / sum` and, the sum being held fixed, its gradient. The sum's own part in
/// the gradient comes from dividing by the weights' sum, also one, which a column of ones beside the values computes.
fn mix_tracked(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, bias: Tensor<4>) -> Tensor<4> {
    let [batch, kv_heads, keys, head] = v.dims();
    let scores = q.matmul(k.transpose());
    let fixed = scores.clone().without_autodiff();
    let weights = softmax(fixed.clone() + bias.without_autodiff(), 3);
    let weights = (scores - fixed.autodiff() + 1.0) * weights.autodiff();
    let ones = Tensor::ones([batch, kv_heads, keys, 1], &v.device());
    let mixed = weights.matmul(Tensor::cat(vec![v, ones], 3));
    mixed.clone().narrow(3, 0, head) / mixed.narrow(3, head, 1)
}

/// The gated feed-forward block.
#[derive(Module, Debug)]
pub struct Mlp {
    /// [hidden, inner]
    pub gate_proj: Linear,
    /// [hidden, inner]
    pub up_proj: Linear,
    /// [inner, hidden]
    pub down_proj: Linear,
    /// The gate's activation.
    #[module(skip)]
    pub activation: Activation,
}

impl Mlp {
    /// `down(activation(gate(x)) * up(x))`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = self.gate_proj.forward(x.clone());
        let gate = match self.activation {
            Activation::Silu => silu(gate),
            Activation::GeluTanh => gelu_approximate(gate),
        };
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}

/// One layer.
#[derive(Module, Debug)]
pub struct Layer {
    /// Before attention.
    pub input_layernorm: RmsNorm,
    /// Attention.
    pub self_attn: Attention,
    /// Before the feed-forward block; where there are post norms, behind attention.
    pub post_attention_layernorm: RmsNorm,
    /// Before the feed-forward block, where there are post norms (Gemma).
    pub pre_feedforward_layernorm: Option<RmsNorm>,
    /// Behind the feed-forward block, where there are post norms (Gemma).
    pub post_feedforward_layernorm: Option<RmsNorm>,
    /// The feed-forward block.
    pub mlp: Mlp,
}

impl Layer {
    /// The layer over whole sequences, keys and values being those of the same sequences.
    pub fn forward(&self, x: Tensor<3>, rotation: &Rotation, bias: Tensor<4>) -> Tensor<3> {
        let projected = self.self_attn.project(self.input_layernorm.forward(x.clone()), rotation);
        let attended = self.self_attn.attend(projected, bias);
        let (Some(before), Some(behind)) = (&self.pre_feedforward_layernorm, &self.post_feedforward_layernorm) else {
            let x = x + attended;
            let normed = self.post_attention_layernorm.forward(x.clone());
            return x + self.mlp.forward(normed);
        };
        let x = x + self.post_attention_layernorm.forward(attended);
        let changed = self.mlp.forward(before.forward(x.clone()));
        x + behind.forward(changed)
    }
}

/// The bias that hides the future, and what lies before the window where there is one: [1, 1, group * seq, seq], `group`
/// copies of a triangle.
pub fn causal_bias(architecture: &Architecture, window: Option<usize>, seq: usize, device: &Device) -> Tensor<4> {
    let group = architecture.group();
    let mut values = vec![0.0_f32; group * seq * seq];
    for (row, columns) in values.chunks_mut(seq).enumerate() {
        let place = row % seq;
        columns[place + 1..].fill(HIDDEN);
        columns[..(place + 1).saturating_sub(window.unwrap_or(seq))].fill(HIDDEN);
    }
    Tensor::from_data(TensorData::new(values, [1, 1, group * seq, seq]), device)
}

/// What is added to a score that must not count: its exponential is 0, and no arithmetic on it gives NaN.
pub const HIDDEN: f32 = -1e9;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::tests::tiny;

    #[test]
    fn the_mix_for_training_has_the_values_and_gradients_of_the_plain_one() {
        let device = Device::flex().autodiff();
        let draw = |seed: u32, shape: [usize; 4]| {
            let count: usize = shape.iter().product();
            let numbers: Vec<f32> =
                (0..count as u32).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 25.0 - 2.0).collect();
            Tensor::<4>::from_data(TensorData::new(numbers, shape), &device).require_grad()
        };
        let (q, k, v) = (draw(1, [2, 2, 10, 4]), draw(2, [2, 2, 5, 4]), draw(3, [2, 2, 5, 4]));
        let architecture = tiny().architecture();
        let goal = draw(4, [2, 2, 10, 4]);
        let run = |mix: fn(Tensor<4>, Tensor<4>, Tensor<4>, Tensor<4>) -> Tensor<4>| {
            let mixed = mix(q.clone(), k.clone(), v.clone(), causal_bias(&architecture, None, 5, &device));
            let gradients = (mixed.clone() * goal.clone()).sum().backward();
            let mut all: Vec<f32> = mixed.try_into_vec_as().unwrap();
            for leaf in [&q, &k, &v] {
                all.extend(leaf.grad(&gradients).unwrap().try_into_vec_as::<f32>().unwrap());
            }
            all
        };
        for (plain, tracked) in run(mix).into_iter().zip(run(mix_tracked)) {
            assert!((plain - tracked).abs() < 2e-5 * plain.abs().max(1.0), "{plain} {tracked}");
        }
    }
}
