//! ggml's number formats: blocks of small integers with scales, as `ggml-quants.c` and the Python package `gguf` define them.
//!
//! Every product and sum is made in `f32` in the order of the latter, so that the numbers are the same to the bit.

use crate::model::numbers::{bf16s, f16s};

/// A number format, by its number in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quant(pub u32);

/// A format that we know at least by name: its number, its name, numbers in a block, bytes of a block, how a block is read.
type Known = (u32, &'static str, usize, usize, Option<fn(&[u8], &mut Vec<f32>)>);

const KNOWN: [Known; 33] = [
    (0, "f32", 1, 4, Some(plain)),
    (1, "f16", 1, 2, Some(half)),
    (2, "q4_0", 32, 18, Some(q4_0)),
    (3, "q4_1", 32, 20, Some(q4_1)),
    (6, "q5_0", 32, 22, Some(q5_0)),
    (7, "q5_1", 32, 24, Some(q5_1)),
    (8, "q8_0", 32, 34, Some(q8_0)),
    (9, "q8_1", 32, 40, None),
    (10, "q2_k", 256, 84, Some(q2_k)),
    (11, "q3_k", 256, 110, Some(q3_k)),
    (12, "q4_k", 256, 144, Some(q4_k)),
    (13, "q5_k", 256, 176, Some(q5_k)),
    (14, "q6_k", 256, 210, Some(q6_k)),
    (15, "q8_k", 256, 292, None),
    (16, "iq2_xxs", 256, 66, None),
    (17, "iq2_xs", 256, 74, None),
    (18, "iq3_xxs", 256, 98, None),
    (19, "iq1_s", 256, 50, None),
    (20, "iq4_nl", 32, 18, None),
    (21, "iq3_s", 256, 110, None),
    (22, "iq2_s", 256, 82, None),
    (23, "iq4_xs", 256, 136, None),
    (24, "i8", 1, 1, None),
    (25, "i16", 1, 2, None),
    (26, "i32", 1, 4, None),
    (27, "i64", 1, 8, None),
    (28, "f64", 1, 8, None),
    (29, "iq1_m", 256, 56, None),
    (30, "bf16", 1, 2, Some(upper)),
    (34, "tq1_0", 256, 54, None),
    (35, "tq2_0", 256, 66, None),
    (39, "mxfp4", 32, 17, None),
    (40, "nvfp4", 64, 36, None),
];

impl Quant {
    fn known(self) -> Option<&'static Known> {
        KNOWN.iter().find(|(number, ..)| *number == self.0)
    }

    /// The format's name.
    pub fn name(self) -> &'static str {
        self.known().map_or("an unknown format", |(_, name, ..)| name)
    }

    /// The names of the formats that are read.
    pub fn readable() -> Vec<&'static str> {
        KNOWN.iter().filter(|(.., read)| read.is_some()).map(|(_, name, ..)| *name).collect()
    }

    /// The bytes of a tensor; `None` where rows hold no whole blocks, or the count overflows. Of an unknown format nothing is known.
    pub(super) fn bytes(self, shape: &[usize]) -> Option<usize> {
        let count = shape.iter().try_fold(1_usize, |count, &side| count.checked_mul(side))?;
        // Numbers are counted elsewhere too, as four bytes each.
        count.checked_mul(4)?;
        let Some(&(_, _, block, bytes, _)) = self.known() else { return Some(0) };
        shape.last().copied().unwrap_or(1).is_multiple_of(block).then_some(())?;
        (count / block).checked_mul(bytes)
    }

    /// The numbers of a tensor; `None` for a format that we do not read.
    pub(super) fn dequantise(self, bytes: &[u8]) -> Option<Vec<f32>> {
        let &(_, _, block, size, read) = self.known()?;
        let read = read?;
        let mut values = Vec::with_capacity(bytes.len() / size * block);
        if block == 1 {
            read(bytes, &mut values);
        } else {
            bytes.chunks_exact(size).for_each(|block| read(block, &mut values));
        }
        Some(values)
    }
}

fn plain(bytes: &[u8], values: &mut Vec<f32>) {
    values.extend(bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
}

fn half(bytes: &[u8], values: &mut Vec<f32>) {
    values.extend(f16s(bytes));
}

fn upper(bytes: &[u8], values: &mut Vec<f32>) {
    values.extend(bf16s(bytes));
}

/// The half precision number at a place.
fn scale(block: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The lower four bits of all bytes, then the upper ones.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    bytes.iter().map(|byte| byte & 15).chain(bytes.iter().map(|byte| byte >> 4))
}

fn q4_0(block: &[u8], values: &mut Vec<f32>) {
    let d = scale(block, 0);
    values.extend(nibbles(&block[2..]).map(|q| d * (f32::from(q) - 8.0)));
}

fn q4_1(block: &[u8], values: &mut Vec<f32>) {
    let (d, m) = (scale(block, 0), scale(block, 2));
    values.extend(nibbles(&block[4..]).map(|q| d * f32::from(q) + m));
}

/// Four bits of the bytes, and a fifth for each number from a row of bits.
fn fives<'a>(bits: &[u8], bytes: &'a [u8]) -> impl Iterator<Item = f32> + 'a {
    let bits = u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]);
    nibbles(bytes).enumerate().map(move |(at, q)| f32::from(q | ((bits >> at & 1) << 4) as u8))
}

