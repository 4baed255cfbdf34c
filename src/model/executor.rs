//! The border between the scheduler, which knows requests, and the devices that compute them.
//!
//! Keys and values lie in pages of [`PAGE`] tokens. A device has so many pages and knows how they lie in its memory; the
//! scheduler decides which tokens go into which page. Sequences share the pages of what they begin with, so that nothing is
//! copied, on any device.

#[cfg(feature = "cuda")]
pub mod cuda;
pub mod host;

use host::HostExecutor;

use super::Decoder;
use super::sample::{Draw, Drawn};

/// Tokens in a page.
pub const PAGE: usize = thresh_kernels::PAGE;

/// What a device offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// The longest sequence, in tokens.
    pub context: usize,
    /// How many pages there are; they are numbered from 0.
    pub pages: usize,
    /// The most sequences of one call.
    pub rows: usize,
    /// The most new tokens of one call.
    pub tokens: usize,
    /// The most tokens that one call draws for a sequence; at least 1.
    pub ahead: usize,
}

/// What is to be computed of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// A number below [`Layout::rows`], the same for all calls of a sequence and no other sequence's meanwhile.
    pub slot: usize,
    /// Where the sequence's tokens lie: token `t` in page `pages[t / PAGE]`. There are enough for all that the call adds.
    pub pages: &'a [u32],
    /// How many tokens have their keys and values in these pages, or get them from another row of the same call.
    pub past: usize,
    /// The new tokens, at least one.
    pub tokens: &'a [u32],
    /// What is asked about what follows them.
    pub want: Want<'a>,
}

/// What is asked about what follows a row's tokens.
#[derive(Clone, Copy, Debug)]
pub enum Want<'a> {
    /// Nothing: more of the prompt is to come.
    Nothing,
    /// The logits.
    Logits,
    /// As many tokens as there are random numbers, each drawn and then fed back.
    Tokens {
        /// How they are drawn; the device has said that it can: [`Executor::draws`].
        draw: Draw,
        /// At least one and at most [`Layout::ahead`].
        uniforms: &'a [f32],
        /// The request's seed. A device that makes random numbers itself makes them of this and of a token's position.
        seed: u64,
        /// Whether log-probabilities are wanted.
        logprobs: bool,
    },
}

/// The answer to a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To [`Want::Nothing`].
    Nothing,
    /// To [`Want::Logits`]: as many as the vocabulary has tokens.
    Logits(Vec<f32>),
    /// To [`Want::Tokens`].
    Tokens(Vec<Drawn>),
}

/// Why a device gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecutorError {
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
}

/// A device with a model's weights and with memory for keys and values.
pub trait Executor: Send {
    /// What it offers; always the same.
    fn layout(&self) -> Layout;

    /// Whether it can draw tokens like this itself; where not, it is asked for logits.
    fn draws(&self, draw: &Draw) -> bool;

    /// Computes the rows' new tokens and keeps their keys and values. In every layer the keys and values of all rows are
    /// written before any row looks at them: so a row may begin with what another row of the same call computes.
    ///
    /// What follows a token depends on the tokens before it alone; on processors to the bit, however the tokens come in calls
    /// and whatever stands beside them.
    ///
    /// # Errors
    /// When the device fails; its pages then hold nothing that counts.
    fn run(&mut self, rows: &[Row]) -> Result<Vec<Answer>, ExecutorError>;
}

/// What computes a decoder at its place ([`Decoder::place`]), with room for about `bytes` of keys and values, and for one
/// sequence of full length at least.
///
/// # Errors
/// When the weights cannot be read, or the device has no room.
pub fn of(decoder: &Decoder, bytes: usize) -> Result<Box<dyn Executor>, ExecutorError> {
    #[cfg(feature = "cuda")]
    if let super::device::Place::Cuda(place) = decoder.place() {
        return Ok(Box::new(cuda::CudaExecutor::new(decoder, bytes, place)?));
    }
    Ok(Box::new(HostExecutor::new(decoder, bytes)?))
}
