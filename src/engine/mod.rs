//! The engine: orders stages, caches results, runs what is missing. It knows no dialogue, no YAML, no burn, no polars.

pub mod port;
pub mod stage;
