//! The arithmetic of training, forward and backward: matrix products, attention without its table of scores, norms, rotations,
//! gates, the softmax over a vocabulary, and the optimiser's step.
//!
//! Every function gives the same bits for any number of threads and however its rows are cut. Between kinds of processors the
//! last bits differ, as registers here are as wide as the processor's.

pub mod attention;
pub mod elements;
mod exp;
mod lanes;
mod level;
pub mod norm;
pub mod product;
pub mod rotary;
#[cfg(test)]
mod tests;
pub mod update;
pub mod vocabulary;

pub use level::{Level, level};
