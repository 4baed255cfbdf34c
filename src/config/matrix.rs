//! `matrix:` of a stage: axes, `include` and `exclude` into the instances that they give.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::diagnostic::{Diagnostic, Sources};
use super::fan::{Axis, AxisValue, Fan, MOST, label};
use super::stage::is_plain;
use crate::value::{Key, Node, Span, Value};

/// Reads a matrix; `None` where something is wrong with it, which goes to `problems`.
pub fn read(node: &Node, key: &Key, sources: &Sources, problems: &mut Vec<Diagnostic>) -> Option<Fan> {
    let before = problems.len();
    let mut reader = Reader { sources, problems, axes: Vec::new() };
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("`matrix` is {}, expected a map of axes to lists of values", node.describe());
        reader.tell(node.span, message);
        return None;
    }
    for (name, values) in node.entries() {
        match name.text.as_str() {
            "include" | "exclude" => {}
            _ => reader.axis(name, values),
        }
    }
    let axes_are_right = reader.problems.len() == before;
    let include = reader.items(node, "include");
    let exclude = reader.items(node, "exclude");
    if !axes_are_right {
        return None;
    }
    if reader.axes.is_empty() {
        reader.axes_of_first(include.first().copied(), key)?;
    }
    let rows = reader.rows(&include, &exclude, key)?;
    if reader.problems.len() > before {
        return None;
    }
    let axes = reader.axes.into_iter().map(|axis| Rc::new(axis.axis)).collect();
    Some(Fan { axes, rows })
}

/// Values into an axis; what is wrong goes to `problems`.
pub fn axis(name: &Key, values: &[Node], sources: &Sources, problems: &mut Vec<Diagnostic>) -> Rc<Axis> {
    let mut reader = Reader { sources, problems, axes: Vec::new() };
    let mut growing = Growing::new(name);
    for value in values {
        reader.value(&mut growing, value, true);
    }
    Rc::new(growing.axis)
}

/// An axis that still receives values.
struct Growing {
    axis: Axis,
    numbers: HashMap<String, u32>,
}

impl Growing {
    fn new(name: &Key) -> Self {
        let axis = Axis { name: name.text.clone(), span: name.span, values: Vec::new() };
        Self { axis, numbers: HashMap::new() }
    }
}

/// What makes two values the same, however they are written.
fn identity(value: &Value) -> String {
    format!("{value:?}")
}

struct Reader<'a> {
    sources: &'a Sources,
    problems: &'a mut Vec<Diagnostic>,
    axes: Vec<Growing>,
}

