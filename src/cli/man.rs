//! `thresh man`: the manual pages, from the same tree and tables as the help.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, Command};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};
use serde_json::json;

use super::manual::{self, ENVIRONMENT, FILES, GROUPS};
use super::{Common, Failure, Outcome, command, commands, say_json};
use crate::config::diagnostic::nearest;
use crate::fs;
use crate::report::note;

#[derive(Args)]
pub(super) struct ManArgs {
    /// The command whose page is printed, as in `model inspect`; that of `thresh` itself where none is named.
    #[arg(conflicts_with = "out")]
    command: Vec<String>,
    /// Write all pages into this folder, one a command, instead of printing one.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs, common: &Common) -> Outcome {
    let pages = pages()?;
    let Some(out) = &args.out else {
        let name = ["thresh"].into_iter().chain(args.command.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
        let Some((_, text)) = pages.iter().find(|(known, _)| *known == name) else {
            let near = nearest(&name, pages.iter().map(|(name, _)| name.as_str()));
            let hint = near.map(|near| format!("; did you mean `{}`?", near.replace('-', " "))).unwrap_or_default();
            return Err(Failure::Wrong(anyhow!("there is no page of `{}`{hint}", name.replace('-', " "))));
        };
        if common.json {
            return say_json(&json!({"name": name, "section": 1, "text": String::from_utf8_lossy(text)}));
        }
        return Ok(std::io::stdout().lock().write_all(text)?);
    };
    fs::create_dir_all(out)?;
    for (name, text) in pages {
        let path = out.join(format!("{name}.1"));
        fs::write_whole(&path, &text)?;
        if common.json {
            say_json(&json!({"path": path, "bytes": text.len()}))?;
        } else {
            note(format!("wrote `{}`", path.display()));
        }
    }
    Ok(())
}

/// The pages by their names, `thresh` and then `thresh-check` and so on.
fn pages() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut root = command().disable_help_subcommand(true);
    root.build();
    let mut pages = vec![("thresh".to_owned(), page("", &root, &root)?)];
    for (name, one) in commands(&root) {
        pages.push((format!("thresh-{}", name.replace(' ', "-")), page(&name, one, &root)?));
    }
    Ok(pages)
}

fn page(name: &str, one: &Command, root: &Command) -> std::io::Result<Vec<u8>> {
    let version = root.get_version().unwrap_or_default();
    let man = Man::new(one.clone()).source(format!("thresh {version}")).manual("thresh's manual");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    // No date, so that the same program always writes the same page.
    let mut text = String::from_utf8_lossy(&text).replace(" 1  ", " 1 \"\" ").into_bytes();
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    let mut roff = Roff::new();
    if name.is_empty() {
        groups(&mut roff, root);
    } else if one.has_subcommands() {
        roff.control("SH", ["COMMANDS"]);
        one.get_subcommands()
            .for_each(|inner| entry(&mut roff, &reference(&format!("{name} {}", inner.get_name())), &about(inner)));
    }
    roff.to_writer(&mut text)?;
    let mut options = Vec::new();
    man.render_options_section(&mut options)?;
    // Readers call the breaks around a space superfluous.
    text.extend(String::from_utf8_lossy(&options).replace(".br\n\n.br\n", ".sp\n").into_bytes());
    let mut roff = Roff::new();
    below(&mut roff, name, one);
    roff.to_writer(&mut text)?;
    Ok(text)
}

/// The commands in the order in which one meets them.
fn groups(roff: &mut Roff, root: &Command) {
    roff.control("SH", ["COMMANDS"]);
    for (title, names) in GROUPS {
        let known: Vec<&Command> = names.iter().filter_map(|name| root.find_subcommand(name)).collect();
        if !known.is_empty() {
            roff.control("SS", [*title]);
        }
        known.iter().for_each(|one| entry(roff, &reference(one.get_name()), &about(one)));
    }
}

/// What stands below the options.
fn below(roff: &mut Roff, name: &str, one: &Command) {
    let inner: Vec<String> = one.get_subcommands().map(|inner| format!("{name} {}", inner.get_name())).collect();
    if inner.is_empty() || name.is_empty() {
        roff.control("SH", ["EXIT STATUS"]);
        manual::exit_codes(name).iter().for_each(|(code, meaning)| entry(roff, &[bold(code.to_string())], meaning));
    }
    for (title, entries) in [("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)] {
        roff.control("SH", [title]);
        entries.iter().for_each(|(name, meaning)| entry(roff, &[bold(*name)], meaning));
    }
    let examples = manual::examples(name);
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]);
        examples.iter().for_each(|(line, what)| entry(roff, &[bold(*line)], what));
    }
    roff.control("SH", ["SEE ALSO"]);
    let others = match (name.is_empty(), inner.is_empty()) {
        (true, _) => vec!["check", "plan", "run", "runs", "show", "compare"].into_iter().map(str::to_owned).collect(),
        (false, false) => inner,
        (false, true) => neighbours(name),
    };
    let mut text = if name.is_empty() { Vec::new() } else { vec![bold("thresh"), roman("(1)")] };
    for other in others {
        text.extend((!text.is_empty()).then(|| roman(", ")));
        text.extend(reference(&other));
    }
    roff.text(text);
}

/// The other commands of the same group that there are.
fn neighbours(name: &str) -> Vec<String> {
    let first = name.split(' ').next().unwrap_or_default();
    let root = command();
    let group = GROUPS.iter().find(|(_, names)| names.contains(&first)).map_or(&[] as &[&str], |(_, names)| names);
    let there = |other: &&&str| **other != name && root.find_subcommand(other).is_some();
    group.iter().filter(there).map(|&other| other.to_owned()).collect()
}

fn reference(name: &str) -> Vec<Inline> {
    vec![bold(format!("thresh-{}", name.replace(' ', "-"))), roman("(1)")]
}

fn about(one: &Command) -> String {
    one.get_about().map(ToString::to_string).unwrap_or_default()
}

fn entry(roff: &mut Roff, term: &[Inline], meaning: &str) {
    roff.control("TP", []);
    roff.text(term.to_vec());
    roff.text(vec![roman(meaning)]);
}
