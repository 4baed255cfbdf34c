//! Which tensors a model has on the device: projections that read the same input lie side by side as one matrix, so that one
//! product computes them all.
//!
//! Names are the paths of the decoder's parameters, such as `layers.0.self_attn.q_proj.weight`. All of this is arithmetic on
//! sizes; memory is taken in [`super::weights`].

use std::collections::BTreeMap;

use super::CudaError;
use crate::model::architecture::Architecture;

/// A low-rank adapter beside a projection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdapterShape {
    /// Columns of `a` and rows of `b`.
    pub rank: usize,
    /// alpha / rank
    pub scale: f64,
    /// The share of inputs that training drops.
    pub dropout: f64,
}

/// A tensor on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Rows; 1 for a vector.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Vectors (norms, biases) are kept in `f32` and do not decay.
    pub vector: bool,
    /// Whether training changes it.
    pub trained: bool,
}

/// Where a named parameter lies: all rows of some columns of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The slot.
    pub slot: usize,
    /// Its first column there.
    pub column: usize,
    /// Its own rows, the slot's first ones.
    pub rows: usize,
    /// Its own columns.
    pub columns: usize,
}

/// One or more projections of the same input.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// The matrix, [inputs, outputs].
    pub matrix: usize,
    /// The bias, [outputs].
    pub bias: Option<usize>,
    /// Numbers in.
    pub inputs: usize,
    /// Numbers out.
    pub outputs: usize,
    /// The adapters of its parts.
    pub adapters: Vec<LowRank>,
}

/// An adapter of one part of a projection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LowRank {
    /// [inputs, rank]
    pub a: usize,
    /// [rank, columns]
    pub b: usize,
    /// The part's first column in the projection.
    pub column: usize,
    /// The part's columns.
    pub columns: usize,
    /// The rank.
    pub rank: usize,
    /// What its result is multiplied by.
    pub scale: f32,
    /// The share of inputs dropped.
    pub dropout: f32,
    /// The adapter's number in the model: its dropout draws apart from the others'.
    pub number: u64,
}

/// The slots of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSlots {
    /// To queries, keys and values.
    pub qkv: Projection,
    /// Out of attention.
    pub out: Projection,
    /// To gate and up.
    pub gate_up: Projection,
    /// Back from the feed-forward block.
    pub down: Projection,
    /// The norm before attention.
    pub input_norm: usize,
    /// The norm before the feed-forward block or, with post norms, behind attention.
    pub attention_norm: usize,
    /// The norms of query and key heads.
    pub head_norms: Option<[usize; 2]>,
    /// The norms before and behind the feed-forward block, where there are post norms.
    pub post_norms: Option<[usize; 2]>,
}

/// All tensors of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The tensors.
    pub slots: Vec<Slot>,
    /// The decoder's parameters by their paths.
    pub pieces: BTreeMap<String, Piece>,
    /// The embedding, [vocabulary, hidden].
    pub embed: usize,
    /// The layers.
    pub layers: Vec<LayerSlots>,
    /// The last norm.
    pub norm: usize,
    /// The head, [hidden, vocabulary], where it is no part of the embedding.
    pub head: Option<usize>,
    /// Tokens in the vocabulary, rounded up so that rows of logits are aligned.
    pub vocab: usize,
}

/// What vocabularies are rounded up to.
const VOCAB_STEP: usize = 64;

struct Builder<'a> {
    slots: Vec<Slot>,
    pieces: BTreeMap<String, Piece>,
    adapters: &'a BTreeMap<String, AdapterShape>,
    number: u64,
    trains: bool,
}

