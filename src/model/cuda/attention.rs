//! Turning of heads and attention over packed sequences.

use super::CudaError;
use super::batch::Placed;
use super::blas::Number;
use super::driver::{Address, Arguments};
use super::network::{BLOCKS, Network};

/// The launch of an attention kernel: rows a block, threads, bytes of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Rows of queries or keys that a block takes.
    pub rows: usize,
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

impl Network {
    /// The launch of attention's forward kernel (0), of its gradient of queries (1), or of keys and values (2): the
    /// kernels' module says it.
    pub(super) fn geometry(&self, kernel: usize) -> Result<Geometry, CudaError> {
        let numbers = self.kernels.constants("attend_launch", 9)?;
        let [rows, threads, shared] = [0, 1, 2].map(|i| numbers[kernel * 3 + i]);
        Ok(Geometry { rows: rows as usize, threads: threads as u32, shared: shared as u32 })
    }

    /// Checks that the device has the shared memory that these of attention's kernels ask for, numbered as in
    /// [`Network::geometry`].
    ///
    /// # Errors
    /// Says what is asked for and what there is.
    pub(super) fn check_shared(&self, kernels: std::ops::Range<usize>) -> Result<(), CudaError> {
        let needs = kernels.map(|kernel| Ok(self.geometry(kernel)?.shared as usize));
        let most = needs.collect::<Result<Vec<usize>, CudaError>>()?.into_iter().max().unwrap_or(0);
        fits(most, self.gpu.shared, self.shape.head, self.weights.number)
    }

    /// The name of an attention kernel for the network's numbers and size of head.
    pub(super) fn headed(&self, name: &str) -> String {
        format!("{}_{}", self.typed(name), self.shape.head)
    }

    /// The weights of a layer's norms of heads, where it has them.
    pub(super) fn head_norms(&self, index: usize) -> [Address; 2] {
        let slots = &self.weights.table.layers[index];
        slots.head_norms.map_or([Address::NONE; 2], |norms| norms.map(|slot| self.weights.address(slot)))
    }

    /// Norms (where there are norms of heads) and turns the queries and keys of `n` tokens.
    pub(super) fn turn(
        &self,
        index: usize,
        out: Address,
        raw: Address,
        scale: Address,
        positions: Address,
        n: usize,
    ) -> Result<(), CudaError> {
        self.turn_into(index, [out, raw, scale, positions], [Address::NONE; 3], n)
    }

    /// The same, with turned keys and values also written to rows of a cache: `cache` is keys, values and each token's row.
    pub(super) fn turn_into(
        &self,
        index: usize,
        [out, raw, scale, positions]: [Address; 4],
        cache: [Address; 3],
        n: usize,
    ) -> Result<(), CudaError> {
        let shape = &self.shape;
        let arguments = Arguments::default()
            .all([out, raw])
            .all(self.ropes[shape.layers[index].rope])
            .with(positions)
            .all(self.head_norms(index))
            .with(scale)
            .all(cache)
            .all([n, shape.heads, shape.kv_heads, shape.head])
            .with(shape.epsilon as f32)
            .with(self.offset());
        // About 2,048 numbers a block; values are copied only where they go somewhere else.
        let heads = shape.heads + if out == raw && cache[0] == Address::NONE { 1 } else { 2 } * shape.kv_heads;
        self.rows("qk_rope_fwd", (n * heads).div_ceil((2048 / shape.head).max(1)).min(n), &arguments)
    }

    /// The backward pass of [`Network::turn`], in place.
    pub(super) fn turn_back(
        &self,
        index: usize,
        batch: &Placed,
        gradient: Address,
        raw: Address,
        scale: Address,
        parts: Address,
    ) -> Result<(), CudaError> {
        let (shape, n) = (&self.shape, batch.tokens);
        let norms = self.weights.table.layers[index].head_norms;
        let blocks = BLOCKS.min(n);
        let halves = norms.map_or([Address::NONE; 2], |_| [parts, parts.plus(blocks * shape.head * 4)]);
        let arguments = Arguments::default()
            .all([gradient, gradient, raw])
            .all(self.ropes[shape.layers[index].rope])
            .with(batch.positions)
            .all(self.head_norms(index))
            .with(scale)
            .all(halves)
            .all([n, shape.heads, shape.kv_heads, shape.head])
            .with(self.offset());
        self.rows("qk_rope_bwd", blocks, &arguments)?;
        for (slot, half) in norms.into_iter().flatten().zip(halves) {
            if self.weights.gradient(slot) != Address::NONE {
                self.sum_parts(slot, half, blocks, shape.head)?;
            }
        }
        Ok(())
    }

    /// Queries, keys and values in packed rows.
    pub(super) fn split(&self, qkv: Address) -> [Address; 3] {
        let (queries, keys) = (self.shape.heads * self.shape.head, self.shape.features());
        [qkv, qkv.plus(self.bytes(queries)), qkv.plus(self.bytes(queries + keys))]
    }

