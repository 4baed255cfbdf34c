//! The decoder, from token ids to logits.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::module::{embedding, linear};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

use super::architecture::{Architecture, LayerKind};
use super::config::{ConfigError, ModelConfig};
use super::device::Place;
use super::layer::{Attention, Layer, Mlp, RmsNorm, causal_bias};
use super::linear::Linear;
use super::lora::LoraConfig;
use super::rope::RopeTable;

/// A causal language model.
///
/// Parameters lie on the device that it was made on; on an autodiff device they are trainable, and `valid()` gives the copy
/// for inference.
#[derive(Module, Debug)]
pub struct Decoder {
    /// [vocab, hidden]
    pub embed_tokens: Param<Tensor<2>>,
    /// The layers, first to last.
    pub layers: Vec<Layer>,
    /// The last norm.
    pub norm: RmsNorm,
    /// [hidden, vocab]; absent when the embedding serves as the head.
    pub lm_head: Option<Param<Tensor<2>>>,
    #[module(skip)]
    config: ModelConfig,
    #[module(skip)]
    architecture: Architecture,
    #[module(skip)]
    ropes: Vec<RopeTable>,
    #[module(skip)]
    place: Place,
    #[module(skip)]
    lora: Option<LoraConfig>,
}

impl Decoder {
    /// How many numbers there are to learn.
    pub fn parameters(&self) -> usize {
        self.num_params()
    }

    /// A decoder with random weights: embeddings normal with deviation 0.02; projections with 1/sqrt(inputs), those back into
    /// the residual stream divided by sqrt(2 layers) besides; norms one. The same seed gives the same weights everywhere.
    ///
    /// The usual 0.02 for all suits a hidden size of about 2,500. In a model of 128 it leaves attention flat for long: there
    /// copying from the prompt was learnt noticeably later.
    ///
    /// # Errors
    /// When the configuration's numbers do not fit together.
    pub fn init(config: &ModelConfig, seed: u64, device: &Device) -> Result<Self, ConfigError> {
        config.check()?;
        let mut draw = Draw { rng: ChaCha8Rng::seed_from_u64(seed) };
        let residual = (2.0 * config.num_hidden_layers as f64).sqrt();
        Self::build(
            config,
            |name, shape| {
                let back = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
                let projection = (shape[0] as f64).powf(-0.5) / if back { residual } else { 1.0 };
                let deviation = if name.ends_with("embed_tokens.weight") { EMBEDDING } else { projection };
                Ok(Tensor::from_data(TensorData::new(draw.normal(shape[0] * shape[1], deviation), shape), device))
            },
            // Biases begin at zero, and norms at a scale of one.
            |name, size| {
                let zero = name.ends_with(".bias") || config.architecture().unit_offset;
                Ok(if zero { Tensor::zeros([size], device) } else { Tensor::ones([size], device) })
            },
        )
    }

    /// A decoder whose matrices and vectors (norms and biases) come from functions of Hugging Face's name and the shape in memory, always asked
    /// in the same order.
    pub(super) fn build<E>(
        config: &ModelConfig,
        matrix: impl FnMut(&str, [usize; 2]) -> Result<Tensor<2>, E>,
        vector: impl FnMut(&str, usize) -> Result<Tensor<1>, E>,
    ) -> Result<Self, E> {
        Self::assemble(config, config.architecture(), matrix, vector)
    }

    /// The same for an architecture that need not be the configuration's.
    pub(crate) fn assemble<E>(
        config: &ModelConfig,
        shape: Architecture,
        mut matrix: impl FnMut(&str, [usize; 2]) -> Result<Tensor<2>, E>,
        mut vector: impl FnMut(&str, usize) -> Result<Tensor<1>, E>,
    ) -> Result<Self, E> {
        let embed = matrix("model.embed_tokens.weight", [shape.vocab, shape.hidden])?;
        let layers = (0..shape.layers.len()).map(|index| assemble_layer(&shape, index, &mut matrix, &mut vector));
        let layers = layers.collect::<Result<Vec<Layer>, E>>()?;
        let weight = Param::from_tensor(vector("model.norm.weight", shape.hidden)?);
        let norm = RmsNorm { weight, epsilon: shape.epsilon, unit_offset: shape.unit_offset };
        let lm_head = if shape.tied {
            None
        } else {
            Some(Param::from_tensor(matrix("lm_head.weight", [shape.hidden, shape.vocab])?))
        };
        let ropes = shape.ropes.iter().map(|rope| RopeTable::new(shape.context, rope)).collect();
        Ok(Self {
            embed_tokens: Param::from_tensor(embed),
            layers,
            norm,
            lm_head,
            config: config.clone(),
            architecture: shape,
            ropes,
            place: Place::default(),
            lora: None,
        })
    }

