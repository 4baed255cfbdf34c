//! Every kernel at every level of the processor against the same arithmetic written plainly in `f64`.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use super::attention::{self, Back, Inputs, Shape};
use super::elements::{Gate, drop_out, gated, gated_back};
use super::level::Level;
use super::product::{Into, Size, View, add_transposed, multiply, pack, packed_len, panel};
use super::rotary::{Turn, turn};
use super::update::{Adam, adam, sum_of_squares};
use super::vocabulary::{log_softmax_back, log_sum_exp};
use super::{exp, norm};

/// The highest level that may be used now.
static MOST: AtomicU8 = AtomicU8::new(2);

pub(super) fn least(best: Level) -> Level {
    best.min([Level::Plain, Level::Avx2, Level::Avx512][MOST.load(Ordering::SeqCst) as usize])
}

/// Runs a test at every level, one test at a time.
fn everywhere(test: impl Fn()) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    for most in [0, 1, 2] {
        MOST.store(most, Ordering::SeqCst);
        test();
    }
}

fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 40) as f64 / f64::from(1 << 23) - 1.0) as f32
    };
    (0..count).map(|_| next()).collect()
}

fn close(found: &[f32], expected: &[f64], within: f64) {
    assert_eq!(found.len(), expected.len());
    let most = expected.iter().fold(1e-30_f64, |most, value| most.max(value.abs()));
    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
        let apart = (f64::from(*found) - expected).abs();
        assert!(apart <= within * most, "{place}: {found} instead of {expected}, most {most}");
    }
}

fn packed(from: View, rows: usize, columns: usize) -> Vec<f32> {
    let mut into = vec![f32::NAN; packed_len(rows, columns)];
    pack(&mut into, from, rows, columns);
    into
}

#[test]
fn products_are_right_for_any_size_and_stride() {
    everywhere(|| {
        for (rows, inner, columns) in [(1, 1, 1), (13, 7, 33), (5, 300, 40), (25, 513, 70), (12, 256, 32), (3, 0, 4)] {
            let (a, b) = (numbers(1, rows * inner), numbers(2, inner * columns));
            let old = numbers(3, rows * (columns + 3));
            for (a_turned, b_turned, into) in
                [(false, false, Into::Set), (true, false, Into::Add), (false, true, Into::Add)]
            {
                let at = |data: &[f32], turned: bool, (height, width): (usize, usize), i: usize, j: usize| {
                    f64::from(if turned { data[j * height + i] } else { data[i * width + j] })
                };
                let view = |data: &'static [f32], turned, (height, width): (usize, usize)| match turned {
                    true => View::transposed(data, height),
                    false => View::rows(data, width),
                };
                let (a, b) = (&*a.clone().leak(), &*b.clone().leak());
                let mut c = old.clone();
                let size = Size { rows, inner, columns };
                let laid = packed(view(b, b_turned, (inner, columns)), inner, columns);
                multiply(&mut c, columns + 3, view(a, a_turned, (rows, inner)), &laid, size, into);
                let mut expected: Vec<f64> = old.iter().map(|value| f64::from(*value)).collect();
                for i in 0..rows {
                    for j in 0..columns {
                        let sum: f64 = (0..inner)
                            .map(|k| at(a, a_turned, (rows, inner), i, k) * at(b, b_turned, (inner, columns), k, j))
                            .sum();
                        let place = i * (columns + 3) + j;
                        expected[place] = sum + if into == Into::Add { expected[place] } else { 0.0 };
                    }
                }
                close(&c, &expected, 1e-5);
            }
        }
    });
}

#[test]
fn a_product_may_be_cut_anywhere() {
    everywhere(|| {
        let (rows, inner, columns) = (29, 600, 3 * panel() + 5);
        let (a, b) = (numbers(1, rows * inner), numbers(2, inner * columns));
        let whole = |rows: std::ops::Range<usize>, first: usize| {
            let mut c = vec![0.0; rows.len() * (columns - first)];
            let laid = packed(View::rows(&b, columns).at(0, first), inner, columns - first);
            let size = Size { rows: rows.len(), inner, columns: columns - first };
            multiply(&mut c, columns - first, View::rows(&a[rows.start * inner..], inner), &laid, size, Into::Set);
            c
        };
        let all = whole(0..rows, 0);
        for cut in [1, 7, 12, 28] {
            assert_eq!([whole(0..cut, 0), whole(cut..rows, 0)].concat(), all);
        }
        let right: Vec<f32> = all.chunks(columns).flat_map(|line| line[panel()..].to_vec()).collect();
        assert_eq!(whole(0..rows, panel()), right);
    });
}