fn q5_0(block: &[u8], values: &mut Vec<f32>) {
    let d = scale(block, 0);
    values.extend(fives(&block[2..6], &block[6..]).map(|q| d * (q - 16.0)));
}

fn q5_1(block: &[u8], values: &mut Vec<f32>) {
    let (d, m) = (scale(block, 0), scale(block, 2));
    values.extend(fives(&block[4..8], &block[8..]).map(|q| d * q + m));
}

fn q8_0(block: &[u8], values: &mut Vec<f32>) {
    let d = scale(block, 0);
    values.extend(block[2..].iter().map(|&q| f32::from(q.cast_signed()) * d));
}

fn q2_k(block: &[u8], values: &mut Vec<f32>) {
    let (scales, qs) = (&block[..16], &block[16..80]);
    let (d, dmin) = (scale(block, 80), scale(block, 82));
    for at in 0..256 {
        let (dl, ml) = (d * f32::from(scales[at / 16] & 15), dmin * f32::from(scales[at / 16] >> 4));
        let q = qs[at / 128 * 32 + at % 32] >> (at % 128 / 32 * 2) & 3;
        values.push(dl * f32::from(q) - ml);
    }
}

fn q3_k(block: &[u8], values: &mut Vec<f32>) {
    let (high, qs, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = scale(block, 108);
    for at in 0..256 {
        let group = at / 16;
        let low = scales[group % 8] >> (group / 8 * 4) & 15;
        let upper = scales[8 + group % 4] >> (group / 4 * 2) & 3;
        let dl = d * (f32::from(low | upper << 4) - 32.0);
        let q = qs[at / 128 * 32 + at % 32] >> (at % 128 / 32 * 2) & 3;
        // Here the third bit counts where it is not set.
        let missing = if high[at % 32] >> (at / 32) & 1 == 0 { 4.0 } else { 0.0 };
        values.push(dl * (f32::from(q) - missing));
    }
}

/// The scale and the minimum of each of the eight parts of a block, six bits each in twelve bytes.
fn scales_and_minima(packed: &[u8]) -> [(f32, f32); 8] {
    std::array::from_fn(|part| {
        let (scale, minimum) = if part < 4 {
            (packed[part] & 63, packed[part + 4] & 63)
        } else {
            let both = packed[part + 4];
            (both & 15 | packed[part - 4] >> 2 & 48, both >> 4 | packed[part] >> 2 & 48)
        };
        (f32::from(scale), f32::from(minimum))
    })
}

fn q4_k(block: &[u8], values: &mut Vec<f32>) {
    let (d, dmin, qs) = (scale(block, 0), scale(block, 2), &block[16..]);
    for (part, (scale, minimum)) in scales_and_minima(&block[4..16]).into_iter().enumerate() {
        let (d, dm) = (d * scale, dmin * minimum);
        let bytes = &qs[part / 2 * 32..][..32];
        values.extend(bytes.iter().map(|byte| d * f32::from(byte >> (part % 2 * 4) & 15) - dm));
    }
}

fn q5_k(block: &[u8], values: &mut Vec<f32>) {
    let (d, dmin, high, qs) = (scale(block, 0), scale(block, 2), &block[16..48], &block[48..]);
    for (part, (scale, minimum)) in scales_and_minima(&block[4..16]).into_iter().enumerate() {
        let (d, dm) = (d * scale, dmin * minimum);
        let bytes = qs[part / 2 * 32..][..32].iter().zip(high);
        let q = bytes.map(|(byte, bits)| byte >> (part % 2 * 4) & 15 | (bits >> part & 1) << 4);
        values.extend(q.map(|q| d * f32::from(q) - dm));
    }
}

fn q6_k(block: &[u8], values: &mut Vec<f32>) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = scale(block, 208);
    for at in 0..256 {
        let (half, place) = (at / 128, at % 128);
        let lower = low[half * 64 + place % 64] >> (place / 64 * 4) & 15;
        let upper = high[half * 32 + place % 32] >> (place / 32 * 2) & 3;
        let d = d * f32::from(scales[at / 16].cast_signed());
        values.push(d * (f32::from(lower | upper << 4) - 32.0));
    }
}
