//! A decoder that answers on the device: keys and values in pages, prompts many tokens at once, and drawing step by step.
//!
//! Steps in which every sequence has one new token are recorded as a graph for each size of batch and replayed: the host says
//! once where sequences stand, and reads what was drawn when the last step is done. See [`super::steps`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::CudaError;
use super::batch::{Placed, padded};
use super::blas::{Matrix, Number};
use super::driver::{Address, Arguments, Buffer, Gpu};
use super::network::{Network, Space};
use super::passes::{Mode, Scratch};
use super::steps::{Steps, possible};
use super::table::Table;
use crate::model::architecture::Architecture;

/// Tokens in a page: what the kernels are written for.
pub const PAGE: usize = 16;

/// How much is asked of the device at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Pages of keys and values.
    pub pages: usize,
    /// The most sequences of one call.
    pub rows: usize,
    /// The most new tokens of one call.
    pub tokens: usize,
    /// The most tokens drawn for a sequence in one call.
    pub ahead: usize,
}

/// How a token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawing {
    /// 0 takes the likeliest.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: usize,
    /// 1 keeps all.
    pub top_p: f32,
    /// 0 keeps all.
    pub min_p: f32,
}

/// What is asked about what follows a sequence's new tokens.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// Nothing.
    Nothing,
    /// The logits.
    Logits,
    /// As many tokens as there are random numbers from 0 to 1.
    Tokens(Drawing, &'a [f32]),
}

/// New tokens of a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Where its tokens lie: token `t` in page `pages[t / PAGE]`; enough for all that is added.
    pub pages: &'a [u32],
    /// Tokens whose keys and values are there.
    pub past: usize,
    /// The new ones, at least one.
    pub tokens: &'a [u32],
    /// What is asked.
    pub wanted: Wanted<'a>,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// Nothing was asked.
    Nothing,
    /// A logit for every token of the vocabulary.
    Logits(Vec<f32>),
    /// Tokens and their log-probabilities under the model itself.
    Tokens(Vec<(u32, f32)>),
}

/// A decoder that answers.
#[derive(Debug)]
pub struct Inference {
    pub(super) network: Network,
    /// What it has room for.
    pub capacity: Capacity,
    /// Keys and values of each layer, [pages, PAGE, kv_heads, head], with one page more, into which goes what nobody reads.
    pub(super) cache: Vec<[Address; 2]>,
    _pages: Buffer,
    space: Space,
    pub(super) steps: Steps,
}

/// The residual stream and what a layer computes from it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flow {
    pub x: Address,
    pub normed: Address,
    pub raw: Address,
    pub qkv: Address,
    pub mixed: Address,
    pub gate_up: Address,
    pub gated: Address,
    pub changed: Address,
}

/// How the sequences of one pass attend.
struct Spread {
    /// All tokens: ids, positions, and rows of the cache.
    batch: Placed,
    rows: Address,
    /// Sequences with one new token: their tables and lengths. Their tokens come first.
    single: (usize, Address, Address),
    /// Sequences without a past: their bounds.
    fresh: Placed,
    /// Sequences with a past: their bounds, rows of the cache to gather, and room for them.
    grown: Placed,
    gathered: (usize, Address, [Address; 2]),
    /// The tokens whose logits are wanted.
    last: (usize, Address),
    flow: Flow,
}

/// The same on the host.
#[derive(Default)]
struct Packing {
    ids: Vec<i32>,
    positions: Vec<i32>,
    rows: Vec<i32>,
    tables: Vec<i32>,
    lengths: Vec<i32>,
    fresh: Vec<[i32; 4]>,
    grown: Vec<[i32; 4]>,
    gathered: Vec<i32>,
    last: Vec<i32>,
    longest: [usize; 2],
}

impl Inference {
    /// A decoder with all weights zero: [`Inference::fill`] comes next.
    ///
    /// # Errors
    /// Without libraries or memory, and for sizes that the kernels do not take.
    pub fn new(
        gpu: &Arc<Gpu>,
        shape: &Architecture,
        number: Number,
        capacity: Capacity,
        cache: &Path,
    ) -> Result<Self, CudaError> {
        let table = Table::new(shape, &BTreeMap::new(), false)?;
        let network = Network::new(gpu, shape, table, number, true, cache)?;
        let bytes = (capacity.pages + 1) * PAGE * shape.features() * number.bytes();
        let pages = Buffer::new(gpu, bytes * 2 * shape.layers.len(), "keys and values")?;
        gpu.clear(pages.at(), pages.bytes())?;
        let place = |index: usize| pages.at().plus(bytes * index);
        let cache = (0..shape.layers.len()).map(|layer| [place(2 * layer), place(2 * layer + 1)]).collect();
        let steps = Steps::new(&network, capacity)?;
        Ok(Self { network, capacity, cache, _pages: pages, space: Space::default(), steps })
    }

