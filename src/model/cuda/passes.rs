//! A projection and a layer, forward and backward.

use super::CudaError;
use super::batch::Placed;
use super::blas::Matrix;
use super::driver::{Address, Arguments};
use super::network::{BLOCKS, Network, Room, wide};
use super::table::{LowRank, Projection};
use crate::model::architecture::Activation;

/// What a layer's forward pass leaves for its backward pass.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    /// The layer's input, [tokens, hidden].
    pub x: Address,
    normed: Address,
    scale: Address,
    /// Queries, keys and values before their norms; the turned ones where heads have no norms.
    raw: Address,
    head_scale: Address,
    qkv: Address,
    mixed: Address,
    lse: Address,
    attended: Address,
    attended_scale: Address,
    middle: Address,
    normed_middle: Address,
    middle_scale: Address,
    gate_up: Address,
    gated: Address,
    changed: Address,
    changed_scale: Address,
}

impl Kept {
    /// The same room for a layer with another input.
    pub fn at(self, x: Address) -> Self {
        Self { x, ..self }
    }
}

/// Room that every layer uses anew.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scratch {
    /// [tokens, hidden]
    pub normed: Address,
    /// [tokens, hidden]
    gradient: Address,
    /// [tokens, hidden]
    middle: Address,
    /// Dropped inputs, [tokens, inner or heads * head or hidden].
    dropped: Address,
    /// [tokens, rank], twice.
    low: [Address; 2],
    /// [tokens, inner]
    gated: Address,
    /// [tokens, heads * head]
    mixed: Address,
    /// [tokens, packed]
    qkv: Address,
    /// [heads, tokens]
    delta: Address,
    /// Parts of the gradients of norms' weights and biases, `f32`.
    pub parts: Address,
}

/// How a pass runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode {
    /// Whether adapters take part.
    pub adapted: bool,
    /// What dropout is drawn from; `None` drops nothing.
    pub dropout: Option<u64>,
}

impl Network {
    /// Room for one layer's activations.
    pub(super) fn lay_kept(&self, tokens: usize, x: Address, room: &mut Room) -> Kept {
        let shape = &self.shape;
        let mut numbers = |columns: usize| room.take(self.bytes(tokens * columns));
        let (hidden, packed, queries) = (shape.hidden, self.packed(), shape.heads * shape.head);
        let (qkv, normed, normed_middle, middle) = (numbers(packed), numbers(hidden), numbers(hidden), numbers(hidden));
        let raw = if shape.qk_norm { numbers(packed) } else { qkv };
        let (mixed, gate_up, gated) = (numbers(queries), numbers(2 * shape.inner), numbers(shape.inner));
        let [attended, changed] =
            if shape.post_norms { [numbers(hidden), numbers(hidden)] } else { [Address::NONE; 2] };
        let mut floats = |count: usize| room.take(tokens * count * 4);
        let head_scale = if shape.qk_norm { floats(shape.heads + shape.kv_heads) } else { Address::NONE };
        let [attended_scale, changed_scale] =
            if shape.post_norms { [floats(1), floats(1)] } else { [Address::NONE; 2] };
        let (lse, scale, middle_scale) = (floats(shape.heads), floats(1), floats(1));
        Kept {
            x,
            normed,
            scale,
            raw,
            head_scale,
            qkv,
            mixed,
            lse,
            attended,
            attended_scale,
            middle,
            normed_middle,
            middle_scale,
            gate_up,
            gated,
            changed,
            changed_scale,
        }
    }

    /// Room that layers share.
    pub(super) fn lay_scratch(&self, tokens: usize, backward: bool, room: &mut Room) -> Scratch {
        let shape = &self.shape;
        let (queries, packed) = (shape.heads * shape.head, self.packed());
        let projections = self.weights.table.layers.iter().flat_map(|l| [&l.qkv, &l.out, &l.gate_up, &l.down]);
        let adapters = || projections.clone().flat_map(|p| p.adapters.iter().map(move |low| (p.inputs, low)));
        let rank = adapters().map(|(_, low)| low.rank).max().unwrap_or(0);
        let dropped = adapters().filter(|(_, low)| low.dropout > 0.0).map(|(inputs, _)| inputs).max().unwrap_or(0);
        let mut numbers = |columns: usize| room.take(self.bytes(tokens * columns));
        let mut scratch = Scratch {
            normed: numbers(shape.hidden),
            low: [numbers(rank), numbers(rank)],
            dropped: numbers(dropped),
            ..Scratch::default()
        };
        if backward {
            scratch.gradient = numbers(shape.hidden);
            scratch.middle = numbers(shape.hidden);
            scratch.gated = numbers(shape.inner);
            scratch.mixed = numbers(queries);
            scratch.qkv = numbers(packed);
            scratch.delta = room.take(tokens * shape.heads * 4);
            let widest = shape.hidden.max(2 * shape.head).max(packed).max(2 * shape.inner);
            scratch.parts = room.take(BLOCKS * widest * 4);
        }
        scratch
    }

