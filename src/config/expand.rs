//! Templates into instances: which there are, and each one's parameters.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use super::diagnostic::Diagnostic;
use super::fan::{Clash, Fan, MOST};
use super::kind_ports::collects;
use super::parameters;
use super::params::{self, Scope, mentions};
use super::stage::{Connection, Template};
use super::sweep::Sweep;
use crate::engine::port::PortSpec;
use crate::engine::stage::AnyStage;
use crate::value::{Node, Span};

/// The most instances of all stages together that matrices may make.
const MOST_OF_ALL: usize = 100_000;

/// A stage with its parameters and its ports.
#[derive(Clone)]
pub struct Instance {
    /// Itself.
    pub stage: Arc<dyn AnyStage>,
    /// What it reads.
    pub inputs: Rc<[PortSpec]>,
    /// What it writes.
    pub outputs: Rc<[PortSpec]>,
}

/// The templates by name, each with its number.
pub type Index<'a> = HashMap<&'a str, usize>;

/// The instances of every template, each template after those that it reads; `None` where something is wrong, which is told.
pub fn fans(
    templates: &[Template],
    index: &Index,
    order: &[usize],
    sweeps: &[Sweep],
    problems: &mut Vec<Diagnostic>,
) -> Vec<Option<Fan>> {
    let mut fans: Vec<Option<Fan>> = vec![None; templates.len()];
    let mut made = 0;
    for &number in order {
        let template = &templates[number];
        let fan = fan(template, index, &fans, problems).and_then(|fan| own(template, fan, sweeps, problems));
        if let Some(fan) = fan.as_ref().filter(|fan| !fan.axes.is_empty()) {
            made += fan.rows.len();
            if made > MOST_OF_ALL {
                let message = format!("matrices make more than {MOST_OF_ALL} instances up to `{}`", template.key.text);
                problems.push(Diagnostic::at(template.key.span, message));
                return vec![None; templates.len()];
            }
        }
        fans[number] = fan;
    }
    fans
}

/// What a stage's inputs make of it.
fn fan(template: &Template, index: &Index, fans: &[Option<Fan>], problems: &mut Vec<Diagnostic>) -> Option<Fan> {
    let mut fan = Fan::unit();
    let mut whole = true;
    let mut axes: Vec<&str> = Vec::new();
    for connection in &template.inputs {
        let Some(&source) = index.get(connection.stage.text.as_str()) else { continue };
        let Some(source) = &fans[source] else {
            whole = false;
            continue;
        };
        if source.axes.is_empty() && connection.select.is_empty() {
            continue;
        }
        axes.extend(source.axes.iter().map(|axis| axis.name.as_str()));
        let Some(rows) = selected(source, connection, problems) else {
            whole = false;
            continue;
        };
        let rows =
            Fan { axes: source.axes.clone(), rows: rows.into_iter().map(|row| source.rows[row].clone()).collect() };
        let collects = collects(template.kind, &connection.input.text);
        let fixed = |name: &str| connection.select.iter().any(|(axis, _)| axis == name);
        let each = |name: &str| template.each.iter().any(|(axis, _)| axis.text == name);
        match fan.join(&rows.project(|name| !fixed(name) && (!collects || each(name)))) {
            Ok(joined) => fan = joined,
            Err(clash) => {
                problems.push(clashing(clash, connection.stage.span, template));
                whole = false;
            }
        }
    }
    if !whole {
        return None;
    }
    axes.sort_unstable();
    axes.dedup();
    for (axis, parameter) in &template.each {
        if *parameter || axes.contains(&axis.text.as_str()) {
            continue;
        }
        let problem = Diagnostic::at(
            axis.span,
            format!("nothing that `{}` reads has an axis `{}`", template.key.text, axis.text),
        );
        problems.push(problem.suggest(&axis.text, axes.iter().copied()));
        whole = false;
    }
    if fan.rows.is_empty() {
        let message =
            format!("`{}` has no instance: its inputs have no combination of values in common", template.key.text);
        problems.push(Diagnostic::at(template.key.span, message));
        whole = false;
    }
    whole.then_some(fan)
}