    /// The decoder.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Fills the weights; see [`super::weights::Weights::fill`].
    ///
    /// # Errors
    /// As there.
    pub fn fill<E: From<CudaError>>(&mut self, source: impl FnMut(&str) -> Result<Vec<f32>, E>) -> Result<(), E> {
        self.network.gpu.bind()?;
        self.network.weights.fill(&self.network.kernels, source)
    }

    /// Weights without meaning, for measurements.
    ///
    /// # Errors
    /// When the device fails.
    pub fn scramble(&mut self) -> Result<(), CudaError> {
        self.network.gpu.bind()?;
        self.network.weights.scramble(&self.network.kernels)
    }

    /// Bytes that a page takes in all layers.
    pub fn page_bytes(shape: &Architecture, number: Number) -> usize {
        PAGE * shape.features() * number.bytes() * 2 * shape.layers.len()
    }

    /// Computes new tokens and keeps their keys and values, all of a layer's before any sequence looks at them.
    ///
    /// # Errors
    /// When the device fails.
    pub fn run(&mut self, asks: &[Ask]) -> Result<Vec<Given>, CudaError> {
        self.network.gpu.bind()?;
        let steps = |ask: &Ask| ask.tokens.len() == 1 && matches!(ask.wanted, Wanted::Tokens(..));
        if asks.iter().all(steps) {
            return self.draw_on(asks);
        }
        let mut given = self.pass(asks)?;
        let drawn: Vec<Option<[u32; 1]>> = given.iter().map(first).collect();
        let more = asks.iter().zip(&drawn).enumerate().filter_map(|(index, (ask, drawn))| {
            let (Wanted::Tokens(drawing, uniforms), Some(token)) = (ask.wanted, drawn) else { return None };
            let past = ask.past + ask.tokens.len();
            let wanted = Wanted::Tokens(drawing, &uniforms[1..]);
            (uniforms.len() > 1).then_some((index, Ask { past, tokens: token, wanted, ..*ask }))
        });
        let (places, more): (Vec<usize>, Vec<Ask>) = more.unzip();
        for (place, rest) in places.into_iter().zip(self.draw_on(&more)?) {
            if let (Given::Tokens(drawn), Given::Tokens(rest)) = (&mut given[place], rest) {
                drawn.extend(rest);
            }
        }
        Ok(given)
    }

    /// One pass over new tokens of all sequences, and the first token of those that draw.
    fn pass(&mut self, asks: &[Ask]) -> Result<Vec<Given>, CudaError> {
        // Sequences with one new token behind a past come first: the kernel for them reads rows in order.
        let mut order: Vec<usize> = (0..asks.len()).collect();
        order.sort_by_key(|index| asks[*index].tokens.len() > 1 || asks[*index].past == 0);
        let packing = self.pack(asks, &order);
        let spread = self.spread(&packing)?;
        let network = &self.network;
        network.embed(spread.flow.x, spread.batch.ids, spread.batch.tokens)?;
        let layers = network.shape.layers.len();
        // Behind the last layer's attention, only the tokens count that something is asked about.
        let ends = (network.packed() >= network.shape.hidden).then_some(spread.last);
        for index in 0..layers {
            let tail = ends.filter(|_| index + 1 == layers);
            let [keys, values] = self.cache[index];
            let places = [spread.batch.positions, spread.rows, keys, values];
            network.infer(index, &spread.flow, places, spread.batch.tokens, tail, || self.attend(index, &spread))?;
        }
        if ends.is_none() {
            let (count, last) = spread.last;
            let arguments = Arguments::default().all([spread.flow.raw, spread.flow.x, last]);
            network.rows("gather_rows", count, &arguments.all([count, network.shape.hidden]))?;
        }
        self.answer(asks, &order, &spread)
    }