#[test]
fn products_of_transposed_columns_join_what_is_there() {
    everywhere(|| {
        let (inner, height, columns, width, first) = (300, 40, 37, 50, 13);
        let (a, b) = (numbers(1, inner * height), numbers(2, inner * columns));
        let old = numbers(3, 15 * width - 9);
        let mut found = old.clone();
        add_transposed(&mut found, width, &a, height, first, &packed(View::rows(&b, columns), inner, columns), columns);
        let mut expected: Vec<f64> = old.iter().map(|value| f64::from(*value)).collect();
        for (row, line) in expected.chunks_mut(width).enumerate() {
            for (column, value) in line[..columns].iter_mut().enumerate() {
                let one = |k: usize| f64::from(a[k * height + first + row]) * f64::from(b[k * columns + column]);
                *value += (0..inner).map(one).sum::<f64>();
            }
        }
        close(&found, &expected, 1e-5);
    });
}

#[test]
fn exponentials_hold_over_the_whole_range() {
    for step in -8_700..=8_800 {
        let x = step as f32 / 100.0;
        let expected = f64::from(x).exp();
        assert!((f64::from(exp::exp(x)) / expected - 1.0).abs() < 3e-7, "{x}");
    }
    assert_eq!((exp::exp(f32::NEG_INFINITY), exp::exp(-200.0), exp::exp(200.0)), (0.0, 0.0, f32::INFINITY));
    assert!(exp::exp(f32::NAN).is_nan() && exp::exp(0.0) == 1.0);
    assert_eq!((exp::sigmoid(-100.0), exp::sigmoid(100.0)), (0.0, 1.0));
}

/// Attention and its slopes, written down plainly.
fn plain_attention(shape: &Shape, lengths: &[usize], [q, k, v, slope]: [&[f32]; 4]) -> [Vec<f64>; 4] {
    let (wide, narrow, head) = (shape.heads * shape.head, shape.kv_heads * shape.head, shape.head);
    let mut found = [q.len(), q.len(), k.len(), v.len()].map(|size| vec![0.0; size]);
    let [out, dq, dk, dv] = &mut found;
    let mut start = 0;
    for &length in lengths {
        for h in 0..shape.heads {
            let kv = h / (shape.heads / shape.kv_heads) * head;
            for i in 0..length {
                let first = shape.window.map_or(0, |window| (i + 1).saturating_sub(window));
                let at = (start + i) * wide + h * head;
                let key = |j: usize| (start + j) * narrow + kv;
                let dot = |left: &[f32], right: &[f32]| -> f64 {
                    left.iter().zip(right).map(|(left, right)| f64::from(*left) * f64::from(*right)).sum()
                };
                let score = |j: usize| f64::from(shape.scale) * dot(&q[at..at + head], &k[key(j)..key(j) + head]);
                let weights: Vec<f64> = (first..=i).map(|j| score(j).exp()).collect();
                let sum: f64 = weights.iter().sum();
                let weights: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
                let along: Vec<f64> =
                    (first..=i).map(|j| dot(&slope[at..at + head], &v[key(j)..key(j) + head])).collect();
                let mean: f64 = weights.iter().zip(&along).map(|(weight, along)| weight * along).sum();
                for (index, j) in (first..=i).enumerate() {
                    let one = weights[index] * (along[index] - mean) * f64::from(shape.scale);
                    for d in 0..head {
                        out[at + d] += weights[index] * f64::from(v[key(j) + d]);
                        dv[key(j) + d] += weights[index] * f64::from(slope[at + d]);
                        dq[at + d] += one * f64::from(k[key(j) + d]);
                        dk[key(j) + d] += one * f64::from(q[at + d]);
                    }
                }
            }
        }
        start += length;
    }
    found
}

