//! Keys and values of a batch of sequences while they are generated.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::infer::{REPLACE, Shape};
use super::prefix::{BLOCK, BlockValues};

/// The keys and values of `rows` sequences, each from column 0 on, with room for `capacity` tokens each.
#[derive(Debug)]
pub struct KvBatch {
    layers: Vec<Option<Tensor<2>>>, // [rows * capacity, kv_size]; `None` only while it is being written
    lengths: Vec<usize>,
    capacity: usize,
    shape: Shape,
}

impl KvBatch {
    /// A batch whose rows begin with the given blocks.
    pub fn new(shape: Shape, capacity: usize, rows: &[Vec<BlockValues>], device: &Device) -> Self {
        let size = shape.kv_size();
        let layers = (0..shape.layers).map(|layer| {
            let mut values = vec![0.0_f32; rows.len() * capacity * size];
            for (row, blocks) in rows.iter().enumerate() {
                let start = row * capacity * size;
                for (target, block) in values[start..].chunks_mut(BLOCK * size).zip(blocks) {
                    target.copy_from_slice(&block[layer * BLOCK * size..(layer + 1) * BLOCK * size]);
                }
            }
            Some(Tensor::from_data(TensorData::new(values, [rows.len() * capacity, size]), device))
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

    /// Writes keys and values of new tokens, [tokens, kv_size], to their places.
    pub(super) fn write(&mut self, layer: usize, places: Tensor<1, Int>, values: Tensor<2>) {
        // Taken out first: burn writes in place only what has one owner.
        let cache = self.layers[layer].take().expect("a layer is put back after every write");
        self.layers[layer] = Some(cache.select_assign(0, places, values, REPLACE));
    }

    /// Counts new tokens into a row.
    pub fn grow(&mut self, row: usize, tokens: usize) {
        self.lengths[row] += tokens;
    }

    /// Keys and values of all rows up to a column: [rows, kv_heads, width, head] each.
    pub(super) fn view(&self, layer: usize, width: usize) -> [Tensor<4>; 2] {
        self.split(self.layer(layer), self.rows(), width)
    }

    /// Keys and values of one row up to a column: [1, kv_heads, width, head] each.
    pub(super) fn view_row(&self, layer: usize, row: usize, width: usize) -> [Tensor<4>; 2] {
        self.split(self.layer(layer).narrow(0, row * self.capacity, self.capacity), 1, width)
    }

    fn split(&self, cache: Tensor<2>, rows: usize, width: usize) -> [Tensor<4>; 2] {
        let Shape { kv_heads, head, .. } = self.shape;
        let all = cache.reshape([rows, self.capacity, 2 * kv_heads, head]).narrow(1, 0, width).swap_dims(1, 2);
        [all.clone().narrow(1, 0, kv_heads), all.narrow(1, kv_heads, kv_heads)]
    }

    fn layer(&self, layer: usize) -> Tensor<2> {
        self.layers[layer].clone().expect("a layer is put back after every write")
    }

    /// Takes the keys and values to the host, [rows, capacity, kv_size] per layer.
    pub fn into_host(self) -> HostKv {
        let layers = self
            .layers
            .into_iter()
            .flatten()
            .map(|layer| layer.try_into_vec_as::<f32>().expect("keys and values are f32 and the device answers"));
        HostKv { layers: layers.collect(), lengths: self.lengths, capacity: self.capacity, shape: self.shape }
    }
}

/// Keys and values on the host.
#[derive(Debug)]
pub struct HostKv {
    layers: Vec<Vec<f32>>,
    lengths: Vec<usize>,
    capacity: usize,
    shape: Shape,
}

impl HostKv {
    /// The keys and values of the block of a row that begins at a token.
    pub fn block(&self, row: usize, token: usize) -> Vec<f32> {
        let size = self.shape.kv_size();
        let start = (row * self.capacity + token) * size;
        self.layers.iter().flat_map(|layer| &layer[start..start + BLOCK * size]).copied().collect()
    }

    /// Back onto the device with only the given rows, in the given order; a row may stand there twice.
    pub fn into_batch(self, rows: &[usize], device: &Device) -> KvBatch {
        let size = self.capacity * self.shape.kv_size();
        let layers = self.layers.iter().map(|layer| {
            let values: Vec<f32> = rows.iter().flat_map(|&row| &layer[row * size..(row + 1) * size]).copied().collect();
            let shape = [rows.len() * self.capacity, self.shape.kv_size()];
            Some(Tensor::from_data(TensorData::new(values, shape), device))
        });
        KvBatch {
            layers: layers.collect(),
            lengths: rows.iter().map(|&row| self.lengths[row]).collect(),
            capacity: self.capacity,
            shape: self.shape,
        }
    }
}
