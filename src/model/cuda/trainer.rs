//! A decoder under training on the device: log-probabilities, their gradient, and the optimiser's step.
//!
//! The logits are computed some rows at a time, and each chunk's gradient for a slope of one goes into the hidden states at
//! once. What the slopes are depends on the log-probabilities, so the host multiplies rows by them afterwards: no logit is
//! computed twice, and none is kept but, where the head itself is trained, as the gradient that its weight needs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::CudaError;
use super::batch::{Packed, Placed, TOKEN_STEP};
use super::blas::{Matrix, Number, Product};
use super::driver::{Address, Arguments, Gpu};
use super::network::{Network, Room, Space};
use super::passes::{Kept, Mode, Scratch};
use super::table::{AdapterShape, Table};
use super::weights;
use crate::model::architecture::Architecture;

/// Bytes of logits at a time; at least `HEAD_ROWS` rows.
const HEAD_BYTES: usize = 128 << 20;

/// Fewer rows would read the head's weight too often.
const HEAD_ROWS: usize = 1024;

/// Memory that is left to others.
const MARGIN: usize = 1 << 30;

/// More tokens in a pass would not be quicker.
const MOST_TOKENS: usize = 65_536;

/// Blocks over which the sum of squares is shared out.
const SUM_BLOCKS: usize = 1024;

/// The settings of AdamW beside the learning rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Decay of the mean of gradients.
    pub beta_1: f64,
    /// Decay of the mean of their squares.
    pub beta_2: f64,
    /// Added to the root in the denominator.
    pub epsilon: f64,
    /// Decoupled decay of matrices; vectors have none.
    pub weight_decay: f64,
}

/// What a trainer is made for.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// What the decoder computes.
    pub shape: &'a Architecture,
    /// The adapters, by the path of their projection; without any, everything is trained.
    pub adapters: &'a BTreeMap<String, AdapterShape>,
    /// The numbers of products and activations.
    pub number: Number,
    /// Whether layers are computed again in the backward pass instead of kept.
    pub checkpointing: bool,
    /// The folder of compiled kernels.
    pub cache: &'a Path,
}

/// A decoder under training.
#[derive(Debug)]
pub struct Trainer {
    network: Network,
    adam: Adam,
    checkpointing: bool,
    /// How many updates were made.
    pub step: u64,
    space: Space,
}

/// One pass's places.
struct Places {
    batch: Placed,
    /// The residual stream before each layer, and behind the last.
    stream: Vec<Address>,
    kept: Vec<Kept>,
    scratch: Scratch,
    head: Head,
    /// The gradient of the residual stream.
    gradient: Address,
}

/// The head's places.
#[derive(Clone, Copy)]
struct Head {
    /// Rows at a time.
    rows: usize,
    /// Scored rows of the last hidden states, [scored, hidden], and normed.
    x: Address,
    normed: Address,
    scale: Address,
    /// The gradient of the normed rows.
    dnormed: Address,
    logits: Address,
    /// The gradient of the logits: of all scored rows where the head is trained, else of some.
    dlogits: Address,
    log_probs: Address,
    slopes: Address,
}

/// What a pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    LogProbs,
    Gradient,
}

impl Trainer {
    /// A trainer with all weights zero: [`Trainer::network`]'s weights are filled next.
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn new(gpu: &Arc<Gpu>, plan: &Plan, adam: Adam) -> Result<Self, CudaError> {
        let table = Table::new(plan.shape, plan.adapters, true)?;
        let network = Network::new(gpu, plan.shape, table, plan.number, false, plan.cache)?;
        network.check_shared(1..3)?;
        Ok(Self { network, adam, checkpointing: plan.checkpointing, step: 0, space: Space::default() })
    }

    /// The decoder.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Fills the decoder's weights; see [`weights::Weights::fill`].
    ///
    /// # Errors
    /// As there.
    pub fn fill<E: From<CudaError>>(&mut self, source: impl FnMut(&str) -> Result<Vec<f32>, E>) -> Result<(), E> {
        self.network.gpu.bind()?;
        self.network.weights.fill(&self.network.kernels, source)
    }

