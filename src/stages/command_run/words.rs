//! A command as a pipeline gives it, and the paths put into it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use anyhow::{Context as _, anyhow};
use regex::{Captures, Regex};
use schemars::JsonSchema;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::engine::stage::Problem;

/// `{in.NAME}`, `{in.NAME[axis=value]}`, `{out.NAME}`, `{project}`; with a `$` before it is the shell's own and stays.
static PLACEHOLDER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(\$?)\{(?:(in|out)\.([A-Za-z0-9_-]+(?:\[[^{}]*\])?)|project)\}").expect("the expression is one")
});

/// A program with its arguments, or a text for the shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Words {
    /// For `sh -c`.
    Shell(String),
    /// The program and its arguments.
    List(Vec<String>),
}

/// The paths that placeholders stand for.
pub(super) struct Places<'a> {
    pub(super) project: &'a Path,
    pub(super) inputs: &'a BTreeMap<String, Vec<PathBuf>>,
    pub(super) outputs: &'a BTreeMap<String, Vec<PathBuf>>,
}

impl Words {
    fn all(&self) -> &[String] {
        match self {
            Self::Shell(text) => std::slice::from_ref(text),
            Self::List(words) => words,
        }
    }

    /// What is wrong with it whatever the ports.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.all().first().is_none_or(|word| word.trim().is_empty()) {
            problems.push(Problem::new("command", "must name a program"));
        }
        if self.all().iter().any(|word| word.contains('\0')) {
            problems.push(Problem::new("command", "holds a character that no argument can hold"));
        }
        problems
    }

    /// The inputs that it names.
    pub(super) fn inputs(&self) -> BTreeSet<String> {
        self.names("in")
    }

    /// The outputs that it names.
    pub(super) fn outputs(&self) -> BTreeSet<String> {
        self.names("out")
    }

    fn names(&self, wanted: &str) -> BTreeSet<String> {
        let found = self.all().iter().flat_map(|word| PLACEHOLDER.captures_iter(word));
        let named =
            found.filter(|found| found[1].is_empty() && found.get(2).is_some_and(|kind| kind.as_str() == wanted));
        named.map(|found| found[3].to_owned()).collect()
    }

    /// The command with every placeholder replaced.
    pub(super) fn command(&self, places: &Places) -> anyhow::Result<Command> {
        match self {
            Self::Shell(text) => {
                let mut command = Command::new("sh");
                command.arg("-c").arg(replace(text, places, quoted)?);
                Ok(command)
            }
            Self::List(words) => {
                let words = words.iter().map(|word| several(word, places));
                let mut words = words.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten();
                let mut command = Command::new(words.next().context("the command is empty")?);
                command.args(words);
                Ok(command)
            }
        }
    }
}

/// A word of a list: one that is a placeholder and nothing else becomes one for each of its paths.
fn several(word: &str, places: &Places) -> anyhow::Result<Vec<String>> {
    match PLACEHOLDER.captures(word) {
        Some(found) if found[0].len() == word.len() && found[1].is_empty() => texts(&found, places),
        _ => Ok(vec![replace(word, places, str::to_owned)?]),
    }
}

/// The paths that a placeholder stands for.
fn texts(found: &Captures, places: &Places) -> anyhow::Result<Vec<String>> {
    let text = |path: &&Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| anyhow!("the path `{}` is not UTF-8", path.display()))
    };
    place(found, places)?.iter().map(text).collect()
}

fn replace(text: &str, places: &Places, written: fn(&str) -> String) -> anyhow::Result<String> {
    let mut wrong = None;
    let replaced = PLACEHOLDER.replace_all(text, |found: &Captures| {
        if !found[1].is_empty() {
            return found[0].to_owned();
        }
        let paths = texts(found, places);
        let paths = paths.map(|paths| paths.iter().map(|path| written(path)).collect::<Vec<_>>().join(" "));
        paths.unwrap_or_else(|error| {
            wrong.get_or_insert(error);
            String::new()
        })
    });
    match wrong {
        Some(error) => Err(error),
        None => Ok(replaced.into_owned()),
    }
}

fn place<'a>(found: &Captures, places: &Places<'a>) -> anyhow::Result<Vec<&'a Path>> {
    let Some(kind) = found.get(2) else { return Ok(vec![places.project]) };
    let (paths, what) = match kind.as_str() {
        "in" => (places.inputs, "input"),
        _ => (places.outputs, "output"),
    };
    let name = &found[3];
    let known = || match paths.is_empty() {
        true => format!("there is no {what}"),
        false => paths.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    };
    let paths = paths.get(name).with_context(|| format!("`{}` names no {what}; known: {}", &found[0], known()))?;
    Ok(paths.iter().map(PathBuf::as_path).collect())
}

/// A path as one word of the shell.
fn quoted(path: &str) -> String {
    let plain = |one: char| one.is_ascii_alphanumeric() || "/._-+=:,@%".contains(one);
    if path.chars().all(plain) { path.to_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

impl<'de> Deserialize<'de> for Words {
    /// By hand, so that an error inside the list keeps its place.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Words;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of words, or one text for the shell")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Words, E> {
                Ok(Words::Shell(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut words: A) -> Result<Words, A::Error> {
                let mut list = Vec::new();
                while let Some(word) = words.next_element()? {
                    list.push(word);
                }
                Ok(Words::List(list))
            }
        }
        deserializer.deserialize_any(Either)
    }
}
