//! `thresh`: declarative pipelines for self-training dialogue agents from sparse rewards.
//!
//! The modules in layer order, each importing only from those below it: `cli`, `report`, `config`, `stages`; then `engine` beside
//! the domain (`dataset`, `dialogue`, `josh`, `llm`, `model`, `train`, `eval`); then `chat`, `child`, `compat`, `examples`, `fs`, `net`,
//! `seed`, `table`, `value`. Engine and domain meet only in `stages`.

pub mod chat;
pub mod child;
pub mod cli;
pub mod compat;
pub mod config;
pub mod dataset;
pub mod dialogue;
pub mod engine;
pub mod eval;
pub mod examples;
pub mod fs;
pub mod josh;
pub mod llm;
pub mod model;
pub mod net;
pub mod report;
pub mod seed;
pub mod serve;
pub mod stages;
pub mod table;
pub mod train;
pub mod value;

#[cfg(test)]
mod golden;
#[cfg(test)]
#[path = "../tests/it/server.rs"]
mod server;
