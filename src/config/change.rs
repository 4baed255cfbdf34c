//! What `--set` and `sweep` change: a path and its values, one to set it, several to sweep it.

use std::collections::HashMap;
use std::path::Path;

use super::diagnostic::Diagnostic;
use super::read::Reader;
use super::yaml;
use crate::value::{Key, Node, Span, Value};

/// One change of a parameter.
pub struct Change {
    /// The path, `stage.parameter` or `params.name`, and where it stands.
    pub key: Key,
    /// Its values.
    pub values: Vec<Node>,
}

/// Changes in the order in which they are made, of each path one.
#[derive(Default)]
pub struct Changes(Vec<Change>);

impl Changes {
    /// Adds a change. One of the same path it replaces in its place, so that names of instances keep the order of their axes; those
    /// within its path are lost with the value that they change.
    pub fn add(&mut self, change: Change) {
        let path = &change.key.text;
        self.0.retain(|earlier| !lies_within(&earlier.key.text, path));
        match self.0.iter_mut().find(|earlier| earlier.key.text == *path) {
            Some(earlier) => *earlier = change,
            None => self.0.push(change),
        }
    }

    /// Takes the changes of a path and those within it away: another value stands there.
    pub fn forget(&mut self, path: &str) {
        self.0.retain(|earlier| earlier.key.text != path && !lies_within(&earlier.key.text, path));
    }

    /// The changes in their order.
    pub fn into_list(self) -> Vec<Change> {
        self.0
    }

    /// What one file changes over those that it extends: its `params` and its `set` end the sweeps of the values that they give,
    /// its `sweep` adds to what is left or replaces it.
    pub fn go_on(&mut self, file: &Node, problems: &mut Vec<Diagnostic>) {
        for (name, _) in file.get("params").map(Node::entries).unwrap_or_default() {
            self.forget(&format!("params.{}", name.text));
        }
        let sets = file.get("set").map(Node::entries).unwrap_or_default();
        for (path, _) in sets {
            self.forget(&path.text);
        }
        let sweeps = file.get("sweep").map(Node::entries).unwrap_or_default();
        self.tell_clashes(sets, sweeps, problems);
        for (path, values) in sweeps {
            if let Some(values) = list(path, values, problems) {
                self.add(Change { key: path.clone(), values: values.to_vec() });
            }
        }
    }

    /// Tells what a file sets or sweeps although it would be lost, since the same or what it is part of is swept.
    fn tell_clashes(&self, sets: &[(Key, Node)], sweeps: &[(Key, Node)], problems: &mut Vec<Diagnostic>) {
        let inherited = self.0.iter().map(|change| &change.key);
        let swept: HashMap<&str, &Key> =
            inherited.chain(sweeps.iter().map(|(path, _)| path)).map(|path| (path.text.as_str(), path)).collect();
        for (path, _) in sets {
            // What is inherited `set` has ended.
            if let Some(swept) = swept.get(path.text.as_str()) {
                let problem = Diagnostic::at(swept.span, format!("`{}` stands in `sweep` and in `set`", path.text));
                problems.push(problem.related(path.span, "set here").help("keep one of them"));
            }
        }
        for (path, _) in sets.iter().chain(sweeps) {
            let Some(whole) = beginnings(&path.text).find_map(|begin| swept.get(begin)) else { continue };
            let message = format!("`{}` changes a part of `{}`, which is swept", path.text, whole.text);
            problems.push(Diagnostic::at(path.span, message).related(whole.span, "swept here"));
        }
    }
}

