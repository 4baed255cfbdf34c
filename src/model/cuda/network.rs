//! A decoder on the device: its weights, what its layers are made of, and the steps that both passes are written in.

use std::path::Path;
use std::sync::Arc;

use super::CudaError;
use super::arena::Plan;
use super::blas::{Blas, Matrix, Number, Product};
use super::driver::{Address, Argument, Arguments, Buffer, Gpu};
use super::module::Kernels;
use super::table::Table;
use super::weights::Weights;
use crate::model::architecture::Architecture;

/// Blocks over which a backward pass shares out rows, each with its part of the gradient of a norm's weight.
pub(super) const BLOCKS: usize = 528;

/// Positions behind the context that have angles: sequences that have ended may still be computed for some steps.
pub(super) const BEYOND: usize = 64;

/// A decoder on the device.
#[derive(Debug)]
pub struct Network {
    /// What it computes.
    pub shape: Architecture,
    /// Its numbers.
    pub weights: Weights,
    /// Cosines and sines of each rotary embedding, [context, head / 2] each.
    pub(super) ropes: Vec<[Address; 2]>,
    /// Matrix products.
    pub(super) blas: Blas,
    /// Our kernels.
    pub kernels: Kernels,
    pub(super) gpu: Arc<Gpu>,
    _tables: Buffer,
}

/// Regions of one piece of memory, taken one behind the other.
#[derive(Debug)]
pub(super) struct Room {
    base: Address,
    plan: Plan,
}

impl Room {
    /// Regions from `base` on.
    pub fn new(base: Address) -> Self {
        Self { base, plan: Plan::default() }
    }

    /// So many bytes.
    pub fn take(&mut self, bytes: usize) -> Address {
        self.base.plus(self.plan.take(bytes))
    }

    /// Bytes of all regions.
    pub fn bytes(&self) -> usize {
        self.plan.bytes()
    }
}

/// Memory that grows to the largest need so far.
#[derive(Debug, Default)]
pub(super) struct Space(Option<Buffer>);

impl Space {
    /// Lays regions out: `lay` is called to find the size, and once more with memory of that size.
    pub fn lay<T>(&mut self, gpu: &Arc<Gpu>, what: &str, lay: impl Fn(&mut Room) -> T) -> Result<T, CudaError> {
        let mut trial = Room::new(Address::NONE);
        lay(&mut trial);
        if self.0.as_ref().is_none_or(|buffer| buffer.bytes() < trial.bytes()) {
            self.0 = None;
            self.0 = Some(Buffer::new(gpu, trial.bytes(), what)?);
        }
        let base = self.0.as_ref().map_or(Address::NONE, Buffer::at);
        Ok(lay(&mut Room::new(base)))
    }
}

impl Network {
    /// A decoder with all weights zero: [`Weights::fill`] comes next.
    ///
    /// # Errors
    /// Without libraries or memory, and for sizes that the kernels do not take.
    pub fn new(
        gpu: &Arc<Gpu>,
        shape: &Architecture,
        table: Table,
        number: Number,
        turned: bool,
        cache: &Path,
    ) -> Result<Self, CudaError> {
        gpu.bind()?;
        let kernels = Kernels::load(gpu, [shape.head, shape.group()], number == Number::Bf16, cache)?;
        let blas = Blas::new(gpu, true)?;
        let weights = Weights::new(gpu, table, number, turned)?;
        let (tables, ropes) = ropes(gpu, shape)?;
        let network =
            Self { shape: shape.clone(), weights, ropes, blas, kernels, gpu: Arc::clone(gpu), _tables: tables };
        network.check_shared(0..1)?;
        Ok(network)
    }

    /// The device.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Bytes of so many numbers of the kind that products read.
    pub(super) fn bytes(&self, count: usize) -> usize {
        count * self.weights.number.bytes()
    }

    /// Features of a token's packed queries, keys and values.
    pub(super) fn packed(&self) -> usize {
        (self.shape.heads + 2 * self.shape.kv_heads) * self.shape.head
    }

    /// The name of a kernel for the network's numbers.
    pub(super) fn typed(&self, name: &str) -> String {
        let suffix = match self.weights.number {
            Number::F32 => "f32",
            Number::Bf16 => "bf16",
        };
        format!("{name}_{suffix}")
    }

    /// Launches a kernel for the network's numbers.
    pub(super) fn call(
        &self,
        name: &str,
        grid: [usize; 3],
        block: [u32; 2],
        arguments: &Arguments,
    ) -> Result<(), CudaError> {
        self.kernels.launch(&self.typed(name), grid, block, 0, arguments)
    }

