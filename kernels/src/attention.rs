//! Attention over keys and values that lie in pages.

use rayon::prelude::*;

use crate::lanes::{Kernel, LANES, Lanes, dispatch};

/// Tokens in a page.
pub const PAGE: usize = LANES;

/// Below so many multiplications attention is not worth a second thread.
const SMALL: usize = 1 << 17;

/// The heads of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// The size of a head.
    pub head: usize,
}

impl Heads {
    fn group(self) -> usize {
        self.heads / self.kv_heads
    }

    /// Where the values of a layer begin behind its keys.
    fn values(self) -> usize {
        self.kv_heads * self.head * PAGE
    }

    /// How many numbers a page has for one layer: the keys of every head, [head, token], then the values, [token, head].
    pub fn page(self) -> usize {
        2 * self.values()
    }
}

/// The keys and values of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    /// All pages, with all layers.
    pub pool: &'a [Box<[f32]>],
    /// Where in a page the layer begins.
    pub offset: usize,
}

/// What one token looks at.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The pages of its sequence, from the first token on.
    pub pages: &'a [u32],
    /// The first token that it sees.
    pub first: usize,
    /// The token behind the last that it sees.
    pub end: usize,
}

/// Writes a token's keys and values, [kv_heads, head] each, to its place in a page.
pub fn keep(page: &mut [f32], offset: usize, shape: Heads, place: usize, keys: &[f32], values: &[f32]) {
    let features = shape.kv_heads * shape.head;
    let (all_keys, all_values) = page[offset..offset + shape.page()].split_at_mut(shape.values());
    for (column, key) in all_keys.chunks_exact_mut(PAGE).zip(&keys[..features]) {
        column[place] = *key;
    }
    for (head, values) in values[..features].chunks_exact(shape.head).enumerate() {
        let start = (head * PAGE + place) * shape.head;
        all_values[start..start + shape.head].copy_from_slice(values);
    }
}

/// The values mixed by the softmax of the scores: one row of `out`, [heads, head], for every query. `queries` are rows of
/// `stride` numbers that begin with the scaled queries, [heads, head].
///
/// # Panics
/// When the slices do not fit together, or a query sees nothing.
pub fn attend(queries: &[f32], stride: usize, shape: Heads, keys: Keys, places: &[Query], out: &mut [f32]) {
    let size = shape.group() * shape.head;
    assert!(out.len() == places.len() * shape.kv_heads * size && queries.len() == places.len() * stride, "other rows");
    assert!(
        places.iter().all(|place| place.first < place.end && place.pages.len() * PAGE >= place.end),
        "sees nothing"
    );
    let seen: usize = places.iter().map(|place| place.end - place.first).sum();
    let jobs = places.len() * shape.kv_heads;
    let part = |first: usize, out: &mut [f32]| {
        dispatch(Attend { queries, stride, shape, keys, places, first, out });
    };
    let threads = rayon::current_num_threads();
    if threads == 1 || seen * shape.heads * shape.head * 2 < SMALL {
        return part(0, out);
    }
    let each = jobs.div_ceil(threads * 4);
    out.par_chunks_mut(each * size).enumerate().for_each(|(index, out)| part(index * each, out));
}

struct Attend<'a> {
    queries: &'a [f32],
    stride: usize,
    shape: Heads,
    keys: Keys<'a>,
    places: &'a [Query<'a>],
    /// The first pair of query and key head.
    first: usize,
    out: &'a mut [f32],
}

impl Kernel for Attend<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Heads { kv_heads, head, .. } = self.shape;
        let group = self.shape.group();
        let (mut four, mut two, mut single) = (Vec::new(), Vec::new(), Vec::new());
        for (job, out) in self.out.chunks_exact_mut(group * head).enumerate() {
            let (place, kv_head) = ((self.first + job) / kv_heads, (self.first + job) % kv_heads);
            let queries = &self.queries[place * self.stride + kv_head * group * head..][..group * head];
            let one = One { shape: self.shape, keys: self.keys, kv_head, query: self.places[place] };
            let mut done = 0;
            while done < group {
                let count = match group - done {
                    4.. => 4,
                    2.. => 2,
                    _ => 1,
                };
                let (queries, out) = (&queries[done * head..], &mut out[done * head..(done + count) * head]);
                match count {
                    4 => one.mix::<L, 4>(queries, &mut four, out),
                    2 => one.mix::<L, 2>(queries, &mut two, out),
                    _ => one.mix::<L, 1>(queries, &mut single, out),
                }
                done += count;
            }
        }
    }
}

