//! Events into what a person or a script reads.

pub mod comparison;
pub mod frame;
pub mod json;
pub mod pace;
pub mod plain;
pub mod table;
pub mod terminal;

use std::io::Write as _;

use crate::engine::event::Event;
use crate::engine::graph::Graph;

/// Something that is told what happens.
pub trait Report {
    /// One event of a run of this graph.
    fn event(&mut self, graph: &Graph, event: &Event);
}

/// Writes a line to stderr. Who has closed it (`2>&1 | head`) must not end a run.
pub fn tell(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Seconds as people read them: `0.4 s`, `3 min 20 s`.
pub fn duration(seconds: f64) -> String {
    if seconds < 100.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{} min {} s", seconds as u64 / 60, seconds as u64 % 60)
    }
}
