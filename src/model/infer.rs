//! The decoder made ready for inference: weights packed so that a step has few operations, keys and values kept.

use burn::module::Module;
use burn::tensor::activation::{silu, softmax};
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::decoder::Decoder;
use super::kv::KvBatch;
use super::layer::{HIDDEN, Layer};
use super::rope::RopeTable;

/// A decoder's weights for inference. The norms' scales are multiplied into the projections behind them.
#[derive(Debug)]
pub struct Inference {
    embed: Tensor<2>, // [vocab, hidden]
    layers: Vec<Packed>,
    head: Tensor<2>, // [hidden, vocab]
    rope: RopeTable,
    shape: Shape,
    device: Device,
}

#[derive(Debug)]
struct Packed {
    qkv: Tensor<2>,     // [hidden, (heads + 2 kv_heads) * head]
    out: Tensor<2>,     // [heads * head, hidden]
    gate_up: Tensor<2>, // [hidden, 2 intermediate]
    down: Tensor<2>,    // [intermediate, hidden]
}

/// The numbers that an inference step needs.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// The size of a head.
    pub head: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// The longest sequence.
    pub context: usize,
    intermediate: usize,
    epsilon: f64,
}

impl Shape {
    /// Numbers in one token's keys in one layer, and in its values.
    pub fn features(&self) -> usize {
        self.kv_heads * self.head
    }
}

impl Inference {
    /// Packs a decoder's weights.
    pub fn new(decoder: &Decoder) -> Self {
        let decoder = decoder.valid();
        let config = decoder.config();
        let shape = Shape {
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            kv_heads: config.kv_heads(),
            head: config.head_size(),
            vocab: config.vocab_size,
            context: config.max_position_embeddings,
            intermediate: config.intermediate_size,
            epsilon: config.rms_norm_eps,
        };
        let embed = decoder.embed_tokens.val();
        let head = match &decoder.lm_head {
            Some(head) => head.val(),
            None => embed.clone().transpose(),
        };
        Self {
            device: embed.device(),
            layers: decoder.layers.iter().map(pack).collect(),
            head: scale_rows(head, decoder.norm.weight.val()),
            rope: decoder.ropes()[0].clone(),
            embed,
            shape,
        }
    }

    /// The numbers of the model.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The device that it computes on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Encodes new tokens of every row of a batch and gives the logits after each row's last one, [rows, vocab] flat.
    ///
    /// Every row needs at least one new token, and room for them in the batch. The rows are no longer than before until the
    /// caller counts the tokens in with [`KvBatch::grow`]. A token's keys, values and logits depend to the bit on the tokens before
    /// it alone: not on the other rows, on how the tokens were cut into calls, or on the number of threads.
    pub fn extend(&self, batch: &mut KvBatch, tokens: &[Vec<u32>]) -> Vec<f32> {
        let work = Work::new(self, batch, tokens);
        let mut x = self.embed.clone().select(0, work.ids.clone()); // [tokens, hidden]
        for (index, layer) in self.layers.iter().enumerate() {
            let qkv = product(self.norm(x.clone()), layer.qkv.clone());
            let (q, kv) = work.turn(&self.shape, qkv);
            let mixed = match &work.kind {
                Kind::Single(single) => self.attend_single(batch, index, q, kv, single),
                Kind::Rows(rows) => self.attend_rows(batch, index, q, kv, rows),
            };
            x = x + product(mixed, layer.out.clone());
            let gate_up = product(self.norm(x.clone()), layer.gate_up.clone());
            let inner = self.shape.intermediate;
            let gated = silu(gate_up.clone().narrow(1, 0, inner)) * gate_up.narrow(1, inner, inner);
            x = x + product(gated, layer.down.clone());
        }
        let last = match work.kind {
            Kind::Single(_) => x,
            Kind::Rows(rows) => x.select(0, rows.last),
        }; // [rows, hidden]
        let logits = product(self.norm(last), self.head.clone());
        logits.try_into_vec_as::<f32>().expect("logits are f32 and the device answers")
    }