/// The values of an entry of `sweep`; `None` where there are none, which is told.
fn list<'n>(path: &Key, values: &'n Node, problems: &mut Vec<Diagnostic>) -> Option<&'n [Node]> {
    match &values.value {
        Value::List(items) if !items.is_empty() => Some(items),
        Value::List(_) => {
            problems.push(Diagnostic::at(values.span, format!("the sweep of `{}` has no values", path.text)));
            None
        }
        other => {
            let message = format!("the sweep of `{}` is {}, expected a list of values", path.text, values.describe());
            let problem = Diagnostic::at(values.span, message);
            problems.push(match other {
                Value::Map(_) | Value::Null => problem,
                _ => problem.help("a single value stands in brackets too, `[value]`, or under `set`"),
            });
            None
        }
    }
}

/// Whether a path leads into the value at another one.
fn lies_within(path: &str, whole: &str) -> bool {
    path.strip_prefix(whole).is_some_and(|rest| rest.starts_with('.'))
}

/// The paths that a path leads through: `a` and `a.b` of `a.b.c`.
fn beginnings(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('.').map(|(at, _)| &path[..at])
}

/// Reads a change from the command line, `PATH=VALUE` or `PATH=VALUE,VALUE`; `None` where it is wrong, which is told.
pub fn read(reader: &mut Reader, text: &str) -> Option<Change> {
    let file = reader.sources.add(Path::new("--set"), text.to_owned());
    let Some((path, values)) = text.split_once('=') else {
        let span = Span { file, start: 0, end: text.len() };
        reader.problems.push(Diagnostic::at(span, "expected `PATH=VALUE`").help("as in `--set harvest.beam=16`"));
        return None;
    };
    let begin = path.len() - path.trim_start().len();
    let key = Key { text: path.trim().to_owned(), span: Span { file, start: begin, end: path.trim_end().len() } };
    let parts = parts(values);
    let mut read = Vec::new();
    for &(start, part) in &parts {
        let offset = path.len() + 1 + start;
        if parts.len() > 1 && part.trim().is_empty() {
            let span = Span { file, start: offset, end: offset + part.len().max(1) };
            let problem = Diagnostic::at(span, "a value of the sweep is missing");
            reader.problems.push(problem.help("a text that holds commas stands in quotes: `a.text='\"x,y\"'`"));
            return None;
        }
        match yaml::read(file, part) {
            Ok(mut value) => {
                shift(&mut value, offset);
                read.push(value);
            }
            Err(mut problems) => {
                for (span, _) in problems.iter_mut().filter_map(|problem| problem.place.as_mut()) {
                    (span.start, span.end) = (span.start + offset, span.end + offset);
                }
                reader.problems.extend(problems);
                return None;
            }
        }
    }
    Some(Change { key, values: read })
}

/// The parts of a value between commas that stand outside of quotes and brackets, and where each begins.
fn parts(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut depth, mut quote, mut escaped) = (0, 0usize, None, false);
    // A quote opens only where a value begins: `it's` holds none.
    let mut fresh = true;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some('"'), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(open), _) if c == open && !escaped => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') if fresh => quote = Some(c),
            (None, '[' | '{') if fresh || depth > 0 => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push((start, &text[start..at]));
                start = at + 1;
            }
            _ => {}
        }
        escaped = false;
        // After a closing `'` another one goes on with the same text.
        fresh = quote.is_none() && (c.is_whitespace() && fresh || matches!(c, ',' | '[' | '{' | ':' | '\''));
    }
    parts.push((start, &text[start..]));
    parts
}

