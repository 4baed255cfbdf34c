//! The tree of commands as users see it: grouped, with examples and exit codes below each command's options.

use std::fmt::Write as _;

use anstyle::Style;
use clap::builder::StyledStr;
use clap::{Command, CommandFactory};

use super::{Cli, manual};

/// Every command with its arguments, help, examples and exit codes: what the binary parses its arguments with, and what the
/// man pages, the completions and the book are made from.
pub fn command() -> Command {
    let root = Cli::command().long_version(version());
    let groups = groups(&root);
    let root = dressed(root, "");
    let more = "`thresh help COMMAND` says more about a command, with examples and exit codes.";
    root.help_template(groups).after_help(more).after_long_help(format!("{more}\n\n{}", manual::surroundings()))
}

/// The version, and which devices are built in.
pub(super) fn version() -> String {
    let devices = [("cuda", cfg!(feature = "cuda")), ("wgpu", cfg!(feature = "wgpu"))];
    let built: Vec<&str> = devices.iter().filter(|(_, built)| *built).map(|(name, _)| *name).collect();
    let features = if built.is_empty() { "none".to_owned() } else { built.join(", ") };
    let devices = [&["cpu"], built.as_slice()].concat().join(", ");
    format!("{}\nfeatures: {features}\ndevices: {devices}", env!("CARGO_PKG_VERSION"))
}

/// The command and those in it with what the manual says of them.
fn dressed(command: Command, path: &str) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| {
        let inner = format!("{path}{name}");
        command.mut_subcommand(&name, |one| {
            let one = if one.has_subcommands() { one } else { one.after_help(manual::after_help(&inner)) };
            dressed(one, &format!("{inner} "))
        })
    })
}

/// The template of `thresh --help`: the commands in groups.
fn groups(root: &Command) -> StyledStr {
    let (title, literal) = (Style::new().bold().underline(), Style::new().bold());
    let width = root.get_subcommands().map(|one| one.get_name().len()).max().unwrap_or(0);
    let mut text = String::from("{about-with-newline}\n{usage-heading} {usage}\n");
    for (name, commands) in manual::GROUPS {
        let known: Vec<&Command> = commands.iter().filter_map(|name| root.find_subcommand(name)).collect();
        if known.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n{title}{name}:{title:#}");
        for one in known {
            let about = one.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {literal}{:width$}{literal:#}  {about}", one.get_name());
        }
    }
    let _ = write!(text, "\n{title}Options:{title:#}\n{{options}}{{after-help}}");
    StyledStr::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_stands_in_one_group_with_a_short_summary() {
        let root = command();
        root.clone().debug_assert();
        let grouped: Vec<&str> = manual::GROUPS.iter().flat_map(|(_, commands)| commands.iter().copied()).collect();
        for one in root.get_subcommands().filter(|one| !one.is_hide_set()) {
            let (name, about) = (one.get_name(), one.get_about().map(ToString::to_string).unwrap_or_default());
            assert_eq!(grouped.iter().filter(|known| **known == name).count(), 1, "`{name}` has no place in GROUPS");
            assert!(about.len() <= 64, "`{name}` takes more than a line of 80 characters: {about}");
        }
    }

    #[test]
    fn every_command_has_examples_that_it_takes() {
        let root = command();
        for (name, one) in manual::commands(&root) {
            if one.has_subcommands() {
                continue;
            }
            let examples = manual::examples(&name);
            assert!(!examples.is_empty(), "`thresh {name}` has no example");
            for (line, _) in examples {
                // What the shell does with the output is none of the command's arguments.
                let words = words(line.split(['>', '|']).next().unwrap().trim());
                assert!(line.starts_with("thresh "), "{line}");
                assert!(words[1..].join(" ").starts_with(&name) || line.contains(&format!("(thresh {name}")), "{line}");
                if let Err(error) = root.clone().try_get_matches_from(words) {
                    panic!("`{line}`: {error}");
                }
            }
        }
    }

    /// The words of a command line; `"…"` holds one together.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for c in line.chars() {
            match c {
                '"' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words
    }
}
