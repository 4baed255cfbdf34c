//! Inference on the processor: packed weights, paged keys and values, every sum in one order.

use burn::module::Module;
use burn::tensor::Tensor;
use thresh_kernels::{self as kernels, Heads, Keys, Matrix, Packed, Query};

use super::{Answer, Executor, ExecutorError, Layout, PAGE, Row, Want};
use crate::model::Decoder;
use crate::model::architecture::{Activation, Architecture, LayerKind};
use crate::model::layer::{self, RmsNorm};
use crate::model::linear::Linear;
use crate::model::rope::RopeTable;
use crate::model::sample::Draw;

/// The most sequences of one call.
const ROWS: usize = 64;

/// The most new tokens of one call: what they need beside keys and values stays small.
const TOKENS: usize = 512;

/// How many sequences of full length are remembered at most, for each that may run.
const REMEMBERED: usize = 16;

/// A decoder on the processor.
#[derive(Debug)]
pub struct HostExecutor {
    shape: Architecture,
    layout: Layout,
    embed: Vec<f32>, // [vocab, hidden]
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Packed,
    ropes: Vec<RopeTable>,
    /// All layers' keys and values of every page; memory is taken when a page is first written.
    pool: Vec<Box<[f32]>>,
}

/// A layer's weights; adapters are merged.
#[derive(Debug)]
struct Layer {
    input_norm: Vec<f32>,
    qkv: Map,
    q_norm: Option<Vec<f32>>,
    k_norm: Option<Vec<f32>>,
    out: Map,
    /// Behind attention, where there are post norms.
    attention_norm: Option<Vec<f32>>,
    mlp_norm: Vec<f32>,
    gate_up: Map,
    down: Map,
    /// Behind the feed-forward block, where there are post norms.
    post_norm: Option<Vec<f32>>,
}

/// Linear maps side by side.
#[derive(Debug)]
struct Map {
    weights: Packed,
    bias: Vec<f32>, // empty where there is none
}

impl HostExecutor {
    /// A decoder's weights, packed, and room for about `bytes` of keys and values: for one sequence of full length at least.
    ///
    /// # Errors
    /// When the weights cannot be read.
    pub fn new(decoder: &Decoder, bytes: usize) -> Result<Self, ExecutorError> {
        let decoder = decoder.valid();
        let shape = decoder.architecture().clone();
        let page = shape.layers.len() * heads(&shape).page() * size_of::<f32>();
        // Beyond a few times what all rows can hold, memory would only be counted.
        let whole = shape.context.div_ceil(PAGE);
        let most = whole.saturating_mul(ROWS * REMEMBERED).min(u32::MAX as usize);
        let pages = (bytes / page.max(1)).min(most).max(whole);
        let layout = Layout { vocab: shape.vocab, context: shape.context, pages, rows: ROWS, tokens: TOKENS, ahead: 1 };
        let embed = numbers(decoder.embed_tokens.val())?;
        let (inputs, outputs) = (shape.hidden, shape.vocab);
        let head = match &decoder.lm_head {
            Some(head) => Packed::new(&[Matrix { values: &numbers(head.val())?, inputs, outputs, turned: false }]),
            None => Packed::new(&[Matrix { values: &embed, inputs, outputs, turned: true }]),
        };
        let layers = decoder.layers.iter().map(Layer::new).collect::<Result<_, _>>()?;
        let (norm, ropes) = (scale(&decoder.norm)?, decoder.ropes().to_vec());
        Ok(Self { shape, layout, embed, layers, norm, head, ropes, pool: Vec::new() })
    }

    /// At most so many sequences and new tokens a call.
    #[must_use]
    pub fn within(mut self, rows: usize, tokens: usize) -> Self {
        (self.layout.rows, self.layout.tokens) = (rows.max(1), tokens.max(1));
        self
    }

    fn check(&self, rows: &[Row]) -> Result<(), ExecutorError> {
        let impossible = |row: &&Row| {
            let end = row.past + row.tokens.len();
            row.tokens.is_empty()
                || end > self.layout.context
                || row.pages.len() * PAGE < end
                || row.pages.iter().any(|&page| page as usize >= self.layout.pages)
                || row.tokens.iter().any(|&id| id as usize >= self.layout.vocab)
                || matches!(row.want, Want::Tokens { .. })
        };
        match rows.iter().find(impossible) {
            Some(row) => Err(ExecutorError::Device(format!("a row asks for what there is not: {row:?}"))),
            None => Ok(()),
        }
    }

    /// Takes memory for pages that are used for the first time.
    fn grow(&mut self, rows: &[Row]) {
        let last = rows.iter().flat_map(|row| row.pages).max().map_or(0, |page| *page as usize + 1);
        let size = self.layers.len() * heads(&self.shape).page();
        while self.pool.len() < last {
            self.pool.push(vec![0.0; size].into());
        }
    }