    /// Every matrix under Hugging Face's name, adapters excepted.
    pub(super) fn matrices(&self) -> Vec<(String, &Param<Tensor<2>>)> {
        let mut named = vec![("model.embed_tokens.weight".to_owned(), &self.embed_tokens)];
        named.extend(self.linears().into_iter().map(|(name, map)| (format!("{name}.weight"), &map.weight)));
        named.extend(self.lm_head.iter().map(|head| ("lm_head.weight".to_owned(), head)));
        named
    }

    /// Every vector (norms and biases) under Hugging Face's name.
    pub(super) fn vectors(&self) -> Vec<(String, &Param<Tensor<1>>)> {
        let mut named = Vec::new();
        for (name, map) in self.linears() {
            named.extend(map.bias.iter().map(|bias| (format!("{name}.bias"), bias)));
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let parts = [
                ("input_layernorm", Some(&layer.input_layernorm)),
                ("self_attn.q_norm", layer.self_attn.q_norm.as_ref()),
                ("self_attn.k_norm", layer.self_attn.k_norm.as_ref()),
                ("post_attention_layernorm", Some(&layer.post_attention_layernorm)),
                ("pre_feedforward_layernorm", layer.pre_feedforward_layernorm.as_ref()),
                ("post_feedforward_layernorm", layer.post_feedforward_layernorm.as_ref()),
            ];
            for (part, norm) in parts {
                named.extend(norm.map(|norm| (format!("model.layers.{index}.{part}.weight"), &norm.weight)));
            }
        }
        named.push(("model.norm.weight".to_owned(), &self.norm.weight));
        named
    }

    /// Every linear map of the layers under Hugging Face's name, such as `model.layers.0.self_attn.q_proj`.
    pub fn linears(&self) -> Vec<(String, &Linear)> {
        let mut named = Vec::new();
        for (index, Layer { self_attn, mlp, .. }) in self.layers.iter().enumerate() {
            let maps = [
                &self_attn.q_proj,
                &self_attn.k_proj,
                &self_attn.v_proj,
                &self_attn.o_proj,
                &mlp.gate_proj,
                &mlp.up_proj,
                &mlp.down_proj,
            ];
            named.extend(LINEARS.iter().zip(maps).map(|(part, map)| (format!("model.layers.{index}.{part}"), map)));
        }
        named
    }

    /// As [`Decoder::linears`], to change.
    pub(super) fn linears_mut(&mut self) -> Vec<(String, &mut Linear)> {
        let mut named = Vec::new();
        for (index, Layer { self_attn, mlp, .. }) in self.layers.iter_mut().enumerate() {
            let maps = [
                &mut self_attn.q_proj,
                &mut self_attn.k_proj,
                &mut self_attn.v_proj,
                &mut self_attn.o_proj,
                &mut mlp.gate_proj,
                &mut mlp.up_proj,
                &mut mlp.down_proj,
            ];
            named.extend(LINEARS.iter().zip(maps).map(|(part, map)| (format!("model.layers.{index}.{part}"), map)));
        }
        named
    }

    /// What the adapters are, where the model has some.
    pub fn lora(&self) -> Option<&LoraConfig> {
        self.lora.as_ref()
    }

    pub(super) fn set_lora(&mut self, lora: Option<LoraConfig>) {
        self.lora = lora;
    }

    /// The decoder with all its parameters learning, or none of them.
    pub(super) fn learning(&self, learns: bool) -> Self {
        self.clone().map(&mut Learning(learns))
    }

