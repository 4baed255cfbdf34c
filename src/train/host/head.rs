//! The last norm and the head at the places that predict scored tokens, in stretches of the vocabulary, so that all logits
//! of a large vocabulary never exist at once.

use rayon::prelude::*;
use thresh_kernels::train::elements::add;
use thresh_kernels::train::norm;
use thresh_kernels::train::product::{Into, Size, View, add_transposed, multiply};
use thresh_kernels::train::vocabulary::{log_softmax_back, log_sum_exp};

use super::layer::Pass;
use super::linear::{ROWS, blocks, pack_whole};

/// Tokens of the vocabulary of one stretch: the logits of a block of rows then lie in a core's cache.
const STRETCH: usize = 2048;

/// Logits that are kept for the way back; more than these are computed again.
const KEPT: usize = 1 << 24;

/// What the head keeps and works with.
#[derive(Default)]
pub(super) struct Head {
    /// The scored places' rows, before the norm and behind it: [scored, hidden].
    rows: Vec<f32>,
    normed: Vec<f32>,
    /// The logarithm of each row's sum.
    sums: Vec<f64>,
    /// Stretches of logits, [scored, stretch] each; where they are computed again, one of them.
    logits: Vec<Vec<f32>>,
    /// The slopes along `normed`, and along `rows`.
    along: Vec<f32>,
    back: Vec<f32>,
    panels: Vec<f32>,
    scratch: Vec<f32>,
}

/// A stretch of the vocabulary.
#[derive(Clone, Copy)]
struct Stretch {
    first: usize,
    count: usize,
}

fn stretches(vocab: usize) -> impl Iterator<Item = (usize, Stretch)> {
    (0..vocab).step_by(STRETCH).map(move |first| Stretch { first, count: STRETCH.min(vocab - first) }).enumerate()
}

/// The head as [hidden, vocab], from the first token of a stretch on.
fn weight<'a>(pass: Pass<'a>, stretch: Stretch) -> View<'a> {
    let (vocab, hidden) = (pass.weights.architecture.vocab, pass.weights.architecture.hidden);
    match pass.weights.head {
        Some(head) => View::rows(&pass.weights.values[head], vocab).at(0, stretch.first),
        None => View::transposed(&pass.weights.values[pass.weights.embedding], hidden).at(0, stretch.first),
    }
}

fn trains(pass: Pass) -> bool {
    pass.weights.trains(pass.weights.head.unwrap_or(pass.weights.embedding))
}

impl Head {
    /// The log-probability of every scored token, from the last layer's output.
    pub fn forward(&mut self, pass: Pass, x: &[f32], keep: bool) -> Vec<f64> {
        let (hidden, vocab) = (pass.weights.architecture.hidden, pass.weights.architecture.vocab);
        let count = pass.batch.places.len();
        self.rows.clear();
        pass.batch
            .places
            .iter()
            .for_each(|place| self.rows.extend_from_slice(&x[place * hidden..(place + 1) * hidden]));
        self.normed.resize(count * hidden, 0.0);
        norm::forward(&mut self.normed, &self.rows, &pass.weights.scale(pass.weights.norm), pass.epsilon());
        let keep = keep && count * vocab <= KEPT;
        let mut found = vec![Found::default(); count];
        for (index, stretch) in stretches(vocab) {
            let index = if keep { index } else { 0 };
            self.logits(pass, stretch, index);
            let targets = &pass.batch.targets;
            let logits = &self.logits[index];
            found.par_chunks_mut(ROWS).enumerate().for_each(|(block, found)| {
                for (row, found) in found.iter_mut().enumerate() {
                    let row = block * ROWS + row;
                    found.join(&logits[row * stretch.count..(row + 1) * stretch.count], stretch, targets[row]);
                }
            });
        }
        self.sums = found.iter().map(|found| found.log_sum).collect();
        found.iter().map(|found| found.target - found.log_sum).collect()
    }

    /// Computes a stretch of logits into `self.logits[index]`.
    fn logits(&mut self, pass: Pass, stretch: Stretch, index: usize) {
        let (hidden, columns) = (pass.weights.architecture.hidden, stretch.count);
        pack_whole(&mut self.panels, weight(pass, stretch), hidden, columns);
        if self.logits.len() <= index {
            self.logits.resize_with(index + 1, Vec::new);
        }
        let count = pass.batch.places.len();
        let logits = &mut self.logits[index];
        logits.resize(count * columns, 0.0);
        let (normed, panels) = (&self.normed, &self.panels);
        blocks(logits, columns, count).enumerate().collect::<Vec<_>>().into_par_iter().for_each(|(block, logits)| {
            let size = Size { rows: logits.len() / columns, inner: hidden, columns };
            multiply(logits, columns, View::rows(&normed[block * ROWS * hidden..], hidden), panels, size, Into::Set);
        });
    }