    /// The layers over all new tokens: [tokens, hidden].
    fn hidden(&mut self, rows: &[Row]) -> Vec<f32> {
        let Self { shape, layers, embed, ropes, pool, .. } = self;
        let mut x = Vec::new();
        for id in rows.iter().flat_map(|row| row.tokens) {
            x.extend_from_slice(&embed[*id as usize * shape.hidden..(*id as usize + 1) * shape.hidden]);
        }
        if let Some(factor) = shape.embed_scale {
            kernels::scale(&mut x, factor as f32);
        }
        let mut work = Work::new(shape, x.len() / shape.hidden);
        for (index, (layer, kind)) in layers.iter().zip(&shape.layers).enumerate() {
            let offset = index * heads(shape).page();
            kernels::norm(&x, &layer.input_norm, shape.epsilon as f32, &mut work.normed);
            layer.qkv.apply(&work.normed, &mut work.qkv);
            place(shape, layer, &ropes[kind.rope], rows, &mut work.qkv, pool, offset);
            attend(shape, kind, rows, &work.qkv, Keys { pool, offset }, &mut work.mixed);
            layer.out.apply(&work.mixed, &mut work.back);
            work.join(&mut x, layer.attention_norm.as_deref(), shape);
            kernels::norm(&x, &layer.mlp_norm, shape.epsilon as f32, &mut work.normed);
            layer.gate_up.apply(&work.normed, &mut work.gate_up);
            kernels::gate(&work.gate_up, shape.inner, activation(shape.activation), &mut work.gated);
            layer.down.apply(&work.gated, &mut work.back);
            work.join(&mut x, layer.post_norm.as_deref(), shape);
        }
        x
    }

    /// The logits behind the last token of every row that wants them, row by row.
    fn logits(&self, rows: &[Row], x: &[f32]) -> Vec<f32> {
        let hidden = self.shape.hidden;
        let (mut last, mut end) = (Vec::new(), 0);
        for row in rows {
            end += row.tokens.len();
            if !matches!(row.want, Want::Nothing) {
                last.extend_from_slice(&x[(end - 1) * hidden..end * hidden]);
            }
        }
        let mut normed = vec![0.0; last.len()];
        kernels::norm(&last, &self.norm, self.shape.epsilon as f32, &mut normed);
        let mut logits = vec![0.0; last.len() / hidden * self.shape.vocab];
        kernels::product(&normed, &self.head, &[], &mut logits);
        logits
    }
}

impl Executor for HostExecutor {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn draws(&self, _: &Draw) -> bool {
        false
    }

    fn run(&mut self, rows: &[Row]) -> Result<Vec<Answer>, ExecutorError> {
        self.check(rows)?;
        self.grow(rows);
        let x = self.hidden(rows);
        let logits = self.logits(rows, &x);
        let mut logits = logits.chunks_exact(self.shape.vocab);
        let answer = |row: &Row| match row.want {
            Want::Nothing => Answer::Nothing,
            _ => Answer::Logits(logits.next().expect("a row of logits for each that wants them").to_vec()),
        };
        Ok(rows.iter().map(answer).collect())
    }
}

/// What a call computes and forgets, one row a token.
struct Work {
    normed: Vec<f32>,
    qkv: Vec<f32>,
    mixed: Vec<f32>,
    back: Vec<f32>,
    gate_up: Vec<f32>,
    gated: Vec<f32>,
}

impl Work {
    fn new(shape: &Architecture, tokens: usize) -> Self {
        let rows = |size: usize| vec![0.0; tokens * size];
        Self {
            normed: rows(shape.hidden),
            qkv: rows(shape.heads * shape.head + 2 * shape.features()),
            mixed: rows(shape.heads * shape.head),
            back: rows(shape.hidden),
            gate_up: rows(2 * shape.inner),
            gated: rows(shape.inner),
        }
    }

    /// Adds what a block gave to the residual stream, behind its norm where there is one.
    fn join(&mut self, x: &mut [f32], norm: Option<&[f32]>, shape: &Architecture) {
        match norm {
            Some(scale) => {
                kernels::norm(&self.back, scale, shape.epsilon as f32, &mut self.normed);
                kernels::add(x, &self.normed);
            }
            None => kernels::add(x, &self.back),
        }
    }
}