    fn norm(&self, x: Tensor<2>) -> Tensor<2> {
        let scale = (x.clone().square().mean_dim(1) + self.shape.epsilon).sqrt();
        x / scale
    }

    /// One new token in every row: all rows at once, behind a bias that hides what lies beyond a row's length.
    fn attend_single(
        &self,
        batch: &mut KvBatch,
        layer: usize,
        q: Tensor<3>,
        kv: [Tensor<2>; 2],
        work: &Single,
    ) -> Tensor<2> {
        let Shape { heads, kv_heads, head, .. } = self.shape;
        let rows = batch.rows();
        batch.write_single(layer, kv, work.columns.clone(), work.places.clone());
        let q = q.reshape([rows, kv_heads, heads / kv_heads, head]);
        let [keys, values] = batch.view(layer, work.width);
        let scores = product(q, keys) + work.bias.clone(); // [rows, kv_heads, group, width]
        product(softmax(scores, 3), values).reshape([rows, heads * head])
    }

    /// Several new tokens: piece by piece of every row, so that hardly anything is computed on padding or on what is hidden.
    fn attend_rows(
        &self,
        batch: &mut KvBatch,
        layer: usize,
        q: Tensor<3>,
        kv: [Tensor<2>; 2],
        work: &Rows,
    ) -> Tensor<2> {
        let Shape { heads, kv_heads, head, .. } = self.shape;
        let group = heads / kv_heads;
        for (row, &(start, count)) in work.spans.iter().enumerate() {
            batch.write_row(layer, row, kv.clone().map(|part| part.narrow(0, start, count)));
        }
        let mixed = work.pieces.iter().map(|piece| {
            let count = piece.count;
            let q = q.clone().narrow(0, piece.start, count).reshape([count, kv_heads, group, head]);
            let q = q.permute([1, 2, 0, 3]).reshape([1, kv_heads, group * count, head]);
            let [keys, values] = batch.view_row(layer, piece.row, piece.width);
            let scores = product(q, keys) + piece.bias.clone();
            let part = product(softmax(scores, 3), values).reshape([kv_heads, group, count, head]);
            part.permute([2, 0, 1, 3]).reshape([count, heads * head])
        });
        Tensor::cat(mixed.collect(), 0)
    }
}

/// The most terms that one call of a matrix kernel adds up. Up to here every kernel adds them one after the other; beyond, how
/// many they take at a time depends on how many rows there are, and so would the last bits.
const TERMS: usize = 512;

/// The product of two matrices, every row of it the same to the bit whatever rows stand beside it. Columns of zeros at the end
/// of `a` change nothing either, so that it does not matter how far beyond a row's length attention looks.
fn product<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    let terms = a.dims()[D - 1];
    if terms <= TERMS {
        return a.matmul(b);
    }
    let part = |start: usize| {
        let count = TERMS.min(terms - start);
        a.clone().narrow(D - 1, start, count).matmul(b.clone().narrow(D - 2, start, count))
    };
    (TERMS..terms).step_by(TERMS).fold(part(0), |sum, start| sum + part(start))
}

fn pack(layer: &Layer) -> Packed {
    let (attention, mlp) = (&layer.self_attn, &layer.mlp);
    let qkv = [&attention.q_proj, &attention.k_proj, &attention.v_proj].map(|map| map.weight.val());
    let gate_up = [&mlp.gate_proj, &mlp.up_proj].map(|map| map.weight.val());
    Packed {
        qkv: scale_rows(Tensor::cat(qkv.to_vec(), 1), layer.input_layernorm.weight.val()),
        out: attention.o_proj.weight.val(),
        gate_up: scale_rows(Tensor::cat(gate_up.to_vec(), 1), layer.post_attention_layernorm.weight.val()),
        down: mlp.down_proj.weight.val(),
    }
}

