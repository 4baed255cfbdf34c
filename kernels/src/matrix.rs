//! Products of rows with packed weights.

use rayon::prelude::*;

use crate::lanes::{Kernel, LANES, Lanes, dispatch};

/// Columns of a panel.
const PANEL: usize = 2 * LANES;

/// How many terms are summed in a row before their sum joins the others: parts keep rounding errors small, and their numbers
/// in the cache.
const PART: usize = 512;

/// Below so many multiplications a product is not worth a second thread.
const SMALL: usize = 1 << 18;

/// A matrix as it lies in memory.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Its numbers.
    pub values: &'a [f32],
    /// What rows of the input have.
    pub inputs: usize,
    /// What rows of the output have.
    pub outputs: usize,
    /// Whether it lies [outputs, inputs] instead of [inputs, outputs].
    pub turned: bool,
}

/// Weights [inputs, outputs], in panels of 32 columns that lie row by row: a product reads them in order.
#[derive(Clone, Debug)]
pub struct Packed {
    inputs: usize,
    outputs: usize,
    panels: Vec<[f32; PANEL]>, // [panels, inputs]; what is missing in the last panel is 0
}

impl Packed {
    /// The matrices side by side.
    ///
    /// # Panics
    /// When they differ in their inputs, or a matrix has another number of values than its shape asks for.
    pub fn new(parts: &[Matrix]) -> Self {
        let inputs = parts.first().map_or(0, |part| part.inputs);
        let outputs = parts.iter().map(|part| part.outputs).sum::<usize>();
        let mut panels = vec![[0.0; PANEL]; outputs.div_ceil(PANEL) * inputs];
        let mut start = 0;
        for part in parts {
            assert!(part.inputs == inputs && part.values.len() == inputs * part.outputs, "a matrix of another shape");
            for column in 0..part.outputs {
                let (panel, place) = ((start + column) / PANEL, (start + column) % PANEL);
                let to = &mut panels[panel * inputs..(panel + 1) * inputs];
                if part.turned {
                    let from = &part.values[column * inputs..(column + 1) * inputs];
                    to.iter_mut().zip(from).for_each(|(to, from)| to[place] = *from);
                } else {
                    let from = part.values[column..].iter().step_by(part.outputs);
                    to.iter_mut().zip(from).for_each(|(to, from)| to[place] = *from);
                }
            }
            start += part.outputs;
        }
        Self { inputs, outputs, panels }
    }

    /// What rows of the input have.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// What rows of the output have.
    pub fn outputs(&self) -> usize {
        self.outputs
    }
}

/// `out = x W + bias`, rows of `x` by rows of `out`; an empty `bias` is none. Every number of it is a sum over the inputs in
/// their order, 512 at a time.
///
/// # Panics
/// When the slices do not hold equally many whole rows.
pub fn product(x: &[f32], weights: &Packed, bias: &[f32], out: &mut [f32]) {
    let (inputs, outputs) = (weights.inputs, weights.outputs);
    let rows = x.len() / inputs.max(1);
    assert!(x.len() == rows * inputs && out.len() == rows * outputs, "rows of another size");
    assert!(bias.is_empty() || bias.len() == outputs, "a bias of another size");
    if inputs == 0 || outputs == 0 || rows == 0 {
        return;
    }
    let panels = outputs.div_ceil(PANEL);
    let to = Columns(out.as_mut_ptr());
    let part = |from: usize, until: usize| {
        dispatch(Product { x, weights, bias, out: to, rows, panels: (from, until) });
    };
    let threads = rayon::current_num_threads();
    if threads == 1 || rows * inputs * outputs < SMALL {
        part(0, panels);
    } else {
        // Parts small enough that a thread which began late does not hold up the others.
        let count = (threads * 3).min(panels);
        (0..count).into_par_iter().for_each(|index| part(index * panels / count, (index + 1) * panels / count));
    }
}

/// Where the output lies. Every thread writes columns of its own.
#[derive(Clone, Copy)]
struct Columns(*mut f32);

// SAFETY: threads write disjoint panels, see `product`.
unsafe impl Send for Columns {}
unsafe impl Sync for Columns {}

struct Product<'a> {
    x: &'a [f32],
    weights: &'a Packed,
    bias: &'a [f32],
    out: Columns,
    rows: usize,
    panels: (usize, usize),
}

impl Kernel for Product<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let inputs = self.weights.inputs;
        for panel in self.panels.0..self.panels.1 {
            let weights = &self.weights.panels[panel * inputs..(panel + 1) * inputs];
            for start in (0..inputs).step_by(PART) {
                let weights = &weights[start..inputs.min(start + PART)];
                let mut row = 0;
                while row < self.rows {
                    let count = (self.rows - row).min(L::ROWS);
                    match count {
                        8 => self.tile::<L, 8>(panel, weights, start, row),
                        7 => self.tile::<L, 7>(panel, weights, start, row),
                        6 => self.tile::<L, 6>(panel, weights, start, row),
                        5 => self.tile::<L, 5>(panel, weights, start, row),
                        4 => self.tile::<L, 4>(panel, weights, start, row),
                        3 => self.tile::<L, 3>(panel, weights, start, row),
                        2 => self.tile::<L, 2>(panel, weights, start, row),
                        _ => self.tile::<L, 1>(panel, weights, start, row),
                    }
                    row += count.min(8);
                }
            }
        }
    }
}

