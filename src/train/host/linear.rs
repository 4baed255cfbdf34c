//! Linear maps with bias and adapter, over blocks of rows.

use rayon::prelude::*;
use thresh_kernels::train::elements::{add, add_rows, add_to_rows, drop_out, scale};
use thresh_kernels::train::product::{Into, Size, View, add_transposed, multiply, pack, packed_len, panel};

use super::weights::{Map, Weights};

/// Rows of a task: a multiple of the rows of every processor's tiles, and few enough for a core's cache.
pub(super) const ROWS: usize = 96;

/// Rows of a weight's gradient that one task sums.
const GRADIENT_ROWS: usize = 48;

/// Lays a matrix out for products, on all threads.
pub(super) fn pack_whole(into: &mut Vec<f32>, from: View, rows: usize, columns: usize) {
    into.resize(packed_len(rows, columns), 0.0);
    let wide = panel() * columns.div_ceil(panel() * 16).max(1);
    into.par_chunks_mut((rows * wide).max(1)).enumerate().for_each(|(index, panels)| {
        let first = index * wide;
        pack(panels, from.at(0, first), rows, wide.min(columns - first));
    });
}

/// The buffer cut into blocks of [`ROWS`] rows of `width` numbers; empty slices where it is empty.
pub(super) fn blocks(buffer: &mut [f32], width: usize, rows: usize) -> std::vec::IntoIter<&mut [f32]> {
    let count = rows.div_ceil(ROWS);
    let mut cut: Vec<&mut [f32]> = Vec::with_capacity(count);
    if !buffer.is_empty() {
        cut.extend(buffer.chunks_mut(ROWS * width));
    }
    cut.resize_with(count, Default::default);
    cut.into_iter()
}

/// What decides the places that dropout drops: the seed, the map, and the row within all that a call accumulates.
#[derive(Clone, Copy)]
pub(super) struct Dropout {
    pub key: u64,
    pub row: u64,
}

impl Dropout {
    /// A stream of its own for every map.
    pub fn map(seed: u64, layer: usize, map: usize, row: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("thresh train dropout");
        hasher.update(&seed.to_le_bytes()).update(&(layer as u64).to_le_bytes()).update(&(map as u64).to_le_bytes());
        let key = hasher.finalize().as_bytes()[..8].iter().fold(0, |key, byte| key << 8 | u64::from(*byte));
        Self { key, row }
    }

    /// From a later row on.
    pub fn after(self, rows: usize) -> Self {
        Self { row: self.row + rows as u64, ..self }
    }

    fn apply(self, values: &mut [f32], width: usize, share: f64) {
        drop_out(values, self.key, self.row * width as u64, share);
    }
}