fn scale_rows(matrix: Tensor<2>, scale: Tensor<1>) -> Tensor<2> {
    matrix * scale.unsqueeze_dim(1)
}

/// What one step needs beside weights and cache, the same for every layer.
struct Work {
    ids: Tensor<1, Int>,
    cos: Tensor<3>, // [tokens, heads + 2 kv_heads, head]
    sin: Tensor<3>,
    kind: Kind,
}

enum Kind {
    Single(Box<Single>),
    Rows(Box<Rows>),
}

/// One new token in every row.
struct Single {
    columns: Tensor<2, Int>, // [rows * features, 1]: where the keys go
    places: Tensor<1, Int>,  // [rows]: where the values go
    bias: Tensor<4>,         // [rows, 1, 1, width]
    width: usize,
}

/// Several new tokens in some row.
struct Rows {
    spans: Vec<(usize, usize)>, // each row's first token among the new ones, and how many it has
    pieces: Vec<Piece>,         // in the order of the tokens
    last: Tensor<1, Int>,       // [rows]: each row's last token among the new ones
}

/// Some consecutive new tokens of one row.
struct Piece {
    row: usize,
    start: usize, // among all new tokens
    count: usize,
    width: usize,    // how many tokens the last one sees
    bias: Tensor<4>, // [1, 1, group * count, width]
}

/// The most tokens in a piece: what a piece computes and hides again is half its square.
const PIECE: usize = 64;

/// Keys are looked at in steps of this many, so that few shapes occur.
const STEP: usize = 32;

impl Work {
    fn new(model: &Inference, batch: &KvBatch, tokens: &[Vec<u32>]) -> Self {
        let device = &model.device;
        let counts: Vec<usize> = tokens.iter().map(Vec::len).collect();
        assert!(counts.len() == batch.rows() && !counts.contains(&0), "every row of the batch needs a new token");
        let span = |(row, &count): (usize, &usize)| batch.length(row)..batch.length(row) + count;
        let positions: Vec<usize> = counts.iter().enumerate().flat_map(span).collect();
        let (cos, sin) = model.rope.packed(&positions, &model.shape);
        let shape = [positions.len(), model.shape.heads + 2 * model.shape.kv_heads, model.shape.head];
        Self {
            ids: ints(tokens.iter().flatten().map(|&id| i64::from(id)).collect(), device),
            cos: Tensor::from_data(TensorData::new(cos, shape), device),
            sin: Tensor::from_data(TensorData::new(sin, shape), device),
            kind: if counts.iter().all(|&count| count == 1) {
                Kind::Single(Box::new(Single::new(model, batch)))
            } else {
                Kind::Rows(Box::new(Rows::new(model, batch, &counts)))
            },
        }
    }

    /// Turns queries and keys by their positions: queries [tokens, heads, head], keys and values [tokens, features].
    fn turn(&self, shape: &Shape, qkv: Tensor<2>) -> (Tensor<3>, [Tensor<2>; 2]) {
        let [tokens, _] = qkv.dims();
        let (all, half) = (shape.heads + 2 * shape.kv_heads, shape.head / 2);
        let x = qkv.reshape([tokens, all, shape.head]);
        let swapped = Tensor::cat(vec![x.clone().narrow(2, half, half), x.clone().narrow(2, 0, half)], 2);
        let turned = x * self.cos.clone() + swapped * self.sin.clone();
        let part = |start| turned.clone().narrow(1, start, shape.kv_heads).reshape([tokens, shape.features()]);
        let kv = [part(shape.heads), part(shape.heads + shape.kv_heads)];
        (turned.clone().narrow(1, 0, shape.heads), kv)
    }
}

