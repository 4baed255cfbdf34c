//! Rotary embeddings for contexts longer than those of pretraining, as `rope_scaling` asks for them.
//!
//! The arithmetic is that of `modeling_rope_utils.py` in transformers, in `f64` where that has `f32`.

use std::f64::consts::PI;

use serde_json::{Map, Value};

use super::ConfigError;
use crate::model::architecture::Rope;

/// The settings of `rope_scaling`.
pub(super) struct Scaling<'a>(pub(super) &'a Map<String, Value>);

impl Scaling<'_> {
    /// `rope_type`, in older files `type`.
    pub(super) fn kind(&self) -> Result<&str, ConfigError> {
        match self.0.get("rope_type").or_else(|| self.0.get("type")) {
            None => Ok("default"),
            Some(Value::String(kind)) => Ok(kind),
            Some(other) => Err(unsupported(&other.to_string())),
        }
    }

    /// The embedding of base `theta` for heads of size `head`, scaled.
    ///
    /// # Errors
    /// For a kind of scaling that we do not compute, and for numbers that are missing or out of range.
    pub(super) fn rope(&self, head: usize, theta: f64, context: usize) -> Result<Rope, ConfigError> {
        let plain = Rope::plain(head, theta);
        match self.kind()? {
            "default" => Ok(plain),
            "linear" => {
                let factor = self.needed("factor")?;
                Ok(Rope { frequencies: plain.frequencies.iter().map(|f| f / factor).collect(), ..plain })
            }
            "llama3" => self.llama3(plain, context),
            "yarn" => self.yarn(plain, theta, context),
            other => Err(unsupported(other)),
        }
    }

    /// Llama 3.1: slow pairs divided by the factor, fast ones left, a ramp between.
    fn llama3(&self, plain: Rope, context: usize) -> Result<Rope, ConfigError> {
        let factor = self.needed("factor")?;
        let (low, high) = (self.needed("low_freq_factor")?, self.needed("high_freq_factor")?);
        if high <= low {
            return Err(ConfigError::Scaling { name: "high_freq_factor", problem: "more than `low_freq_factor`" });
        }
        let original = self.original(context)?;
        let scaled = |frequency: f64| {
            let turns = original * frequency / (2.0 * PI);
            let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        };
        Ok(Rope { frequencies: plain.frequencies.into_iter().map(scaled).collect(), ..plain })
    }

    /// YaRN (arXiv 2309.00071): a ramp over the pairs instead of over their wavelengths, and a larger magnitude.
    fn yarn(&self, plain: Rope, theta: f64, context: usize) -> Result<Rope, ConfigError> {
        let original = self.original(context)?;
        let factor = match self.number("factor")? {
            Some(factor) => factor,
            None => context as f64 / original,
        };
        let magnitude = |by: f64| if factor <= 1.0 { 1.0 } else { 0.1 * by * factor.ln() + 1.0 };
        let magnitude = match (self.number("attention_factor")?, self.mscale("mscale")?, self.mscale("mscale_all_dim")?)
        {
            (Some(given), _, _) => given,
            (None, Some(scale), Some(all)) => magnitude(scale) / magnitude(all),
            _ => magnitude(1.0),
        };
        let pairs = plain.frequencies.len();
        let size = (2 * pairs) as f64;
        let place = |turns: f64| size * (original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
        let (mut low, mut high) =
            (place(self.number("beta_fast")?.unwrap_or(32.0)), place(self.number("beta_slow")?.unwrap_or(1.0)));
        if self.0.get("truncate").and_then(Value::as_bool).unwrap_or(true) {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, mut high) = (low.max(0.0), high.min(size - 1.0));
        if low == high {
            high += 0.001; // as there, against a division by zero
        }
        let scaled = |(pair, frequency): (usize, f64)| {
            let ramp = ((pair as f64 - low) / (high - low)).clamp(0.0, 1.0);
            frequency / factor * ramp + frequency * (1.0 - ramp)
        };
        let frequencies = plain.frequencies.into_iter().enumerate().map(scaled).collect();
        Ok(Rope { frequencies, magnitude })
    }

    fn original(&self, context: usize) -> Result<f64, ConfigError> {
        Ok(self.number("original_max_position_embeddings")?.unwrap_or(context as f64))
    }

    fn needed(&self, name: &'static str) -> Result<f64, ConfigError> {
        self.number(name)?.ok_or(ConfigError::Scaling { name, problem: "given" })
    }

    /// A positive number, where there is one.
    fn number(&self, name: &'static str) -> Result<Option<f64>, ConfigError> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64().filter(|number| number.is_finite() && *number > 0.0) {
                Some(number) => Ok(Some(number)),
                None => Err(ConfigError::Scaling { name, problem: "a positive number" }),
            },
        }
    }

    /// As [`Scaling::number`], but 0 means that there is none.
    fn mscale(&self, name: &'static str) -> Result<Option<f64>, ConfigError> {
        if self.0.get(name).and_then(Value::as_f64) == Some(0.0) { Ok(None) } else { self.number(name) }
    }
}

fn unsupported(found: &str) -> ConfigError {
    let supported = "default`, `linear`, `llama3` and `yarn";
    ConfigError::Unsupported { name: "rope_type", found: found.to_owned(), supported }
}