    /// What the model computes.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The shape of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The same decoder, to be trained and sampled at this place; its tensors stay where they are.
    #[must_use]
    pub fn at(self, place: &Place) -> Self {
        Self { place: place.clone(), ..self }
    }

    /// What trains and samples it.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The angles of each of the architecture's rotary embeddings.
    pub fn ropes(&self) -> &[RopeTable] {
        &self.ropes
    }

    /// Logits of the token after each position: [batch, seq] to [batch, seq, vocab].
    ///
    /// Causal, so that sequences padded on the right need no mask: what stands behind a position does not touch it.
    ///
    /// # Panics
    /// When `seq` exceeds `max_position_embeddings`.
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        self.logits(self.hidden(tokens))
    }

    /// The last hidden states, normed, before the head: [batch, seq] to [batch, seq, hidden].
    ///
    /// # Panics
    /// When `seq` exceeds `max_position_embeddings`.
    pub fn hidden(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [_, seq] = tokens.dims();
        let device = self.embed_tokens.val().device();
        let positions: Vec<usize> = (0..seq).collect();
        let rotations: Vec<_> = self.ropes.iter().map(|rope| rope.rotation(&positions, 1, &device)).collect();
        let mut biases: BTreeMap<Option<usize>, Tensor<4>> = BTreeMap::new();
        let mut x = embedding(self.embed_tokens.val(), tokens);
        if let Some(scale) = self.architecture.embed_scale {
            x = x * scale;
        }
        for (layer, &LayerKind { window, rope }) in self.layers.iter().zip(&self.architecture.layers) {
            let bias = biases.entry(window).or_insert_with(|| causal_bias(&self.architecture, window, seq, &device));
            x = layer.forward(x, &rotations[rope], bias.clone());
        }
        self.norm.forward(x)
    }

    /// The head alone: logits of hidden states, [.., hidden] to [.., vocab].
    pub fn logits<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        let weight = match &self.lm_head {
            Some(head) => head.val(),
            None => self.embed_tokens.val().transpose(),
        };
        linear(hidden, weight, None)
    }
}

/// One layer, its numbers asked for as [`Decoder::build`] says.
fn assemble_layer<E>(
    shape: &Architecture,
    index: usize,
    mut matrix: impl FnMut(&str, [usize; 2]) -> Result<Tensor<2>, E>,
    mut vector: impl FnMut(&str, usize) -> Result<Tensor<1>, E>,
) -> Result<Layer, E> {
    let (hidden, inner, queries, keys) = (shape.hidden, shape.inner, shape.heads * shape.head, shape.features());
    let name = |part: &str, kind: &str| format!("model.layers.{index}.{part}.{kind}");
    let mut vector = |part: &str, kind: &str, size| Ok(Param::from_tensor(vector(&name(part, kind), size)?));
    let mut linear = |part: &str, dims: [usize; 2], bias: bool| {
        let weight = Param::from_tensor(matrix(&name(part, "weight"), dims)?);
        let bias = if bias { Some(vector(part, "bias", dims[1])?) } else { None };
        Ok(Linear { weight, bias, adapter: None })
    };
    let q_proj = linear("self_attn.q_proj", [hidden, queries], shape.qkv_bias)?;
    let k_proj = linear("self_attn.k_proj", [hidden, keys], shape.qkv_bias)?;
    let v_proj = linear("self_attn.v_proj", [hidden, keys], shape.qkv_bias)?;
    let o_proj = linear("self_attn.o_proj", [queries, hidden], shape.out_bias)?;
    let mlp = Mlp {
        gate_proj: linear("mlp.gate_proj", [hidden, inner], shape.mlp_bias)?,
        up_proj: linear("mlp.up_proj", [hidden, inner], shape.mlp_bias)?,
        down_proj: linear("mlp.down_proj", [inner, hidden], shape.mlp_bias)?,
        activation: shape.activation,
    };
    let (epsilon, unit_offset) = (shape.epsilon, shape.unit_offset);
    let mut norm = |part: &str, size| Ok(RmsNorm { weight: vector(part, "weight", size)?, epsilon, unit_offset });
    let mut maybe = |wanted: bool, part: &str, size| if wanted { norm(part, size).map(Some) } else { Ok(None) };
    let q_norm = maybe(shape.qk_norm, "self_attn.q_norm", shape.head)?;
    let k_norm = maybe(shape.qk_norm, "self_attn.k_norm", shape.head)?;
    let pre_feedforward_layernorm = maybe(shape.post_norms, "pre_feedforward_layernorm", hidden)?;
    let post_feedforward_layernorm = maybe(shape.post_norms, "post_feedforward_layernorm", hidden)?;
    let (heads, kv_heads, query_scale) = (shape.heads, shape.kv_heads, shape.query_scale);
    Ok(Layer {
        input_layernorm: norm("input_layernorm", hidden)?,
        self_attn: Attention { q_proj, k_proj, v_proj, o_proj, q_norm, k_norm, heads, kv_heads, query_scale },
        post_attention_layernorm: norm("post_attention_layernorm", hidden)?,
        pre_feedforward_layernorm,
        post_feedforward_layernorm,
        mlp,
    })
}