    fn window(&self, index: usize) -> i32 {
        self.shape.layers[index].window.map_or(0, |window| i32::try_from(window).unwrap_or(0))
    }

    /// Attention of packed sequences to themselves: `mixed`, and `lse` where it is wanted.
    pub(super) fn attend(
        &self,
        index: usize,
        batch: &Placed,
        mixed: Address,
        lse: Address,
        qkv: Address,
    ) -> Result<(), CudaError> {
        let [queries, keys, values] = self.split(qkv);
        self.attend_to(index, batch, [mixed, lse, queries], [keys, values], self.packed())
    }

    /// Attention of packed queries to keys and values whose rows lie `stride` numbers apart.
    pub(super) fn attend_to(
        &self,
        index: usize,
        batch: &Placed,
        [mixed, lse, queries]: [Address; 3],
        keys: [Address; 2],
        stride: usize,
    ) -> Result<(), CudaError> {
        let (shape, geometry) = (&self.shape, self.geometry(0)?);
        let arguments = Arguments::default()
            .all([mixed, lse, queries])
            .all(keys)
            .all([shape.heads * shape.head, self.packed(), stride, stride])
            .with(batch.bounds)
            .all([shape.heads, shape.kv_heads])
            .with(shape.query_scale as f32)
            .with(self.window(index))
            .with(batch.tokens);
        let grid = [batch.longest.div_ceil(geometry.rows), shape.heads, batch.sequences];
        self.kernels.launch(&self.headed("attend_fwd"), grid, [geometry.threads, 1], geometry.shared, &arguments)
    }

    /// The gradient of packed queries, keys and values, `dqkv`, from that of what attention mixed, `dmixed`; `delta` is room.
    pub(super) fn attend_back(
        &self,
        index: usize,
        batch: &Placed,
        [dqkv, dmixed, delta]: [Address; 3],
        [mixed, lse, qkv]: [Address; 3],
    ) -> Result<(), CudaError> {
        let (shape, n) = (&self.shape, batch.tokens);
        let (out, packed) = (shape.heads * shape.head, self.packed());
        let prepared = Arguments::default().all([delta, mixed, dmixed]).all([out, out, shape.heads, n]);
        let blocks = (n * shape.heads).div_ceil(32);
        self.kernels.launch(&self.headed("attend_prep"), [blocks, 1, 1], [256, 1], 0, &prepared)?;
        let [dq, dk, dv] = self.split(dqkv);
        let ending = |arguments: Arguments| {
            arguments
                .with(batch.bounds)
                .all([shape.heads, shape.kv_heads])
                .with(shape.query_scale as f32)
                .with(self.window(index))
                .with(n)
        };
        let geometry = self.geometry(1)?;
        let arguments = Arguments::default().all([dq, dmixed, lse, delta]).all(self.split(qkv));
        let arguments = ending(arguments.all([packed, out, packed, packed, packed]));
        let grid = [batch.longest.div_ceil(geometry.rows), shape.heads, batch.sequences];
        self.kernels.launch(&self.headed("attend_dq"), grid, [geometry.threads, 1], geometry.shared, &arguments)?;
        let geometry = self.geometry(2)?;
        let arguments = Arguments::default().all([dk, dv, dmixed, lse, delta]).all(self.split(qkv));
        let arguments = ending(arguments.all([packed, packed, out, packed, packed, packed]));
        let halves = if shape.head > 128 { 2 } else { 1 };
        let grid = [batch.longest.div_ceil(geometry.rows) * halves, shape.kv_heads, batch.sequences];
        self.kernels.launch(&self.headed("attend_dkv"), grid, [geometry.threads, 1], geometry.shared, &arguments)
    }
}

/// Whether a block that takes `wanted` bytes of shared memory finds them where a block can have `here`.
fn fits(wanted: usize, here: usize, head: usize, number: Number) -> Result<(), CudaError> {
    if wanted <= here {
        return Ok(());
    }
    let (number, advice) = match number {
        Number::F32 => ("f32", "compute in bf16, which takes less, or on another device"),
        Number::Bf16 => ("bf16", "take another device"),
    };
    Err(CudaError::Shared { head, number, wanted: wanted.div_ceil(1024), here: here / 1024, advice })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_with_too_little_shared_memory_is_told_apart() {
        assert_eq!(fits(101_376, 101_376, 128, Number::Bf16), Ok(()));
        let error = fits(104_448, 101_376, 128, Number::Bf16).unwrap_err().to_string();
        let begin = "heads of 128 in bf16 need 102 KiB of shared memory a block, this device has 99; ";
        assert_eq!(error, format!("{begin}take another device"));
        assert!(fits(104_448, 101_376, 64, Number::F32).unwrap_err().to_string().contains("compute in bf16"));
    }
}