    /// `out = x W + b (+ added)`, and what adapters add.
    pub(super) fn project(
        &self,
        projection: &Projection,
        [out, x, added]: [Address; 3],
        n: usize,
        mode: Mode,
        scratch: &Scratch,
    ) -> Result<(), CudaError> {
        let Projection { inputs, outputs, .. } = *projection;
        let weight = self.weights.matrix(projection.matrix);
        let added = (added != Address::NONE).then(|| Matrix::new(added, outputs));
        self.multiply([n, inputs, outputs], Matrix::new(x, inputs), weight, Matrix::new(out, outputs), added, 1.0)?;
        for low in projection.adapters.iter().filter(|_| mode.adapted) {
            let x = self.dropped(low, x, n * inputs, mode, scratch)?;
            self.reduce(low, x, n, inputs, scratch)?;
            let part = Matrix::new(out.plus(self.bytes(low.column)), outputs);
            let (left, right) = (Matrix::new(scratch.low[0], low.rank), self.raise(low));
            self.multiply([n, low.rank, low.columns], left, right, part, Some(part), low.scale)?;
        }
        match projection.bias {
            Some(bias) => {
                let arguments = Arguments::default().with(out).with(self.weights.address(bias)).with(n).with(outputs);
                self.elements("bias_add", n * outputs, &arguments)
            }
            None => Ok(()),
        }
    }

    /// An adapter's second matrix.
    fn raise(&self, low: &LowRank) -> Matrix {
        self.weights.matrix(low.b)
    }

    /// `x A` into the first low-rank scratch.
    fn reduce(&self, low: &LowRank, x: Address, n: usize, inputs: usize, scratch: &Scratch) -> Result<(), CudaError> {
        let a = self.weights.matrix(low.a);
        let out = Matrix::new(scratch.low[0], low.rank);
        self.multiply([n, inputs, low.rank], Matrix::new(x, inputs), a, out, None, 1.0)
    }

    /// An adapter's input with some numbers dropped.
    fn dropped(
        &self,
        low: &LowRank,
        x: Address,
        count: usize,
        mode: Mode,
        scratch: &Scratch,
    ) -> Result<Address, CudaError> {
        let Some(seed) = mode.dropout.filter(|_| low.dropout > 0.0) else { return Ok(x) };
        let arguments = Arguments::default().with(scratch.dropped).with(x).with(count).with(low.dropout);
        self.elements("dropout", count, &arguments.with(apart(seed, low.number)))?;
        Ok(scratch.dropped)
    }

    /// From the gradient `dy` of a projection's result that of its input, `dx` (`NONE`: not wanted), and of its parameters.
    fn project_back(
        &self,
        projection: &Projection,
        [dx, dy, x]: [Address; 3],
        n: usize,
        mode: Mode,
        scratch: &Scratch,
    ) -> Result<(), CudaError> {
        let Projection { inputs, outputs, matrix, bias, .. } = *projection;
        let dy_rows = Matrix::new(dy, outputs);
        let weight = self.weights.matrix(matrix);
        let dx_rows = Matrix::new(dx, inputs);
        self.multiply([n, outputs, inputs], dy_rows, weight.transposed(), dx_rows, None, 1.0)?;
        let gradient = self.weights.gradient(matrix);
        if gradient != Address::NONE {
            let left = Matrix::new(x, inputs).transposed();
            self.gather_gradient([inputs, n, outputs], left, dy_rows, gradient, 1.0)?;
        }
        if let Some(bias) = bias.filter(|bias| self.weights.gradient(*bias) != Address::NONE) {
            let arguments = Arguments::default().with(scratch.parts).with(dy).with(n).with(outputs);
            let blocks = BLOCKS.min(n);
            self.call("bias_bwd", [blocks, outputs.div_ceil(256), 1], [32, 8], &arguments)?;
            self.sum_parts(bias, scratch.parts, blocks, outputs)?;
        }
        projection.adapters.iter().filter(|_| mode.adapted).try_for_each(|low| {
            let dy_part = Matrix::new(dy.plus(self.bytes(low.column)), outputs);
            self.adapter_back(low, [dx, x], dy_part, [n, inputs], mode, scratch)
        })
    }