#[test]
fn attention_and_its_slopes_are_right() {
    everywhere(|| {
        for (heads, kv_heads, head, window) in [(4, 2, 6, None), (3, 1, 32, Some(50)), (2, 2, 80, Some(2))] {
            let shape = Shape { heads, kv_heads, head, scale: 0.7, window };
            let lengths = [1, 48, 0, 131, 49];
            let tokens: usize = lengths.iter().sum();
            let [q, slope] = [1, 2].map(|seed| numbers(seed, tokens * heads * head));
            let [k, v] = [3, 4].map(|seed| numbers(seed, tokens * kv_heads * head));
            let inputs = Inputs { q: &q, k: &k, v: &v };
            let (mut out, mut sums) = (vec![f32::NAN; q.len()], vec![f32::NAN; tokens * heads]);
            attention::forward(&shape, &lengths, inputs, &mut out, &mut sums);
            let [mut dq, mut dk, mut dv] = [&q, &k, &v].map(|like| vec![f32::NAN; like.len()]);
            let back = Back { out: &out, sums: &sums, slope: &slope, q: &mut dq, k: &mut dk, v: &mut dv };
            attention::backward(&shape, &lengths, inputs, back);
            let expected = plain_attention(&shape, &lengths, [&q, &k, &v, &slope]);
            for (found, expected) in [out, dq, dk, dv].iter().zip(&expected) {
                close(found, expected, 3e-6);
            }
        }
    });
}

#[test]
fn norms_and_their_slopes_are_right() {
    everywhere(|| {
        let size = 37;
        let (x, scale, slope) = (numbers(1, 3 * size), numbers(2, size), numbers(3, 3 * size));
        let value = |x: &[f64], place: usize| {
            let row = &x[place / size * size..][..size];
            let mean = row.iter().map(|x| x * x).sum::<f64>() / size as f64;
            x[place] / (mean + 1e-5).sqrt() * f64::from(scale[place % size])
        };
        let wide: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let mut out = vec![f32::NAN; x.len()];
        norm::forward(&mut out, &x, &scale, 1e-5);
        close(&out, &(0..x.len()).map(|place| value(&wide, place)).collect::<Vec<_>>(), 1e-6);
        let loss = |x: &[f64]| (0..x.len()).map(|place| value(x, place) * f64::from(slope[place])).sum::<f64>();
        let quotients: Vec<f64> = (0..x.len())
            .map(|place| {
                let moved = |by: f64| {
                    let mut moved = wide.clone();
                    moved[place] += by;
                    loss(&moved)
                };
                (moved(1e-5) - moved(-1e-5)) / 2e-5 + 1.0
            })
            .collect();
        let (mut sums, mut along_scale) = (vec![1.0; x.len()], vec![0.0; size]);
        norm::backward_add(&mut sums, &mut along_scale, &x, &scale, 1e-5, &slope);
        close(&sums, &quotients, 1e-6);
        let expected: Vec<f64> = (0..size)
            .map(|i| (0..3).map(|row| value(&wide, row * size + i) * f64::from(slope[row * size + i])).sum::<f64>())
            .zip(&scale)
            .map(|(sum, scale)| sum / f64::from(*scale))
            .collect();
        close(&along_scale, &expected, 1e-5);
    });
}

#[test]
fn gates_and_their_slopes_are_right() {
    let value = |kind: Gate, x: f64| match kind {
        Gate::Silu => x / (1.0 + (-x).exp()),
        Gate::GeluTanh => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh()),
    };
    everywhere(|| {
        for kind in [Gate::Silu, Gate::GeluTanh] {
            let [gate, up, slope] =
                [1, 2, 3].map(|seed| numbers(seed, 77).iter().map(|x| x * 4.0).collect::<Vec<f32>>());
            let mut out = vec![f32::NAN; 77];
            gated(kind, &mut out, &gate, &up);
            let wide = |i: usize| (f64::from(gate[i]), f64::from(up[i]), f64::from(slope[i]));
            let expected: Vec<f64> = (0..77).map(|i| value(kind, wide(i).0) * wide(i).1).collect();
            close(&out, &expected, 1e-6);
            let (mut again, mut along_gate, mut along_up) = (vec![f32::NAN; 77], gate.clone(), up.clone());
            gated_back(kind, &mut again, &mut along_gate, &mut along_up, &slope);
            close(&again, &expected, 1e-6);
            let quotient = |x: f64| (value(kind, x + 1e-6) - value(kind, x - 1e-6)) / 2e-6;
            close(&along_gate, &(0..77).map(|i| quotient(wide(i).0) * wide(i).1 * wide(i).2).collect::<Vec<_>>(), 1e-6);
            close(&along_up, &(0..77).map(|i| value(kind, wide(i).0) * wide(i).2).collect::<Vec<_>>(), 1e-6);
        }
    });
}

