//! A pipeline file into a checked graph.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Diagnostics, Sources};
use super::params::{self, Params};
use super::stage::{self, Draft, unknown_keys};
use super::yaml;
use crate::engine::fingerprint::type_name;
use crate::engine::graph::{Edge, Graph, Node as Stage};
use crate::engine::port::{Arity, Holds, PortSpec};
use crate::value::{Key, Node, Span, Value};

/// A pipeline that holds together: every parameter read, every port connected to one of its type, no cycle.
pub struct Pipeline {
    /// The file that was asked for.
    pub path: PathBuf,
    /// Every file that was read: that one, and those that it extends.
    pub files: Vec<PathBuf>,
    /// What it is for, as the file says.
    pub description: Option<String>,
    /// The stages.
    pub graph: Graph,
}

/// Reads a pipeline file and those that it extends; `sets` are changes from the command line, `PATH=VALUE`.
///
/// # Errors
/// All mistakes that can be seen without running anything.
pub fn load(path: &Path, sets: &[String]) -> Result<Pipeline, Diagnostics> {
    let mut loader = Loader::default();
    let root = loader.read(path, &mut Vec::new());
    let pipeline = root.and_then(|mut root| {
        loader.command_line(&mut root, sets);
        loader.pipeline(path, &mut root)
    });
    match pipeline {
        Some(pipeline) if loader.problems.is_empty() => Ok(pipeline),
        _ => Err(Diagnostics::new(loader.sources, loader.problems)),
    }
}

#[derive(Default)]
struct Loader {
    sources: Sources,
    problems: Vec<Diagnostic>,
}

