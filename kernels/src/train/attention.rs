//! Causal attention with grouped heads, forward and backward, without a table of all scores.
//!
//! A block of a few dozen queries meets all keys that it sees at once; the softmax's weights are thrown away, and computed again
//! on the way back from the logarithm of each query's sum (FlashAttention-2's arithmetic, arXiv 2307.08691). Everything is laid
//! out [tokens, heads * head], sequences one after the other.

use rayon::prelude::*;

use crate::train::level::leveled;
use crate::train::product::{Size, View, Whole, pack, packed_len, panel};
use crate::train::vocabulary::{exponentials, greatest};

/// Queries of a block: a multiple of the rows of every processor's tiles.
const QUERIES: usize = 48;

/// Queries of one task on the way forward, within a sequence.
const STRETCH: usize = 8 * QUERIES;

/// What attention computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, each for `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// The size of a head.
    pub head: usize,
    /// What scores are multiplied by; above 0.
    pub scale: f32,
    /// How many tokens a query sees, itself included; `None` sees all before it.
    pub window: Option<usize>,
}

impl Shape {
    /// The first key that the query at this place of its sequence sees.
    fn first_key(&self, query: usize) -> usize {
        self.window.map_or(0, |window| (query + 1).saturating_sub(window))
    }
}

/// Queries, keys and values of all tokens.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// [tokens, heads * head]
    pub q: &'a [f32],
    /// [tokens, kv_heads * head]
    pub k: &'a [f32],
    /// [tokens, kv_heads * head]
    pub v: &'a [f32],
}

/// Memory that tasks write to side by side, each to its own numbers.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

// SAFETY: the tasks of one call write to numbers of their own: other tokens, or other heads' columns.
unsafe impl Send for Shared {}
// SAFETY: the same.
unsafe impl Sync for Shared {}

impl Shared {
    fn at(self, place: usize) -> *mut f32 {
        // SAFETY: places lie within the slice that the pointer came from; callers compare the sizes first.
        unsafe { self.0.add(place) }
    }
}

/// Some queries of one key head in one sequence.
#[derive(Clone, Copy)]
struct Task {
    /// The sequence's first token and its length.
    start: usize,
    length: usize,
    kv: usize,
    /// The queries, within the sequence.
    first: usize,
    end: usize,
}

/// The tasks of all sequences, in stretches of so many queries.
fn tasks(shape: &Shape, lengths: &[usize], stretch: usize) -> Vec<Task> {
    let mut tasks = Vec::new();
    let mut start = 0;
    for &length in lengths {
        for kv in 0..shape.kv_heads {
            let one = |first| Task { start, length, kv, first, end: length.min(first + stretch) };
            tasks.extend((0..length).step_by(stretch).map(one));
        }
        start += length;
    }
    tasks
}

/// Mixes the values for every query: `out` is [tokens, heads * head]; `sums` gets the logarithm of the sum of each query's
/// exponentials, [heads, tokens]. `lengths` are those of the sequences.
///
/// # Panics
/// When sizes do not fit together.
pub fn forward(shape: &Shape, lengths: &[usize], inputs: Inputs, out: &mut [f32], sums: &mut [f32]) {
    let tokens: usize = lengths.iter().sum();
    check(shape, tokens, inputs);
    assert_eq!((out.len(), sums.len()), (inputs.q.len(), tokens * shape.heads));
    let (out, sums) = (Shared(out.as_mut_ptr()), Shared(sums.as_mut_ptr()));
    tasks(shape, lengths, STRETCH).into_par_iter().for_each(|task| mix(shape, tokens, inputs, task, out, sums));
}

fn check(shape: &Shape, tokens: usize, inputs: Inputs) {
    let features = shape.kv_heads * shape.head;
    assert!(shape.kv_heads > 0 && shape.heads.is_multiple_of(shape.kv_heads));
    assert_eq!(inputs.q.len(), tokens * shape.heads * shape.head);
    assert_eq!((inputs.k.len(), inputs.v.len()), (tokens * features, tokens * features));
}

/// Panels of one key head's keys or values, from the key `first` of the sequence on.
struct Panels {
    data: Vec<f32>,
    first: usize,
    /// Their height: the head's size where keys run across, else the number of keys.
    height: usize,
}