impl Reader<'_> {
    fn tell(&mut self, span: Span, message: String) {
        self.problems.push(Diagnostic::at(span, message));
    }

    fn check_name(&mut self, name: &Key) -> bool {
        let plain = is_plain(&name.text);
        if !plain {
            let problem = Diagnostic::at(name.span, format!("`{}` cannot be the name of an axis", name.text));
            self.problems.push(problem.help("use letters, digits, `_` and `-`"));
        }
        plain
    }

    fn axis(&mut self, name: &Key, values: &Node) {
        if !self.check_name(name) {
            return;
        }
        let Value::List(items) = &values.value else {
            let message = format!("the axis `{}` is {}, expected a list of values", name.text, values.describe());
            let problem = Diagnostic::at(values.span, message);
            self.problems.push(match values.value {
                Value::Map(_) | Value::Null => problem,
                _ => problem.help("a single value stands in brackets too: `[value]`"),
            });
            return;
        };
        if items.is_empty() {
            self.tell(values.span, format!("the axis `{}` has no values", name.text));
        }
        let mut growing = Growing::new(name);
        for item in items {
            self.value(&mut growing, item, true);
        }
        self.axes.push(growing);
    }

    /// The number of a value, which is added where it is new; a value that must be `new` and is not is told.
    fn value(&mut self, growing: &mut Growing, node: &Node, new: bool) -> Option<u32> {
        let name = growing.axis.name.clone();
        let Some(label) = label(node, self.sources.slice(node.span)) else {
            let message = format!("a value of the axis `{name}` is {}", node.describe());
            let problem = Diagnostic::at(node.span, message);
            self.problems.push(problem.help("values are numbers, texts, `true`, `false` or `null`: names show them"));
            return None;
        };
        if let Some(&known) = growing.numbers.get(&identity(&node.value)) {
            if new {
                let first = growing.axis.values[known as usize].node.span;
                let problem = Diagnostic::at(node.span, format!("`{label}` stands twice in the axis `{name}`"));
                self.problems.push(problem.related(first, "first here"));
            }
            return Some(known);
        }
        if let Some(other) = growing.axis.values.iter().find(|value| value.label == label) {
            let message =
                format!("two values of the axis `{name}` are called `{label}`: instances could not be told apart");
            let problem = Diagnostic::at(node.span, message).related(other.node.span, "the first");
            self.problems.push(problem.help("write them so that they differ, as in `1` and `1.0`"));
            return None;
        }
        let number = growing.axis.values.len() as u32;
        growing.numbers.insert(identity(&node.value), number);
        growing.axis.values.push(AxisValue { label, node: node.clone() });
        Some(number)
    }

    /// The maps of `include` or `exclude`.
    fn items<'n>(&mut self, matrix: &'n Node, key: &str) -> Vec<&'n Node> {
        let Some(node) = matrix.get(key) else { return Vec::new() };
        let Value::List(items) = &node.value else {
            self.tell(node.span, format!("`{key}` is {}, expected a list of maps of axes to values", node.describe()));
            return Vec::new();
        };
        for item in items {
            if item.entries().is_empty() {
                self.tell(
                    item.span,
                    format!("an item of `{key}` is {}, expected a map of axes to values", item.describe()),
                );
            }
        }
        items.iter().filter(|item| !item.entries().is_empty()).collect()
    }

    /// Without lists of values the first item of `include` says what the axes are.
    fn axes_of_first(&mut self, first: Option<&Node>, key: &Key) -> Option<()> {
        match first {
            Some(first) => {
                let names: Vec<&Key> = first.entries().iter().map(|(name, _)| name).collect();
                let mut right = true;
                for name in &names {
                    right &= self.check_name(name);
                }
                self.axes = names.into_iter().map(Growing::new).collect();
                right.then_some(())
            }
            None => {
                let problem = Diagnostic::at(key.span, "the matrix has no axis");
                self.problems.push(problem.help("write `matrix: {seed: [1, 2]}`"));
                None
            }
        }
    }

    fn rows(&mut self, include: &[&Node], exclude: &[&Node], key: &Key) -> Option<Vec<Vec<u32>>> {
        let counts = self.axes.iter().map(|axis| axis.axis.values.len());
        let only_included = self.axes.iter().all(|axis| axis.axis.values.is_empty());
        let product = counts.fold(1usize, usize::saturating_mul);
        let count = if only_included { include.len() } else { product.saturating_add(include.len()) };
        if count > MOST {
            self.tell(key.span, format!("the matrix has {count} instances, the most are {MOST}"));
            return None;
        }
        let mut rows = if only_included { Vec::new() } else { self.product() };
        for item in exclude {
            self.exclude(item, &mut rows);
        }
        let mut known: HashSet<Vec<u32>> = rows.iter().cloned().collect();
        for item in include {
            if let Some(row) = self.include(item) {
                if known.insert(row.clone()) {
                    rows.push(row);
                } else {
                    self.tell(item.span, "this item of `include` is in the matrix already".to_owned());
                }
            }
        }
        if rows.is_empty() {
            self.tell(key.span, "`exclude` leaves nothing of the matrix".to_owned());
        }
        Some(rows)
    }

    /// Every combination, the last axis changing first.
    fn product(&self) -> Vec<Vec<u32>> {
        let mut rows = vec![Vec::new()];
        for axis in &self.axes {
            let values = axis.axis.values.len() as u32;
            rows = rows
                .iter()
                .flat_map(|row: &Vec<u32>| (0..values).map(move |value| [row.as_slice(), &[value]].concat()))
                .collect();
        }
        rows
    }

    fn column(&mut self, name: &Key) -> Option<usize> {
        let column = self.axes.iter().position(|axis| axis.axis.name == name.text);
        if column.is_none() {
            let known = self.axes.iter().map(|axis| axis.axis.name.as_str());
            let problem = Diagnostic::at(name.span, format!("the matrix has no axis `{}`", name.text));
            self.problems.push(problem.suggest(&name.text, known));
        }
        column
    }

    fn include(&mut self, item: &Node) -> Option<Vec<u32>> {
        let mut row = vec![None; self.axes.len()];
        for (name, value) in item.entries() {
            let column = self.column(name)?;
            let mut growing = std::mem::replace(&mut self.axes[column], Growing::new(name));
            row[column] = self.value(&mut growing, value, false);
            self.axes[column] = growing;
            row[column]?;
        }
        if let Some(column) = row.iter().position(Option::is_none) {
            let message = format!("this item of `include` gives no `{}`", self.axes[column].axis.name);
            let span = item.entries().first().map_or(item.span, |(name, _)| name.span);
            self.problems.push(Diagnostic::at(span, message).help("an item gives every axis of the matrix one value"));
        }
        row.into_iter().collect()
    }

    fn exclude(&mut self, item: &Node, rows: &mut Vec<Vec<u32>>) {
        let mut wanted = Vec::new();
        for (name, value) in item.entries() {
            let Some(column) = self.column(name) else { return };
            let Some(&number) = self.axes[column].numbers.get(&identity(&value.value)) else {
                let message = format!("the axis `{}` has no value {}", name.text, quoted(value));
                let labels: Vec<&str> =
                    self.axes[column].axis.values.iter().map(|value| value.label.as_str()).collect();
                let written = self.sources.slice(value.span);
                self.problems.push(Diagnostic::at(value.span, message).suggest(written, labels));
                return;
            };
            wanted.push((column, number));
        }
        let before = rows.len();
        rows.retain(|row| !wanted.iter().all(|&(column, number)| row[column] == number));
        if rows.len() == before {
            self.tell(item.span, "this item of `exclude` matches nothing that is left of the matrix".to_owned());
        }
    }
}

fn quoted(value: &Node) -> String {
    value.describe().trim_start_matches("the number ").trim_start_matches("the text ").to_owned()
}