    /// Replaces a kind of what is kept of the trained parameters; see [`weights::Weights::restore`].
    ///
    /// # Errors
    /// As there.
    pub fn restore<E: From<CudaError>>(
        &mut self,
        kept: weights::Kept,
        source: impl FnMut(&str) -> Result<Vec<f32>, E>,
    ) -> Result<(), E> {
        self.network.gpu.bind()?;
        self.network.weights.restore(&self.network.kernels, kept, source)
    }

    /// Weights without meaning, for measurements.
    ///
    /// # Errors
    /// When the device fails.
    pub fn scramble(&mut self) -> Result<(), CudaError> {
        self.network.gpu.bind()?;
        self.network.weights.scramble(&self.network.kernels)
    }

    /// The log-probability of every scored token, in the order of [`Packed::owners`], without dropout; `adapted` says
    /// whether adapters take part.
    ///
    /// # Errors
    /// When the device fails or has not enough memory.
    pub fn log_probs(&mut self, packed: &Packed, adapted: bool) -> Result<Vec<f32>, CudaError> {
        self.network.gpu.bind()?;
        let places = self.lay(packed, Aim::LogProbs)?;
        let mode = Mode { adapted, dropout: None };
        self.forward(packed, &places, mode)?;
        self.head(&places, Aim::LogProbs)?;
        self.network.gpu.download(places.head.log_probs, packed.scored())
    }

    /// Adds the gradient of a loss to the gradient so far. `slopes` gets the scored tokens' log-probabilities and gives the
    /// loss's derivative by each; `seed` decides what dropout drops.
    ///
    /// # Errors
    /// What `slopes` says; when the device fails or has not enough memory.
    pub fn accumulate<E: From<CudaError>>(
        &mut self,
        packed: &Packed,
        seed: u64,
        slopes: impl FnOnce(&[f32]) -> Result<Vec<f32>, E>,
    ) -> Result<(), E> {
        self.network.gpu.bind()?;
        let places = self.lay(packed, Aim::Gradient)?;
        let mode = Mode { adapted: true, dropout: Some(seed) };
        self.forward(packed, &places, mode)?;
        self.network.gpu.upload(places.head.slopes, &vec![1.0_f32; packed.rows()])?;
        self.head(&places, Aim::Gradient)?;
        let log_probs = self.network.gpu.download(places.head.log_probs, packed.scored())?;
        let mut slopes = slopes(&log_probs)?;
        if slopes.is_empty() {
            return Ok(());
        }
        slopes.resize(packed.rows(), 0.0);
        self.network.gpu.upload(places.head.slopes, &slopes)?;
        self.head_back(&places)?;
        Ok(self.backward(packed, &places, mode)?)
    }

    /// How many tokens a pass for a gradient has room for now, all of them scored: at least a few.
    ///
    /// # Errors
    /// When the device fails.
    pub fn tokens_at_once(&self) -> Result<usize, CudaError> {
        let (network, tokens) = (&self.network, 8 * TOKEN_STEP);
        let mut room = Room::new(Address::NONE);
        let layers = network.shape.layers.len();
        for _ in 0..=layers {
            room.take(network.bytes(tokens * network.shape.hidden));
        }
        for _ in 0..if self.checkpointing { 1 } else { layers } {
            network.lay_kept(tokens, Address::NONE, &mut room);
        }
        network.lay_scratch(tokens, true, &mut room);
        lay_head(network, tokens, true, &mut room);
        let each = room.bytes() / tokens;
        let (free, _) = network.gpu.memory()?;
        let most = free.saturating_sub(HEAD_BYTES + MARGIN) / each.max(1);
        // Tokens are padded by a thirty-second at most.
        Ok((most - most / 32).clamp(TOKEN_STEP, MOST_TOKENS))
    }