/// The fan of a stage's inputs with its own matrix and the sweeps of files and the command line.
fn own(template: &Template, mut fan: Fan, sweeps: &[Sweep], problems: &mut Vec<Diagnostic>) -> Option<Fan> {
    if template.matrix_wrong {
        return None;
    }
    let swept = sweeps.iter().filter(|sweep| match &sweep.stage {
        Some(stage) => *stage == template.key.text,
        None => mentions(&template.with, &format!("${{matrix.{}}}", sweep.axis.name)),
    });
    let swept: Vec<&Sweep> = swept.collect();
    if swept.iter().any(|sweep| sweep.axis.values.is_empty()) {
        return None;
    }
    let swept: Vec<Fan> = swept.iter().map(|sweep| Fan::of(sweep.axis.clone())).collect();
    for more in template.matrix.iter().chain(&swept) {
        match fan.join(more) {
            Ok(joined) => fan = joined,
            Err(clash) => {
                let span = more.axes.first().map_or(template.key.span, |axis| axis.span);
                problems.push(clashing(clash, span, template));
                return None;
            }
        }
    }
    if fan.rows.is_empty() {
        let message =
            format!("`{}` has no instance: its matrix and its inputs have no values in common", template.key.text);
        problems.push(Diagnostic::at(template.key.span, message));
        return None;
    }
    Some(fan)
}

/// Why two fans cannot be joined, told at the place that brings the second.
pub fn clashing(clash: Clash, span: Span, template: &Template) -> Diagnostic {
    let name = &template.key.text;
    match clash {
        Clash::TooMany => Diagnostic::at(span, format!("`{name}` would have more than {MOST} instances")),
        Clash::Axis(ours, theirs) => {
            let values = |axis: &super::fan::Axis| {
                let shown: Vec<&str> = axis.values.iter().take(6).map(|value| value.label.as_str()).collect();
                format!("{}{}", shown.join(", "), if axis.values.len() > 6 { ", ..." } else { "" })
            };
            let axis = &ours.name;
            Diagnostic::new(format!("`{name}` has two different axes `{axis}`"))
                .label(span, format!("this one has the values {}", values(&theirs)))
                .related(ours.span, format!("this one has {}", values(&ours)))
                .help("axes of one name are joined where their values are equal; give these two names, or the same values")
        }
    }
}

/// The rows of a source that a connection singles out.
pub fn selected(source: &Fan, connection: &Connection, problems: &mut Vec<Diagnostic>) -> Option<Vec<usize>> {
    let name = &connection.stage.text;
    let mut wanted = Vec::new();
    for (axis, value) in &connection.select {
        let Some(column) = source.column(axis) else {
            let problem = Diagnostic::at(connection.stage.span, format!("`{name}` has no axis `{axis}`"));
            problems.push(problem.suggest(axis, source.axes.iter().map(|axis| axis.name.as_str())));
            return None;
        };
        let values = &source.axes[column].values;
        let Some(number) = values.iter().position(|known| known.label == *value) else {
            let problem =
                Diagnostic::at(connection.stage.span, format!("`{name}` has no instance with `{axis}={value}`"));
            problems.push(problem.suggest(value, values.iter().map(|value| value.label.as_str())));
            return None;
        };
        wanted.push((column, number as u32));
    }
    let fits = |row: &usize| wanted.iter().all(|&(column, number)| source.rows[*row][column] == number);
    let rows: Vec<usize> = (0..source.rows.len()).filter(fits).collect();
    if rows.is_empty() {
        problems.push(
            Diagnostic::at(connection.stage.span, format!("`{name}` has no instance with all of these values"))
                .help("`exclude` of its matrix takes it away"),
        );
    }
    (!rows.is_empty()).then_some(rows)
}

/// `${matrix.x}` of one instance.
struct Row<'a> {
    fan: &'a Fan,
    row: usize,
    stage: &'a str,
    /// Where each value came from, and the text that uses it.
    uses: &'a mut HashMap<Span, Span>,
}

