//! The kinds of stages: one file each, and the only list of them.

#[cfg(test)]
mod bench;
pub mod command_run;
pub mod dataset_fetch;
pub mod endpoint;