    /// Adds the slopes along the last layer's output to `slope`, given each scored token's, and the head's gradients to `all`.
    pub fn backward(&mut self, pass: Pass, token_slopes: &[f32], slope: &mut [f32], all: &mut [Vec<f32>], kept: bool) {
        let (hidden, vocab) = (pass.weights.architecture.hidden, pass.weights.architecture.vocab);
        let count = pass.batch.places.len();
        if count == 0 {
            return;
        }
        let kept = kept && count * vocab <= KEPT;
        self.along.resize(count * hidden, 0.0);
        self.along.fill(0.0);
        for (index, stretch) in stretches(vocab) {
            let index = if kept { index } else { 0 };
            if !kept {
                self.logits(pass, stretch, 0);
            }
            self.stretch_back(pass, stretch, index, token_slopes);
            if trains(pass) {
                self.gradient(pass, stretch, index, all);
            }
        }
        let place = pass.weights.norm;
        let scale = pass.weights.scale(place);
        let mut gradient = vec![0.0; if pass.weights.trains(place) { hidden } else { 0 }];
        self.back.resize(count * hidden, 0.0);
        self.back.fill(0.0);
        norm::backward_add(&mut self.back, &mut gradient, &self.rows, &scale, pass.epsilon(), &self.along);
        add(&mut all[place], &gradient);
        for (place, back) in pass.batch.places.iter().zip(self.back.chunks_exact(hidden)) {
            add(&mut slope[place * hidden..(place + 1) * hidden], back);
        }
    }

    /// Turns a stretch of logits into slopes along them, and adds what they give along `normed`.
    fn stretch_back(&mut self, pass: Pass, stretch: Stretch, index: usize, token_slopes: &[f32]) {
        let hidden = pass.weights.architecture.hidden;
        let Stretch { first, count } = stretch;
        let weight = weight(pass, stretch);
        let transposed = View { row: weight.column, column: weight.row, ..weight };
        pack_whole(&mut self.panels, transposed, count, hidden);
        let (sums, panels, targets) = (&self.sums, &self.panels, &pass.batch.targets);
        let rows = sums.len();
        let tasks: Vec<_> = blocks(&mut self.logits[index], count, rows)
            .zip(blocks(&mut self.along, hidden, rows))
            .enumerate()
            .collect();
        tasks.into_par_iter().for_each(|(block, (logits, along))| {
            for (row, logits) in logits.chunks_exact_mut(count).enumerate() {
                let row = block * ROWS + row;
                let target = targets[row].checked_sub(first).filter(|target| *target < count);
                log_softmax_back(logits, target, sums[row], token_slopes[row]);
            }
            let size = Size { rows: along.len() / hidden, inner: count, columns: hidden };
            multiply(along, hidden, View::rows(logits, count), panels, size, Into::Add);
        });
    }

    /// Adds a stretch's part of the head's gradient.
    fn gradient(&mut self, pass: Pass, stretch: Stretch, index: usize, all: &mut [Vec<f32>]) {
        let (hidden, vocab) = (pass.weights.architecture.hidden, pass.weights.architecture.vocab);
        let Stretch { first, count } = stretch;
        let slopes = &self.logits[index]; // [scored, stretch]
        let inner = self.sums.len();
        match pass.weights.head {
            Some(head) => {
                pack_whole(&mut self.scratch, View::rows(slopes, count), inner, count);
                let (normed, panels) = (&self.normed, &self.scratch);
                all[head].par_chunks_mut(ROWS / 2 * vocab).enumerate().for_each(|(block, rows)| {
                    add_transposed(&mut rows[first..], vocab, normed, hidden, block * ROWS / 2, panels, count);
                });
            }
            None => {
                pack_whole(&mut self.scratch, View::rows(&self.normed, hidden), inner, hidden);
                let (panels, gradient) = (&self.scratch, &mut all[pass.weights.embedding]);
                let rows = &mut gradient[first * hidden..(first + count) * hidden];
                rows.par_chunks_mut(ROWS * hidden).enumerate().for_each(|(block, rows)| {
                    add_transposed(rows, hidden, slopes, count, block * ROWS, panels, hidden);
                });
            }
        }
    }
}

/// What is known of a row after some stretches.
#[derive(Clone, Copy)]
struct Found {
    log_sum: f64,
    target: f64,
}

impl Default for Found {
    fn default() -> Self {
        Self { log_sum: f64::NEG_INFINITY, target: 0.0 }
    }
}

impl Found {
    fn join(&mut self, logits: &[f32], stretch: Stretch, target: usize) {
        let next = log_sum_exp(logits);
        let (most, least) = if next > self.log_sum { (next, self.log_sum) } else { (self.log_sum, next) };
        self.log_sum = most + (least - most).exp().ln_1p();
        if let Some(value) = target.checked_sub(stretch.first).and_then(|target| logits.get(target)) {
            self.target = f64::from(*value);
        }
    }
}
