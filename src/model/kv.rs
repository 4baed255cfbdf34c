//! Keys and values of a batch of sequences while they are generated.

use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor, TensorData, s};

use super::infer::Shape;
use super::prefix::{BLOCK, BlockValues};

/// The keys and values of `rows` sequences, each from token 0 on, with room for `capacity` tokens each.
///
/// Keys lie with the tokens side by side, values with the features side by side: so both products of attention read memory
/// in order.
#[derive(Debug)]
pub struct KvBatch {
    layers: Vec<Layer>,
    lengths: Vec<usize>,
    capacity: usize,
    shape: Shape,
}

#[derive(Debug)]
struct Layer {
    keys: Option<Tensor<2>>,   // [rows * features, capacity]; `None` only while it is being written
    values: Option<Tensor<2>>, // [rows * capacity, features]
}

impl Layer {
    fn new(keys: Vec<f32>, values: Vec<f32>, rows: usize, capacity: usize, device: &Device) -> Self {
        let features = keys.len() / (rows * capacity).max(1);
        let tensor = |numbers, shape: [usize; 2]| Some(Tensor::from_data(TensorData::new(numbers, shape), device));
        Self { keys: tensor(keys, [rows * features, capacity]), values: tensor(values, [rows * capacity, features]) }
    }
}

const WRITTEN: &str = "a tensor is put back after every write";

impl KvBatch {
    /// A batch whose rows begin with the given blocks. `capacity` must leave room for them.
    pub fn new(shape: Shape, capacity: usize, rows: &[Vec<BlockValues>], device: &Device) -> Self {
        let features = shape.features();
        let layers = (0..shape.layers).map(|layer| {
            let size = rows.len() * capacity * features;
            let (mut keys, mut values) = (vec![0.0_f32; size], vec![0.0_f32; size]);
            for (row, blocks) in rows.iter().enumerate() {
                let start = row * capacity * features;
                for (index, block) in blocks.iter().enumerate() {
                    let block = &block[layer * 2 * BLOCK * features..(layer + 1) * 2 * BLOCK * features];
                    let (block_keys, block_values) = block.split_at(BLOCK * features);
                    for (feature, tokens) in block_keys.chunks(BLOCK).enumerate() {
                        let place = start + feature * capacity + index * BLOCK;
                        keys[place..place + BLOCK].copy_from_slice(tokens);
                    }
                    let place = start + index * BLOCK * features;
                    values[place..place + BLOCK * features].copy_from_slice(block_values);
                }
            }
            Layer::new(keys, values, rows.len(), capacity, device)
        });
        let lengths = rows.iter().map(|blocks| blocks.len() * BLOCK).collect();
        Self { layers: layers.collect(), lengths, capacity, shape }
    }

    /// How many sequences there are.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// How many tokens a row has room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many tokens a row has.
    pub fn length(&self, row: usize) -> usize {
        self.lengths[row]
    }

    /// Counts new tokens into a row.
    pub fn grow(&mut self, row: usize, tokens: usize) {
        self.lengths[row] += tokens;
    }

    /// Writes one new token behind every row: keys and values are [rows, features], `columns` [rows * features, 1] and
    /// `places` [rows] say where.
    pub(super) fn write_single(
        &mut self,
        layer: usize,
        [keys, values]: [Tensor<2>; 2],
        columns: Tensor<2, Int>,
        places: Tensor<1, Int>,
    ) {
        let layer = &mut self.layers[layer];
        // Taken out first: burn writes in place only what has one owner.
        let all = layer.keys.take().expect(WRITTEN);
        let size = all.dims()[0];
        layer.keys = Some(all.scatter(1, columns, keys.reshape([size, 1]), IndexingUpdateOp::Assign));
        let all = layer.values.take().expect(WRITTEN);
        layer.values = Some(all.select_assign(0, places, values, IndexingUpdateOp::Assign));
    }