    fn pack(&self, asks: &[Ask], order: &[usize]) -> Packing {
        let mut packing = Packing::default();
        for ask in order.iter().map(|index| &asks[*index]) {
            let (start, new) = (packing.ids.len() as i32, ask.tokens.len());
            let row = |token: usize| (ask.pages[token / PAGE] as usize * PAGE + token % PAGE) as i32;
            let keys = ask.past + new;
            packing.ids.extend(ask.tokens.iter().map(|id| *id as i32));
            packing.positions.extend((ask.past..keys).map(|position| position as i32));
            packing.rows.extend((ask.past..keys).map(row));
            if ask.past == 0 {
                packing.fresh.push([start, new as i32, start, new as i32]);
                packing.longest[0] = packing.longest[0].max(new);
            } else if new == 1 {
                packing.lengths.push(keys as i32);
                packing.tables.extend(self.steps.table(ask.pages));
            } else {
                packing.grown.push([start, new as i32, packing.gathered.len() as i32, keys as i32]);
                packing.longest[1] = packing.longest[1].max(new);
                packing.gathered.extend((0..keys).map(row));
            }
            if !matches!(ask.wanted, Wanted::Nothing) {
                packing.last.push(packing.ids.len() as i32 - 1);
            }
        }
        let rows = padded(packing.ids.len());
        packing.ids.resize(rows, 0);
        packing.positions.resize(rows, 0);
        packing.rows.resize(rows, (self.capacity.pages * PAGE) as i32);
        packing
    }

    fn spread(&mut self, packing: &Packing) -> Result<Spread, CudaError> {
        let Self { network, space, .. } = self;
        let gpu = Arc::clone(&network.gpu);
        let spread = space.lay(&gpu, "activations", |room| {
            let tokens = packing.ids.len();
            let mut numbers = |count: usize| room.take(count * 4);
            let [ids, positions, rows] = [numbers(tokens), numbers(tokens), numbers(tokens)];
            let single = (packing.lengths.len(), numbers(packing.tables.len()), numbers(packing.lengths.len()));
            let [fresh, grown] = [&packing.fresh, &packing.grown].map(|bounds| numbers(bounds.len() * 4));
            let (gathered, last) = (numbers(packing.gathered.len()), numbers(packing.last.len()));
            let keys = network.bytes(packing.gathered.len() * network.shape.features());
            let gathered = (packing.gathered.len(), gathered, [room.take(keys), room.take(keys)]);
            let bounded =
                |bounds, sequences, longest| Placed { tokens, sequences, longest, bounds, ..Placed::default() };
            Spread {
                batch: Placed { ids, positions, ..bounded(Address::NONE, 0, 0) },
                rows,
                single,
                fresh: bounded(fresh, packing.fresh.len(), packing.longest[0]),
                grown: bounded(grown, packing.grown.len(), packing.longest[1]),
                gathered,
                last: (packing.last.len(), last),
                flow: network.lay_flow(tokens, room),
            }
        })?;
        gpu.upload(spread.batch.ids, &packing.ids)?;
        gpu.upload(spread.batch.positions, &packing.positions)?;
        gpu.upload(spread.rows, &packing.rows)?;
        gpu.upload(spread.single.1, &packing.tables)?;
        gpu.upload(spread.single.2, &packing.lengths)?;
        gpu.upload(spread.fresh.bounds, packing.fresh.as_flattened())?;
        gpu.upload(spread.grown.bounds, packing.grown.as_flattened())?;
        gpu.upload(spread.gathered.1, &packing.gathered)?;
        gpu.upload(spread.last.1, &packing.last)?;
        Ok(spread)
    }

    /// The three kinds of sequences attend.
    fn attend(&self, index: usize, spread: &Spread) -> Result<(), CudaError> {
        let (network, flow) = (&self.network, &spread.flow);
        let (single, tables, lengths) = spread.single;
        if single > 0 {
            self.steps.attend(network, index, flow, self.cache[index], [tables, lengths], single)?;
        }
        if spread.fresh.sequences > 0 {
            network.attend(index, &spread.fresh, flow.mixed, Address::NONE, flow.qkv)?;
        }
        if spread.grown.sequences > 0 {
            let (count, rows, room) = spread.gathered;
            let features = network.shape.features();
            for (to, from) in room.into_iter().zip(self.cache[index]) {
                let arguments = Arguments::default().all([to, from, rows]).all([count, features]);
                network.rows("gather_rows", count, &arguments)?;
            }
            network.attend_to(index, &spread.grown, [flow.mixed, Address::NONE, flow.qkv], room, features)?;
        }
        Ok(())
    }