impl Scope for Row<'_> {
    fn find(&mut self, reference: &str, span: Span) -> Result<Option<Node>, Diagnostic> {
        let Some(name) = reference.strip_prefix("matrix.") else { return Ok(None) };
        if let Some(column) = self.fan.column(name) {
            return Ok(Some(self.fan.value(self.row, column).node.clone()));
        }
        let problem = Diagnostic::at(span, format!("`{}` has no axis `{name}`", self.stage));
        Err(match self.fan.axes.is_empty() {
            true => problem.help(format!("give the stage one: `matrix: {{{name}: [...]}}`")),
            false => problem.suggest(name, self.fan.axes.iter().map(|axis| axis.name.as_str())),
        })
    }

    fn place(&mut self, text: Span, value: Span) -> Span {
        self.uses.insert(value, text);
        value
    }
}

/// The instances of a template, one for each row; those whose parameters are wrong are absent, and that is told.
pub fn instances(template: &Template, fan: Option<&Fan>, problems: &mut Vec<Diagnostic>) -> Vec<Option<Instance>> {
    let Some(kind) = template.kind else { return vec![None; fan.map_or(1, |fan| fan.rows.len())] };
    let parse = |with: &Node, problems: &mut Vec<Diagnostic>| {
        let before = problems.len();
        let stage = parameters::read(kind, with, &template.key, problems);
        let mut later = problems.split_off(before);
        later.retain(|problem| problem.span().is_none_or(|span| !template.told.contains(&span)));
        problems.append(&mut later);
        let stage = stage?;
        let (inputs, outputs) = (stage.inputs().into(), stage.outputs().into());
        Some(Instance { stage, inputs, outputs })
    };
    let fan = match (mentions(&template.with, "${matrix."), fan) {
        // Without references all instances are the same.
        (false, fan) => return vec![parse(&template.with, problems); fan.map_or(1, |fan| fan.rows.len())],
        // What is wrong with its matrix is told already.
        (true, None) => return vec![None],
        (true, Some(fan)) => fan,
    };
    let mut told = Told::default();
    let mut made = Vec::with_capacity(fan.rows.len());
    for row in 0..fan.rows.len() {
        let mut with = template.with.clone();
        let mut wrong = Vec::new();
        let mut scope = Row { fan, row, stage: &template.key.text, uses: &mut told.uses };
        params::fill(&mut with, &mut scope, &mut wrong);
        // A wrong reference is one mistake: that the text which is left is no number says nothing new.
        let known: HashSet<Span> = wrong.iter().filter_map(Diagnostic::span).collect();
        let mut later = Vec::new();
        let instance = parse(&with, &mut later);
        wrong.extend(later.into_iter().filter(|problem| problem.span().is_none_or(|span| !known.contains(&span))));
        made.push(instance.filter(|_| wrong.is_empty()));
        told.hear(row, wrong);
    }
    told.tell(&template.key.text, fan, problems);
    made
}

/// What is wrong with instances: each mistake once, with the instances that it is of.
#[derive(Default)]
struct Told {
    uses: HashMap<Span, Span>,
    known: HashMap<(Option<Span>, String), usize>,
    list: Vec<(Diagnostic, Vec<usize>)>,
}

impl Told {
    fn hear(&mut self, row: usize, problems: Vec<Diagnostic>) {
        for problem in problems {
            let key = (problem.span(), problem.message.clone());
            let at = *self.known.entry(key).or_insert(self.list.len());
            match self.list.get_mut(at) {
                Some((_, rows)) => rows.push(row),
                None => self.list.push((problem, vec![row])),
            }
        }
    }

    fn tell(self, stage: &str, fan: &Fan, problems: &mut Vec<Diagnostic>) {
        for (mut problem, rows) in self.list {
            let used = problem.span().and_then(|span| self.uses.get(&span).copied());
            if used.is_some() || rows.len() < fan.rows.len() {
                let others = if rows.len() > 1 { format!(" and {} more", rows.len() - 1) } else { String::new() };
                problem.message = format!("{}, in `{}`{others}", problem.message, fan.instance(stage, rows[0]));
            }
            if let Some(used) = used.filter(|_| problem.related.is_none()) {
                problem = problem.related(used, "used here");
            }
            problems.push(problem);
        }
    }
}
