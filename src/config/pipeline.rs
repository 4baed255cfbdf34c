//! A pipeline file into a checked graph.

use std::path::{Path, PathBuf};

use super::connect::connect;
use super::diagnostic::{Diagnostic, Diagnostics, Sources};
use super::params::{Params, mentions};
use super::read::{Open, Reader};
use super::stage::{self, Template};
use super::sweep::{self, Sweep};
use crate::engine::graph::Graph;
use crate::value::{Node, Span, Value};

/// The most bytes of a pipeline's name.
const LONGEST_NAME: usize = 100;

/// A pipeline that holds together: every parameter read, every port connected to one of its type, no cycle.
pub struct Pipeline {
    /// The file that was asked for.
    pub path: PathBuf,
    /// Every file that was read: that one, and those that it extends.
    pub files: Vec<PathBuf>,
    /// What it is for, as the file says.
    pub description: Option<String>,
    /// The stages: one for each instance where a stage has a matrix.
    pub graph: Graph,
}

/// Reads a pipeline file and those that it extends; `sets` are changes from the command line, `PATH=VALUE`, or
/// `PATH=VALUE,VALUE` for a sweep.
///
/// # Errors
/// All mistakes that can be seen without running anything.
pub fn load(path: &Path, sets: &[String]) -> Result<Pipeline, Diagnostics> {
    load_through(path, sets, &|path| crate::fs::read_to_string(path))
}

/// Like [`load`], the files' texts coming from `open`.
///
/// # Errors
/// All mistakes that can be seen without running anything.
pub fn load_through(path: &Path, sets: &[String], open: Open) -> Result<Pipeline, Diagnostics> {
    // Places cost half of the reading, and nobody asks for one where nothing is wrong and no matrix names its instances.
    if sets.is_empty()
        && let Ok(pipeline) = load_with(Sources::without_places(), path, sets, open)
    {
        return Ok(pipeline);
    }
    load_with(Sources::default(), path, sets, open)
}

fn load_with(sources: Sources, path: &Path, sets: &[String], open: Open) -> Result<Pipeline, Diagnostics> {
    let mut reader = Reader::new(open, sources);
    let pipeline = reader.read(path).and_then(|(mut root, changes)| {
        let files = reader.sources.paths().map(Path::to_owned).collect();
        let sweeps = sweep::apply(&mut reader, &mut root, changes, sets);
        let (description, graph) = assemble(&mut reader, &mut root, &sweeps)?;
        Some(Pipeline { path: path.to_owned(), files, description, graph })
    });
    match pipeline {
        Some(pipeline) if reader.problems.is_empty() && !reader.sources.were_asked() => Ok(pipeline),
        _ => Err(Diagnostics::new(reader.sources, reader.problems)),
    }
}

fn assemble(reader: &mut Reader, root: &mut Node, sweeps: &[Sweep]) -> Option<(Option<String>, Graph)> {
    let Reader { sources, problems, .. } = reader;
    let begin = Span { file: root.span.file, start: 0, end: 1 };
    if root.get("name").is_none() {
        problems.push(Diagnostic::at(begin, "a pipeline needs `name`").help("runs are listed and compared under it"));
    }
    let name = root.get("name").and_then(|node| expect_text(node, "name", problems));
    if let (Some(name), Some(node)) = (&name, root.get("name"))
        && (name.is_empty() || name.len() > LONGEST_NAME || name.contains(|c: char| c == '/' || c.is_control()))
    {
        let message = format!("`{name}` cannot be the name of a pipeline");
        let help = format!("runs are files under its name: at most {LONGEST_NAME} bytes, and no `/`");
        problems.push(Diagnostic::at(node.span, message).help(help));
    }
    let description = root.get("description").and_then(|node| expect_text(node, "description", problems));
    let params = params(root, problems);
    let Value::Map(entries) = &mut root.value else { return None };
    let Some(at) = entries.iter().position(|(key, _)| key.text == "stages") else {
        problems.push(Diagnostic::at(begin, "a pipeline needs `stages`"));
        return None;
    };
    let (key, stages) = entries.swap_remove(at);
    if stages.entries().is_empty() {
        let empty = matches!(stages.value, Value::Map(_) | Value::Null);
        let span = if empty { key.span } else { stages.span };
        let found = if empty { "empty".to_owned() } else { stages.describe() };
        problems.push(Diagnostic::at(span, format!("`stages` is {found}, expected a map of names to stages")));
        return None;
    }
    let templates: Vec<Template> =
        stages.entries().iter().map(|(key, node)| stage::read(key, node, &params, sources, problems)).collect();
    let graph = connect(name.as_deref().unwrap_or_default(), &templates, sweeps, problems)?;
    Some((description, graph))
}

fn params(root: &Node, problems: &mut Vec<Diagnostic>) -> Params {
    let entries = root.get("params").map(Node::entries).unwrap_or_default();
    for (key, node) in entries {
        if mentions(node, "${params.") || mentions(node, "${matrix.") {
            let message = format!("the parameter `{}` refers to another value", key.text);
            problems.push(Diagnostic::at(node.span, message).help("references stand in stages only, under `with`"));
        }
    }
    entries.iter().map(|(key, node)| (key.text.clone(), node.clone())).collect()
}

fn expect_text(node: &Node, key: &str, problems: &mut Vec<Diagnostic>) -> Option<String> {
    let text = node.text().map(str::to_owned);
    if text.is_none() {
        problems.push(Diagnostic::at(node.span, format!("`{key}` is {}, expected a text", node.describe())));
    }
    text
}