    fn answer(&mut self, asks: &[Ask], order: &[usize], spread: &Spread) -> Result<Vec<Given>, CudaError> {
        let mut given = vec![Given::Nothing; asks.len()];
        let (network, vocab) = (&self.network, self.network.shape.vocab);
        let hidden = network.shape.hidden;
        let wanted: Vec<usize> =
            order.iter().copied().filter(|index| !matches!(asks[*index].wanted, Wanted::Nothing)).collect();
        let flow = &spread.flow;
        for (chunk, places) in wanted.chunks(self.capacity.rows).enumerate() {
            let x = flow.raw.plus(network.bytes(chunk * self.capacity.rows * hidden));
            let stride = network.weights.table.vocab;
            let logits = self.steps.logits;
            network.norm(flow.normed, Address::NONE, x, network.weights.table.norm, places.len())?;
            network.head_logits(places.len(), Matrix::new(flow.normed, hidden), Matrix::new(logits, stride))?;
            for (row, place) in places.iter().enumerate() {
                if matches!(asks[*place].wanted, Wanted::Logits) {
                    given[*place] = Given::Logits(network.gpu.download(logits.plus(row * stride * 4), vocab)?);
                }
            }
            let drawn = self.steps.draw_once(network, places.iter().map(|place| asks[*place].wanted))?;
            for (place, drawn) in places.iter().zip(drawn) {
                if matches!(asks[*place].wanted, Wanted::Tokens(..)) {
                    given[*place] = Given::Tokens(vec![possible(drawn)?]);
                }
            }
        }
        Ok(given)
    }
}

fn first(given: &Given) -> Option<[u32; 1]> {
    match given {
        Given::Tokens(drawn) => drawn.first().map(|(token, _)| [*token]),
        _ => None,
    }
}

impl Network {
    /// Room for what a layer computes of so many tokens.
    pub(super) fn lay_flow(&self, tokens: usize, room: &mut super::network::Room) -> Flow {
        let (shape, packed) = (&self.shape, self.packed());
        let mut numbers = |columns: usize| room.take(self.bytes(tokens * columns));
        Flow {
            x: numbers(shape.hidden),
            normed: numbers(shape.hidden),
            raw: numbers(packed.max(shape.hidden)),
            qkv: numbers(packed),
            mixed: numbers(shape.heads * shape.head),
            gate_up: numbers(2 * shape.inner),
            gated: numbers(shape.inner),
            changed: numbers(shape.hidden),
        }
    }

    /// One layer over `n` tokens of the flow; keys and values go to rows of the cache before `attend` is called.
    ///
    /// With a `tail`, a number of tokens and their places, what comes behind attention is computed of these tokens alone: their
    /// residual stream is then the first rows of `flow.raw`.
    pub(super) fn infer(
        &self,
        index: usize,
        flow: &Flow,
        [positions, rows, keys, values]: [Address; 4],
        n: usize,
        tail: Option<(usize, Address)>,
        attend: impl FnOnce() -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let slots = &self.weights.table.layers[index];
        let (mode, scratch) = (Mode { adapted: false, dropout: None }, Scratch::default());
        let none = Address::NONE;
        self.norm(flow.normed, none, flow.x, slots.input_norm, n)?;
        self.project(&slots.qkv, [flow.raw, flow.normed, none], n, mode, &scratch)?;
        self.turn_into(index, [flow.qkv, flow.raw, none, positions], [keys, values, rows], n)?;
        attend()?;
        let (flow, n) = match tail {
            None => (*flow, n),
            Some((count, places)) => {
                let short = Flow { x: flow.raw, mixed: flow.qkv, ..*flow };
                let (hidden, queries) = (self.shape.hidden, self.shape.heads * self.shape.head);
                for (to, from, width) in [(short.x, flow.x, hidden), (short.mixed, flow.mixed, queries)] {
                    let arguments = Arguments::default().all([to, from, places]).all([count, width]);
                    self.rows("gather_rows", count, &arguments)?;
                }
                (short, count)
            }
        };
        let Some([before, behind]) = slots.post_norms else {
            self.project(&slots.out, [flow.x, flow.mixed, flow.x], n, mode, &scratch)?;
            self.norm(flow.normed, none, flow.x, slots.attention_norm, n)?;
            self.project(&slots.gate_up, [flow.gate_up, flow.normed, none], n, mode, &scratch)?;
            self.gate(flow.gated, flow.gate_up, n)?;
            return self.project(&slots.down, [flow.x, flow.gated, flow.x], n, mode, &scratch);
        };
        let count = n * self.shape.hidden;
        self.project(&slots.out, [flow.changed, flow.mixed, none], n, mode, &scratch)?;
        self.norm(flow.normed, none, flow.changed, slots.attention_norm, n)?;
        self.add(flow.x, flow.x, flow.normed, count)?;
        self.norm(flow.normed, none, flow.x, before, n)?;
        self.project(&slots.gate_up, [flow.gate_up, flow.normed, none], n, mode, &scratch)?;
        self.gate(flow.gated, flow.gate_up, n)?;
        self.project(&slots.down, [flow.changed, flow.gated, none], n, mode, &scratch)?;
        self.norm(flow.normed, none, flow.changed, behind, n)?;
        self.add(flow.x, flow.x, flow.normed, count)
    }
}
