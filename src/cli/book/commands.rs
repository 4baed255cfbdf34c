//! The page of the commands: the help of each, as `--help` shows it.

use clap::Command;

use super::WRITTEN;
use crate::cli::{command, commands};

/// Columns that the help is broken at.
const WIDTH: usize = 110;

pub(super) fn page() -> String {
    let mut root = command().term_width(WIDTH).max_term_width(WIDTH);
    root.build();
    let mut page = format!("# Commands\n\n{WRITTEN}\n\n{}", help(&root));
    for (name, one) in commands(&root) {
        if !one.has_subcommands() {
            page.push_str(&format!("\n## thresh {name}\n\n{}", help(one)));
        }
    }
    page
}

/// The help of a command as it looks where there are no colours.
fn help(command: &Command) -> String {
    let text = command.clone().term_width(WIDTH).max_term_width(WIDTH).render_long_help().to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    format!("```text\n{}\n```\n", lines.join("\n").trim())
}