impl Single {
    fn new(model: &Inference, batch: &KvBatch) -> Self {
        let (rows, features) = (batch.rows(), model.shape.features());
        let lengths: Vec<usize> = (0..rows).map(|row| batch.length(row)).collect();
        let longest = lengths.iter().max().map_or(0, |longest| longest + 1);
        let width = longest.next_multiple_of(STEP).min(batch.capacity());
        let columns = lengths.iter().flat_map(|&length| std::iter::repeat_n(length as i64, features)).collect();
        let places = lengths.iter().enumerate().map(|(row, &length)| (row * batch.capacity() + length) as i64);
        let mut bias = vec![0.0_f32; rows * width];
        for (columns, &length) in bias.chunks_mut(width).zip(&lengths) {
            columns[length + 1..].fill(HIDDEN);
        }
        Self {
            columns: ints(columns, &model.device).reshape([rows * features, 1]),
            places: ints(places.collect(), &model.device),
            bias: Tensor::from_data(TensorData::new(bias, [rows, 1, 1, width]), &model.device),
            width,
        }
    }
}

impl Rows {
    fn new(model: &Inference, batch: &KvBatch, counts: &[usize]) -> Self {
        let group = model.shape.heads / model.shape.kv_heads;
        let (mut spans, mut pieces, mut start) = (Vec::new(), Vec::new(), 0);
        for (row, &count) in counts.iter().enumerate() {
            spans.push((start, count));
            for from in (0..count).step_by(PIECE) {
                let (length, count) = (batch.length(row) + from, PIECE.min(count - from));
                let bias = row_bias(length, count, group, &model.device);
                pieces.push(Piece { row, start: start + from, count, width: length + count, bias });
            }
            start += count;
        }
        let last = spans.iter().map(|&(start, count)| (start + count - 1) as i64).collect();
        Self { last: ints(last, &model.device), spans, pieces }
    }
}

