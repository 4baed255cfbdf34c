//! The kinds of stages: one file each, and the only list of them.

pub mod model_init;