    fn lay(&mut self, packed: &Packed, aim: Aim) -> Result<Places, CudaError> {
        let Self { network, space, checkpointing, .. } = self;
        let backward = aim == Aim::Gradient;
        let each = backward && !*checkpointing;
        space.lay(&network.gpu, "activations", |room| {
            let (tokens, layers) = (packed.tokens(), network.shape.layers.len());
            let batch = Placed::lay(packed, room);
            let mut rows = || room.take(network.bytes(tokens * network.shape.hidden));
            let stream: Vec<Address> = if backward {
                (0..=layers).map(|_| rows()).collect()
            } else {
                let two = [rows(), rows()];
                (0..=layers).map(|index| two[index % 2]).collect()
            };
            let gradient = if backward { rows() } else { Address::NONE };
            let shared = network.lay_kept(tokens, Address::NONE, room);
            let kept = stream[..layers].iter().enumerate().map(|(index, x)| match index {
                1.. if each => network.lay_kept(tokens, *x, room),
                _ => shared.at(*x),
            });
            let kept = kept.collect();
            let scratch = network.lay_scratch(tokens, backward, room);
            let head = lay_head(network, packed.rows(), backward, room);
            Places { batch, stream, kept, scratch, head, gradient }
        })
    }

    fn forward(&self, packed: &Packed, places: &Places, mode: Mode) -> Result<(), CudaError> {
        let network = &self.network;
        places.batch.upload(packed, &network.gpu)?;
        network.embed(places.stream[0], places.batch.ids, packed.tokens())?;
        for (index, kept) in places.kept.iter().enumerate() {
            network.layer(index, &places.batch, kept, places.stream[index + 1], mode, &places.scratch)?;
        }
        Ok(())
    }

    /// Log-probabilities of the scored tokens and, for a gradient, that of the normed hidden states by slopes of one.
    fn head(&self, places: &Places, aim: Aim) -> Result<(), CudaError> {
        let (network, batch, head) = (&self.network, &places.batch, &places.head);
        let (hidden, vocab, scored) = (network.shape.hidden, network.weights.table.vocab, batch.scored);
        let last = places.stream[network.shape.layers.len()];
        let arguments = Arguments::default().all([head.x, last, batch.places]).all([scored, hidden]);
        network.rows("gather_rows", scored, &arguments)?;
        network.norm(head.normed, head.scale, head.x, network.weights.table.norm, scored)?;
        let (weight, trained) = (network.head_weight(), self.head_trained());
        let mut first = 0;
        while first < scored {
            let rows = head.rows.min(scored - first);
            let normed = Matrix::new(head.normed.plus(network.bytes(first * hidden)), hidden);
            let logits = Matrix::new(head.logits, vocab);
            network.head_logits(rows, normed, logits)?;
            let mut dlogits = Address::NONE;
            if aim == Aim::Gradient {
                dlogits = if trained { head.dlogits.plus(network.bytes(first * vocab)) } else { head.dlogits };
            }
            self.cross_entropy(rows, first, dlogits, places)?;
            if aim == Aim::Gradient {
                let out = Matrix::new(head.dnormed.plus(network.bytes(first * hidden)), hidden);
                let dlogits = Matrix::new(dlogits, vocab);
                network.multiply([rows, vocab, hidden], dlogits, weight.transposed(), out, None, 1.0)?;
            }
            first += rows;
        }
        Ok(())
    }

    fn cross_entropy(&self, rows: usize, first: usize, dlogits: Address, places: &Places) -> Result<(), CudaError> {
        let (network, head) = (&self.network, &places.head);
        let (vocab, stride) = (network.shape.vocab, network.weights.table.vocab);
        let arguments = Arguments::default()
            .all([head.log_probs.plus(first * 4), Address::NONE, dlogits, head.logits])
            .with(places.batch.targets.plus(first * 4))
            .with(head.slopes.plus(first * 4))
            .all([rows, vocab, stride]);
        let threads = match vocab {
            0..=8192 => 256,
            8193..=16384 => 512,
            _ => 1024,
        };
        let name = match network.weights.number {
            Number::F32 => "cross_entropy_f32",
            Number::Bf16 => "cross_entropy_f32_bf16",
        };
        network.kernels.launch(name, [rows, 1, 1], [threads, 1], 0, &arguments)
    }