    /// Writes several new tokens behind a row: keys and values are [tokens, features].
    pub(super) fn write_row(&mut self, layer: usize, row: usize, [keys, values]: [Tensor<2>; 2]) {
        let [count, features] = keys.dims();
        let (start, length) = (row * self.capacity, self.lengths[row]);
        let layer = &mut self.layers[layer];
        let all = layer.keys.take().expect(WRITTEN);
        let range = s![row * features..(row + 1) * features, length..length + count];
        layer.keys = Some(all.slice_assign(range, keys.transpose()));
        let all = layer.values.take().expect(WRITTEN);
        layer.values = Some(all.slice_assign(s![start + length..start + length + count, ..], values));
    }

    /// Keys, [rows, kv_heads, head, width], and values, [rows, kv_heads, width, head], of all rows up to a token.
    pub(super) fn view(&self, layer: usize, width: usize) -> [Tensor<4>; 2] {
        let layer = &self.layers[layer];
        let (keys, values) = (layer.keys.clone().expect(WRITTEN), layer.values.clone().expect(WRITTEN));
        self.split(keys, values, self.rows(), width)
    }

    /// The same of one row: [1, ..].
    pub(super) fn view_row(&self, layer: usize, row: usize, width: usize) -> [Tensor<4>; 2] {
        let features = self.shape.features();
        let layer = &self.layers[layer];
        let keys = layer.keys.clone().expect(WRITTEN).narrow(0, row * features, features);
        let values = layer.values.clone().expect(WRITTEN).narrow(0, row * self.capacity, self.capacity);
        self.split(keys, values, 1, width)
    }

    fn split(&self, keys: Tensor<2>, values: Tensor<2>, rows: usize, width: usize) -> [Tensor<4>; 2] {
        let Shape { kv_heads, head, .. } = self.shape;
        let keys = keys.reshape([rows, kv_heads, head, self.capacity]).narrow(3, 0, width);
        let values = values.reshape([rows, self.capacity, kv_heads, head]).narrow(1, 0, width).swap_dims(1, 2);
        [keys, values]
    }

    /// Takes the keys and values to the host.
    pub fn into_host(self) -> HostKv {
        let host = |tensor: Option<Tensor<2>>| {
            let numbers = tensor.expect(WRITTEN).try_into_vec_as::<f32>();
            numbers.expect("keys and values are f32 and the device answers")
        };
        let layers = self.layers.into_iter().map(|layer| [host(layer.keys), host(layer.values)]);
        HostKv { layers: layers.collect(), lengths: self.lengths, capacity: self.capacity, shape: self.shape }
    }
}

/// Keys and values on the host.
#[derive(Debug)]
pub struct HostKv {
    layers: Vec<[Vec<f32>; 2]>,
    lengths: Vec<usize>,
    capacity: usize,
    shape: Shape,
}

impl HostKv {
    /// The keys and values of the block of a row that begins at a token: per layer the keys, [features, tokens], then the
    /// values, [tokens, features].
    pub fn block(&self, row: usize, token: usize) -> Vec<f32> {
        let features = self.shape.features();
        let start = row * self.capacity * features;
        let mut block = Vec::with_capacity(self.shape.layers * 2 * BLOCK * features);
        for [keys, values] in &self.layers {
            for feature in 0..features {
                let place = start + feature * self.capacity + token;
                block.extend_from_slice(&keys[place..place + BLOCK]);
            }
            let place = start + token * features;
            block.extend_from_slice(&values[place..place + BLOCK * features]);
        }
        block
    }

    /// Back onto the device with only the given rows, in the given order; a row may stand there twice.
    pub fn into_batch(self, rows: &[usize], device: &Device) -> KvBatch {
        let size = self.capacity * self.shape.features();
        let pick = |numbers: &[f32]| {
            let mut picked = Vec::with_capacity(rows.len() * size);
            for &row in rows {
                picked.extend_from_slice(&numbers[row * size..(row + 1) * size]);
            }
            picked
        };
        let layers = self.layers.iter();
        let layers =
            layers.map(|[keys, values]| Layer::new(pick(keys), pick(values), rows.len(), self.capacity, device));
        KvBatch {
            layers: layers.collect(),
            lengths: rows.iter().map(|&row| self.lengths[row]).collect(),
            capacity: self.capacity,
            shape: self.shape,
        }
    }
}