impl Panels {
    /// Keys across, the head down: what queries are multiplied with.
    fn across(shape: &Shape, from: &[f32], task: Task, first: usize) -> Self {
        let (features, keys) = (shape.kv_heads * shape.head, task.end - first);
        let mut data = vec![0.0; packed_len(shape.head, keys)];
        let from = View::transposed(&from[(task.start + first) * features + task.kv * shape.head..], features);
        pack(&mut data, from, shape.head, keys);
        Self { data, first, height: shape.head }
    }

    /// Keys down, the head across: what weights are multiplied with.
    fn down(shape: &Shape, from: &[f32], task: Task, first: usize) -> Self {
        let (features, keys) = (shape.kv_heads * shape.head, task.end - first);
        let mut data = vec![0.0; packed_len(keys, shape.head)];
        let from = View::rows(&from[(task.start + first) * features + task.kv * shape.head..], features);
        pack(&mut data, from, keys, shape.head);
        Self { data, first, height: keys }
    }
}

/// A block of queries with the keys that any of them sees.
#[derive(Clone, Copy)]
struct Block {
    /// Its first query within the sequence, and how many there are.
    query: usize,
    rows: usize,
    /// Its first key, at the beginning of a panel, and how many there are.
    key: usize,
    keys: usize,
    /// From one row of scores to the next.
    width: usize,
}

impl Block {
    fn new(shape: &Shape, task: Task, query: usize, origin: usize) -> Self {
        let rows = QUERIES.min(task.end - query);
        let seen = shape.first_key(query) - origin;
        let key = origin + seen / panel() * panel();
        let keys = query + rows - key;
        Self { query, rows, key, keys, width: keys.next_multiple_of(panel()) }
    }

    /// The keys that row `row` sees, as places in its line of scores.
    fn seen(&self, shape: &Shape, row: usize) -> std::ops::Range<usize> {
        let query = self.query + row;
        shape.first_key(query) - self.key..query + 1 - self.key
    }

    /// `lines = A panels`: scores of the block's rows of `from` ([tokens, heads * head]) with keys or values across.
    fn scores(&self, shape: &Shape, from: &[f32], token: usize, head: usize, panels: &Panels, lines: &mut [f32]) {
        let features = shape.heads * shape.head;
        let size = Size { rows: self.rows, inner: shape.head, columns: self.keys };
        assert!((token + self.rows) * features <= from.len() && lines.len() >= self.rows * self.width);
        let whole = Whole {
            c: lines.as_mut_ptr(),
            width: self.width,
            a: from[token * features + head * shape.head..].as_ptr(),
            row: features,
            column: 1,
            b: panels.data[(self.key - panels.first) * shape.head..].as_ptr(),
            height: panels.height,
            size,
        };
        // SAFETY: rows of `from`, panels and lines reach as far as the sizes say.
        unsafe { whole.run(false) }
    }

    /// `to = lines panels`: rows of the head's size, `width` apart, from the panels with keys down.
    ///
    /// # Safety
    /// `to` reaches over the block's rows, and nobody else touches them.
    unsafe fn mixed(&self, shape: &Shape, lines: &[f32], panels: &Panels, to: *mut f32, width: usize) {
        let whole = Whole {
            c: to,
            width,
            a: lines.as_ptr(),
            row: self.width,
            column: 1,
            b: panels.data[(self.key - panels.first) * panel()..].as_ptr(),
            height: panels.height,
            size: Size { rows: self.rows, inner: self.keys, columns: shape.head },
        };
        // SAFETY: the caller's promise; lines and panels reach as far as the sizes say.
        unsafe { whole.run(false) }
    }

    /// `to += lines^T rows`: adds to the keys' rows, `width` apart; `rows` are packed rows of the block's queries.
    ///
    /// # Safety
    /// `to` reaches over the block's keys, and nobody else touches them.
    unsafe fn gathered(&self, shape: &Shape, lines: &[f32], rows: &[f32], to: *mut f32, width: usize) {
        let whole = Whole {
            c: to,
            width,
            a: lines.as_ptr(),
            row: 1,
            column: self.width,
            b: rows.as_ptr(),
            height: self.rows,
            size: Size { rows: self.keys, inner: self.rows, columns: shape.head },
        };
        // SAFETY: the caller's promise; lines and rows reach as far as the sizes say.
        unsafe { whole.run(true) }
    }
}