    fn head_trained(&self) -> bool {
        let table = &self.network.weights.table;
        self.network.weights.gradient(table.head.unwrap_or(table.embed)) != Address::NONE
    }

    /// With the slopes there: the gradients of head and last norm, and of the residual stream behind the last layer.
    fn head_back(&self, places: &Places) -> Result<(), CudaError> {
        let (network, batch, head) = (&self.network, &places.batch, &places.head);
        let (hidden, scored, table) = (network.shape.hidden, batch.scored, &network.weights.table);
        let scale = |rows: Address| {
            let arguments = Arguments::default().all([rows, rows, head.slopes]).all([scored, hidden]);
            network.rows("scale_rows", scored, &arguments)
        };
        scale(head.dnormed)?;
        if self.head_trained() {
            scale(head.normed)?;
            let (rows, dlogits) = (Matrix::new(head.normed, hidden), Matrix::new(head.dlogits, table.vocab));
            match table.head {
                Some(slot) => {
                    let sizes = [hidden, scored, table.vocab];
                    let gradient = network.weights.gradient(slot);
                    network.gather_gradient(sizes, rows.transposed(), dlogits, gradient, 1.0)?;
                }
                None => {
                    let sizes = [table.vocab, scored, hidden];
                    let gradient = network.weights.gradient(table.embed);
                    network.gather_gradient(sizes, dlogits.transposed(), rows, gradient, 1.0)?;
                }
            }
        }
        let rows = [head.dnormed, head.dnormed, head.x, Address::NONE];
        network.norm_back(rows, head.scale, table.norm, scored, places.scratch.parts)?;
        network.gpu.clear(places.gradient, network.bytes(batch.tokens * hidden))?;
        let arguments = Arguments::default().all([places.gradient, head.dnormed, batch.places]).all([scored, hidden]);
        network.rows("scatter_rows", scored, &arguments)
    }

    fn backward(&self, packed: &Packed, places: &Places, mode: Mode) -> Result<(), CudaError> {
        let network = &self.network;
        let (batch, gradient, last) = (&places.batch, places.gradient, places.kept.len().saturating_sub(1));
        for (index, kept) in places.kept.iter().enumerate().rev() {
            // What the last layer kept is still there.
            if self.checkpointing && index < last {
                network.layer(index, batch, kept, places.scratch.normed, mode, &places.scratch)?;
            }
            network.layer_back(index, batch, kept, gradient, mode, &places.scratch)?;
        }
        let table = network.weights.gradient(network.weights.table.embed);
        if table == Address::NONE {
            return Ok(());
        }
        let by_id = packed.by_id();
        for (at, numbers) in batch.by_id.into_iter().zip(&by_id) {
            network.gpu.upload(at, numbers)?;
        }
        let (ids, hidden) = (by_id[2].len(), network.shape.hidden);
        let arguments = Arguments::default().all([table, gradient]).all(batch.by_id);
        let arguments = arguments.all([ids, hidden]).with(network.embed_scale());
        network.call("embed_bwd", [ids, hidden.div_ceil(256), 1], [32, 8], &arguments)
    }

    /// The sum of the squares of the gradient so far.
    ///
    /// # Errors
    /// When the device fails.
    pub fn gradient_squares(&mut self) -> Result<f64, CudaError> {
        let Self { network, space, .. } = self;
        network.gpu.bind()?;
        let sums = space.lay(&network.gpu, "sums", |room| room.take(SUM_BLOCKS * 8))?;
        let gradient = network.weights.arena(weights::Kept::Gradient);
        let arguments = Arguments::default().all([sums, gradient]).with(network.weights.counts()[1]);
        network.kernels.launch("sum_squares", [SUM_BLOCKS, 1, 1], [256, 1], 0, &arguments)?;
        Ok(network.gpu.download::<f64>(sums, SUM_BLOCKS)?.iter().sum())
    }