impl Loader {
    /// Reads a file, and under it the file that it extends.
    fn read(&mut self, path: &Path, chain: &mut Vec<PathBuf>) -> Option<Node> {
        let text = match crate::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                self.problems.push(Diagnostic::new(error.to_string()));
                return None;
            }
        };
        let file = self.sources.add(path, text);
        let root = match yaml::read(file, self.sources.text(file)) {
            Ok(root) => root,
            Err(problem) => {
                self.problems.push(problem);
                return None;
            }
        };
        if !matches!(root.value, Value::Map(_)) {
            let span = Span { file, start: 0, end: 1 };
            let message = format!("a pipeline is a map with `name` and `stages`, found {}", root.describe());
            self.problems.push(Diagnostic::at(span, message));
            return None;
        }
        unknown_keys(
            &root,
            &["name", "description", "extends", "params", "set", "stages"],
            "a pipeline",
            &mut self.problems,
        );
        chain.push(path.to_owned());
        self.extend(path, root, chain)
    }

    fn extend(&mut self, path: &Path, root: Node, chain: &mut Vec<PathBuf>) -> Option<Node> {
        let base = match root.get("extends") {
            None => None,
            Some(node) => {
                let Some(name) = node.text() else {
                    let message = format!("`extends` names a file, found {}", node.describe());
                    self.problems.push(Diagnostic::at(node.span, message));
                    return None;
                };
                let target = path.parent().unwrap_or(Path::new("")).join(name);
                if chain.contains(&target) {
                    self.problems.push(Diagnostic::at(node.span, format!("`{name}` extends this file in turn")));
                    return None;
                }
                if !target.is_file() {
                    self.problems.push(Diagnostic::at(node.span, format!("there is no file `{}`", target.display())));
                    return None;
                }
                Some(self.read(&target, chain)?)
            }
        };
        let mut merged = match base {
            None => root.clone(),
            Some(base) => self.merge(base, &root),
        };
        for (key, value) in root.get("set").map(Node::entries).unwrap_or_default() {
            if let Err(problem) = params::set(&mut merged, key, value.clone()) {
                self.problems.push(problem);
            }
        }
        Some(merged)
    }

    /// The extending file's name, parameters and stages over those of the base.
    fn merge(&mut self, mut base: Node, over: &Node) -> Node {
        let Value::Map(entries) = &mut base.value else { return base };
        entries.retain(|(key, _)| key.text != "set" && key.text != "extends");
        for (key, value) in over.entries() {
            match (key.text.as_str(), entries.iter_mut().find(|(name, _)| name.text == key.text)) {
                ("params" | "stages", Some((_, target))) => {
                    let Value::Map(target) = &mut target.value else { continue };
                    for (name, item) in value.entries() {
                        match target.iter_mut().find(|(known, _)| known.text == name.text) {
                            Some((_, old)) if key.text == "params" => *old = item.clone(),
                            Some((known, _)) => self.problems.push(
                                Diagnostic::at(name.span, format!("stage `{}` is already in the base", name.text))
                                    .related(known.span, "there")
                                    .help(format!("change its parameters with `set: {{{}.NAME: value}}`", name.text)),
                            ),
                            None => target.push((name.clone(), item.clone())),
                        }
                    }
                }
                ("set" | "extends", _) => {}
                (_, Some((_, target))) => *target = value.clone(),
                (_, None) => entries.push((key.clone(), value.clone())),
            }
        }
        base
    }

    fn command_line(&mut self, root: &mut Node, sets: &[String]) {
        for text in sets {
            let file = self.sources.add(Path::new("--set"), text.clone());
            let Some((path, value)) = text.split_once('=') else {
                let span = Span { file, start: 0, end: text.len() };
                self.problems.push(Diagnostic::at(span, "expected `PATH=VALUE`").help("as in `--set harvest.beam=16`"));
                continue;
            };
            let key = Key { text: path.trim().to_owned(), span: Span { file, start: 0, end: path.len() } };
            let mut value = match yaml::read(file, value) {
                Ok(value) => value,
                Err(problem) => {
                    self.problems.push(problem);
                    continue;
                }
            };
            shift(&mut value, path.len() + 1);
            if let Err(problem) = params::set(root, &key, value) {
                self.problems.push(problem);
            }
        }
    }

    fn pipeline(&mut self, path: &Path, root: &mut Node) -> Option<Pipeline> {
        let name = self.text(root, "name");
        let description = root.get("description").and_then(|node| self.expect_text(node, "description"));
        let params: Params = root
            .get("params")
            .map(Node::entries)
            .unwrap_or_default()
            .iter()
            .map(|(k, v)| (k.text.clone(), v.clone()))
            .collect();
        let stages = root.get("stages").cloned();
        let Some(mut stages) = stages else {
            let span = Span { file: root.span.file, start: 0, end: 1 };
            self.problems.push(Diagnostic::at(span, "a pipeline needs `stages`"));
            return None;
        };
        if !matches!(stages.value, Value::Map(_)) {
            let message = format!("`stages` is {}, expected a map of names to stages", stages.describe());
            self.problems.push(Diagnostic::at(stages.span, message));
            return None;
        }
        if let Value::Map(entries) = &mut stages.value {
            for (_, stage) in entries.iter_mut() {
                if let Value::Map(fields) = &mut stage.value {
                    let with = fields.iter_mut().filter(|(key, _)| key.text == "with");
                    with.for_each(|(_, node)| params::fill(node, &params, &mut self.problems));
                }
            }
        }
        let references = self.problems.len();
        let drafts: Vec<Draft> = stages
            .entries()
            .iter()
            .map(|(key, node)| {
                self.check_name(key);
                stage::read(key, node, &mut self.problems)
            })
            .collect();
        self.forget_echoes(references);
        let graph = self.connect(name.as_deref().unwrap_or_default(), &drafts)?;
        Some(Pipeline { path: path.to_owned(), files: self.sources.files(), description, graph })
    }

    /// A wrong `${…}` is one mistake: that the text which is left is no number says nothing new.
    fn forget_echoes(&mut self, references: usize) {
        let (first, later) = self.problems.split_at(references);
        let place = |problem: &Diagnostic| problem.place.as_ref().map(|(span, _)| *span);
        let known: Vec<_> = first.iter().filter_map(place).collect();
        let later = later.iter().filter(|problem| !place(problem).is_some_and(|span| known.contains(&span)));
        self.problems = first.iter().chain(later).cloned().collect();
    }

    fn check_name(&mut self, key: &Key) {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if key.text.is_empty() || !key.text.chars().all(plain) || key.text == "params" {
            self.problems.push(
                Diagnostic::at(key.span, format!("`{}` cannot be the name of a stage", key.text))
                    .help("use letters, digits, `_` and `-`; `params` is taken"),
            );
        }
    }

    fn text(&mut self, root: &Node, key: &str) -> Option<String> {
        match root.get(key) {
            Some(node) => self.expect_text(node, key),
            None => {
                let span = Span { file: root.span.file, start: 0, end: 1 };
                self.problems.push(Diagnostic::at(span, format!("a pipeline needs `{key}`")));
                None
            }
        }
    }

    fn expect_text(&mut self, node: &Node, key: &str) -> Option<String> {
        let text = node.text().map(str::to_owned);
        if text.is_none() {
            self.problems.push(Diagnostic::at(node.span, format!("`{key}` is {}, expected a text", node.describe())));
        }
        text
    }

    /// Connects what could be read; `None` where something is wrong.
    fn connect(&mut self, name: &str, drafts: &[Draft]) -> Option<Graph> {
        let index: HashMap<&str, usize> =
            drafts.iter().enumerate().map(|(i, draft)| (draft.key.text.as_str(), i)).collect();
        let mut edges: Vec<Vec<Edge>> = Vec::new();
        for draft in drafts {
            edges.push(self.edges(draft, drafts, &index));
            self.missing_inputs(draft);
        }
        let from: Vec<Vec<usize>> = edges.iter().map(|list| list.iter().map(|edge| edge.from).collect()).collect();
        if let Err(cycle) = crate::engine::graph::order(&from) {
            let names: Vec<&str> = cycle.path.iter().map(|&i| drafts[i].key.text.as_str()).collect();
            let way = format!("{} -> {}", names.join(" -> "), names[0]);
            let span = drafts[cycle.path[0]].key.span;
            self.problems.push(Diagnostic::at(span, format!("stages wait for each other: {way}")));
        }
        if !self.problems.is_empty() {
            return None;
        }
        let nodes = drafts.iter().zip(edges).filter_map(|(draft, inputs)| {
            Some(Stage {
                name: draft.key.text.clone(),
                stage: draft.stage.clone()?,
                inputs,
                policy: draft.policy.clone(),
            })
        });
        Graph::new(name, nodes.collect()).ok()
    }

    fn edges(&mut self, draft: &Draft, drafts: &[Draft], index: &HashMap<&str, usize>) -> Vec<Edge> {
        let ports = draft.stage.as_ref().map(|stage| stage.inputs());
        let mut edges = Vec::new();
        for (input, stage, output, span) in &draft.inputs {
            let port = match &ports {
                None => None,
                Some(ports) => {
                    let port = accepting(ports, &input.text);
                    if port.is_none() {
                        let kind = draft.kind.map(|kind| kind.name).unwrap_or_default();
                        self.problems.push(
                            Diagnostic::at(input.span, format!("`{kind}` has no input `{}`", input.text))
                                .suggest(&input.text, ports.iter().map(|port| port.name.as_str())),
                        );
                    }
                    port
                }
            };
            let Some(&from) = index.get(stage.as_str()) else {
                self.problems.push(
                    Diagnostic::at(*span, format!("unknown stage `{stage}`")).suggest(stage, index.keys().copied()),
                );
                continue;
            };
            let Some(source) = &drafts[from].stage else {
                // Its own mistakes are reported; keep the edge so that cycles are still found.
                edges.push(Edge { input: input.text.clone(), from, output: output.clone() });
                continue;
            };
            let outputs = source.outputs();
            match outputs.iter().find(|candidate| candidate.name == *output) {
                None => self.problems.push(
                    Diagnostic::at(*span, format!("stage `{stage}` has no output `{output}`"))
                        .suggest(output, outputs.iter().map(|port| port.name.as_str())),
                ),
                Some(candidate) => {
                    if let Some(port) = port {
                        self.compatible(port, candidate, *span, stage);
                    }
                    edges.push(Edge { input: input.text.clone(), from, output: output.clone() });
                }
            }
        }
        edges
    }

    fn compatible(&mut self, input: &PortSpec, output: &PortSpec, span: Span, stage: &str) {
        if input.holds != output.holds && input.holds != Holds::Anything && output.holds != Holds::Anything {
            let (wanted, given) = (type_name(&input.holds), type_name(&output.holds));
            let message = format!("`{stage}.{}` carries `{given}`, this port takes `{wanted}`", output.name);
            self.problems.push(Diagnostic::at(span, message));
        }
    }

    fn missing_inputs(&mut self, draft: &Draft) {
        let Some(stage) = &draft.stage else { return };
        for port in stage.inputs() {
            let connected = draft.named.contains(&port.name);
            let none = draft.named.is_empty();
            let (lacks, how) = match port.arity {
                Arity::One => (!connected, "connect it under `in:`"),
                Arity::Many => (
                    none && port.holds != Holds::Anything,
                    "connect at least one under `in:`, each under a name of yours",
                ),
                Arity::Optional => (false, ""),
            };
            if lacks {
                self.problems.push(
                    Diagnostic::at(
                        draft.key.span,
                        format!("stage `{}` lacks its input `{}`", draft.key.text, port.name),
                    )
                    .help(format!("{how}; it takes `{}`", type_name(&port.holds))),
                );
            }
        }
    }
}

/// The port that takes an input of this name: the one so named, or one that takes many.
fn accepting<'a>(ports: &'a [PortSpec], name: &str) -> Option<&'a PortSpec> {
    let named = ports.iter().find(|port| port.arity != Arity::Many && port.name == name);
    named.or_else(|| ports.iter().find(|port| port.arity == Arity::Many))
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
