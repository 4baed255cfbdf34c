//! Events into what a person or a script reads.

pub mod compare;
pub mod comparison;
pub mod dag;
pub mod events;
pub mod frame;
pub mod json;
pub mod pace;
pub mod page;
pub mod plain;
pub mod sql;
pub mod table;
pub mod talk;
pub mod terminal;
pub mod view;

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::event::Event;
use crate::engine::graph::Graph;

/// Something that is told what happens.
pub trait Report {
    /// One event of a run of this graph.
    fn event(&mut self, graph: &Graph, event: &Event);
}

/// Whether only warnings and errors go to stderr.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Leaves out what [`note`] says, for this process.
pub fn quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Writes a line to stderr that people can do without; see [`quiet`].
pub fn note(text: impl std::fmt::Display) {
    if !QUIET.load(Ordering::Relaxed) {
        tell(text);
    }
}

/// Writes a warning or an error to stderr. Who has closed it (`2>&1 | head`) must not end a run.
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
