//! A decoder's parameters as plain numbers on the host, and where each of them stands.

use std::borrow::Cow;
use std::collections::HashMap;

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

use crate::model::Decoder;
use crate::model::architecture::Architecture;
use crate::model::layer::RmsNorm;
use crate::model::linear::{Adapter, Linear};
use crate::train::learner::trained;

/// The places of a layer's linear maps in [`LayerPlaces::maps`].
pub(super) const Q: usize = 0;
pub(super) const K: usize = 1;
pub(super) const V: usize = 2;
pub(super) const O: usize = 3;
pub(super) const GATE: usize = 4;
pub(super) const UP: usize = 5;
pub(super) const DOWN: usize = 6;

/// All float parameters in visiting order. What is named a place below is an index into `values`.
pub(super) struct Weights {
    pub values: Vec<Vec<f32>>,
    pub kinds: Vec<Kind>,
    pub embedding: usize,
    /// [hidden, vocab]; `None` where the embedding serves.
    pub head: Option<usize>,
    pub norm: usize,
    pub layers: Vec<LayerPlaces>,
    pub architecture: Architecture,
}

/// What a parameter is to the optimiser.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub trained: bool,
    /// Vectors do not decay.
    pub decays: bool,
}

pub(super) struct LayerPlaces {
    pub input_norm: usize,
    pub q_norm: Option<usize>,
    pub k_norm: Option<usize>,
    /// Where there are post norms.
    pub behind_attention: Option<usize>,
    pub before_mlp: usize,
    pub behind_mlp: Option<usize>,
    pub maps: [Map; 7],
}

/// A linear map, [inputs, outputs].
#[derive(Clone, Copy)]
pub(super) struct Map {
    pub weight: usize,
    pub bias: Option<usize>,
    pub adapter: Option<MapAdapter>,
    pub inputs: usize,
    pub outputs: usize,
}

#[derive(Clone, Copy)]
pub(super) struct MapAdapter {
    pub a: usize,
    pub b: usize,
    pub rank: usize,
    pub scale: f32,
    pub dropout: f64,
}

impl Map {
    /// The adapter's rank, 0 without one.
    pub fn rank(&self) -> usize {
        self.adapter.map_or(0, |adapter| adapter.rank)
    }
}

impl Weights {
    /// Copies the parameters.
    pub fn new(model: &Decoder) -> Self {
        let mut list = List { trained: trained(model), ..List::default() };
        model.visit(&mut list);
        let at = |id: ParamId| list.places[&id];
        let layers = model.layers.iter().map(|layer| {
            let (attention, mlp) = (&layer.self_attn, &layer.mlp);
            let norm = |norm: &RmsNorm| at(norm.weight.id);
            let maybe = |one: &Option<RmsNorm>| one.as_ref().map(norm);
            let (behind, before) = (norm(&layer.post_attention_layernorm), maybe(&layer.pre_feedforward_layernorm));
            let maps = [
                &attention.q_proj,
                &attention.k_proj,
                &attention.v_proj,
                &attention.o_proj,
                &mlp.gate_proj,
                &mlp.up_proj,
                &mlp.down_proj,
            ];
            LayerPlaces {
                input_norm: norm(&layer.input_layernorm),
                q_norm: maybe(&attention.q_norm),
                k_norm: maybe(&attention.k_norm),
                // Without post norms, this norm's name notwithstanding, it stands before the feed-forward block.
                behind_attention: before.map(|_| behind),
                before_mlp: before.unwrap_or(behind),
                behind_mlp: maybe(&layer.post_feedforward_layernorm),
                maps: maps.map(|map| place(map, &at)),
            }
        });
        Self {
            layers: layers.collect(),
            embedding: at(model.embed_tokens.id),
            head: model.lm_head.as_ref().map(|head| at(head.id)),
            norm: at(model.norm.weight.id),
            architecture: model.architecture().clone(),
            values: list.values,
            kinds: list.kinds,
        }
    }

    /// What a norm multiplies with.
    pub fn scale(&self, norm: usize) -> Cow<'_, [f32]> {
        let weight = &self.values[norm];
        if self.architecture.unit_offset {
            Cow::Owned(weight.iter().map(|value| value + 1.0).collect())
        } else {
            Cow::Borrowed(weight)
        }
    }

    /// Whether a parameter is trained.
    pub fn trains(&self, place: usize) -> bool {
        self.kinds[place].trained
    }

    /// The places of the trained parameters, in visiting order.
    pub fn trained(&self) -> impl Iterator<Item = usize> {
        (0..self.values.len()).filter(|place| self.kinds[*place].trained)
    }
}

fn place(map: &Linear, at: &impl Fn(ParamId) -> usize) -> Map {
    let [inputs, outputs] = map.dims();
    let adapter = |adapter: &Adapter| MapAdapter {
        a: at(adapter.a.id),
        b: at(adapter.b.id),
        rank: adapter.a.shape().dims::<2>()[1],
        scale: adapter.scale as f32,
        dropout: adapter.dropout,
    };
    Map {
        weight: at(map.weight.id),
        bias: map.bias.as_ref().map(|bias| at(bias.id)),
        adapter: map.adapter.as_ref().map(adapter),
        inputs,
        outputs,
    }
}

#[derive(Default)]
struct List {
    trained: Vec<bool>,
    values: Vec<Vec<f32>>,
    kinds: Vec<Kind>,
    places: HashMap<ParamId, usize>,
}

impl ModuleVisitor for List {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let place = self.values.len();
        self.places.insert(param.id, place);
        self.values.push(param.val().into_data().convert::<f32>().iter::<f32>().collect());
        self.kinds.push(Kind { trained: self.trained[place], decays: D > 1 });
    }
}
