//! How much room there is to show something.

use std::io::IsTerminal;

use terminal_size::{Height, Width, terminal_size_of};

/// Columns where nobody says how many there are.
const WIDTH: usize = 80;

/// Fewer columns are taken for this many.
const LEAST: usize = 40;

/// The room on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Letters in a line.
    pub width: usize,
    /// Lines; `None` where it is no terminal, and nothing scrolls away.
    pub height: Option<usize>,
}

impl Screen {
    /// That of the terminal; 80 letters, or as many as `COLUMNS` says, for who reads through a pipe.
    pub fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        if stdout.is_terminal()
            && let Some((Width(width), Height(height))) = terminal_size_of(&stdout)
        {
            return Self { width: usize::from(width).max(LEAST), height: Some(height.into()) };
        }
        let told = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
        Self { width: told.unwrap_or(WIDTH).max(LEAST), height: None }
    }
}
