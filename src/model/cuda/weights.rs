//! A model's numbers on the device: what is computed with, and for training the master copy, the gradient and the moments.
//!
//! Trained tensors lie one behind the other, matrices before vectors, and their gradients and moments in the same places, so
//! that an optimiser's step is two launches over flat memory. In bf16 the master copies are `f32` and the matrices that
//! products read are copies of them; vectors are `f32` always.

use std::sync::Arc;

use super::CudaError;
use super::arena::Plan;
use super::blas::{Matrix, Number};
use super::driver::{Address, Arguments, Buffer, Gpu};
use super::module::Kernels;
use super::table::{Piece, Slot, Table};

/// One of the numbers that training keeps for each trained parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The parameter itself.
    Parameter,
    /// Its gradient so far.
    Gradient,
    /// The running mean of its gradient.
    Mean,
    /// The running mean of the gradient's square.
    Square,
}

/// A model's tensors in memory.
#[derive(Debug)]
pub struct Weights {
    /// What they are.
    pub table: Table,
    /// The numbers that products read.
    pub number: Number,
    /// Whether projections and head lie [outputs, inputs], as inference wants them: products with few rows then read whole
    /// rows of the weights.
    pub turned: bool,
    /// Where each slot lies: bytes into `frozen`, or numbers into the trained arenas.
    places: Vec<usize>,
    frozen: Buffer,
    /// Parameters, gradients and moments of what is trained, `f32`.
    trained: Option<[Buffer; 4]>,
    /// The trained matrices in bf16.
    copies: Option<Buffer>,
    /// Numbers of trained matrices, and of all that is trained.
    counts: [usize; 2],
    /// For numbers on their way to bf16.
    staging: Buffer,
    gpu: Arc<Gpu>,
}

/// Trained tensors begin at multiples of so many numbers.
const STEP: usize = 64;

/// Numbers in the staging buffer.
const STAGE: usize = 16 << 20;

/// Where slots lie: numbers for trained ones, bytes for frozen ones; then the sizes of both.
fn place(slots: &[Slot], number: Number) -> (Vec<usize>, [usize; 2], usize) {
    let mut places = vec![0; slots.len()];
    let mut counts = [0; 2];
    let mut taken = 0;
    for vector in [false, true] {
        for (place, slot) in places.iter_mut().zip(slots).filter(|(_, slot)| slot.trained && slot.vector == vector) {
            *place = taken;
            taken += (slot.rows * slot.columns).next_multiple_of(STEP);
        }
        counts[usize::from(vector)] = taken;
    }
    let mut plan = Plan::default();
    for (place, slot) in places.iter_mut().zip(slots).filter(|(_, slot)| !slot.trained) {
        *place = plan.take(slot.rows * slot.columns * if slot.vector { 4 } else { number.bytes() });
    }
    (places, counts, plan.bytes())
}

impl Weights {
    /// Memory for a table's tensors, all zero.
    ///
    /// # Errors
    /// When the device has not enough of it.
    pub fn new(gpu: &Arc<Gpu>, table: Table, number: Number, turned: bool) -> Result<Self, CudaError> {
        let (places, counts, frozen) = place(&table.slots, number);
        let buffer = |bytes, what| {
            let buffer = Buffer::new(gpu, bytes, what)?;
            gpu.clear(buffer.at(), bytes)?;
            Ok::<_, CudaError>(buffer)
        };
        let all = counts[1] * 4;
        let trained = if all > 0 {
            let mean = || buffer(all, "the optimiser's moments");
            Some([buffer(all, "parameters")?, buffer(all, "gradients")?, mean()?, mean()?])
        } else {
            None
        };
        let copies = if all > 0 && number == Number::Bf16 { Some(buffer(counts[0] * 2, "parameters")?) } else { None };
        let frozen = buffer(frozen, "weights")?;
        let staging = Buffer::new(gpu, STAGE * 4, "weights on their way")?;
        Ok(Self { table, number, turned, places, frozen, trained, copies, counts, staging, gpu: Arc::clone(gpu) })
    }

    /// Where the numbers of a slot that kernels read begin.
    pub fn address(&self, slot: usize) -> Address {
        let (place, Slot { trained, vector, .. }) = (self.places[slot], self.table.slots[slot]);
        match (&self.trained, &self.copies) {
            _ if !trained => self.frozen.at().plus(place),
            (_, Some(copies)) if !vector => copies.at().plus(place * 2),
            (Some([masters, ..]), _) => masters.at().plus(place * 4),
            (None, _) => Address::NONE,
        }
    }

    /// A slot's matrix as [inputs, outputs], however it lies; the embedding, which is none, as it is.
    pub fn matrix(&self, slot: usize) -> Matrix {
        let (at, Slot { rows, columns, .. }) = (self.address(slot), self.table.slots[slot]);
        if self.turns(slot) { Matrix::new(at, rows).transposed() } else { Matrix::new(at, columns) }
    }

