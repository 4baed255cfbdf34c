//! The number formats of weights in files. In memory weights are `f32`.

use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};

/// A number format that weights are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// 32 bits: weights as they are.
    F32,
    /// The upper 16 bits of an `f32`.
    Bf16,
    /// IEEE half precision: finer than bf16, but only up to 65,504.
    F16,
}

/// A number that a format cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{value} is too large for {}", format.name())]
pub struct Overflow {
    /// The number.
    pub value: f32,
    /// The format.
    pub format: Format,
}

impl Format {
    /// The format's name in `config.json`.
    pub fn torch(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    /// The format's short name.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        }
    }

    /// The format under the names of safetensors.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
        }
    }

    /// The bytes of a number.
    pub fn size(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    /// Numbers as bytes, each rounded to the nearest, ties to even.
    ///
    /// # Errors
    /// When a finite number becomes infinite.
    pub fn encode(self, values: &[f32]) -> Result<Vec<u8>, Overflow> {
        let mut bytes = Vec::with_capacity(values.len() * self.size());
        for &value in values {
            let fits = match self {
                Self::F32 => {
                    bytes.extend_from_slice(&value.to_le_bytes());
                    true
                }
                Self::Bf16 => {
                    let number = half::bf16::from_f32(value);
                    bytes.extend_from_slice(&number.to_le_bytes());
                    number.is_finite() || !value.is_finite()
                }
                Self::F16 => {
                    let number = half::f16::from_f32(value);
                    bytes.extend_from_slice(&number.to_le_bytes());
                    number.is_finite() || !value.is_finite()
                }
            };
            if !fits {
                return Err(Overflow { value, format: self });
            }
        }
        Ok(bytes)
    }
}

/// The numbers of a safetensors tensor; `None` for a format that we do not read. Bytes beyond the last whole number do not count.
pub(super) fn decode(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes) as f32).collect(),
        Dtype::F16 => f16s(bytes),
        Dtype::BF16 => bf16s(bytes),
        _ => return None,
    })
}

/// Half precision numbers.
pub(super) fn f16s(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| half::f16::from_le_bytes(bytes).to_f32()).collect()
}

/// bf16 numbers.
pub(super) fn bf16s(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| half::bf16::from_le_bytes(bytes).to_f32()).collect()
}

/// The side of the square blocks that a transposition goes by, so that what it reads and what it writes both stay in the cache.
const SIDE: usize = 32;

/// [rows, columns] to [columns, rows].
pub(super) fn transpose(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    let mut turned = vec![0.0; values.len()];
    for top in (0..rows).step_by(SIDE) {
        for left in (0..columns).step_by(SIDE) {
            for row in top..rows.min(top + SIDE) {
                for column in left..columns.min(left + SIDE) {
                    turned[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn formats_round_to_nearest_and_do_not_overflow_in_silence() {
        let tiny = 2_f32.powi(-30);
        let values = [1.0, -0.333_333_34, 65_504.0, tiny, f32::INFINITY];
        let back = |format: Format| decode(format.dtype(), &format.encode(&values).unwrap()).unwrap();
        assert_eq!(back(Format::F32), values);
        assert_eq!(back(Format::Bf16), [1.0, -0.333_984_38, 65_536.0, tiny, f32::INFINITY]);
        assert_eq!(back(Format::F16), [1.0, -0.333_251_95, 65_504.0, 0.0, f32::INFINITY]);
        let error = Format::F16.encode(&[1e5]).unwrap_err();
        assert_eq!(error.to_string(), "100000 is too large for f16");
        assert!(Format::Bf16.encode(&[f32::MAX]).is_err());
        assert_eq!(decode(Dtype::F64, &0.1_f64.to_le_bytes()), Some(vec![0.1]));
        assert_eq!(decode(Dtype::I32, &[0; 4]), None);
    }

    proptest! {
        #[test]
        fn turning_twice_changes_nothing(rows in 1_usize..80, columns in 1_usize..80) {
            let values: Vec<f32> = (0..rows * columns).map(|index| index as f32).collect();
            let turned = transpose(&values, [rows, columns]);
            prop_assert_eq!(turned[(columns - 1) * rows], values[columns - 1]);
            prop_assert_eq!(transpose(&turned, [columns, rows]), values);
        }
    }
}
