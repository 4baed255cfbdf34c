//! One layer backward: the slopes along its input from those along its output, and its parameters' gradients.

use rayon::prelude::*;
use thresh_kernels::train::elements::{add, gated_back};
use thresh_kernels::train::product::Into;
use thresh_kernels::train::rotary::Turn;
use thresh_kernels::train::{attention, norm};

use super::layer::{Pass, Tape};
use super::linear::{self, Meeting, Panels, ROWS, blocks};
use super::weights::{DOWN, GATE, K, O, Q, UP, V};

/// Buffers of the way back, of one layer at a time.
#[derive(Default)]
pub(super) struct Slopes {
    /// Along the feed-forward block's result and attention's, behind their norms.
    changed: Vec<f32>,
    attended: Vec<f32>,
    /// The gated numbers, and the normed inputs of both blocks: computed again.
    active: Vec<f32>,
    normed_mlp: Vec<f32>,
    normed_attention: Vec<f32>,
    mixed: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    low: [Vec<f32>; 7],
    panels: [Panels; 7],
    scratch: Vec<f32>,
}

/// The gradients of norms from one block of rows, empty where a norm is not trained.
type Partial = Vec<(usize, Vec<f32>)>;

impl Slopes {
    fn fit(&mut self, pass: Pass, index: usize) {
        let (layer, tokens) = (pass.layer(index), pass.batch.tokens());
        let [q, k, hidden, inner] = [Q, K, O, GATE].map(|map| tokens * layer.maps[map].outputs);
        let sizes = [
            (&mut self.changed, hidden),
            (&mut self.attended, hidden),
            (&mut self.active, inner),
            (&mut self.normed_mlp, hidden),
            (&mut self.normed_attention, hidden),
            (&mut self.mixed, q),
            (&mut self.q, q),
            (&mut self.k, k),
            (&mut self.v, k),
        ];
        sizes.into_iter().for_each(|(buffer, size)| buffer.resize(size, 0.0));
        for (map, low) in layer.maps.iter().zip(&mut self.low) {
            low.resize(tokens * map.rank(), 0.0);
        }
    }
}

/// Turns `slope`, along the layer's output, into the slopes along its input `x`, and adds to the gradients.
pub(super) fn backward(
    pass: Pass,
    index: usize,
    x: &[f32],
    slope: &mut [f32],
    tape: &mut Tape,
    slopes: &mut Slopes,
    all: &mut [Vec<f32>],
) {
    slopes.fit(pass, index);
    let mut panels = std::mem::take(&mut slopes.panels);
    for (panels, map) in panels.iter_mut().zip(&pass.layer(index).maps) {
        panels.back(pass.weights, map);
    }
    let partials = part(pass, index, slope, tape, slopes, &panels);
    collect(partials, all);
    let inputs = attention::Inputs { q: &tape.q, k: &tape.k, v: &tape.v };
    let back = attention::Back {
        out: &tape.mixed,
        sums: &tape.sums,
        slope: &slopes.mixed,
        q: &mut slopes.q,
        k: &mut slopes.k,
        v: &mut slopes.v,
    };
    attention::backward(&pass.attention(index), &pass.batch.lengths, inputs, back);
    let partials = unproject(pass, index, x, slope, tape, slopes, &panels);
    collect(partials, all);
    slopes.panels = panels;
    meet(pass, index, tape, slopes, all);
}

/// Adds what the blocks found, first to last.
fn collect(partials: Vec<Partial>, all: &mut [Vec<f32>]) {
    for (place, partial) in partials.into_iter().flatten() {
        add(&mut all[place], &partial);
    }
}

/// The way back through a norm: adds to `sums`, and gives the gradient of its weight where that is trained.
fn unnorm(pass: Pass, place: usize, sums: &mut [f32], x: &[f32], slope: &[f32]) -> (usize, Vec<f32>) {
    let scale = pass.weights.scale(place);
    let mut gradient = vec![0.0; if pass.weights.trains(place) { scale.len() } else { 0 }];
    norm::backward_add(sums, &mut gradient, x, &scale, pass.epsilon(), slope);
    (place, gradient)
}