#[test]
fn turning_back_undoes_turning() {
    everywhere(|| {
        let row = numbers(1, 24);
        let angles: [f32; 3] = [0.3, 1.7, -2.0];
        let (cos, sin) = (angles.map(f32::cos), angles.map(f32::sin));
        let mut turned = row.clone();
        turn(&mut turned, &cos, &sin, Turn::Forward);
        assert!((turned[0] - (row[0] * cos[0] - row[3] * sin[0])).abs() < 1e-6);
        assert!((turned[3] - (row[3] * cos[0] + row[0] * sin[0])).abs() < 1e-6);
        turn(&mut turned, &cos, &sin, Turn::Back);
        close(&turned, &row.iter().map(|x| f64::from(*x)).collect::<Vec<_>>(), 1e-6);
    });
}

#[test]
fn the_softmax_of_a_vocabulary_and_its_slopes_are_right() {
    everywhere(|| {
        let row: Vec<f32> = numbers(1, 61).iter().map(|x| x * 30.0).collect();
        let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        assert!((log_sum_exp(&row) - sum.ln()).abs() < 1e-6);
        let mut slopes = row.clone();
        log_softmax_back(&mut slopes, Some(7), sum.ln(), 2.0);
        let one = |(place, x): (usize, &f32)| f64::from(u8::from(place == 7)) * 2.0 - 2.0 * f64::from(*x).exp() / sum;
        close(&slopes, &row.iter().enumerate().map(one).collect::<Vec<_>>(), 1e-5);
        for broken in [f32::NAN, f32::INFINITY] {
            let mut row = row.clone();
            row[60] = broken;
            assert!(log_sum_exp(&row).is_nan(), "what has diverged is no number");
        }
    });
}

#[test]
fn dropping_out_hits_its_share_in_the_same_places_whatever_the_pieces() {
    everywhere(|| {
        let mut whole = vec![1.0; 40_000];
        drop_out(&mut whole, 5, 100, 0.3);
        let mut pieces = vec![1.0; 40_000];
        for (index, piece) in pieces.chunks_mut(777).enumerate() {
            drop_out(piece, 5, 100 + index as u64 * 777, 0.3);
        }
        assert_eq!(whole, pieces);
        let dropped = whole.iter().filter(|value| **value == 0.0).count() as f64 / 40_000.0;
        assert!((dropped - 0.3).abs() < 0.01, "{dropped}");
        assert!(whole.iter().all(|value| *value == 0.0 || *value == (1.0 / 0.7_f64) as f32));
    });
}

#[test]
fn the_step_of_adam_is_the_formulas() {
    everywhere(|| {
        let constants = Adam {
            beta_1: 0.9,
            beta_2: 0.99,
            rest_1: 0.1,
            rest_2: 0.01,
            epsilon: 1e-8,
            factor: 0.5,
            keep: 0.98,
            rate: 0.1,
            root: 2.0,
        };
        let [mut value, mut first, gradient] = [1, 2, 3].map(|seed| numbers(seed, 50));
        let mut second: Vec<f32> = numbers(4, 50).iter().map(|x| x * x).collect();
        let expected: Vec<f64> = (0..50)
            .map(|i| {
                let [value, first, second, gradient] = [value[i], first[i], second[i], gradient[i]].map(f64::from);
                let gradient = gradient * 0.5;
                let first = 0.9 * first + 0.1 * gradient;
                let second = 0.99 * second + 0.01 * gradient * gradient;
                value * 0.98 - 0.1 * first / (second.sqrt() * 2.0 + 1e-8)
            })
            .collect();
        adam(&mut value, &mut first, &mut second, &gradient, constants);
        close(&value, &expected, 1e-5);
        let squares: f64 = gradient.iter().map(|x| f64::from(*x).powi(2)).sum();
        assert!((sum_of_squares(&gradient) / squares - 1.0).abs() < 1e-12);
    });
}