impl Builder<'_> {
    fn slot(&mut self, rows: usize, columns: usize, vector: bool, trained: bool) -> usize {
        self.slots.push(Slot { rows, columns, vector, trained });
        self.slots.len() - 1
    }

    /// Whether training changes what is no adapter.
    fn base(&self) -> bool {
        self.trains && self.adapters.is_empty()
    }

    fn vector(&mut self, name: String, size: usize) -> usize {
        let slot = self.slot(1, size, true, self.base());
        self.pieces.insert(name, Piece { slot, column: 0, rows: 1, columns: size });
        slot
    }

    /// Projections side by side: `parts` are names and widths.
    fn projection(&mut self, layer: usize, inputs: usize, parts: &[(&str, usize)], bias: bool) -> Projection {
        let outputs = parts.iter().map(|(_, columns)| columns).sum();
        let matrix = self.slot(inputs, outputs, false, self.base());
        let bias = bias.then(|| self.slot(1, outputs, true, self.base()));
        let mut adapters = Vec::new();
        let mut column = 0;
        for (part, columns) in parts {
            let (columns, path) = (*columns, format!("layers.{layer}.{part}"));
            let piece = Piece { slot: matrix, column, rows: inputs, columns };
            self.pieces.insert(format!("{path}.weight"), piece);
            if let Some(slot) = bias {
                self.pieces.insert(format!("{path}.bias"), Piece { slot, column, rows: 1, columns });
            }
            if let Some(shape) = self.adapters.get(&path).copied() {
                adapters.push(self.adapter(&path, shape, inputs, column, columns));
            }
            column += columns;
        }
        Projection { matrix, bias, inputs, outputs, adapters }
    }

    fn adapter(&mut self, path: &str, shape: AdapterShape, inputs: usize, column: usize, columns: usize) -> LowRank {
        let AdapterShape { rank, scale, dropout } = shape;
        let (a, b) = (self.slot(inputs, rank, false, self.trains), self.slot(rank, columns, false, self.trains));
        let whole = |slot, rows, columns| Piece { slot, column: 0, rows, columns };
        self.pieces.insert(format!("{path}.adapter.a"), whole(a, inputs, rank));
        self.pieces.insert(format!("{path}.adapter.b"), whole(b, rank, columns));
        self.number += 1;
        LowRank { a, b, column, columns, rank, scale: scale as f32, dropout: dropout as f32, number: self.number }
    }

    fn layer(&mut self, index: usize, shape: &Architecture) -> LayerSlots {
        let (hidden, inner) = (shape.hidden, shape.inner);
        let (queries, keys) = (shape.heads * shape.head, shape.features());
        let qkv = [("self_attn.q_proj", queries), ("self_attn.k_proj", keys), ("self_attn.v_proj", keys)];
        let name = |part: &str| format!("layers.{index}.{part}.weight");
        LayerSlots {
            qkv: self.projection(index, hidden, &qkv, shape.qkv_bias),
            out: self.projection(index, queries, &[("self_attn.o_proj", hidden)], shape.out_bias),
            gate_up: self.projection(
                index,
                hidden,
                &[("mlp.gate_proj", inner), ("mlp.up_proj", inner)],
                shape.mlp_bias,
            ),
            down: self.projection(index, inner, &[("mlp.down_proj", hidden)], shape.mlp_bias),
            input_norm: self.vector(name("input_layernorm"), hidden),
            attention_norm: self.vector(name("post_attention_layernorm"), hidden),
            head_norms: shape
                .qk_norm
                .then(|| ["self_attn.q_norm", "self_attn.k_norm"].map(|part| self.vector(name(part), shape.head))),
            post_norms: shape.post_norms.then(|| {
                ["pre_feedforward_layernorm", "post_feedforward_layernorm"].map(|part| self.vector(name(part), hidden))
            }),
        }
    }
}

impl Table {
    /// The tensors of a model with these adapters. What is trained is the adapters or, where there are none, everything;
    /// nothing without `trains`.
    ///
    /// # Errors
    /// When the kernels do not take the model's sizes.
    pub fn new(
        shape: &Architecture,
        adapters: &BTreeMap<String, AdapterShape>,
        trains: bool,
    ) -> Result<Self, CudaError> {
        check(shape, adapters)?;
        let vocab = shape.vocab.next_multiple_of(VOCAB_STEP);
        let mut builder = Builder { slots: Vec::new(), pieces: BTreeMap::new(), adapters, number: 0, trains };
        let base = builder.base();
        let embed = builder.slot(vocab, shape.hidden, false, base);
        let piece = Piece { slot: embed, column: 0, rows: shape.vocab, columns: shape.hidden };
        builder.pieces.insert("embed_tokens".to_owned(), piece);
        let layers = (0..shape.layers.len()).map(|index| builder.layer(index, shape)).collect();
        let norm = builder.vector("norm.weight".to_owned(), shape.hidden);
        let head = (!shape.tied).then(|| {
            let slot = builder.slot(shape.hidden, vocab, false, base);
            let piece = Piece { slot, column: 0, rows: shape.hidden, columns: shape.vocab };
            builder.pieces.insert("lm_head".to_owned(), piece);
            slot
        });
        Ok(Self { slots: builder.slots, pieces: builder.pieces, embed, layers, norm, head, vocab })
    }
}

