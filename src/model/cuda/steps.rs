//! Drawing one token after another for many sequences: one recorded graph for each size of batch.
//!
//! Up to 32 sequences in bf16, products are kernels of ours that read each weight once, with norm, bias, rotation, the cache's
//! new row and the residual sum inside: five launches a layer. Beyond that, and for models with norms of heads or behind
//! blocks, cuBLASLt multiplies.

use std::collections::BTreeMap;

use super::CudaError;
use super::arena::Plan;
use super::blas::{Matrix, Number};
use super::driver::{Address, Arguments, Buffer, Graph};
use super::inference::{Ask, Capacity, Drawing, Flow, Given, Inference, PAGE, Wanted};
use super::network::{Network, Room};
use crate::model::architecture::Activation;

/// The largest batch of the kernels for few rows, where launches count most: in small models.
const SKINNY: usize = 32;

/// The largest batch where they beat cuBLASLt in large models.
const SKINNY_LARGE: usize = 8;

/// The widest model that counts as small.
const SMALL: usize = 1024;

/// The most shares into which the keys of a sequence are cut.
const SPLITS: usize = 64;

/// Everything that steps need, for the largest batch; smaller ones use the beginning of each region.
#[derive(Debug)]
pub(super) struct Steps {
    memory: Buffer,
    /// Entries of a sequence's table of pages.
    stride: usize,
    /// The page for what nobody reads.
    trash: i32,
    rows: usize,
    ahead: usize,
    flow: Flow,
    /// `f32` logits, [rows, vocabulary].
    pub logits: Address,
    /// What splits of attention leave for each other.
    parts: [Address; 2],
    graphs: BTreeMap<usize, Graph>,
}

/// Where the state of `batch` sequences lies, in words of four bytes from the beginning of the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    batch: usize,
    ids: usize,
    positions: usize,
    lengths: usize,
    rows: usize,
    step: usize,
    temperature: usize,
    top_p: usize,
    min_p: usize,
    top_k: usize,
    uniforms: usize,
    table: usize,
    /// Words that the host sends.
    sent: usize,
    token: usize,
    log_prob: usize,
    /// What was drawn, [ahead, batch], then its log-probabilities: what the host reads.
    drawn: usize,
    drawn_log_probs: usize,
    words: usize,
}

impl State {
    fn new(batch: usize, ahead: usize, stride: usize) -> Self {
        let mut plan = Plan::default();
        let mut words = |count: usize| plan.take(count * 4) / 4;
        let [ids, positions, lengths, rows] = [words(batch), words(batch), words(batch), words(batch)];
        let [step, temperature, top_p, min_p, top_k] =
            [words(1), words(batch), words(batch), words(batch), words(batch)];
        let [uniforms, table] = [words(ahead * batch), words(batch * stride)];
        let sent = words(0);
        let [token, log_prob, drawn, drawn_log_probs] =
            [words(batch), words(batch), words(ahead * batch), words(ahead * batch)];
        let words = words(0);
        Self {
            batch,
            ids,
            positions,
            lengths,
            rows,
            step,
            temperature,
            top_p,
            min_p,
            top_k,
            uniforms,
            table,
            sent,
            token,
            log_prob,
            drawn,
            drawn_log_probs,
            words,
        }
    }
}

/// The batch that so many sequences are padded to.
fn bucket(sequences: usize, rows: usize) -> usize {
    let step = match sequences {
        0..=4 => return sequences.next_power_of_two().min(rows.max(1)),
        5..=32 => 8,
        _ => 32,
    };
    sequences.next_multiple_of(step).min(rows)
}

impl Steps {
    pub fn new(network: &Network, capacity: Capacity) -> Result<Self, CudaError> {
        let shape = &network.shape;
        let Capacity { rows, ahead, pages, .. } = capacity;
        let stride = (shape.context + ahead).div_ceil(PAGE) + 1;
        let lay = |room: &mut Room| {
            room.take(State::new(rows, ahead, stride).words * 4);
            let flow = network.lay_flow(rows, room);
            let logits = room.take(rows * network.weights.table.vocab * 4);
            let parts = [
                room.take(rows.min(2 * SKINNY) * shape.heads * SPLITS * (shape.head + 2) * 4),
                room.take(rows * shape.heads * 4),
            ];
            (flow, logits, parts)
        };
        let mut trial = Room::new(Address::NONE);
        lay(&mut trial);
        let memory = Buffer::new(&network.gpu, trial.bytes(), "steps of decoding")?;
        network.gpu.clear(memory.at(), memory.bytes())?;
        let (flow, logits, parts) = lay(&mut Room::new(memory.at()));
        let graphs = BTreeMap::new();
        Ok(Self { memory, stride, trash: pages as i32, rows, ahead, flow, logits, parts, graphs })
    }