    fn adapter_back(
        &self,
        low: &LowRank,
        [dx, x]: [Address; 2],
        dy: Matrix,
        [n, inputs]: [usize; 2],
        mode: Mode,
        scratch: &Scratch,
    ) -> Result<(), CudaError> {
        let [reduced, dreduced] = scratch.low.map(|at| Matrix::new(at, low.rank));
        let input = self.dropped(low, x, n * inputs, mode, scratch)?;
        self.reduce(low, input, n, inputs, scratch)?;
        let gradient = self.weights.gradient(low.b);
        self.gather_gradient([low.rank, n, low.columns], reduced.transposed(), dy, gradient, low.scale)?;
        self.multiply([n, low.columns, low.rank], dy, self.raise(low).transposed(), dreduced, None, low.scale)?;
        let left = Matrix::new(input, inputs).transposed();
        self.gather_gradient([inputs, n, low.rank], left, dreduced, self.weights.gradient(low.a), 1.0)?;
        let a = self.weights.matrix(low.a).transposed();
        let Some(seed) = mode.dropout.filter(|_| low.dropout > 0.0) else {
            let dx = Matrix::new(dx, inputs);
            return self.multiply([n, low.rank, inputs], dreduced, a, dx, Some(dx), 1.0);
        };
        self.multiply([n, low.rank, inputs], dreduced, a, Matrix::new(scratch.dropped, inputs), None, 1.0)?;
        let arguments = Arguments::default().with(dx).with(scratch.dropped).with(n * inputs).with(low.dropout);
        self.elements("dropout_add", n * inputs, &arguments.with(apart(seed, low.number)))
    }

    /// Adds the columns' sums of partial sums to the gradient of a vector.
    pub(super) fn sum_parts(&self, slot: usize, parts: Address, rows: usize, columns: usize) -> Result<(), CudaError> {
        let arguments = Arguments::default().with(self.weights.gradient(slot)).with(parts).with(rows).with(columns);
        self.kernels.launch("colsum_f32", [columns.div_ceil(32), 1, 1], [32, 8], 0, &arguments)
    }

    /// `dx = dres +` the backward pass of a norm of `n` rows.
    pub(super) fn norm_back(
        &self,
        [dx, dy, x, dres]: [Address; 4],
        rstd: Address,
        slot: usize,
        n: usize,
        parts: Address,
    ) -> Result<(), CudaError> {
        let hidden = self.shape.hidden;
        let trained = self.weights.gradient(slot) != Address::NONE;
        let blocks = BLOCKS.min(n);
        let arguments = Arguments::default()
            .with(dx)
            .with(if trained { parts } else { Address::NONE })
            .with(dy)
            .with(x)
            .with(self.weights.address(slot))
            .with(rstd)
            .with(dres)
            .with(n)
            .with(hidden)
            .with(self.offset());
        self.call("rmsnorm_bwd", [blocks, 1, 1], [wide(hidden), 1], &arguments)?;
        if trained { self.sum_parts(slot, parts, blocks, hidden) } else { Ok(()) }
    }

    /// A layer's forward pass from `kept.x` to `out`.
    pub(super) fn layer(
        &self,
        index: usize,
        batch: &Placed,
        kept: &Kept,
        out: Address,
        mode: Mode,
        scratch: &Scratch,
    ) -> Result<(), CudaError> {
        let (slots, n) = (&self.weights.table.layers[index], batch.tokens);
        self.norm(kept.normed, kept.scale, kept.x, slots.input_norm, n)?;
        self.project(&slots.qkv, [kept.raw, kept.normed, Address::NONE], n, mode, scratch)?;
        self.turn(index, kept.qkv, kept.raw, kept.head_scale, batch.positions, n)?;
        self.attend(index, batch, kept.mixed, kept.lse, kept.qkv)?;
        let Some([before, behind]) = slots.post_norms else {
            self.project(&slots.out, [kept.middle, kept.mixed, kept.x], n, mode, scratch)?;
            self.norm(kept.normed_middle, kept.middle_scale, kept.middle, slots.attention_norm, n)?;
            self.feed_forward(index, kept, n, mode, scratch)?;
            return self.project(&slots.down, [out, kept.gated, kept.middle], n, mode, scratch);
        };
        let count = n * self.shape.hidden;
        self.project(&slots.out, [kept.attended, kept.mixed, Address::NONE], n, mode, scratch)?;
        self.norm(scratch.normed, kept.attended_scale, kept.attended, slots.attention_norm, n)?;
        self.add(kept.middle, kept.x, scratch.normed, count)?;
        self.norm(kept.normed_middle, kept.middle_scale, kept.middle, before, n)?;
        self.feed_forward(index, kept, n, mode, scratch)?;
        self.project(&slots.down, [kept.changed, kept.gated, Address::NONE], n, mode, scratch)?;
        self.norm(scratch.normed, kept.changed_scale, kept.changed, behind, n)?;
        self.add(out, kept.middle, scratch.normed, count)
    }