/// Norms and turns the queries and keys of all new tokens, and writes keys and values to their pages.
fn place(
    shape: &Architecture,
    layer: &Layer,
    rope: &RopeTable,
    rows: &[Row],
    qkv: &mut [f32],
    pool: &mut [Box<[f32]>],
    offset: usize,
) {
    let (queries, features) = (shape.heads * shape.head, shape.features());
    let positions = rows.iter().flat_map(|row| (row.past..row.past + row.tokens.len()).map(move |at| (row, at)));
    for (numbers, (row, position)) in qkv.chunks_exact_mut(queries + 2 * features).zip(positions) {
        let (q, kv) = numbers.split_at_mut(queries);
        let (k, v) = kv.split_at_mut(features);
        for (heads, scale) in [(&mut *q, &layer.q_norm), (&mut *k, &layer.k_norm)] {
            if let Some(scale) = scale {
                kernels::norm_here(heads, scale, shape.epsilon as f32);
            }
        }
        let (cos, sin) = rope.at(position);
        kernels::rotate(q, cos, sin, shape.query_scale as f32);
        kernels::rotate(k, cos, sin, 1.0);
        let page = &mut pool[row.pages[position / PAGE] as usize];
        kernels::keep(page, offset, heads(shape), position % PAGE, k, v);
    }
}

/// Lets every new token look at those before it.
fn attend(shape: &Architecture, kind: &LayerKind, rows: &[Row], qkv: &[f32], keys: Keys, mixed: &mut [f32]) {
    let ends =
        rows.iter().flat_map(|row| (row.past + 1..=row.past + row.tokens.len()).map(move |end| (row.pages, end)));
    let query = |(pages, end): (_, usize)| Query { pages, first: end.saturating_sub(kind.window.unwrap_or(end)), end };
    let queries: Vec<Query> = ends.map(query).collect();
    kernels::attend(qkv, shape.heads * shape.head + 2 * shape.features(), heads(shape), keys, &queries, mixed);
}

fn heads(shape: &Architecture) -> Heads {
    Heads { heads: shape.heads, kv_heads: shape.kv_heads, head: shape.head }
}

fn activation(activation: Activation) -> kernels::Activation {
    match activation {
        Activation::Silu => kernels::Activation::Silu,
        Activation::GeluTanh => kernels::Activation::GeluTanh,
    }
}

impl Layer {
    fn new(layer: &layer::Layer) -> Result<Self, ExecutorError> {
        let (attention, mlp) = (&layer.self_attn, &layer.mlp);
        let maybe = |norm: &Option<RmsNorm>| norm.as_ref().map(scale).transpose();
        let behind_attention = scale(&layer.post_attention_layernorm)?;
        let (attention_norm, mlp_norm) = match maybe(&layer.pre_feedforward_layernorm)? {
            Some(before) => (Some(behind_attention), before),
            None => (None, behind_attention),
        };
        Ok(Self {
            input_norm: scale(&layer.input_layernorm)?,
            qkv: Map::new(&[&attention.q_proj, &attention.k_proj, &attention.v_proj])?,
            q_norm: maybe(&attention.q_norm)?,
            k_norm: maybe(&attention.k_norm)?,
            out: Map::new(&[&attention.o_proj])?,
            attention_norm,
            mlp_norm,
            gate_up: Map::new(&[&mlp.gate_proj, &mlp.up_proj])?,
            down: Map::new(&[&mlp.down_proj])?,
            post_norm: maybe(&layer.post_feedforward_layernorm)?,
        })
    }
}

impl Map {
    /// Maps of the same input, side by side, adapters merged into their weights.
    fn new(maps: &[&Linear]) -> Result<Self, ExecutorError> {
        let (mut parts, mut bias) = (Vec::new(), Vec::new());
        for map in maps {
            let weight = match &map.adapter {
                Some(adapter) => map.weight.val() + adapter.a.val().matmul(adapter.b.val()) * adapter.scale,
                None => map.weight.val(),
            };
            parts.push((numbers(weight)?, map.dims()));
            match &map.bias {
                Some(own) => bias.extend(numbers(own.val())?),
                None => bias.resize(bias.len() + map.dims()[1], 0.0),
            }
        }
        if maps.iter().all(|map| map.bias.is_none()) {
            bias.clear();
        }
        let matrices: Vec<Matrix> = parts
            .iter()
            .map(|(values, [inputs, outputs])| Matrix { values, inputs: *inputs, outputs: *outputs, turned: false })
            .collect();
        Ok(Self { weights: Packed::new(&matrices), bias })
    }

    fn apply(&self, x: &[f32], out: &mut [f32]) {
        kernels::product(x, &self.weights, &self.bias, out);
    }
}

fn scale(norm: &RmsNorm) -> Result<Vec<f32>, ExecutorError> {
    numbers(norm.scale())
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ExecutorError> {
    tensor.try_into_vec_as::<f32>().map_err(|error| ExecutorError::Device(format!("{error:?}")))
}

#[cfg(test)]
#[path = "host_tests.rs"]
pub(crate) mod tests;