    /// A sequence's table of pages; behind its own comes the page that nobody reads.
    pub fn table(&self, pages: &[u32]) -> impl Iterator<Item = i32> {
        let own = pages.iter().take(self.stride).map(|page| *page as i32);
        own.chain(std::iter::repeat(self.trash)).take(self.stride)
    }

    fn at(&self, word: usize) -> Address {
        self.memory.at().plus(word * 4)
    }

    /// Attention of one token of each of `batch` sequences, the first rows of the flow, to the cache.
    pub fn attend(
        &self,
        network: &Network,
        index: usize,
        flow: &Flow,
        cache: [Address; 2],
        [tables, lengths]: [Address; 2],
        batch: usize,
    ) -> Result<(), CudaError> {
        let shape = &network.shape;
        let geometry = network.kernels.constants("decode_launch", 2)?;
        let blocks = shape.heads / geometry[0] as usize;
        let wanted = (2 * network.gpu.processors).div_ceil(batch * blocks);
        let splits = if batch > 2 * SKINNY { 1 } else { wanted.clamp(1, SPLITS) };
        let window = shape.layers[index].window.map_or(0, |window| window as i32);
        let arguments = Arguments::default()
            .with(flow.mixed)
            .all(self.parts)
            .with(flow.qkv)
            .all(cache)
            .with(tables)
            .with(self.stride)
            .with(lengths)
            .all([network.packed(), shape.heads, shape.kv_heads])
            .with(shape.query_scale as f32)
            .with(window)
            .with(splits);
        let name = network.headed("attend_decode");
        network.kernels.launch(&name, [blocks, splits, batch], [geometry[1] as u32, 1], 0, &arguments)
    }

    /// Draws a token for each row of the logits; those that ask for none draw something that nobody reads.
    pub fn draw_once<'a>(
        &self,
        network: &Network,
        wanted: impl ExactSizeIterator<Item = Wanted<'a>>,
    ) -> Result<Vec<(i32, f32)>, CudaError> {
        let state = State::new(wanted.len(), self.ahead, self.stride);
        let mut words = vec![0; state.sent];
        for (row, wanted) in wanted.enumerate() {
            if let Wanted::Tokens(drawing, uniforms) = wanted {
                state.set_drawing(&mut words, row, drawing, &uniforms[..1]);
            }
        }
        network.gpu.upload(self.memory.at(), &words)?;
        self.sample(network, &state)?;
        let tokens: Vec<i32> = network.gpu.download(self.at(state.token), state.batch)?;
        let log_probs: Vec<f32> = network.gpu.download(self.at(state.log_prob), state.batch)?;
        Ok(tokens.into_iter().zip(log_probs).collect())
    }

    fn sample(&self, network: &Network, state: &State) -> Result<(), CudaError> {
        let (vocab, stride) = (network.shape.vocab, network.weights.table.vocab);
        let settings = [state.temperature, state.top_p, state.min_p, state.top_k, state.uniforms, state.step];
        let arguments = Arguments::default()
            .all([self.at(state.token), self.at(state.log_prob), self.logits])
            .with(stride)
            .all(settings.map(|word| self.at(word)))
            .all([state.batch, vocab])
            .all([Address::NONE; 2]);
        let threads = if vocab <= 1024 { 256 } else { 1024 };
        network.kernels.launch("sample", [state.batch, 1, 1], [threads, 1], 0, &arguments)
    }

    /// What is launched for one step.
    fn step(&self, network: &Network, cache: &[[Address; 2]], state: &State) -> Result<(), CudaError> {
        let (batch, flow) = (state.batch, &self.flow);
        network.embed(flow.x, self.at(state.ids), batch)?;
        let [positions, rows] = [state.positions, state.rows].map(|word| self.at(word));
        let tables = [state.table, state.lengths].map(|word| self.at(word));
        for (index, cache) in cache.iter().enumerate() {
            let attend = || self.attend(network, index, flow, *cache, tables, batch);
            if skinny(network, batch) {
                network.infer_few(index, flow, [positions, rows], *cache, batch, attend)?;
            } else {
                let [keys, values] = *cache;
                network.infer(index, flow, [positions, rows, keys, values], batch, None, attend)?;
            }
        }
        network.last(flow, self.logits, batch)?;
        self.sample(network, state)?;
        let moved = [state.ids, state.positions, state.lengths, state.rows, state.token, state.log_prob];
        let arguments = Arguments::default()
            .all(moved.map(|word| self.at(word)))
            .all([state.drawn, state.drawn_log_probs, state.step, state.table].map(|word| self.at(word)))
            .all([self.stride, batch])
            .with(Address::NONE)
            .with(network.shape.vocab);
        network.kernels.launch("advance", [1, 1, 1], [(batch.next_multiple_of(32)) as u32, 1], 0, &arguments)
    }

    /// Records the step of a batch. It runs once before, on sequences of which nobody reads anything: what is chosen and
    /// loaded at first use must not happen while recording.
    fn record(&mut self, network: &Network, cache: &[[Address; 2]], batch: usize) -> Result<(), CudaError> {
        if self.graphs.contains_key(&batch) {
            return Ok(());
        }
        let state = State::new(batch, self.ahead, self.stride);
        network.gpu.upload(self.memory.at(), &self.idle(&state))?;
        self.step(network, cache, &state)?;
        network.gpu.synchronize()?;
        let graph = network.gpu.record(|| self.step(network, cache, &state))?;
        self.graphs.insert(batch, graph);
        Ok(())
    }

    /// The state of sequences that write into the page that nobody reads.
    fn idle(&self, state: &State) -> Vec<u32> {
        let mut words = vec![0; state.sent];
        words[state.lengths..state.lengths + state.batch].fill(1);
        words[state.rows..state.rows + state.batch].fill((self.trash * PAGE as i32) as u32);
        words[state.table..state.table + state.batch * self.stride].fill(self.trash as u32);
        words
    }
}

