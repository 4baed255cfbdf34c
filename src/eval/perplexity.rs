//! How well a model foretells a text that it was not trained on.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bootstrap::{Interval, ratio_interval};
use super::score::Resampling;
use crate::seed::derive;
use crate::table::Row;

/// What a text is cut into; passages are what the intervals resample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Passages {
    /// Each line that is not empty is a passage.
    Lines,
    /// Empty lines part passages.
    #[default]
    Paragraphs,
    /// The text is one passage.
    Whole,
}

impl Passages {
    /// The passages of a text, white space around them and empty ones left out.
    pub fn of(self, text: &str) -> Vec<String> {
        let parts: Vec<String> = match self {
            Self::Lines => text.lines().map(str::to_owned).collect(),
            Self::Paragraphs => {
                let lines: Vec<&str> = text.lines().collect();
                lines.split(|line| line.trim().is_empty()).map(|lines| lines.join("\n")).collect()
            }
            Self::Whole => vec![text.to_owned()],
        };
        let trimmed = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
        trimmed.map(str::to_owned).collect()
    }
}

/// The windows that so many tokens are read in: consecutive, of like length, none longer than `longest`.
pub fn windows(tokens: usize, longest: usize) -> Vec<Range<usize>> {
    let count = tokens.div_ceil(longest.max(1));
    (0..count).map(|at| at * tokens / count..(at + 1) * tokens / count).collect()
}

/// How well a model foretells a passage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PassageRow {
    /// Its number, from 1.
    pub passage: u64,
    /// Its length in bytes of UTF-8.
    pub bytes: u64,
    /// Its tokens, all of them foretold.
    pub tokens: u64,
    /// The natural logarithm of the probability that the model gives it.
    pub log_prob: f64,
}

impl Row for PassageRow {
    const TYPE: &'static str = "eval.passage/v1";
}

/// How well a model foretells a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PerplexityRow {
    /// How many passages there are.
    pub passages: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The exponential of the mean negative log-probability of a token: comparable between models of one tokenizer.
    pub perplexity: f64,
    /// The lower end of its confidence interval.
    pub perplexity_low: f64,
    /// The upper end.
    pub perplexity_high: f64,
    /// The negative log-probability in bits over the bytes: comparable between any models.
    pub bits_per_byte: f64,
    /// The lower end of its confidence interval.
    pub bits_per_byte_low: f64,
    /// The upper end.
    pub bits_per_byte_high: f64,
}

impl Row for PerplexityRow {
    const TYPE: &'static str = "eval.perplexity/v1";
}

/// Sums up passages; `None` of no passages. Intervals resample whole passages.
pub fn perplexity(passages: &[PassageRow], resampling: Resampling) -> Option<PerplexityRow> {
    let of = |value: fn(&PassageRow) -> f64| passages.iter().map(value).collect::<Vec<f64>>();
    let (nats, tokens, bytes) = (of(|row| -row.log_prob), of(|row| row.tokens as f64), of(|row| row.bytes as f64));
    let sum = |values: &[f64]| values.iter().sum::<f64>();
    let interval = |below: &[f64], name: &str| {
        let seed = derive(resampling.seed, &["eval", name]);
        ratio_interval(&nats, below, resampling.samples, resampling.confidence, seed)
    };
    let Interval { low, high } = interval(&tokens, "perplexity")?;
    let bits = interval(&bytes, "bits_per_byte")?;
    let bit = std::f64::consts::LN_2;
    Some(PerplexityRow {
        passages: passages.len() as u64,
        tokens: passages.iter().map(|row| row.tokens).sum(),
        bytes: passages.iter().map(|row| row.bytes).sum(),
        perplexity: (sum(&nats) / sum(&tokens)).exp(),
        perplexity_low: low.exp(),
        perplexity_high: high.exp(),
        bits_per_byte: sum(&nats) / sum(&bytes) / bit,
        bits_per_byte_low: bits.low / bit,
        bits_per_byte_high: bits.high / bit,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_cut_as_asked() {
        let text = "one\ntwo \n\n \nthree\r\n";
        assert_eq!(Passages::Lines.of(text), ["one", "two", "three"]);
        assert_eq!(Passages::Paragraphs.of(text), ["one\ntwo", "three"]);
        assert_eq!(Passages::Whole.of(text), ["one\ntwo \n\n \nthree"]);
        assert!(Passages::Whole.of(" \n").is_empty() && Passages::Paragraphs.of("").is_empty());
    }

    #[test]
    fn a_model_that_knows_nothing_is_as_perplexed_as_its_vocabulary_is_large() {
        let row = |passage, tokens: u64| PassageRow {
            passage,
            bytes: 3 * tokens,
            tokens,
            log_prob: -(tokens as f64) * 8f64.ln(),
        };
        let resampling = Resampling { samples: 100, confidence: 0.95, seed: 1 };
        let found = perplexity(&[row(1, 5), row(2, 7)], resampling).unwrap();
        assert!((found.perplexity - 8.0).abs() < 1e-9 && (found.bits_per_byte - 1.0).abs() < 1e-9);
        assert!((found.perplexity_low - 8.0).abs() < 1e-9 && (found.bits_per_byte_high - 1.0).abs() < 1e-9);
        assert_eq!((found.passages, found.tokens, found.bytes), (2, 12, 36));
        assert!(perplexity(&[], resampling).is_none());
    }

    proptest! {
        #[test]
        fn windows_cover_all_tokens_once(tokens in 0usize..500, longest in 1usize..60) {
            let found = windows(tokens, longest);
            let covered: Vec<usize> = found.iter().cloned().flatten().collect();
            prop_assert_eq!(covered, (0..tokens).collect::<Vec<_>>());
            prop_assert!(found.iter().all(|window| !window.is_empty() && window.len() <= longest));
        }
    }
}
