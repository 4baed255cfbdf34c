//! Models of our own: decoder, tokenizer, chat template, weights in and out, sampling and generation, on burn.

pub mod config;
pub mod decoder;
pub mod layer;
mod rope;

pub use config::{ConfigError, ModelConfig};
pub use decoder::Decoder;