impl State {
    fn set_drawing(&self, words: &mut [u32], row: usize, drawing: Drawing, uniforms: &[f32]) {
        words[self.temperature + row] = drawing.temperature.to_bits();
        words[self.top_p + row] = drawing.top_p.to_bits();
        words[self.min_p + row] = drawing.min_p.to_bits();
        words[self.top_k + row] = drawing.top_k as u32;
        for (step, uniform) in uniforms.iter().enumerate() {
            words[self.uniforms + step * self.batch + row] = uniform.to_bits();
        }
    }
}

/// Whether the kernels for few rows take a step.
fn skinny(network: &Network, batch: usize) -> bool {
    let shape = &network.shape;
    batch <= if shape.hidden <= SMALL { SKINNY } else { SKINNY_LARGE }
        && network.weights.number == Number::Bf16
        && !shape.qk_norm
        && !shape.post_norms
}

/// The variant of a kernel for few rows.
fn sized(name: &str, batch: usize) -> String {
    let most = match batch {
        0..=8 => 8,
        9..=16 => 16,
        _ => 32,
    };
    format!("{name}_{most}")
}

impl Inference {
    /// Draws as many tokens for each sequence as it has random numbers. Each has one new token.
    pub(super) fn draw_on(&mut self, asks: &[Ask]) -> Result<Vec<Given>, CudaError> {
        let mut given = Vec::with_capacity(asks.len());
        for asks in asks.chunks(self.capacity.rows) {
            let Self { network, cache, steps, .. } = self;
            let batch = bucket(asks.len(), steps.rows);
            steps.record(network, cache, batch)?;
            let state = State::new(batch, steps.ahead, steps.stride);
            network.gpu.upload(steps.memory.at(), &steps.words(&state, asks))?;
            let count = asks.iter().map(|ask| uniforms(ask).len()).max().unwrap_or(0);
            for _ in 0..count {
                steps.graphs[&batch].launch()?;
            }
            let drawn: Vec<i32> = network.gpu.download(steps.at(state.drawn), count * batch)?;
            let log_probs: Vec<f32> = network.gpu.download(steps.at(state.drawn_log_probs), count * batch)?;
            for (row, ask) in asks.iter().enumerate() {
                let places = (0..uniforms(ask).len()).map(|step| step * batch + row);
                let tokens = places.map(|place| possible((drawn[place], log_probs[place])));
                given.push(Given::Tokens(tokens.collect::<Result<_, _>>()?));
            }
        }
        Ok(given)
    }
}

impl Steps {
    fn words(&self, state: &State, asks: &[Ask]) -> Vec<u32> {
        let mut words = self.idle(state);
        for (row, ask) in asks.iter().enumerate() {
            words[state.ids + row] = ask.tokens[0];
            words[state.positions + row] = ask.past as u32;
            words[state.lengths + row] = ask.past as u32 + 1;
            words[state.rows + row] = ask.pages[ask.past / PAGE] * PAGE as u32 + (ask.past % PAGE) as u32;
            let table = &mut words[state.table + row * self.stride..][..self.stride];
            table.iter_mut().zip(self.table(ask.pages)).for_each(|(entry, page)| *entry = page as u32);
            if let Wanted::Tokens(drawing, uniforms) = ask.wanted {
                state.set_drawing(&mut words, row, drawing, uniforms);
            }
        }
        words
    }
}

