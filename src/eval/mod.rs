//! Numbers from tables: scores of episodes, how sure they are, and whether one agent is better than another.
//!
//! Nothing here is heavy: some thousands of numbers in a few vectors. A data frame would only hide the arithmetic.

pub mod bootstrap;
pub mod compare;
pub mod instructions;
pub mod mersenne;
pub mod permutation;
pub mod perplexity;
pub mod replicates;
pub mod score;
pub mod stratify;
pub mod student;
pub mod trial;

pub use compare::{ComparisonRow, Settings, Test, compare};
pub use score::{EpisodeOutcome, EpisodeView, ScoreRow, SummaryRow};
pub use trial::TrialRow;

/// The mean, or `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