    /// Gate and up of the normed middle, and their product behind the activation.
    fn feed_forward(
        &self,
        index: usize,
        kept: &Kept,
        n: usize,
        mode: Mode,
        scratch: &Scratch,
    ) -> Result<(), CudaError> {
        let slots = &self.weights.table.layers[index];
        self.project(&slots.gate_up, [kept.gate_up, kept.normed_middle, Address::NONE], n, mode, scratch)?;
        self.gate(kept.gated, kept.gate_up, n)
    }

    /// The gated activation.
    pub(super) fn gate(&self, out: Address, gate_up: Address, n: usize) -> Result<(), CudaError> {
        let arguments = Arguments::default().with(out).with(gate_up).with(n).with(self.shape.inner).with(self.kind());
        self.elements("gate_fwd", n * self.shape.inner, &arguments)
    }

    fn kind(&self) -> i32 {
        match self.shape.activation {
            Activation::Silu => 0,
            Activation::GeluTanh => 1,
        }
    }

    /// A layer's backward pass: the gradient of its result, in `gradient`, becomes that of its input.
    pub(super) fn layer_back(
        &self,
        index: usize,
        batch: &Placed,
        kept: &Kept,
        gradient: Address,
        mode: Mode,
        scratch: &Scratch,
    ) -> Result<(), CudaError> {
        let (slots, n, parts) = (&self.weights.table.layers[index], batch.tokens, scratch.parts);
        let mut dchanged = gradient;
        if let Some([_, behind]) = slots.post_norms {
            dchanged = scratch.gradient;
            let places = [dchanged, gradient, kept.changed, Address::NONE];
            self.norm_back(places, kept.changed_scale, behind, n, parts)?;
        }
        self.project_back(&slots.down, [scratch.gated, dchanged, kept.gated], n, mode, scratch)?;
        let arguments = Arguments::default().all([kept.gate_up, Address::NONE, scratch.gated, kept.gate_up]);
        let arguments = arguments.with(n).with(self.shape.inner).with(self.kind());
        self.elements("gate_bwd", n * self.shape.inner, &arguments)?;
        let places = [scratch.gradient, kept.gate_up, kept.normed_middle];
        self.project_back(&slots.gate_up, places, n, mode, scratch)?;
        let before = slots.post_norms.map_or(slots.attention_norm, |[before, _]| before);
        let places = [scratch.middle, scratch.gradient, kept.middle, gradient];
        self.norm_back(places, kept.middle_scale, before, n, parts)?;
        let mut dattended = scratch.middle;
        if slots.post_norms.is_some() {
            dattended = scratch.gradient;
            let places = [dattended, scratch.middle, kept.attended, Address::NONE];
            self.norm_back(places, kept.attended_scale, slots.attention_norm, n, parts)?;
        }
        self.project_back(&slots.out, [scratch.mixed, dattended, kept.mixed], n, mode, scratch)?;
        self.attend_back(index, batch, [scratch.qkv, scratch.mixed, scratch.delta], [kept.mixed, kept.lse, kept.qkv])?;
        self.turn_back(index, batch, scratch.qkv, kept.raw, kept.head_scale, parts)?;
        self.project_back(&slots.qkv, [scratch.gradient, scratch.qkv, kept.normed], n, mode, scratch)?;
        self.norm_back([gradient, scratch.gradient, kept.x, scratch.middle], kept.scale, slots.input_norm, n, parts)
    }
}

/// The seed of one adapter's dropout: a step of SplitMix64.
fn apart(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
