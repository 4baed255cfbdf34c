//! Events into what a person or a script reads.

pub mod comparison;
pub mod frame;
pub mod json;
pub mod pace;
pub mod plain;
pub mod table;
pub mod terminal;

use crate::engine::event::Event;
use crate::engine::graph::Graph;

/// Something that is told what happens.
pub trait Report {
    /// One event of a run of this graph.
    fn event(&mut self, graph: &Graph, event: &Event);
}

/// Seconds as people read them: `0.4 s`, `3 min 20 s`.
pub fn duration(seconds: f64) -> String {
    if seconds < 100.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} min {} s", seconds as u64 / 60, seconds as u64 % 60)
    }
}