    /// Whether a slot's matrix lies transposed.
    fn turns(&self, slot: usize) -> bool {
        self.turned && !self.table.slots[slot].vector && slot != self.table.embed
    }

    /// Where the gradient of a slot begins; `NONE` where it is not trained.
    pub fn gradient(&self, slot: usize) -> Address {
        self.kept(Kept::Gradient, slot).unwrap_or(Address::NONE)
    }

    /// How many numbers are trained, matrices alone and all, with the gaps between tensors.
    pub fn counts(&self) -> [usize; 2] {
        self.counts
    }

    /// All of what is kept of the trained parameters, one behind the other.
    pub fn arena(&self, kept: Kept) -> Address {
        self.trained.as_ref().map_or(Address::NONE, |trained| trained[kept as usize].at())
    }

    /// The bf16 copies of the trained matrices, where there are any.
    pub fn copies(&self) -> Address {
        self.copies.as_ref().map_or(Address::NONE, Buffer::at)
    }

    fn kept(&self, kept: Kept, slot: usize) -> Option<Address> {
        let trained = self.trained.as_ref().filter(|_| self.table.slots[slot].trained)?;
        Some(trained[kept as usize].at().plus(self.places[slot] * 4))
    }

    /// Fills every slot: `source` gives a parameter's numbers by its path, row by row.
    ///
    /// # Errors
    /// What `source` says, and when a parameter has another number of numbers than its place.
    pub fn fill<E: From<CudaError>>(
        &mut self,
        kernels: &Kernels,
        mut source: impl FnMut(&str) -> Result<Vec<f32>, E>,
    ) -> Result<(), E> {
        for slot in 0..self.table.slots.len() {
            let numbers = self.assemble(slot, &mut source)?;
            if self.table.slots[slot].trained {
                self.put(Kept::Parameter, slot, &numbers)?;
            } else {
                self.upload(kernels, slot, &numbers)?;
            }
        }
        Ok(self.refresh(kernels)?)
    }

    /// Fills one kind of what is kept of the trained parameters; parameters by their paths as in [`Weights::fill`].
    ///
    /// # Errors
    /// As there.
    pub fn restore<E: From<CudaError>>(
        &mut self,
        kernels: &Kernels,
        kept: Kept,
        mut source: impl FnMut(&str) -> Result<Vec<f32>, E>,
    ) -> Result<(), E> {
        for slot in 0..self.table.slots.len() {
            if self.table.slots[slot].trained {
                let numbers = self.assemble(slot, &mut source)?;
                self.put(kept, slot, &numbers)?;
            }
        }
        if kept == Kept::Parameter { Ok(self.refresh(kernels)?) } else { Ok(()) }
    }

    fn assemble<E: From<CudaError>>(
        &self,
        slot: usize,
        source: &mut impl FnMut(&str) -> Result<Vec<f32>, E>,
    ) -> Result<Vec<f32>, E> {
        let Slot { rows, columns, .. } = self.table.slots[slot];
        let mut numbers = vec![0.0; rows * columns];
        for (name, piece) in self.table.pieces.iter().filter(|(_, piece)| piece.slot == slot) {
            let given = source(name)?;
            if given.len() != piece.rows * piece.columns {
                let expected = piece.rows * piece.columns;
                let text = format!("`{name}` has {} numbers instead of {expected}", given.len());
                return Err(CudaError::Model(text).into());
            }
            for (row, given) in given.chunks_exact(piece.columns).enumerate() {
                let at = row * columns + piece.column;
                numbers[at..at + piece.columns].copy_from_slice(given);
            }
        }
        Ok(numbers)
    }

    fn put(&self, kept: Kept, slot: usize, numbers: &[f32]) -> Result<(), CudaError> {
        let at = self.kept(kept, slot).ok_or_else(|| CudaError::Model("a frozen parameter is no master".to_owned()))?;
        self.gpu.upload(at, numbers)
    }

    /// Numbers to a frozen slot, in the type that it holds.
    fn upload(&self, kernels: &Kernels, slot: usize, numbers: &[f32]) -> Result<(), CudaError> {
        if !self.turns(slot) {
            return self.convert(kernels, slot, self.address(slot), numbers);
        }
        let Slot { rows, columns, .. } = self.table.slots[slot];
        let aside = Buffer::new(&self.gpu, rows * columns * self.number.bytes(), "a weight on its way")?;
        self.convert(kernels, slot, aside.at(), numbers)?;
        let name = if self.number == Number::Bf16 { "transpose_bf16" } else { "transpose_f32" };
        let arguments = Arguments::default().all([self.address(slot), aside.at()]).all([rows, columns]);
        kernels.launch(name, [columns.div_ceil(32), rows.div_ceil(32), 1], [32, 8], 0, &arguments)
    }