    /// `out = scale * left right (+ added)` of the network's numbers.
    pub(super) fn multiply(
        &self,
        [rows, inner, columns]: [usize; 3],
        left: Matrix,
        right: Matrix,
        out: Matrix,
        added: Option<Matrix>,
        scale: f32,
    ) -> Result<(), CudaError> {
        let number = self.weights.number;
        self.blas.multiply(&Product { rows, columns, inner, left, right, added, out, scale, number, result: number })
    }

    /// Adds `scale * left right` to a gradient, which is `f32`.
    pub(super) fn gather_gradient(
        &self,
        [rows, inner, columns]: [usize; 3],
        left: Matrix,
        right: Matrix,
        gradient: Address,
        scale: f32,
    ) -> Result<(), CudaError> {
        let out = Matrix::new(gradient, columns);
        let product = Product {
            rows,
            columns,
            inner,
            left,
            right,
            added: Some(out),
            out,
            scale,
            number: self.weights.number,
            result: Number::F32,
        };
        self.blas.multiply(&product)
    }

    /// `y = norm(x)` of `n` rows with the weight in `slot`; `rstd` is kept where it is wanted.
    pub(super) fn norm(&self, y: Address, rstd: Address, x: Address, slot: usize, n: usize) -> Result<(), CudaError> {
        let hidden = self.shape.hidden;
        let arguments = Arguments::default()
            .with(y)
            .with(rstd)
            .with(Address::NONE)
            .with(x)
            .with(Address::NONE)
            .with(self.weights.address(slot))
            .with(n)
            .with(hidden)
            .with(self.shape.epsilon as f32)
            .with(self.offset());
        let (grid, block) = norm_geometry(n, hidden);
        self.call("rmsnorm_fwd", [grid, 1, 1], [block, 1], &arguments)
    }

    /// What a norm's weight is added to.
    pub(super) fn offset(&self) -> f32 {
        if self.shape.unit_offset { 1.0 } else { 0.0 }
    }

    /// `out = a + b` of `count` numbers.
    pub(super) fn add(&self, out: Address, a: Address, b: Address, count: usize) -> Result<(), CudaError> {
        self.elements("add", count, &Arguments::default().with(out).with(a).with(b).with(count))
    }

    /// A kernel of one thread for every eight numbers.
    pub(super) fn elements(&self, name: &str, count: usize, arguments: &Arguments) -> Result<(), CudaError> {
        self.call(name, [count.div_ceil(8 * 256), 1, 1], [256, 1], arguments)
    }

    /// A kernel of a block for every row.
    pub(super) fn rows(&self, name: &str, rows: usize, arguments: &Arguments) -> Result<(), CudaError> {
        self.call(name, [rows, 1, 1], [128, 1], arguments)
    }
}

/// Blocks and threads of the norm's forward pass: a warp for a short row, a block for a long one.
fn norm_geometry(n: usize, hidden: usize) -> (usize, u32) {
    if hidden <= 1024 { (n.div_ceil(8), 256) } else { (n, wide(hidden)) }
}

/// Threads of a block that works on a row of this width.
pub(super) fn wide(hidden: usize) -> u32 {
    if hidden <= 8192 { 256 } else { 512 }
}

/// The angles of every position, on the device.
fn ropes(gpu: &Arc<Gpu>, shape: &Architecture) -> Result<(Buffer, Vec<[Address; 2]>), CudaError> {
    let positions = shape.context + BEYOND;
    let count = positions * shape.head / 2;
    let tables = Buffer::new(gpu, shape.ropes.len() * 2 * count * 4, "rotary embeddings")?;
    let mut places = Vec::new();
    for (index, rope) in shape.ropes.iter().enumerate() {
        let at = tables.at().plus(index * 2 * count * 4);
        let pair = [at, at.plus(count * 4)];
        for (place, turn) in pair.into_iter().zip([f64::cos as fn(f64) -> f64, f64::sin]) {
            let angle = |position: usize| rope.frequencies.iter().map(move |f| position as f64 * f);
            let numbers = (0..positions).flat_map(angle).map(|angle| (turn(angle) * rope.magnitude) as f32);
            gpu.upload(place, &numbers.collect::<Vec<f32>>())?;
        }
        places.push(pair);
    }
    Ok((tables, places))
}

impl Arguments {
    /// Several more of one kind.
    #[must_use]
    pub(super) fn all<T: Argument>(self, arguments: impl IntoIterator<Item = T>) -> Self {
        arguments.into_iter().fold(self, Self::with)
    }
}
