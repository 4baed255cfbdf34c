//! Dialogues and trees as text for a terminal: in colour where there is colour, and readable without, since signs say it too.
//!
//! What was said by models is not trusted: control characters in it never reach the terminal.

pub mod dialogue;
pub mod example;
pub mod ink;
pub mod list;
pub mod pair;
pub mod tree;
pub mod turn;

pub use ink::{Ink, Line};

use super::table::counted;

/// How things are shown.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Columns of the terminal.
    pub width: usize,
    /// Whether long observations are shown whole.
    pub full: bool,
}

/// The widest that prose gets: longer lines are hard to follow.
const PROSE: usize = 110;

impl Look {
    /// The columns for prose.
    pub fn prose(self) -> usize {
        self.width.min(PROSE)
    }
}

/// `1 goal`, `2 goals`.
fn count(number: usize, noun: &str) -> String {
    counted(number as u64, noun)
}
