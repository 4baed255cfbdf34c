//! Models of our own: decoder, tokenizer, chat template, weights in and out, sampling and generation, on burn.

pub mod architecture;
mod bpe;
pub mod bundle;
pub mod chat;
pub mod config;
pub mod decoder;
pub mod device;
pub mod executor;
pub mod layer;
pub mod linear;
pub mod lora;
pub mod numbers;
pub mod pages;
pub mod rope;
pub mod sample;
pub mod scheduler;
pub mod tokenizer;
pub mod weights;

pub use bundle::Bundle;
pub use config::{ConfigError, ModelConfig};
pub use decoder::Decoder;
pub use tokenizer::Tokenizer;