/// The query heads that share the task's key head.
fn group(shape: &Shape, task: Task) -> std::ops::Range<usize> {
    let group = shape.heads / shape.kv_heads;
    task.kv * group..(task.kv + 1) * group
}

/// The first key that a panel of the task begins with.
fn origin(shape: &Shape, task: Task) -> usize {
    shape.first_key(task.first)
}

/// Forward over one task.
fn mix(shape: &Shape, tokens: usize, inputs: Inputs, task: Task, out: Shared, sums: Shared) {
    let origin = origin(shape, task);
    let keys = Panels::across(shape, inputs.k, task, origin);
    let values = Panels::down(shape, inputs.v, task, origin);
    let features = shape.heads * shape.head;
    let mut lines = vec![0.0; QUERIES * (task.end - origin).next_multiple_of(panel())];
    for head in group(shape, task) {
        for query in (task.first..task.end).step_by(QUERIES) {
            let block = Block::new(shape, task, query, origin);
            let token = task.start + query;
            block.scores(shape, inputs.q, token, head, &keys, &mut lines);
            let mut factors = [0.0; QUERIES];
            for (row, factor) in factors[..block.rows].iter_mut().enumerate() {
                let line = &mut lines[row * block.width..][..block.keys];
                let (log_sum, one) = weigh(line, block.seen(shape, row), shape.scale);
                *factor = one;
                // SAFETY: this query's number of this head is this task's own.
                unsafe { *sums.at(head * tokens + token + row) = log_sum };
            }
            let to = out.at(token * features + head * shape.head);
            // SAFETY: these queries' columns of this head are this task's own.
            unsafe {
                block.mixed(shape, &lines, &values, to, features);
                for (row, factor) in factors[..block.rows].iter().enumerate() {
                    let row = std::slice::from_raw_parts_mut(to.add(row * features), shape.head);
                    row.iter_mut().for_each(|value| *value *= factor);
                }
            }
        }
    }
}

/// Turns a line of scores into exponentials, 0 outside of what is seen; gives the logarithm of their sum (of the scaled scores) and
/// what the exponentials are to be multiplied by.
fn weigh(line: &mut [f32], seen: std::ops::Range<usize>, scale: f32) -> (f32, f32) {
    line[..seen.start].fill(0.0);
    line[seen.end..].fill(0.0);
    let most = greatest(&line[seen.clone()]) * scale;
    let sum = exponentials(&mut line[seen], scale, most);
    (most + sum.ln(), 1.0 / sum)
}

/// What the way back needs of the way forward, and where its results go.
#[derive(Debug)]
pub struct Back<'a> {
    /// The mixed values, [tokens, heads * head].
    pub out: &'a [f32],
    /// The logarithms of the sums, [heads, tokens].
    pub sums: &'a [f32],
    /// The slopes along the mixed values.
    pub slope: &'a [f32],
    /// Gets the slopes along queries.
    pub q: &'a mut [f32],
    /// Gets the slopes along keys.
    pub k: &'a mut [f32],
    /// Gets the slopes along values.
    pub v: &'a mut [f32],
}

/// The way back through [`forward`].
///
/// # Panics
/// When sizes do not fit together.
pub fn backward(shape: &Shape, lengths: &[usize], inputs: Inputs, back: Back) {
    let tokens: usize = lengths.iter().sum();
    check(shape, tokens, inputs);
    let size = inputs.q.len();
    assert_eq!((back.out.len(), back.slope.len(), back.q.len()), (size, size, size));
    assert_eq!((back.k.len(), back.v.len()), (inputs.k.len(), inputs.v.len()));
    assert_eq!(back.sums.len(), tokens * shape.heads);
    let given = Given { inputs, out: back.out, sums: back.sums, slope: back.slope, tokens };
    back.k.fill(0.0);
    back.v.fill(0.0);
    let [q, k, v] = [back.q, back.k, back.v].map(|one| Shared(one.as_mut_ptr()));
    tasks(shape, lengths, usize::MAX / 2).into_par_iter().for_each(|task| unmix(shape, given, task, [q, k, v]));
}