/// A map's matrices laid out for the way forward or back.
#[derive(Default)]
pub(super) struct Panels {
    weight: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Panels {
    /// For `y = x W`.
    pub fn forward(&mut self, weights: &Weights, map: &Map, adapted: bool) {
        let value = |place: usize, width| View::rows(&weights.values[place], width);
        pack_whole(&mut self.weight, value(map.weight, map.outputs), map.inputs, map.outputs);
        if let Some(adapter) = map.adapter.filter(|_| adapted) {
            pack_whole(&mut self.a, value(adapter.a, adapter.rank), map.inputs, adapter.rank);
            pack_whole(&mut self.b, value(adapter.b, map.outputs), adapter.rank, map.outputs);
        }
    }

    /// For `dx = dy W^T`.
    pub fn back(&mut self, weights: &Weights, map: &Map) {
        let value = |place: usize, width| View::transposed(&weights.values[place], width);
        pack_whole(&mut self.weight, value(map.weight, map.outputs), map.outputs, map.inputs);
        if let Some(adapter) = map.adapter {
            pack_whole(&mut self.a, value(adapter.a, adapter.rank), adapter.rank, map.inputs);
            pack_whole(&mut self.b, value(adapter.b, map.outputs), map.outputs, adapter.rank);
        }
    }
}

/// `y = x W + b`, and the adapter's part where `low` (rows of its rank) is there to take `scale * dropped(x) A`.
pub(super) fn forward(
    weights: &Weights,
    map: &Map,
    panels: &Panels,
    x: &[f32],
    y: &mut [f32],
    low: &mut [f32],
    dropout: Option<Dropout>,
) {
    let (inner, columns) = (map.inputs, map.outputs);
    let rows = x.len() / inner;
    multiply(y, columns, View::rows(x, inner), &panels.weight, Size { rows, inner, columns }, Into::Set);
    if let Some(bias) = map.bias {
        add_to_rows(y, &weights.values[bias]);
    }
    let Some(adapter) = map.adapter.filter(|_| !low.is_empty()) else { return };
    let size = Size { rows, inner, columns: adapter.rank };
    match dropout.filter(|_| adapter.dropout > 0.0) {
        Some(dropout) => {
            let mut dropped = x.to_vec();
            dropout.apply(&mut dropped, inner, adapter.dropout);
            multiply(low, adapter.rank, View::rows(&dropped, inner), &panels.a, size, Into::Set);
        }
        None => multiply(low, adapter.rank, View::rows(x, inner), &panels.a, size, Into::Set),
    }
    scale(low, adapter.scale);
    let size = Size { rows, inner: adapter.rank, columns };
    multiply(y, columns, View::rows(low, adapter.rank), &panels.b, size, Into::Add);
}

/// The slopes along `x` from those along `y`; `low` gets the slopes along `dropped(x) A` where there is an adapter.
pub(super) fn backward(
    map: &Map,
    panels: &Panels,
    y: &[f32],
    x: &mut [f32],
    into: Into,
    low: &mut [f32],
    dropout: Option<Dropout>,
) {
    let (inner, columns) = (map.outputs, map.inputs);
    let rows = y.len() / inner;
    multiply(x, columns, View::rows(y, inner), &panels.weight, Size { rows, inner, columns }, into);
    let Some(adapter) = map.adapter else { return };
    let size = Size { rows, inner, columns: adapter.rank };
    multiply(low, adapter.rank, View::rows(y, inner), &panels.b, size, Into::Set);
    scale(low, adapter.scale);
    let (size, low) = (Size { rows, inner: adapter.rank, columns }, View::rows(low, adapter.rank));
    match dropout.filter(|_| adapter.dropout > 0.0) {
        Some(dropout) => {
            let mut through = vec![0.0; x.len()];
            multiply(&mut through, columns, low, &panels.a, size, Into::Set);
            dropout.apply(&mut through, columns, adapter.dropout);
            add(x, &through);
        }
        None => multiply(x, columns, low, &panels.a, size, Into::Add),
    }
}

/// What the gradients of a map's parameters are made of.
pub(super) struct Meeting<'a> {
    pub map: Map,
    /// [tokens, inputs]
    pub x: &'a [f32],
    /// The slopes along its outputs, [tokens, outputs].
    pub slope: &'a [f32],
    /// `scale * dropped(x) A`, [tokens, rank].
    pub low: &'a [f32],
    /// The slopes along `dropped(x) A`, [tokens, rank].
    pub low_slope: &'a [f32],
    pub dropout: Option<Dropout>,
}

/// Adds a map's gradients to `gradients`, which are empty where a parameter is not trained.
pub(super) fn gradients(meeting: &Meeting, gradients: &mut [Vec<f32>], scratch: &mut Vec<f32>) {
    let Meeting { map, x, slope, low, low_slope, dropout } = meeting;
    outer(&mut gradients[map.weight], x, map.inputs, slope, map.outputs, scratch);
    if let Some(bias) = map.bias
        && !gradients[bias].is_empty()
    {
        add_rows(&mut gradients[bias], slope);
    }
    let Some(adapter) = map.adapter else { return };
    outer(&mut gradients[adapter.b], low, adapter.rank, slope, map.outputs, scratch);
    match dropout.filter(|_| adapter.dropout > 0.0) {
        Some(dropout) => {
            let mut dropped = x.to_vec();
            let width = ROWS * map.inputs;
            dropped
                .par_chunks_mut(width)
                .enumerate()
                .for_each(|(index, block)| dropout.after(index * ROWS).apply(block, map.inputs, adapter.dropout));
            outer(&mut gradients[adapter.a], &dropped, map.inputs, low_slope, adapter.rank, scratch);
        }
        None => outer(&mut gradients[adapter.a], x, map.inputs, low_slope, adapter.rank, scratch),
    }
}

/// `gradient += left^T right`, where somebody asks for it: `gradient` is [height, width], or empty.
pub(super) fn outer(
    gradient: &mut [f32],
    left: &[f32],
    height: usize,
    right: &[f32],
    width: usize,
    scratch: &mut Vec<f32>,
) {
    if gradient.is_empty() {
        return;
    }
    let inner = left.len() / height;
    pack_whole(scratch, View::rows(right, width), inner, width);
    gradient
        .par_chunks_mut(GRADIENT_ROWS * width)
        .enumerate()
        .for_each(|(index, rows)| add_transposed(rows, width, left, height, index * GRADIENT_ROWS, scratch, width));
}