impl Product<'_> {
    /// Some rows of a panel, over some of the inputs.
    #[inline(always)]
    fn tile<L: Lanes, const R: usize>(&self, panel: usize, weights: &[[f32; PANEL]], start: usize, row: usize) {
        let inputs = self.weights.inputs;
        let x: [&[f32]; R] = std::array::from_fn(|r| {
            let from = (row + r) * inputs + start;
            &self.x[from..from + weights.len()]
        });
        let mut sums = [[L::splat(0.0); 2]; R];
        for (k, weights) in weights.iter().enumerate() {
            let [low, high] = halves(weights).map(L::load);
            for r in 0..R {
                let x = L::splat(x[r][k]);
                sums[r] = [x.fma(low, sums[r][0]), x.fma(high, sums[r][1])];
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            self.keep(panel, start, row + r, sums);
        }
    }

    /// Adds the sums of a part to those of the parts before it; the last part's also to the bias.
    #[inline(always)]
    fn keep<L: Lanes>(&self, panel: usize, start: usize, row: usize, sums: &[L; 2]) {
        let column = panel * PANEL;
        let count = (self.weights.outputs - column).min(PANEL);
        // SAFETY: the place lies in `out`, which has `rows` rows of `outputs` numbers, and this thread alone has this panel.
        let out = unsafe { std::slice::from_raw_parts_mut(self.out.0.add(row * self.weights.outputs + column), count) };
        let mut all = [0.0; PANEL];
        if start > 0 {
            all[..count].copy_from_slice(out);
        }
        for (half, sum) in halves_mut(&mut all).into_iter().zip(sums) {
            let sum = if start > 0 { L::load(half).add(*sum) } else { *sum };
            sum.store(half);
        }
        if start + PART >= self.weights.inputs && !self.bias.is_empty() {
            all[..count].iter_mut().zip(&self.bias[column..]).for_each(|(sum, bias)| *sum += bias);
        }
        out.copy_from_slice(&all[..count]);
    }
}

#[inline(always)]
fn halves(panel: &[f32; PANEL]) -> [&[f32; LANES]; 2] {
    let (halves, _) = panel.as_chunks();
    [&halves[0], &halves[1]]
}

#[inline(always)]
fn halves_mut(panel: &mut [f32; PANEL]) -> [&mut [f32; LANES]; 2] {
    let (low, high) = panel.split_at_mut(LANES);
    [low.try_into().expect("half a panel"), high.try_into().expect("half a panel")]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::lanes::tests::Which;

    pub(crate) fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// What a product is to be, written down plainly.
    fn expected(x: &[f32], weights: &[f32], bias: &[f32], inputs: usize, outputs: usize) -> Vec<u32> {
        let mut out = Vec::new();
        for row in x.chunks(inputs) {
            for column in 0..outputs {
                let part = |start: usize| {
                    (start..inputs.min(start + PART))
                        .fold(0.0_f32, |sum, k| row[k].mul_add(weights[k * outputs + column], sum))
                };
                let sum = (PART..inputs).step_by(PART).fold(part(0), |sum, start| sum + part(start));
                out.push((sum + bias.get(column).unwrap_or(&0.0)).to_bits());
            }
        }
        out
    }

    #[test]
    fn a_product_is_its_sums_to_the_bit_for_any_rows_threads_and_vectors() {
        let pools = [1, 3].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
        for (inputs, outputs) in [(1, 1), (5, 33), (64, 40), (700, 31), (1_100, 96), (512, 256)] {
            let (weights, bias) = (numbers(inputs * outputs, 1), numbers(outputs, 2));
            let packed = Packed::new(&[Matrix { values: &weights, inputs, outputs, turned: false }]);
            for rows in [1, 2, 3, 7, 8, 9, 17] {
                let x = numbers(rows * inputs, rows as u32);
                let right = expected(&x, &weights, &bias, inputs, outputs);
                for pool in &pools {
                    let mut out = vec![0.0; rows * outputs];
                    pool.install(|| product(&x, &packed, &bias, &mut out));
                    assert!(out.iter().map(|x| x.to_bits()).eq(right.iter().copied()), "{inputs} {outputs} {rows}");
                }
                for which in [Which::Plain, Which::Avx2, Which::Avx512] {
                    let mut out = vec![0.0; rows * outputs];
                    let panels = (0, outputs.div_ceil(PANEL));
                    let to = Columns(out.as_mut_ptr());
                    if which.run(Product { x: &x, weights: &packed, bias: &bias, out: to, rows, panels }) {
                        assert!(out.iter().map(|x| x.to_bits()).eq(right.iter().copied()), "{which:?} {inputs} {rows}");
                    }
                }
            }
        }
    }

    #[test]
    fn matrices_stand_side_by_side_and_may_be_turned() {
        let (left, right) = (numbers(6 * 5, 1), numbers(6 * 40, 2));
        let turned: Vec<f32> = (0..240).map(|i| right[(i % 6) * 40 + i / 6]).collect();
        let plain = |values, outputs, turned| Matrix { values, inputs: 6, outputs, turned };
        let both = Packed::new(&[plain(&left, 5, false), plain(&turned, 40, true)]);
        let x = numbers(12, 3);
        let (mut out, mut first, mut second) = (vec![0.0; 90], vec![0.0; 10], vec![0.0; 80]);
        product(&x, &both, &[], &mut out);
        product(&x, &Packed::new(&[plain(&left, 5, false)]), &[], &mut first);
        product(&x, &Packed::new(&[plain(&right, 40, false)]), &[], &mut second);
        for row in 0..2 {
            let side_by_side = [&first[row * 5..][..5], &second[row * 40..][..40]].concat();
            assert_eq!(out[row * 45..][..45], side_by_side);
        }
    }
}
