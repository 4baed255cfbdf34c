//! The kinds of stages: one file each, and the only list of them.

pub mod train_kto;
pub mod train_sft;
mod training;

#[cfg(test)]
mod training_tests;
