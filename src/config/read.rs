//! A pipeline file, the files that it extends and what they change, put together into one tree.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::change::Changes;
use super::diagnostic::{Diagnostic, Sources};
use super::params::Setter;
use super::stage::unknown_keys;
use super::yaml;
use crate::fs::PathError;
use crate::value::{Node, Span, Value};

/// Where the text of a file comes from.
pub type Open<'a> = &'a dyn Fn(&Path) -> Result<String, PathError>;

/// The most files that may extend one another.
const LONGEST_CHAIN: usize = 32;

/// Reads files; what is wrong with them is gathered.
pub struct Reader<'a> {
    open: Open<'a>,
    /// What was read.
    pub sources: Sources,
    /// What is wrong.
    pub problems: Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    /// A reader that has read nothing.
    pub fn new(open: Open<'a>, sources: Sources) -> Self {
        Self { open, sources, problems: Vec::new() }
    }

    /// Reads a file and those below it into one tree and what they sweep in it; `None` where there is nothing to go on with.
    pub fn read(&mut self, path: &Path) -> Option<(Node, Changes)> {
        // The file asked for stands first, the base of all last.
        let mut files: Vec<(PathBuf, Node)> = Vec::new();
        let mut next = Some((path.to_owned(), None));
        while let Some((path, named)) = next {
            let root = self.root(&path, named)?;
            files.push((path, root));
            next = self.base(&files)?;
        }
        let mut merged: Option<Node> = None;
        let mut changes = Changes::default();
        for (_, root) in files.into_iter().rev() {
            changes.go_on(&root, &mut self.problems);
            let sets = root.get("set").cloned();
            let mut whole = match merged {
                None => root,
                Some(base) => self.merge(base, root),
            };
            if let Some(sets) = sets {
                self.set(&mut whole, &sets);
            }
            merged = Some(whole);
        }
        Some((merged?, changes))
    }

    /// One file as a tree; `named` is where another file names it.
    fn root(&mut self, path: &Path, named: Option<Span>) -> Option<Node> {
        let text = match ((self.open)(path), named) {
            (Ok(text), _) => text,
            (Err(error), named) => {
                let absent = error.source.kind() == std::io::ErrorKind::NotFound;
                self.problems.push(match named {
                    Some(span) if absent => Diagnostic::at(span, format!("there is no file `{}`", path.display()))
                        .help("`extends` is relative to the folder of the file that it stands in"),
                    Some(span) => Diagnostic::at(span, error.to_string()),
                    None => Diagnostic::new(error.to_string()),
                });
                return None;
            }
        };
        let file = self.sources.add(path, text);
        let text = self.sources.text(file);
        let read = if self.sources.lack_places() {
            yaml::read_without_places(file, text).ok_or_else(Vec::new)
        } else {
            yaml::read(file, text)
        };
        let root = match read {
            Ok(root) => root,
            Err(problems) => {
                self.problems.extend(problems);
                return None;
            }
        };
        if !matches!(root.value, Value::Map(_)) {
            let span = Span { file, start: 0, end: 1 };
            let message = format!("a pipeline is a map with `name` and `stages`, found {}", root.describe());
            self.problems.push(Diagnostic::at(span, message));
            return None;
        }
        let known = ["name", "description", "extends", "params", "set", "sweep", "stages"];
        unknown_keys(&root, &known, "a pipeline", &mut self.problems);
        for (key, values) in [("params", "values"), ("set", "values"), ("sweep", "lists of values")] {
            if let Some(node) = root.get(key)
                && !matches!(node.value, Value::Map(_) | Value::Null)
            {
                let message = format!("`{key}` is {}, expected a map of names to {values}", node.describe());
                self.problems.push(Diagnostic::at(node.span, message));
            }
        }
        Some(root)
    }

    /// The file that the last one extends; the outer `None` where that is wrong.
    #[expect(clippy::option_option, reason = "nothing to extend is no mistake")]
    fn base(&mut self, files: &[(PathBuf, Node)]) -> Option<Option<(PathBuf, Option<Span>)>> {
        let Some((path, root)) = files.last() else { return Some(None) };
        let Some(node) = root.get("extends") else { return Some(None) };
        let Some(name) = node.text() else {
            let message = format!("`extends` names a file, found {}", node.describe());
            self.problems.push(Diagnostic::at(node.span, message));
            return None;
        };
        let target = path.parent().unwrap_or(Path::new("")).join(name);
        if files.len() >= LONGEST_CHAIN || files.iter().any(|(known, _)| *known == target) {
            let chain = files.iter().map(|(path, _)| path).chain([&target]);
            let chain = chain.map(|path| path.display().to_string()).collect::<Vec<_>>().join(" -> ");
            self.problems.push(Diagnostic::at(node.span, format!("files extend each other: {chain}")));
            return None;
        }
        Some(Some((target, Some(node.span))))
    }

    /// The extending file's name, parameters and stages over those of the base.
    fn merge(&mut self, mut base: Node, over: Node) -> Node {
        let (Value::Map(entries), Value::Map(over)) = (&mut base.value, over.value) else { return base };
        entries.retain(|(key, _)| !["set", "sweep", "extends"].contains(&key.text.as_str()));
        for (key, value) in over {
            let target = entries.iter_mut().find(|(name, _)| name.text == key.text);
            match (key.text.as_str(), target) {
                ("params" | "stages", Some((_, target))) => self.merge_map(target, value, key.text == "params"),
                ("set" | "sweep" | "extends", _) => {}
                (_, Some((_, target))) => *target = value,
                (_, None) => entries.push((key, value)),
            }
        }
        base
    }

    fn merge_map(&mut self, target: &mut Node, over: Node, replace: bool) {
        if target.value == Value::Null {
            *target = over;
            return;
        }
        let Value::Map(entries) = &mut target.value else { return };
        let Value::Map(over) = over.value else {
            if over.value != Value::Null && !replace {
                let message = format!("`stages` is {}, expected a map of names to stages", over.describe());
                self.problems.push(Diagnostic::at(over.span, message));
            }
            return;
        };
        let known: HashMap<String, usize> =
            entries.iter().enumerate().map(|(index, (key, _))| (key.text.clone(), index)).collect();
        for (name, item) in over {
            match known.get(&name.text) {
                Some(&index) if replace => entries[index].1 = item,
                Some(&index) => self.problems.push(
                    Diagnostic::at(name.span, format!("stage `{}` is already in the base", name.text))
                        .related(entries[index].0.span, "there")
                        .help(format!("change its parameters with `set: {{{}.NAME: value}}`", name.text)),
                ),
                None => entries.push((name, item)),
            }
        }
    }

    fn set(&mut self, root: &mut Node, sets: &Node) {
        let mut setter = Setter::new(root);
        for (path, value) in sets.entries() {
            if let Err(problem) = setter.set(path, value.clone()) {
                self.problems.push(problem);
            }
        }
    }
}
