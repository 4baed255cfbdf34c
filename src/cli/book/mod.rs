//! The reference of the book, written from the code: kinds, commands, tables, settings, modes. `thresh schema --reference DIR`
//! writes it; the pages stand in the tree so that they can be read and linked to where no book is built, and a test holds them
//! to the code, as it does with the schemas.

mod commands;
mod kinds;
mod pipelines;
mod tables;

use crate::compat::document::{Asking, document};
use crate::stages;

/// What every page begins with, below its title.
const WRITTEN: &str = "This page is written by the code: `make schemas` writes it anew, and a test holds it to that.";

/// Every page: its file's name and its text.
pub(super) fn pages() -> Vec<(&'static str, String)> {
    let asking: Vec<Asking> = stages::kinds().map(|kind| (kind.name, kind.quirks)).collect();
    vec![
        ("commands.md", commands::page()),
        ("kinds.md", kinds::page()),
        ("tables.md", tables::page()),
        ("pipelines.md", pipelines::pipelines()),
        ("settings.md", pipelines::settings()),
        ("compat.md", document(&asking)),
    ]
}

/// A text as it may stand in a cell of a table, links into the code as plain names.
fn cell(text: &str) -> String {
    let text = text.replace('\n', " ").replace('|', "\\|").replace('<', "&lt;");
    text.replace("[`", "`").replace("`]", "`")
}

/// The place of a heading of such a text within its page, as mdBook and GitHub name it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|one| one.is_alphanumeric() || matches!(one, ' ' | '-' | '_'));
    kept.map(|one| if one == ' ' { '-' } else { one }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_headings_are_those_of_github() {
        assert_eq!(anchor("josh.harvest"), "joshharvest");
        assert_eq!(anchor("dialogue.episode/v2"), "dialogueepisodev2");
        assert_eq!(anchor("thresh model inspect"), "thresh-model-inspect");
    }

    #[test]
    fn cells_hold_no_table_and_no_markup() {
        assert_eq!(cell("a | b\n<c> [`D`]"), "a \\| b &lt;c> `D`");
    }
}
