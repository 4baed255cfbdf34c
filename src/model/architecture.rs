//! What a decoder computes, whatever family asked for it: the one description that training, inference and every device read.

/// The computation of a decoder, apart from its weights.
///
/// A family (Llama, Qwen, Gemma) is a mapping from its `config.json` to this: see [`crate::model::ModelConfig::architecture`].
/// Everything that computes reads this and never a family's name.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// The longest sequence, in tokens.
    pub context: usize,
    /// The size of a token's vector.
    pub hidden: usize,
    /// The inner size of the feed-forward block.
    pub inner: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// The size of a head.
    pub head: usize,
    /// What keeps a root mean square from zero.
    pub epsilon: f64,
    /// Whether norms scale by 1 + weight instead of by the weight (Gemma).
    pub unit_offset: bool,
    /// The activation of the feed-forward block.
    pub activation: Activation,
    /// What queries are multiplied by before they meet keys: usually 1/sqrt(head).
    pub query_scale: f64,
    /// What embeddings are multiplied by (Gemma: sqrt(hidden)).
    pub embed_scale: Option<f64>,
    /// Whether the output head is the transposed embedding.
    pub tied: bool,
    /// Whether the projections to queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the projection out of attention has a bias.
    pub out_bias: bool,
    /// Whether the projections of the feed-forward block have biases.
    pub mlp_bias: bool,
    /// Whether the heads of queries and keys are normed before they are turned.
    pub qk_norm: bool,
    /// Whether the outputs of attention and feed-forward block are normed before they join the residual stream (Gemma).
    pub post_norms: bool,
    /// The rotary embeddings that layers choose from.
    pub ropes: Vec<Rope>,
    /// Each layer's attention, first to last.
    pub layers: Vec<LayerKind>,
}

/// How a layer attends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerKind {
    /// How many tokens a query sees, itself included; `None` sees all before it.
    pub window: Option<usize>,
    /// Which of [`Architecture::ropes`] turns queries and keys.
    pub rope: usize,
}

/// A rotary embedding: pair `i` of a head turns by `position * frequencies[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Radians a position, half as many as a head is wide; scaling is already in them.
    pub frequencies: Vec<f64>,
    /// What cosines and sines are multiplied by: 1 except for YaRN.
    pub magnitude: f64,
}

impl Rope {
    /// The unscaled embedding of base `theta` for heads of size `head`: `theta^(-2i/head)`.
    pub fn plain(head: usize, theta: f64) -> Self {
        let frequencies = (0..head / 2).map(|i| theta.powf(-2.0 * i as f64 / head as f64)).collect();
        Self { frequencies, magnitude: 1.0 }
    }
}

/// The activation of a gated feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`: the block is a SwiGLU.
    Silu,
    /// GELU by its tanh approximation: the block is a GeGLU.
    GeluTanh,
}

impl Architecture {
    /// Numbers in one token's keys in one layer, and in its values.
    pub fn features(&self) -> usize {
        self.kv_heads * self.head
    }

    /// How many query heads share a key head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// How many numbers there are to learn, adapters excepted; the largest number that there is where they are more.
    pub fn parameters(&self) -> usize {
        // Wide enough for any numbers that a file may claim.
        let [hidden, inner, heads, kv_heads, head, vocab] =
            [self.hidden, self.inner, self.heads, self.kv_heads, self.head, self.vocab].map(|size| size as u128);
        let (queries, keys) = (heads * head, kv_heads * head);
        let bias = |there: bool, size: u128| if there { size } else { 0 };
        let attention = hidden * (2 * queries + 2 * keys)
            + bias(self.qkv_bias, queries + 2 * keys)
            + bias(self.out_bias, hidden)
            + bias(self.qk_norm, 2 * head);
        let feed_forward = 3 * hidden * inner + bias(self.mlp_bias, 2 * inner + hidden);
        let norms = if self.post_norms { 4 } else { 2 } * hidden;
        let embeddings = if self.tied { 1 } else { 2 } * vocab * hidden;
        let all = embeddings + self.layers.len() as u128 * (attention + feed_forward + norms) + hidden;
        usize::try_from(all).unwrap_or(usize::MAX)
    }
}