fn shift(node: &mut Node, by: usize) {
    node.span.start += by;
    node.span.end += by;
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| shift(item, by)),
        Value::Map(entries) => entries.iter_mut().for_each(|(key, value)| {
            key.span.start += by;
            key.span.end += by;
            shift(value, by);
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_part_values_outside_of_quotes_and_brackets() {
        let texts = |text: &str| parts(text).into_iter().map(|(_, part)| part.to_owned()).collect::<Vec<_>>();
        assert_eq!(texts("1e-4,3e-4"), ["1e-4", "3e-4"]);
        assert_eq!(texts("it's, so"), ["it's", " so"]);
        assert_eq!(texts("a[0],b]"), ["a[0]", "b]"]);
        assert_eq!(texts(r#""x,\"y",'it''s, z'"#), [r#""x,\"y""#, "'it''s, z'"]);
        for whole in ["[1, 2]", "{a: 1, b: [2, 3]}", "\"x,y\"", "'x,y'", "{a: 'x], y'}", "", "[1, 2"] {
            assert_eq!(texts(whole), [whole]);
        }
        assert_eq!(texts("1,"), ["1", ""]);
        assert_eq!(parts("ab, cd")[1], (3, " cd"));
    }

    /// The sweeps of files, each of which extends the one before, and what is wrong with them.
    fn sweeps(files: &[&str]) -> (Vec<String>, Vec<String>) {
        let (mut changes, mut problems) = (Changes::default(), Vec::new());
        for (number, text) in files.iter().enumerate() {
            changes.go_on(&yaml::read(number, text).unwrap(), &mut problems);
        }
        let value = |node: &Node| node.describe().rsplit(' ').next().unwrap_or_default().replace('`', "");
        let shown = changes.into_list().into_iter().map(|Change { key, values }| {
            format!("{}={}", key.text, values.iter().map(value).collect::<Vec<_>>().join(","))
        });
        (shown.collect(), problems.into_iter().map(|problem| problem.message).collect())
    }

    #[test]
    fn a_file_goes_on_from_the_sweeps_of_its_base() {
        let base = "sweep: {a.x: [1, 2], params.seed: [3, 4], b.y.z: [5]}";
        let of = |over: &str| sweeps(&[base, over]);
        let right = |shown: &[&str]| (shown.iter().map(|one| (*one).to_owned()).collect(), Vec::new());
        assert_eq!(of("name: x"), right(&["a.x=1,2", "params.seed=3,4", "b.y.z=5"]));
        // What is replaced keeps its place, so that names keep the order of their axes.
        assert_eq!(of("sweep: {c.x: [7], a.x: [8]}"), right(&["a.x=8", "params.seed=3,4", "b.y.z=5", "c.x=7"]));
        assert_eq!(of("set: {a.x: 9, b.y: {}}"), right(&["params.seed=3,4"]));
        assert_eq!(of("params: {seed: 9}"), right(&["a.x=1,2", "b.y.z=5"]));
        assert_eq!(of("sweep: {b.y: [1, 2]}"), right(&["a.x=1,2", "params.seed=3,4", "b.y=1,2"]));
        assert_eq!(of("params: {seed: 9}\nsweep: {params.seed: [1]}"), right(&["a.x=1,2", "b.y.z=5", "params.seed=1"]));
        // A value around a swept one is no clash, nor is a name that only begins alike.
        assert_eq!(sweeps(&["set: {a.x: {}, a.xy: 1}\nsweep: {a.x.y: [1]}"]), right(&["a.x.y=1"]));
    }

    #[test]
    fn what_would_be_lost_is_told() {
        let told = |files: &[&str]| sweeps(files).1;
        assert_eq!(told(&["set: {a.x: 1}\nsweep: {a.x: [1, 2]}"]), ["`a.x` stands in `sweep` and in `set`"]);
        let part = ["`a.x.y` changes a part of `a.x`, which is swept"];
        assert_eq!(told(&["set: {a.x.y: 1}\nsweep: {a.x: [1, 2]}"]), part);
        assert_eq!(told(&["sweep: {a.x.y: [1], a.x: [1, 2]}"]), part);
        assert_eq!(told(&["sweep: {a.x: [1, 2]}", "set: {a.x.y: 1}"]), part);
        assert_eq!(told(&["sweep: {a.x: [1, 2]}", "sweep: {a.x.y: [1]}"]), part);
        assert_eq!(told(&["sweep: {a.x: []}"]), ["the sweep of `a.x` has no values"]);
        assert_eq!(told(&["sweep: {a.x: 3}"]), ["the sweep of `a.x` is the number `3`, expected a list of values"]);
    }
}
