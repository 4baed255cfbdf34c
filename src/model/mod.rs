//! Models of our own: decoder, tokenizer, chat template, weights in and out, sampling and generation, on burn.

pub mod architecture;
pub mod bundle;
pub mod calls;
pub mod chat;
pub mod checkpoint;
pub mod config;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod decoder;
pub mod device;
pub mod executor;
pub mod export;
pub mod gguf;
pub mod grammar;
pub mod inspect;
pub mod layer;
pub mod linear;
pub mod lora;
pub mod numbers;
pub mod pages;
mod paths;
pub mod peft;
pub mod reply;
pub mod rope;
pub mod sample;
pub mod scheduler;
pub mod template;
pub mod tokenizer;
pub mod weights;

#[cfg(test)]
mod parity_tests;
#[cfg(test)]
mod smollm2_tests;

pub use bundle::Bundle;
pub use config::{ConfigError, ModelConfig};
pub use decoder::Decoder;
pub use tokenizer::Tokenizer;