#[derive(Clone, Copy)]
struct Given<'a> {
    inputs: Inputs<'a>,
    out: &'a [f32],
    sums: &'a [f32],
    slope: &'a [f32],
    tokens: usize,
}

/// Backward over one task, which is all of a sequence.
fn unmix(shape: &Shape, given: Given, task: Task, [to_q, to_k, to_v]: [Shared; 3]) {
    let keys = Panels::across(shape, given.inputs.k, task, 0);
    let values = Panels::across(shape, given.inputs.v, task, 0);
    let down = Panels::down(shape, given.inputs.k, task, 0);
    let (features, kv_features) = (shape.heads * shape.head, shape.kv_heads * shape.head);
    let size = QUERIES * task.length.next_multiple_of(panel());
    let (mut lines, mut slopes) = (vec![0.0; size], vec![0.0; size]);
    let mut rows = vec![0.0; packed_len(QUERIES, shape.head)];
    for head in group(shape, task) {
        for query in (0..task.length).step_by(QUERIES) {
            let block = Block::new(shape, task, query, 0);
            let token = task.start + query;
            block.scores(shape, given.inputs.q, token, head, &keys, &mut lines);
            block.scores(shape, given.slope, token, head, &values, &mut slopes);
            let mut deltas = [0.0; QUERIES];
            let place = token * features + head * shape.head;
            dots(&mut deltas[..block.rows], &given.out[place..], &given.slope[place..], shape.head, features);
            for (row, delta) in deltas[..block.rows].iter().enumerate() {
                let line = row * block.width..row * block.width + block.keys;
                let log_sum = given.sums[head * given.tokens + token + row];
                let (line, slopes) = (&mut lines[line.clone()], &mut slopes[line]);
                unweigh(line, slopes, block.seen(shape, row), shape.scale, log_sum, *delta);
            }
            let key = task.start + block.key;
            let rows = &mut rows[..packed_len(block.rows, shape.head)];
            let column = task.kv * shape.head;
            let block_of = |from: &'_ [f32], rows: &mut [f32]| {
                let from = View::rows(&from[token * features + head * shape.head..], features);
                pack(rows, from, block.rows, shape.head);
            };
            // SAFETY: these queries' columns of this head, and this sequence's columns of this key head, are this task's own.
            unsafe {
                block_of(given.slope, rows);
                block.gathered(shape, &lines, rows, to_v.at(key * kv_features + column), kv_features);
                block_of(given.inputs.q, rows);
                block.gathered(shape, &slopes, rows, to_k.at(key * kv_features + column), kv_features);
                block.mixed(shape, &slopes, &down, to_q.at(token * features + head * shape.head), features);
            }
        }
    }
}

leveled! {
    /// `dots[row] = left[row] . right[row]` for rows of `size` numbers that begin `width` apart.
    fn dots(dots: &mut [f32], left: &[f32], right: &[f32], size: usize, width: usize) {
        for (row, dot) in dots.iter_mut().enumerate() {
            let (left, right) = (&left[row * width..][..size], &right[row * width..][..size]);
            let mut sums = [0.0_f32; 16];
            let (lefts, rights) = (left.chunks_exact(16), right.chunks_exact(16));
            let mut sum = 0.0;
            for (left, right) in lefts.remainder().iter().zip(rights.remainder()) {
                sum = left.mul_add(*right, sum);
            }
            for (left, right) in lefts.zip(rights) {
                for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
                    *sum = left.mul_add(*right, *sum);
                }
            }
            *dot = sum + sums.iter().sum::<f32>();
        }
    }
}

/// Turns scores into the softmax's weights, and slopes along the weights into slopes along the scores.
fn unweigh(line: &mut [f32], slopes: &mut [f32], seen: std::ops::Range<usize>, scale: f32, log_sum: f32, delta: f32) {
    for line in [&mut *line, &mut *slopes] {
        line[..seen.start].fill(0.0);
        line[seen.end..].fill(0.0);
    }
    exponentials(&mut line[seen.clone()], scale, log_sum);
    score_slopes(&mut slopes[seen.clone()], &line[seen], scale, delta);
}

leveled! {
    fn score_slopes(slopes: &mut [f32], weights: &[f32], scale: f32, delta: f32) {
        slopes.iter_mut().zip(weights).for_each(|(slope, weight)| *slope = weight * (*slope - delta) * scale);
    }
}