    /// One step of AdamW with the gradient times `factor`; the gradient is zero again.
    ///
    /// # Errors
    /// When the device fails.
    pub fn update(&mut self, learning_rate: f64, factor: f64) -> Result<(), CudaError> {
        let weights = &self.network.weights;
        self.network.gpu.bind()?;
        self.step += 1;
        let [matrices, all] = weights.counts();
        let ranges = [(0, matrices, self.adam.weight_decay, weights.copies()), (matrices, all, 0.0, Address::NONE)];
        for (first, end, decay, copies) in ranges {
            let power = i32::try_from(self.step).unwrap_or(i32::MAX);
            let corrections = [self.adam.beta_1, self.adam.beta_2].map(|beta| 1.0 - beta.powi(power));
            let arenas = [weights::Kept::Gradient, weights::Kept::Mean, weights::Kept::Square];
            let at = |kept| weights.arena(kept).plus(first * 4);
            let Adam { beta_1, beta_2, epsilon, .. } = self.adam;
            // What is left of 1 is taken here: in `f32` it would lose digits.
            let settings = [learning_rate, 1.0 - beta_1, beta_2, 1.0 - beta_2, epsilon, decay];
            let arguments = Arguments::default()
                .all([at(weights::Kept::Parameter), copies])
                .all(arenas.map(at))
                .with(end - first)
                .all(settings.into_iter().chain(corrections).chain([factor]).map(|number| number as f32));
            let blocks = (end - first).div_ceil(4 * 256);
            self.network.kernels.launch("adamw", [blocks, 1, 1], [256, 1], 0, &arguments)?;
        }
        self.forget()
    }

    /// Sets the gradient to zero.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forget(&mut self) -> Result<(), CudaError> {
        self.network.gpu.bind()?;
        let weights = &self.network.weights;
        self.network.gpu.clear(weights.arena(weights::Kept::Gradient), weights.counts()[1] * 4)
    }
}

fn lay_head(network: &Network, scored: usize, backward: bool, room: &mut Room) -> Head {
    let (hidden, table) = (network.shape.hidden, &network.weights.table);
    let rows = (HEAD_BYTES / (table.vocab * 4)).max(HEAD_ROWS).min(scored.max(1));
    let trained = network.weights.gradient(table.head.unwrap_or(table.embed)) != Address::NONE;
    let mut numbers = |rows: usize, columns: usize| room.take(network.bytes(rows * columns));
    let (x, normed) = (numbers(scored, hidden), numbers(scored, hidden));
    let dnormed = if backward { numbers(scored, hidden) } else { Address::NONE };
    let dlogits = if backward { numbers(if trained { scored } else { rows }, table.vocab) } else { Address::NONE };
    let mut floats = |count: usize| room.take(count * 4);
    let (scale, log_probs, slopes) = (floats(scored), floats(scored), floats(scored));
    Head { rows, x, normed, scale, dnormed, logits: floats(rows * table.vocab), dlogits, log_probs, slopes }
}

impl Network {
    /// Embeds tokens.
    pub(super) fn embed(&self, out: Address, ids: Address, n: usize) -> Result<(), CudaError> {
        let table = self.weights.address(self.weights.table.embed);
        let arguments = Arguments::default().all([out, table, ids]).all([n, self.shape.hidden]);
        self.rows("embed_fwd", n, &arguments.with(self.embed_scale()))
    }

    /// What embeddings are multiplied by.
    pub(super) fn embed_scale(&self) -> f32 {
        self.shape.embed_scale.map_or(1.0, |scale| scale as f32)
    }

    /// The head's weight as [hidden, vocabulary].
    pub(super) fn head_weight(&self) -> Matrix {
        let table = &self.weights.table;
        match table.head {
            Some(slot) => self.weights.matrix(slot),
            None => Matrix::new(self.weights.address(table.embed), self.shape.hidden).transposed(),
        }
    }

    /// Logits, `f32`, of normed rows.
    pub(super) fn head_logits(&self, rows: usize, normed: Matrix, logits: Matrix) -> Result<(), CudaError> {
        self.blas.multiply(&Product {
            rows,
            columns: self.weights.table.vocab,
            inner: self.shape.hidden,
            left: normed,
            right: self.head_weight(),
            added: None,
            out: logits,
            scale: 1.0,
            number: self.weights.number,
            result: Number::F32,
        })
    }
}