/// A block of rows on its way back to attention's result.
struct Parted<'a> {
    row: usize,
    slope: &'a mut [f32],
    stored: [&'a [f32]; 3],
    gate: &'a mut [f32],
    up: &'a mut [f32],
    changed: &'a mut [f32],
    attended: &'a mut [f32],
    active: &'a mut [f32],
    normed: &'a mut [f32],
    mixed: &'a mut [f32],
    /// Of the maps O, GATE, UP and DOWN.
    low: [&'a mut [f32]; 4],
}

/// The buffer's block, or nothing where it is empty.
fn block_of(buffer: &[f32], width: usize, row: usize) -> &[f32] {
    if buffer.is_empty() { buffer } else { &buffer[row * width..(row * width + ROWS * width).min(buffer.len())] }
}

fn part(
    pass: Pass,
    index: usize,
    slope: &mut [f32],
    tape: &mut Tape,
    slopes: &mut Slopes,
    panels: &[Panels; 7],
) -> Vec<Partial> {
    let (layer, rows) = (pass.layer(index), pass.batch.tokens());
    let (hidden, inner) = (pass.weights.architecture.hidden, layer.maps[GATE].outputs);
    let rank = |map: usize| layer.maps[map].rank();
    let [_, _, _, low_o, low_gate, low_up, low_down] = &mut slopes.low;
    let mut low = [
        blocks(low_o, rank(O), rows),
        blocks(low_gate, rank(GATE), rows),
        blocks(low_up, rank(UP), rows),
        blocks(low_down, rank(DOWN), rows),
    ];
    let wide = [&mut slopes.changed, &mut slopes.attended, &mut slopes.normed_mlp];
    let mut wide = wide.map(|one| blocks(one, hidden, rows));
    let mut deep = [&mut tape.gate, &mut tape.up, &mut slopes.active].map(|one| blocks(one, inner, rows));
    let mut mixed = blocks(&mut slopes.mixed, layer.maps[O].inputs, rows);
    let stored = [&tape.mid, &tape.attended, &tape.changed];
    let tasks: Vec<Parted> = blocks(slope, hidden, rows)
        .enumerate()
        .map(|(block, slope)| {
            let row = block * ROWS;
            let [changed, attended, normed] = wide.each_mut().map(|one| one.next().unwrap_or_default());
            let [gate, up, active] = deep.each_mut().map(|one| one.next().unwrap_or_default());
            let stored = stored.map(|one| block_of(one, hidden, row));
            let low = low.each_mut().map(|one| one.next().unwrap_or_default());
            let mixed = mixed.next().unwrap_or_default();
            Parted { row, slope, stored, gate, up, changed, attended, active, normed, mixed, low }
        })
        .collect();
    tasks.into_par_iter().map(|task| part_rows(pass, index, panels, task)).collect()
}

fn part_rows(pass: Pass, index: usize, panels: &[Panels; 7], task: Parted) -> Partial {
    let layer = pass.layer(index);
    let Parted { row, slope, stored, gate, up, changed, attended, active, normed, mixed, low } = task;
    let [mid, before_attended, before_changed] = stored;
    let [low_o, low_gate, low_up, low_down] = low;
    let mut found = Partial::new();
    let back = |map: usize, y: &[f32], x: &mut [f32], into: Into, low: &mut [f32]| {
        linear::backward(&layer.maps[map], &panels[map], y, x, into, low, pass.dropout(index, map, row));
    };
    let mut behind = |norm: Option<usize>, to: &mut [f32], x: &[f32], slope: &[f32]| match norm {
        Some(norm) => {
            to.fill(0.0);
            found.push(unnorm(pass, norm, to, x, slope));
        }
        None => to.copy_from_slice(slope),
    };
    behind(layer.behind_mlp, changed, before_changed, slope);
    let mut along_active = vec![0.0; active.len()];
    back(DOWN, changed, &mut along_active, Into::Set, low_down);
    gated_back(pass.gate(), active, gate, up, &along_active);
    norm::forward(normed, mid, &pass.weights.scale(layer.before_mlp), pass.epsilon());
    let mut along_normed = vec![0.0; mid.len()];
    back(GATE, gate, &mut along_normed, Into::Set, low_gate);
    back(UP, up, &mut along_normed, Into::Add, low_up);
    let first = unnorm(pass, layer.before_mlp, slope, mid, &along_normed);
    behind(layer.behind_attention, attended, before_attended, slope);
    found.push(first);
    back(O, attended, mixed, Into::Set, low_o);
    found
}

/// A block of rows on its way back from queries, keys and values.
struct Unprojected<'a> {
    row: usize,
    slope: &'a mut [f32],
    x: &'a [f32],
    along: [&'a mut [f32]; 3],
    raw: [&'a [f32]; 2],
    normed: &'a mut [f32],
    low: [&'a mut [f32]; 3],
}

fn unproject(
    pass: Pass,
    index: usize,
    x: &[f32],
    slope: &mut [f32],
    tape: &Tape,
    slopes: &mut Slopes,
    panels: &[Panels; 7],
) -> Vec<Partial> {
    let (layer, rows) = (pass.layer(index), pass.batch.tokens());
    let hidden = pass.weights.architecture.hidden;
    let (width, rank) = (|map: usize| layer.maps[map].outputs, |map: usize| layer.maps[map].rank());
    let [low_q, low_k, low_v, ..] = &mut slopes.low;
    let mut low = [blocks(low_q, rank(Q), rows), blocks(low_k, rank(K), rows), blocks(low_v, rank(V), rows)];
    let mut along = [
        blocks(&mut slopes.q, width(Q), rows),
        blocks(&mut slopes.k, width(K), rows),
        blocks(&mut slopes.v, width(V), rows),
    ];
    let mut normed = blocks(&mut slopes.normed_attention, hidden, rows);
    let tasks: Vec<Unprojected> = blocks(slope, hidden, rows)
        .enumerate()
        .map(|(block, slope)| {
            let row = block * ROWS;
            Unprojected {
                row,
                slope,
                x: block_of(x, hidden, row),
                along: along.each_mut().map(|one| one.next().unwrap_or_default()),
                raw: [block_of(&tape.raw_q, width(Q), row), block_of(&tape.raw_k, width(K), row)],
                normed: normed.next().unwrap_or_default(),
                low: low.each_mut().map(|one| one.next().unwrap_or_default()),
            }
        })
        .collect();
    tasks.into_par_iter().map(|task| unproject_rows(pass, index, panels, task)).collect()
}

fn unproject_rows(pass: Pass, index: usize, panels: &[Panels; 7], task: Unprojected) -> Partial {
    let layer = pass.layer(index);
    let Unprojected { row, slope, x, along, raw, normed, low } = task;
    let mut found = Partial::new();
    let mut along_normed = vec![0.0; x.len()];
    norm::forward(normed, x, &pass.weights.scale(layer.input_norm), pass.epsilon());
    for (map, (along, low)) in along.into_iter().zip(low).enumerate() {
        if map != V {
            pass.turn(index, row, along, layer.maps[map].outputs, Turn::Back);
            let norm = if map == Q { layer.q_norm } else { layer.k_norm };
            if let Some(norm) = norm {
                let behind = along.to_vec();
                along.fill(0.0);
                found.push(unnorm(pass, norm, along, raw[map], &behind));
            }
        }
        let into = if map == Q { Into::Set } else { Into::Add };
        let dropout = pass.dropout(index, map, row);
        linear::backward(&layer.maps[map], &panels[map], along, &mut along_normed, into, low, dropout);
    }
    found.push(unnorm(pass, layer.input_norm, slope, x, &along_normed));
    found
}

/// Adds the gradients of the layer's maps.
fn meet(pass: Pass, index: usize, tape: &Tape, slopes: &mut Slopes, all: &mut [Vec<f32>]) {
    let maps = &pass.layer(index).maps;
    let meetings: [(&[f32], &[f32]); 7] = [
        (&slopes.normed_attention, &slopes.q),
        (&slopes.normed_attention, &slopes.k),
        (&slopes.normed_attention, &slopes.v),
        (&tape.mixed, &slopes.attended),
        (&slopes.normed_mlp, &tape.gate),
        (&slopes.normed_mlp, &tape.up),
        (&slopes.active, &slopes.changed),
    ];
    for (map, (x, slope)) in meetings.into_iter().enumerate() {
        let (low, low_slope) = (&tape.low[map], &slopes.low[map]);
        let dropout = pass.dropout(index, map, 0);
        let meeting = Meeting { map: maps[map], x, slope, low, low_slope, dropout };
        linear::gradients(&meeting, all, &mut slopes.scratch);
    }
}