/// One query's look at one key head.
struct One<'a> {
    shape: Heads,
    keys: Keys<'a>,
    kv_head: usize,
    query: Query<'a>,
}

impl One<'_> {
    /// For `G` heads that share the key head: `queries` and `out` are [G, head].
    #[inline(always)]
    fn mix<L: Lanes, const G: usize>(&self, queries: &[f32], scores: &mut Vec<[[f32; LANES]; G]>, out: &mut [f32]) {
        let head = self.shape.head;
        let pages = self.query.first / PAGE..self.query.end.div_ceil(PAGE);
        scores.clear();
        let mut largest = [L::splat(f32::NEG_INFINITY); G];
        for page in pages.clone() {
            let mut sums = [L::splat(0.0); G];
            for (d, keys) in self.page_keys(page).iter().enumerate() {
                let keys = L::load(keys);
                for g in 0..G {
                    sums[g] = L::splat(queries[g * head + d]).fma(keys, sums[g]);
                }
            }
            let mut row = [[0.0; LANES]; G];
            for g in 0..G {
                sums[g].store(&mut row[g]);
                self.hide(page, &mut row[g], f32::NEG_INFINITY);
                largest[g] = largest[g].max(L::load(&row[g]));
            }
            scores.push(row);
        }
        let largest = largest.map(|lanes| L::splat(lanes.largest()));
        let mut totals = [L::splat(0.0); G];
        for (page, row) in pages.clone().zip(scores.iter_mut()) {
            for g in 0..G {
                L::load(&row[g]).sub(largest[g]).exp().store(&mut row[g]);
                self.hide(page, &mut row[g], 0.0);
                totals[g] = totals[g].add(L::load(&row[g]));
            }
        }
        let shares = totals.map(|total| 1.0 / total.sum());
        let mut column = 0;
        while column < head {
            column += match head - column {
                64.. => self.columns::<L, G, 4>(scores, &shares, column, out),
                32.. => self.columns::<L, G, 2>(scores, &shares, column, out),
                16.. => self.columns::<L, G, 1>(scores, &shares, column, out),
                _ => self.column::<G>(scores, &shares, column, out),
            };
        }
    }

    /// The tokens of a page that the query sees.
    #[inline(always)]
    fn seen(&self, page: usize) -> std::ops::Range<usize> {
        let start = page * PAGE;
        self.query.first.saturating_sub(start)..(self.query.end - start).min(PAGE)
    }

    /// Overwrites what the query does not see of a page.
    #[inline(always)]
    fn hide(&self, page: usize, row: &mut [f32; LANES], with: f32) {
        let seen = self.seen(page);
        if seen.len() < PAGE {
            row[..seen.start].fill(with);
            row[seen.end..].fill(with);
        }
    }

    #[inline(always)]
    fn page_keys(&self, page: usize) -> &[[f32; LANES]] {
        let start = self.keys.offset + self.kv_head * self.shape.head * PAGE;
        let numbers = &self.keys.pool[self.query.pages[page] as usize][start..start + self.shape.head * PAGE];
        numbers.as_chunks().0
    }

    #[inline(always)]
    fn page_values(&self, page: usize) -> &[f32] {
        let start = self.keys.offset + self.shape.values() + self.kv_head * self.shape.head * PAGE;
        &self.keys.pool[self.query.pages[page] as usize][start..start + self.shape.head * PAGE]
    }

    /// `C` times sixteen columns of the mix, summed token by token; how many columns.
    #[inline(always)]
    fn columns<L: Lanes, const G: usize, const C: usize>(
        &self,
        weights: &[[[f32; LANES]; G]],
        shares: &[f32; G],
        column: usize,
        out: &mut [f32],
    ) -> usize {
        let head = self.shape.head;
        let mut sums = [[L::splat(0.0); C]; G];
        for (page, weights) in (self.query.first / PAGE..).zip(weights) {
            let values = self.page_values(page);
            for token in self.seen(page) {
                let values = values[token * head + column..][..C * LANES].as_chunks().0;
                let values: [L; C] = std::array::from_fn(|c| L::load(&values[c]));
                for g in 0..G {
                    let weight = L::splat(weights[g][token]);
                    for c in 0..C {
                        sums[g][c] = weight.fma(values[c], sums[g][c]);
                    }
                }
            }
        }
        for g in 0..G {
            let out = out[g * head + column..][..C * LANES].as_chunks_mut().0;
            for c in 0..C {
                sums[g][c].mul(L::splat(shares[g])).store(&mut out[c]);
            }
        }
        C * LANES
    }

    /// One column of the mix, where fewer than sixteen are left.
    #[inline(always)]
    fn column<const G: usize>(
        &self,
        weights: &[[[f32; LANES]; G]],
        shares: &[f32; G],
        column: usize,
        out: &mut [f32],
    ) -> usize {
        let head = self.shape.head;
        let mut sums = [0.0_f32; G];
        for (page, weights) in (self.query.first / PAGE..).zip(weights) {
            let values = self.page_values(page);
            for token in self.seen(page) {
                for g in 0..G {
                    sums[g] = weights[g][token].mul_add(values[token * head + column], sums[g]);
                }
            }
        }
        for g in 0..G {
            out[g * head + column] = sums[g] * shares[g];
        }
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::tests::Which;
    use crate::matrix::tests::numbers;

    /// Pages in which whatever was not written is no number.
    fn filled(shape: Heads, layers: usize, lengths: &[usize]) -> (Vec<Box<[f32]>>, Vec<Vec<u32>>) {
        let mut pool: Vec<Box<[f32]>> = Vec::new();
        let mut all = Vec::new();
        for (sequence, &length) in lengths.iter().enumerate() {
            let mut pages = Vec::new();
            for token in 0..length {
                if token % PAGE == 0 {
                    pages.push(pool.len() as u32);
                    pool.push(vec![f32::NAN; layers * shape.page()].into());
                }
                let seed = (sequence * 1_000 + token) as u32;
                let (keys, values) = (numbers(64, seed), numbers(64, seed + 7));
                let page = pool.last_mut().unwrap();
                keep(page, shape.page(), shape, token % PAGE, &keys, &values);
            }
            all.push(pages);
        }
        (pool, all)
    }

    fn expected(query: &[f32], shape: Heads, sequence: usize, seen: std::ops::Range<usize>) -> Vec<f64> {
        let mut out = Vec::new();
        for head in 0..shape.heads {
            let query = &query[head * shape.head..][..shape.head];
            let at = head / shape.group() * shape.head;
            let weights: Vec<f64> = seen
                .clone()
                .map(|token| {
                    let keys = numbers(64, (sequence * 1_000 + token) as u32);
                    let score = query.iter().zip(&keys[at..]).map(|(a, b)| f64::from(*a) * f64::from(*b));
                    score.sum::<f64>().exp()
                })
                .collect();
            let total: f64 = weights.iter().sum();
            for d in 0..shape.head {
                let value = |token: usize| f64::from(numbers(64, (sequence * 1_000 + token) as u32 + 7)[at + d]);
                out.push(seen.clone().zip(&weights).map(|(token, weight)| weight * value(token)).sum::<f64>() / total);
            }
        }
        out
    }

    #[test]
    fn mixes_what_a_query_sees_and_nothing_else() {
        for shape in [
            Heads { heads: 3, kv_heads: 3, head: 5 },
            Heads { heads: 14, kv_heads: 2, head: 20 },
            Heads { heads: 2, kv_heads: 1, head: 64 },
            Heads { heads: 4, kv_heads: 2, head: 32 },
        ] {
            let (pool, pages) = filled(shape, 2, &[50, 16, 1]);
            let seen = [(0, 0..50), (0, 17..30), (0, 32..33), (1, 0..16), (1, 3..9), (2, 0..1)];
            let places: Vec<Query> = seen
                .iter()
                .map(|(sequence, seen)| Query { pages: &pages[*sequence], first: seen.start, end: seen.end })
                .collect();
            let stride = shape.heads * shape.head + 3;
            let queries = numbers(places.len() * stride, 5);
            let keys = Keys { pool: &pool, offset: shape.page() };
            let mut out = vec![0.0; places.len() * shape.heads * shape.head];
            attend(&queries, stride, shape, keys, &places, &mut out);
            for (row, (sequence, seen)) in seen.iter().enumerate() {
                let right = expected(&queries[row * stride..], shape, *sequence, seen.clone());
                for (found, right) in out[row * right.len()..].iter().zip(&right) {
                    assert!((f64::from(*found) - right).abs() < 1e-6, "{shape:?} {seen:?}: {found} {right}");
                }
            }
            for which in [Which::Plain, Which::Avx2, Which::Avx512] {
                let mut other = vec![0.0; out.len()];
                let kernel =
                    Attend { queries: &queries, stride, shape, keys, places: &places, first: 0, out: &mut other };
                assert!(!which.run(kernel) || other == out, "{which:?}");
            }
        }
    }
}