fn check(shape: &Architecture, adapters: &BTreeMap<String, AdapterShape>) -> Result<(), CudaError> {
    let sizes = [
        ("hidden size", shape.hidden, 8, 16_384),
        ("inner size", shape.inner, 8, usize::MAX),
        ("head size", shape.head, 16, 256),
    ];
    for (name, size, step, most) in sizes {
        if size % step != 0 || size > most {
            let limit = if most < usize::MAX { format!(" and at most {most}") } else { String::new() };
            return Err(CudaError::Model(format!("its {name} is {size}, but must be a multiple of {step}{limit}")));
        }
    }
    match adapters.iter().find(|(_, adapter)| adapter.rank % 8 != 0) {
        Some((path, AdapterShape { rank, .. })) => {
            Err(CudaError::Model(format!("the adapter of `{path}` has rank {rank}, but must have a multiple of 8")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::architecture::{Activation, LayerKind, Rope};

    fn shape() -> Architecture {
        Architecture {
            vocab: 100,
            context: 64,
            hidden: 32,
            inner: 48,
            heads: 4,
            kv_heads: 2,
            head: 16,
            epsilon: 1e-6,
            unit_offset: false,
            activation: Activation::Silu,
            query_scale: 0.25,
            embed_scale: None,
            tied: false,
            qkv_bias: true,
            out_bias: false,
            mlp_bias: false,
            qk_norm: true,
            post_norms: true,
            ropes: vec![Rope::plain(16, 1e4)],
            layers: vec![LayerKind { window: None, rope: 0 }; 2],
        }
    }

    #[test]
    fn projections_of_one_input_lie_side_by_side() {
        let table = Table::new(&shape(), &BTreeMap::new(), true).unwrap();
        let piece = |name: &str| table.pieces[&format!("layers.1.{name}")];
        let (q, k, v) =
            (piece("self_attn.q_proj.weight"), piece("self_attn.k_proj.weight"), piece("self_attn.v_proj.bias"));
        assert_eq!((q.column, q.columns, k.column, k.columns), (0, 64, 64, 32));
        assert_eq!((q.slot, v.column, v.rows), (k.slot, 96, 1));
        assert_eq!(piece("mlp.up_proj.weight").column, 48);
        assert_eq!((table.vocab, table.slots[table.embed].rows, table.pieces["embed_tokens"].rows), (128, 128, 100));
        assert!(table.slots.iter().all(|slot| slot.trained));
        // Every number of every slot belongs to one parameter, but for what rounds the vocabulary up.
        let whole: usize = table.slots.iter().map(|slot| slot.rows * slot.columns).sum();
        let named: usize = table.pieces.values().map(|piece| piece.rows * piece.columns).sum();
        assert_eq!(whole, named + 2 * 28 * 32);
    }

    #[test]
    fn with_adapters_nothing_else_is_trained() {
        let adapter = AdapterShape { rank: 8, scale: 2.0, dropout: 0.0 };
        let adapters = BTreeMap::from([("layers.0.self_attn.v_proj".to_owned(), adapter)]);
        let table = Table::new(&shape(), &adapters, true).unwrap();
        let trained: Vec<&String> =
            table.pieces.iter().filter(|(_, piece)| table.slots[piece.slot].trained).map(|(name, _)| name).collect();
        assert_eq!(trained, ["layers.0.self_attn.v_proj.adapter.a", "layers.0.self_attn.v_proj.adapter.b"]);
        assert_eq!(table.layers[0].qkv.adapters[0].column, 96);
        assert!(Table::new(&shape(), &adapters, false).unwrap().slots.iter().all(|slot| !slot.trained));
    }

    #[test]
    fn sizes_that_the_kernels_do_not_take_are_refused() {
        let error = |shape: Architecture, rank: usize| {
            let adapter = AdapterShape { rank, scale: 1.0, dropout: 0.0 };
            let adapters = BTreeMap::from([("layers.0.mlp.up_proj".to_owned(), adapter)]);
            Table::new(&shape, &adapters, true).unwrap_err().to_string()
        };
        let begin = "the CUDA kernels do not take this model: ";
        let text = error(Architecture { head: 12, ..shape() }, 8);
        assert_eq!(text, format!("{begin}its head size is 12, but must be a multiple of 16 and at most 256"));
        assert!(error(Architecture { hidden: 20, ..shape() }, 8).contains("hidden size is 20"));
        let text = error(shape(), 5);
        assert_eq!(
            text,
            format!("{begin}the adapter of `layers.0.mlp.up_proj` has rank 5, but must have a multiple of 8")
        );
    }
}