/// A token that the kernels drew; they write -1 where no token is possible.
pub(super) fn possible((token, log_prob): (i32, f32)) -> Result<(u32, f32), CudaError> {
    u32::try_from(token).map(|token| (token, log_prob)).map_err(|_| CudaError::Logits)
}

fn uniforms<'a>(ask: &Ask<'a>) -> &'a [f32] {
    match ask.wanted {
        Wanted::Tokens(_, uniforms) => uniforms,
        _ => &[],
    }
}

impl Network {
    /// Logits of the flow's first rows.
    fn last(&self, flow: &Flow, logits: Address, batch: usize) -> Result<(), CudaError> {
        let (table, hidden) = (&self.weights.table, self.shape.hidden);
        if skinny(self, batch) {
            let weight = self.weights.address(table.head.unwrap_or(table.embed));
            let arguments = Arguments::default()
                .all([logits, weight, flow.x, self.weights.address(table.norm)])
                .all([self.shape.epsilon as f32, self.offset()])
                .all([hidden, table.vocab, table.vocab, batch]);
            return self.few("skinny_logits", table.vocab.div_ceil(16), batch, &arguments);
        }
        self.norm(flow.normed, Address::NONE, flow.x, table.norm, batch)?;
        self.head_logits(batch, Matrix::new(flow.normed, hidden), Matrix::new(logits, table.vocab))
    }

    fn few(&self, name: &str, blocks: usize, batch: usize, arguments: &Arguments) -> Result<(), CudaError> {
        self.kernels.launch(&sized(name, batch), [blocks, 1, 1], [256, 1], 0, arguments)
    }

    /// [`Network::infer`] by the kernels for few rows.
    fn infer_few(
        &self,
        index: usize,
        flow: &Flow,
        [positions, rows]: [Address; 2],
        [keys, values]: [Address; 2],
        batch: usize,
        attend: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let (shape, slots) = (&self.shape, &self.weights.table.layers[index]);
        let weight = |slot: usize| self.weights.address(slot);
        let bias = |slot: Option<usize>| slot.map_or(Address::NONE, weight);
        let constants = [shape.epsilon as f32, self.offset()];
        let packed = self.packed();
        let arguments = Arguments::default()
            .all([flow.qkv, keys, values, weight(slots.qkv.matrix), flow.x])
            .all([bias(slots.qkv.bias), weight(slots.input_norm)])
            .all(constants)
            .all(self.ropes[shape.layers[index].rope])
            .all([positions, rows])
            .all([shape.hidden, shape.heads, shape.kv_heads, packed, batch]);
        self.few("skinny_qkv", packed / 16, batch, &arguments)?;
        attend()?;
        let store = |out: Address, x: Address, projection: &super::table::Projection| {
            let arguments = Arguments::default()
                .all([out, weight(projection.matrix), x, bias(projection.bias), Address::NONE])
                .all(constants)
                .all([projection.inputs, projection.outputs, batch, 1]);
            self.few("skinny_store", projection.outputs.div_ceil(16), batch, &arguments)
        };
        store(flow.x, flow.mixed, &slots.out)?;
        let kind = match shape.activation {
            Activation::Silu => 0_usize,
            Activation::GeluTanh => 1,
        };
        let arguments = Arguments::default()
            .all([flow.gated, weight(slots.gate_up.matrix), flow.x, bias(slots.gate_up.bias)])
            .with(weight(slots.attention_norm))
            .all(constants)
            .all([shape.hidden, shape.inner, batch, kind]);
        self.few("skinny_gated", shape.inner.div_ceil(8), batch, &arguments)?;
        store(flow.x, flow.gated, &slots.down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_no_token_is_possible_none_comes_out() {
        assert_eq!(possible((7, -0.5)).unwrap(), (7, -0.5));
        let error = possible((-1, f32::NEG_INFINITY)).unwrap_err().to_string();
        assert!(error.starts_with("no token can be drawn: the model's logits are no numbers"), "{error}");
    }

    #[test]
    fn batches_are_padded_to_few_sizes() {
        let padded: Vec<usize> = [1, 2, 3, 5, 9, 17, 31, 33, 65, 250].into_iter().map(|n| bucket(n, 256)).collect();
        assert_eq!(padded, [1, 2, 4, 8, 16, 24, 32, 64, 96, 256]);
        assert_eq!((bucket(3, 3), bucket(40, 50)), (3, 50));
    }

    #[test]
    fn what_the_host_sends_comes_before_what_it_reads() {
        let state = State::new(3, 4, 10);
        assert!(state.table + 30 <= state.sent && state.sent <= state.token);
        assert!(state.drawn + 12 <= state.drawn_log_probs && state.drawn_log_probs + 12 <= state.words);
    }
}