fn ints(values: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

/// [1, 1, group * count, length + count]: hides from each new token those behind it.
fn row_bias(length: usize, count: usize, group: usize, device: &Device) -> Tensor<4> {
    let width = length + count;
    let mut values = vec![0.0_f32; group * count * width];
    for (index, columns) in values.chunks_mut(width).enumerate() {
        columns[length + index % count + 1..].fill(HIDDEN);
    }
    Tensor::from_data(TensorData::new(values, [1, 1, group * count, width]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::tests::tiny;
    use crate::model::prefix::PrefixCache;

    /// A model of the quickstart's size: large enough for the matrix kernels that real models meet.
    fn quickstart() -> crate::model::ModelConfig {
        crate::model::ModelConfig {
            hidden_size: 128,
            intermediate_size: 352,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            num_key_value_heads: Some(4),
            vocab_size: 1_200,
            rope_theta: 1_000.0,
            max_position_embeddings: 768,
            ..tiny()
        }
    }

    /// The bits of the logits of every step, row by row: the prompts first, then one fixed token after the other.
    fn steps(
        model: &Inference,
        prompts: &[Vec<u32>],
        rows: &[usize],
        capacity: usize,
        prefixes: &mut PrefixCache,
    ) -> Vec<Vec<u32>> {
        let known: Vec<_> = rows.iter().map(|&row| prefixes.find(&prompts[row][..prompts[row].len() - 1])).collect();
        let mut batch = KvBatch::new(model.shape(), capacity, &known, model.device());
        let rest = |(place, &row): (usize, &usize)| prompts[row][batch.length(place)..].to_vec();
        let mut tokens: Vec<Vec<u32>> = rows.iter().enumerate().map(rest).collect();
        let mut seen = vec![Vec::new(); rows.len()];
        for step in 0..3 {
            let logits = model.extend(&mut batch, &tokens);
            for (place, logits) in logits.chunks(model.shape().vocab).enumerate() {
                seen[place].extend(logits.iter().map(|logit| logit.to_bits()));
                batch.grow(place, tokens[place].len());
                tokens[place] = vec![step * 7 + rows[place] as u32];
            }
        }
        let host = batch.into_host();
        for (place, &row) in rows.iter().enumerate() {
            prefixes.insert(&prompts[row], |token| host.block(place, token));
        }
        seen
    }

    #[test]
    fn a_row_has_the_same_logits_to_the_bit_in_any_company_and_with_any_memory() {
        let model = Inference::new(&Decoder::init(&quickstart(), 1, &Device::flex()).unwrap());
        let prompts: Vec<Vec<u32>> =
            (0..20).map(|row| (0..30 + 5 * row).map(|index| (index * 7919 + row * 31) % 1_200).collect()).collect();
        let mut prefixes = PrefixCache::new(1 << 30);
        let all: Vec<usize> = (0..20).collect();
        let together = steps(&model, &prompts, &all, 160, &mut prefixes);
        assert!(prefixes.bytes() > 0);
        assert_eq!(together, steps(&model, &prompts, &all, 144, &mut prefixes));
        for row in [0, 7, 19] {
            let mut forgetful = PrefixCache::new(0);
            assert_eq!(together[row], steps(&model, &prompts, &[row], 176, &mut forgetful)[0]);
            assert_eq!(together[row], steps(&model, &prompts, &[row, 3], 144, &mut forgetful)[0]);
        }
    }

    /// The bits of one row's last logits, and of its keys and values, when its tokens come in the given parts, beside rows
    /// that take in all but their last `parts - 1` tokens at first and one more with each further part.
    fn in_parts(model: &Inference, parts: &[&[u32]], beside: &[&[u32]]) -> (Vec<u32>, Vec<u32>) {
        let mut batch = KvBatch::new(model.shape(), 752, &vec![Vec::new(); 1 + beside.len()], model.device());
        let mut last = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let begun = |ids: &&[u32]| match ids.len() - (parts.len() - 1) {
                begun if index == 0 => ids[..begun].to_vec(),
                begun => vec![ids[begun + index - 1]],
            };
            let tokens: Vec<Vec<u32>> = std::iter::once(part.to_vec()).chain(beside.iter().map(begun)).collect();
            let logits = model.extend(&mut batch, &tokens);
            last = logits[..model.shape().vocab].iter().map(|logit| logit.to_bits()).collect();
            for (row, tokens) in tokens.iter().enumerate() {
                batch.grow(row, tokens.len());
            }
        }
        let blocks = batch.length(0) / crate::model::prefix::BLOCK;
        let host = batch.into_host();
        let kept = (0..blocks).flat_map(|block| host.block(0, block * crate::model::prefix::BLOCK));
        (last, kept.map(f32::to_bits).collect())
    }

    #[test]
    fn a_long_row_in_a_wide_model_is_the_same_to_the_bit_however_it_is_cut_and_whatever_stands_beside_it() {
        let config = crate::model::ModelConfig {
            hidden_size: 528,
            intermediate_size: 1_100,
            num_hidden_layers: 2,
            num_attention_heads: 6,
            num_key_value_heads: Some(3),
            vocab_size: 300,
            ..quickstart()
        };
        let model = Inference::new(&Decoder::init(&config, 1, &Device::flex()).unwrap());
        let ids: Vec<u32> = (0..720).map(|index| (index * index + 31 * index) % 300).collect();
        let row = &ids[..600];
        let whole = in_parts(&model, &[row], &[]);
        let cut = |places: &[usize]| -> Vec<&[u32]> {
            let starts = std::iter::once(0).chain(places.iter().copied());
            starts.zip(places.iter().copied().chain([600])).map(|(start, end)| &row[start..end]).collect()
        };
        for places in [&[16, 500][..], &[511, 512, 513], &[597, 598, 599]] {
            assert!(whole == in_parts(&model, &cut(places), &[]), "cut at {places:?}");
            assert!(
                whole == in_parts(&model, &cut(places), &[&ids[20..700], &ids[5..9]]),
                "cut at {places:?}, in company"
            );
        }
        assert!(whole == in_parts(&model, &[row], &[&ids[1..], &ids[3..4]]), "in company");
        let short = [&row[..98], &row[98..99], &row[99..100]];
        assert!(in_parts(&model, &short, &[]) == in_parts(&model, &short, &[&ids, &ids[5..9]]), "beside a longer one");
    }
}