/// The linear maps of a layer, in the order in which they are listed.
const LINEARS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// Sets whether parameters learn.
struct Learning(bool);

impl ModuleMapper for Learning {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.set_require_grad(self.0)
    }
}

/// The deviation of embeddings: small, so that a tied head begins with nearly even odds.
const EMBEDDING: f64 = 0.02;

/// Normal numbers from a seed.
struct Draw {
    rng: ChaCha8Rng,
}

impl Draw {
    /// Sums of twelve uniform numbers less six: as good as normal here and, without logarithm and cosine, the same to the
    /// bit on every machine.
    fn normal(&mut self, count: usize, deviation: f64) -> Vec<f32> {
        let mut one = || {
            let sum: u64 = (0..12).map(|_| u64::from(self.rng.next_u32())).sum();
            ((sum as f64 / f64::from(u32::MAX) - 6.0) * deviation) as f32
        };
        (0..count).map(|_| one()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::tests::tiny;

    fn logits(model: &Decoder, tokens: &[i32]) -> Vec<f32> {
        let device = Device::flex();
        let tokens = Tensor::from_data(TensorData::new(tokens.to_vec(), [1, tokens.len()]), &device);
        model.forward(tokens).try_into_vec_as().unwrap()
    }

    #[test]
    fn the_seed_alone_decides_the_weights() {
        let device = Device::flex();
        let tokens = [3, 4, 5];
        let first = logits(&Decoder::init(&tiny(), 7, &device).unwrap(), &tokens);
        assert_eq!(first, logits(&Decoder::init(&tiny(), 7, &device).unwrap(), &tokens));
        assert_ne!(first, logits(&Decoder::init(&tiny(), 8, &device).unwrap(), &tokens));
        assert_eq!(first.len(), 3 * tiny().vocab_size);
    }

    #[test]
    fn what_stands_behind_a_position_does_not_touch_it() {
        let model = Decoder::init(&tiny(), 1, &Device::flex()).unwrap();
        let size = 3 * tiny().vocab_size;
        assert_eq!(logits(&model, &[3, 4, 5, 6])[..size], logits(&model, &[3, 4, 5, 9])[..size]);
        assert_ne!(logits(&model, &[3, 4, 5])[..size], logits(&model, &[3, 9, 5])[..size]);
    }

    #[test]
    fn trains_on_an_autodiff_device() {
        let device = Device::flex().autodiff();
        let model = Decoder::init(&tiny(), 1, &device).unwrap();
        let tokens = Tensor::<2, Int>::from_data([[1, 2, 3], [4, 5, 6]], &device);
        let gradients = model.forward(tokens).square().mean().backward();
        let gradient = model.layers[0].self_attn.k_proj.weight.val().grad(&gradients).unwrap();
        assert!(gradient.abs().max().into_scalar::<f32>() > 0.0);
    }

    #[test]
    fn initial_weights_have_the_deviation_asked_for() {
        let values = Draw { rng: ChaCha8Rng::seed_from_u64(3) }.normal(20_000, 0.02);
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / 20_000.0;
        let variance = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 6e-4 && (variance.sqrt() - 0.02).abs() < 4e-4, "{mean} {variance}");
    }
}
