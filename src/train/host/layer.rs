//! One layer forward, and what it keeps for the way back.
//!
//! Rows are independent but for attention, so a block of rows goes through everything before attention in one task, and
//! through everything behind it in another.

use rayon::prelude::*;
use thresh_kernels::train::elements::{Gate, add, gated};
use thresh_kernels::train::rotary::{Turn, turn};
use thresh_kernels::train::{attention, norm};

use super::batch::Batch;
use super::linear::{self, Dropout, Panels, ROWS, blocks};
use super::weights::{DOWN, GATE, K, LayerPlaces, Map, O, Q, UP, V, Weights};
use crate::model::architecture::Activation;
use crate::model::rope::RopeTable;

/// What runs over which tokens with which weights.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub weights: &'a Weights,
    pub ropes: &'a [RopeTable],
    pub batch: &'a Batch,
    /// Whether adapters take part.
    pub adapted: bool,
    /// What decides dropout; `None` where nothing is dropped.
    pub seed: Option<u64>,
}

/// What a layer keeps: rows of all tokens, one after the other.
#[derive(Default)]
pub(super) struct Tape {
    /// Turned queries and keys, and values.
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    /// Queries and keys before their norms, where they have them.
    pub raw_q: Vec<f32>,
    pub raw_k: Vec<f32>,
    /// Attention's result, and the logarithms of its sums.
    pub mixed: Vec<f32>,
    pub sums: Vec<f32>,
    /// The projection out of attention before its norm, where there are post norms.
    pub attended: Vec<f32>,
    /// The residual stream between the two blocks.
    pub mid: Vec<f32>,
    pub gate: Vec<f32>,
    pub up: Vec<f32>,
    /// The feed-forward block's result before its norm, where there are post norms.
    pub changed: Vec<f32>,
    /// `scale * dropped(x) A` of every map.
    pub low: [Vec<f32>; 7],
}

impl Pass<'_> {
    pub fn layer(&self, index: usize) -> &LayerPlaces {
        &self.weights.layers[index]
    }

    pub fn epsilon(&self) -> f32 {
        self.weights.architecture.epsilon as f32
    }

    pub fn gate(&self) -> Gate {
        match self.weights.architecture.activation {
            Activation::Silu => Gate::Silu,
            Activation::GeluTanh => Gate::GeluTanh,
        }
    }

    /// The dropout of a map over the rows of a block.
    pub fn dropout(&self, layer: usize, map: usize, row: usize) -> Option<Dropout> {
        let adapter = self.layer(layer).maps[map].adapter.filter(|adapter| self.adapted && adapter.dropout > 0.0);
        let seed = self.seed.filter(|_| adapter.is_some())?;
        Some(Dropout::map(seed, layer, map, (self.batch.before + row) as u64))
    }

    pub fn attention(&self, layer: usize) -> attention::Shape {
        let architecture = &self.weights.architecture;
        attention::Shape {
            heads: architecture.heads,
            kv_heads: architecture.kv_heads,
            head: architecture.head,
            scale: architecture.query_scale as f32,
            window: architecture.layers[layer].window,
        }
    }

    /// Turns the heads of a block of rows that begins at `row`.
    pub fn turn(&self, layer: usize, row: usize, heads: &mut [f32], width: usize, way: Turn) {
        let rope = &self.ropes[self.weights.architecture.layers[layer].rope];
        for (index, heads) in heads.chunks_exact_mut(width).enumerate() {
            let (cos, sin) = rope.at(self.batch.positions[row + index]);
            turn(heads, cos, sin, way);
        }
    }

    /// Fits the tape's buffers to the pass.
    fn fit(&self, index: usize, tape: &mut Tape) {
        let (layer, tokens) = (self.layer(index), self.batch.tokens());
        let [q, k, hidden] = [Q, K, O].map(|map| tokens * layer.maps[map].outputs);
        let inner = tokens * layer.maps[GATE].outputs;
        let behind = if layer.behind_mlp.is_some() { hidden } else { 0 };
        let raw = |norm: Option<usize>, size| if norm.is_some() { size } else { 0 };
        let sizes = [
            (&mut tape.q, q),
            (&mut tape.k, k),
            (&mut tape.v, k),
            (&mut tape.raw_q, raw(layer.q_norm, q)),
            (&mut tape.raw_k, raw(layer.k_norm, k)),
            (&mut tape.mixed, q),
            (&mut tape.sums, tokens * self.weights.architecture.heads),
            (&mut tape.attended, behind),
            (&mut tape.mid, hidden),
            (&mut tape.gate, inner),
            (&mut tape.up, inner),
            (&mut tape.changed, behind),
        ];
        sizes.into_iter().for_each(|(buffer, size)| buffer.resize(size, 0.0));
        for (map, low) in layer.maps.iter().zip(&mut tape.low) {
            low.resize(if self.adapted { tokens * map.rank() } else { 0 }, 0.0);
        }
    }
}

