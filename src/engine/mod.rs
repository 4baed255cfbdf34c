//! The engine: orders stages, caches results, runs what is missing. It knows no dialogue, no YAML, no burn, no polars.

pub mod context;
pub mod event;
pub mod fingerprint;
pub mod gc;
pub mod graph;
pub mod history;
mod job;
pub mod labels;
mod log;
pub mod plan;
pub mod pools;
pub mod port;
pub mod profile;
pub mod rows;
pub mod runner;
mod seal;
pub mod stage;
pub mod states;
pub mod store;
pub mod usage;