    /// Numbers to memory, in the type that the slot holds.
    fn convert(&self, kernels: &Kernels, slot: usize, at: Address, numbers: &[f32]) -> Result<(), CudaError> {
        if self.table.slots[slot].vector || self.number == Number::F32 {
            return self.gpu.upload(at, numbers);
        }
        for (index, numbers) in numbers.chunks(STAGE).enumerate() {
            self.gpu.upload(self.staging.at(), numbers)?;
            cast(kernels, at.plus(index * STAGE * 2), self.staging.at(), numbers.len())?;
        }
        Ok(())
    }

    /// The trained matrices' bf16 copies from their masters.
    fn refresh(&self, kernels: &Kernels) -> Result<(), CudaError> {
        match &self.copies {
            Some(copies) => cast(kernels, copies.at(), self.arena(Kept::Parameter), self.counts[0]),
            None => Ok(()),
        }
    }

    /// What is kept of a trained parameter, row by row.
    ///
    /// # Errors
    /// When no trained parameter has this path, or the device fails.
    pub fn read(&self, kept: Kept, name: &str) -> Result<Vec<f32>, CudaError> {
        let unknown = || CudaError::Model(format!("`{name}` is no trained parameter"));
        let piece = *self.table.pieces.get(name).ok_or_else(unknown)?;
        let at = self.kept(kept, piece.slot).ok_or_else(unknown)?;
        self.gpu.bind()?;
        let Slot { rows, columns, .. } = self.table.slots[piece.slot];
        Ok(part(&self.gpu.download(at, rows * columns)?, columns, piece))
    }

    /// Numbers without meaning in every matrix, and ones in every vector: for measurements.
    ///
    /// # Errors
    /// When the device fails.
    pub fn scramble(&mut self, kernels: &Kernels) -> Result<(), CudaError> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 0.07
        };
        let noise: Vec<f32> = (0..1 << 20).map(|_| draw()).collect();
        for slot in 0..self.table.slots.len() {
            let Slot { rows, columns, vector, trained } = self.table.slots[slot];
            let count = rows * columns;
            let ones = vec![1.0_f32; if vector { count } else { 0 }];
            if vector && trained {
                self.put(Kept::Parameter, slot, &ones)?;
            } else if vector {
                self.upload(kernels, slot, &ones)?;
            } else if trained {
                let numbers: Vec<f32> = noise.iter().copied().cycle().skip(slot * 977).take(count).collect();
                self.put(Kept::Parameter, slot, &numbers)?;
            } else {
                self.tile(kernels, slot, &noise)?;
            }
        }
        self.refresh(kernels)
    }

    fn tile(&self, kernels: &Kernels, slot: usize, noise: &[f32]) -> Result<(), CudaError> {
        let Slot { rows, columns, .. } = self.table.slots[slot];
        let (at, bytes) = (self.address(slot), rows * columns * self.number.bytes());
        self.convert(kernels, slot, at, &noise[..noise.len().min(rows * columns)])?;
        let mut done = noise.len() * self.number.bytes();
        while done < bytes {
            let next = done.min(bytes - done);
            self.gpu.copy(at.plus(done), at, next)?;
            done += next;
        }
        Ok(())
    }
}

/// A piece of a slot's numbers.
fn part(numbers: &[f32], columns: usize, piece: Piece) -> Vec<f32> {
    let rows = numbers.chunks_exact(columns).take(piece.rows);
    rows.flat_map(|row| &row[piece.column..piece.column + piece.columns]).copied().collect()
}

fn cast(kernels: &Kernels, to: Address, from: Address, count: usize) -> Result<(), CudaError> {
    let arguments = Arguments::default().with(to).with(from).with(count);
    kernels.launch("cast_f32_bf16", [count.div_ceil(8 * 256), 1, 1], [256, 1], 0, &arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trained_matrices_come_before_vectors_and_frozen_tensors_lie_apart() {
        let slot = |rows, columns, vector, trained| Slot { rows, columns, vector, trained };
        let slots =
            [slot(1, 10, true, true), slot(8, 10, false, true), slot(4, 100, false, false), slot(1, 70, true, false)];
        let (places, counts, frozen) = place(&slots, Number::Bf16);
        assert_eq!((places, counts, frozen), (vec![128, 0, 0, 1024], [128, 192], 1024 + 512));
    }

    #[test]
    fn a_piece_is_some_columns_of_a_slot() {
        let numbers: Vec<f32> = (0..12_u8).map(f32::from).collect();
        let piece = Piece { slot: 0, column: 1, rows: 2, columns: 2 };
        assert_eq!(part(&numbers, 4, piece), [1.0, 2.0, 5.0, 6.0]);
    }
}