/// Runs layer `index` over `x`, [tokens, hidden], into `out`.
pub(super) fn forward(pass: Pass, index: usize, x: &[f32], out: &mut [f32], tape: &mut Tape, panels: &mut [Panels; 7]) {
    pass.fit(index, tape);
    for (panels, map) in panels.iter_mut().zip(&pass.layer(index).maps) {
        panels.forward(pass.weights, map, pass.adapted);
    }
    project(pass, index, x, tape, panels);
    let inputs = attention::Inputs { q: &tape.q, k: &tape.k, v: &tape.v };
    attention::forward(&pass.attention(index), &pass.batch.lengths, inputs, &mut tape.mixed, &mut tape.sums);
    join(pass, index, x, out, tape, panels);
}

/// A block of rows on its way to queries, keys and values.
struct Projected<'a> {
    row: usize,
    x: &'a [f32],
    /// Queries, keys and values.
    to: [&'a mut [f32]; 3],
    raw: [&'a mut [f32]; 2],
    low: [&'a mut [f32]; 3],
}

fn project(pass: Pass, index: usize, x: &[f32], tape: &mut Tape, panels: &[Panels; 7]) {
    let (layer, rows) = (pass.layer(index), pass.batch.tokens());
    let hidden = pass.weights.architecture.hidden;
    let width = |map: usize| layer.maps[map].outputs;
    let [low_q, low_k, low_v, ..] = &mut tape.low;
    let mut to =
        [blocks(&mut tape.q, width(Q), rows), blocks(&mut tape.k, width(K), rows), blocks(&mut tape.v, width(V), rows)];
    let mut raw = [blocks(&mut tape.raw_q, width(Q), rows), blocks(&mut tape.raw_k, width(K), rows)];
    let rank = |map: usize| layer.maps[map].rank();
    let mut low = [blocks(low_q, rank(Q), rows), blocks(low_k, rank(K), rows), blocks(low_v, rank(V), rows)];
    let tasks: Vec<Projected> = x
        .chunks(ROWS * hidden)
        .enumerate()
        .map(|(block, x)| Projected {
            row: block * ROWS,
            x,
            to: to.each_mut().map(|one| one.next().unwrap_or_default()),
            raw: raw.each_mut().map(|one| one.next().unwrap_or_default()),
            low: low.each_mut().map(|one| one.next().unwrap_or_default()),
        })
        .collect();
    let scale = pass.weights.scale(layer.input_norm);
    tasks.into_par_iter().for_each(|task| {
        let Projected { row, x, to, raw, low } = task;
        let mut normed = vec![0.0; x.len()];
        norm::forward(&mut normed, x, &scale, pass.epsilon());
        let mut raw = raw.into_iter();
        for (map, (to, low)) in to.into_iter().zip(low).enumerate() {
            let dropout = pass.dropout(index, map, row);
            linear::forward(pass.weights, &layer.maps[map], &panels[map], &normed, to, low, dropout);
            let norm = if map == Q { layer.q_norm } else { layer.k_norm };
            if let (Some(raw), Some(norm)) = (raw.next(), norm.filter(|_| map != V)) {
                raw.copy_from_slice(to);
                norm::forward(to, raw, &pass.weights.scale(norm), pass.epsilon());
            }
            if map != V {
                pass.turn(index, row, to, layer.maps[map].outputs, Turn::Forward);
            }
        }
    });
}

/// A block of rows behind attention.
struct Joined<'a> {
    row: usize,
    x: &'a [f32],
    mixed: &'a [f32],
    attended: &'a mut [f32],
    mid: &'a mut [f32],
    gate: &'a mut [f32],
    up: &'a mut [f32],
    changed: &'a mut [f32],
    out: &'a mut [f32],
    /// Of the maps O, GATE, UP and DOWN.
    low: [&'a mut [f32]; 4],
}

fn join(pass: Pass, index: usize, x: &[f32], out: &mut [f32], tape: &mut Tape, panels: &[Panels; 7]) {
    let (layer, rows) = (pass.layer(index), pass.batch.tokens());
    let (hidden, inner) = (pass.weights.architecture.hidden, layer.maps[GATE].outputs);
    let rank = |map: usize| layer.maps[map].rank();
    let [_, _, _, low_o, low_gate, low_up, low_down] = &mut tape.low;
    let mut low = [
        blocks(low_o, rank(O), rows),
        blocks(low_gate, rank(GATE), rows),
        blocks(low_up, rank(UP), rows),
        blocks(low_down, rank(DOWN), rows),
    ];
    let mut wide = [&mut tape.attended, &mut tape.mid, &mut tape.changed].map(|one| blocks(one, hidden, rows));
    let mut out = blocks(out, hidden, rows);
    let mut deep = [&mut tape.gate, &mut tape.up].map(|one| blocks(one, inner, rows));
    let mixed = tape.mixed.chunks(ROWS * layer.maps[O].inputs);
    let tasks: Vec<Joined> = x
        .chunks(ROWS * hidden)
        .zip(mixed)
        .enumerate()
        .map(|(block, (x, mixed))| {
            let [attended, mid, changed] = wide.each_mut().map(|one| one.next().unwrap_or_default());
            let [gate, up] = deep.each_mut().map(|one| one.next().unwrap_or_default());
            let low = low.each_mut().map(|one| one.next().unwrap_or_default());
            let out = out.next().unwrap_or_default();
            Joined { row: block * ROWS, x, mixed, attended, mid, gate, up, changed, out, low }
        })
        .collect();
    tasks.into_par_iter().for_each(|task| join_rows(pass, index, panels, task));
}

fn join_rows(pass: Pass, index: usize, panels: &[Panels; 7], task: Joined) {
    let (layer, epsilon) = (pass.layer(index), pass.epsilon());
    let Joined { row, x, mixed, attended, mid, gate, up, changed, out, low } = task;
    let [low_o, low_gate, low_up, low_down] = low;
    let apply = |map: usize, x: &[f32], y: &mut [f32], low: &mut [f32]| {
        let place: &Map = &layer.maps[map];
        linear::forward(pass.weights, place, &panels[map], x, y, low, pass.dropout(index, map, row));
    };
    let scaled = |norm: usize, x: &[f32], out: &mut [f32]| norm::forward(out, x, &pass.weights.scale(norm), epsilon);
    match layer.behind_attention {
        Some(norm) => {
            apply(O, mixed, attended, low_o);
            scaled(norm, attended, mid);
        }
        None => apply(O, mixed, mid, low_o),
    }
    add(mid, x);
    let mut normed = vec![0.0; mid.len()];
    scaled(layer.before_mlp, mid, &mut normed);
    apply(GATE, &normed, gate, low_gate);
    apply(UP, &normed, up, low_up);
    let mut active = vec![0.0; gate.len()];
    gated(pass.gate(), &mut active, gate, up);
    match layer.behind_mlp {
        Some(norm) => {
            apply(DOWN, &active, changed, low_down);
            scaled(norm, changed, out);
        }
        None => apply(DOWN, &active, out, low_down),
    }
    add(out, mid);
}
