//! Instances into a graph: every connection against the typed ports.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::diagnostic::Diagnostic;
use super::expand::{self, Index, Instance};
use super::fan::{Fan, translation};
use super::kind_ports::{accepting, collects, ports};
use super::parameters::at;
use super::stage::{Connection, Template};
use super::sweep::Sweep;
use crate::engine::fingerprint::type_name;
use crate::engine::graph::{self, Edge, Graph, Node as Stage};
use crate::engine::port::{Arity, Holds, PortSpec};
use crate::stages;
use crate::value::Span;

/// The most connections that a pipeline may have.
const MOST_EDGES: usize = 2_000_000;

/// With more mistakes than these nobody looks for the nearest name.
const SUGGESTED: usize = 50;

/// Connects what could be read; `None` where something is wrong.
pub fn connect(name: &str, templates: &[Template], sweeps: &[Sweep], problems: &mut Vec<Diagnostic>) -> Option<Graph> {
    let index: Index = templates.iter().enumerate().map(|(i, template)| (template.key.text.as_str(), i)).collect();
    let order = order(templates, &index, problems);
    let fans = expand::fans(templates, &index, &order, sweeps, problems);
    let instances: Vec<Vec<Option<Instance>>> = templates
        .iter()
        .zip(&fans)
        .map(|(template, fan)| expand::instances(template, fan.as_ref(), problems))
        .collect();
    let mut first = Vec::with_capacity(templates.len());
    let mut count = 0;
    for made in &instances {
        first.push(count);
        count += made.len();
    }
    let mut connector =
        Connector { templates, index, fans, instances, first, problems, told: HashSet::new(), edges: 0 };
    let mut nodes = Vec::with_capacity(count);
    for (number, template) in templates.iter().enumerate() {
        let edges = connector.template(number);
        connector.missing_inputs(number);
        connector.connected(number, &edges);
        for (row, (instance, inputs)) in connector.instances[number].iter().zip(edges).enumerate() {
            let (Some(instance), Some(fan)) = (instance, &connector.fans[number]) else { continue };
            let name = fan.instance(&template.key.text, row);
            nodes.push(Stage { name, stage: instance.stage.clone(), inputs, policy: template.policy.clone() });
        }
    }
    if !connector.problems.is_empty() {
        return None;
    }
    Graph::new(name, nodes).ok()
}

/// Templates in the order of the data; the file's order where they wait for each other, which is told.
fn order(templates: &[Template], index: &Index, problems: &mut Vec<Diagnostic>) -> Vec<usize> {
    let source = |connection: &Connection| index.get(connection.stage.text.as_str()).copied();
    let inputs: Vec<Vec<usize>> =
        templates.iter().map(|template| template.inputs.iter().filter_map(source).collect()).collect();
    let cycle = match graph::order(&inputs) {
        Ok(order) => return order,
        Err(cycle) => cycle.path,
    };
    let names: Vec<&str> = cycle.iter().map(|&number| templates[number].key.text.as_str()).collect();
    let way = format!("{} -> {}", names.join(" -> "), names[0]);
    let (begin, end) = (&templates[cycle[0]], cycle[cycle.len() - 1]);
    let closing = begin.inputs.iter().find(|connection| source(connection) == Some(end));
    let problem = Diagnostic::new(match cycle.len() {
        1 => format!("stage `{}` waits for itself", names[0]),
        _ => format!("stages wait for each other: {way}"),
    });
    let label = format!("here `{}` reads `{}`", names[0], templates[end].key.text);
    problems.push(problem.label(closing.map_or(begin.key.span, |connection| connection.stage.span), label));
    (0..templates.len()).collect()
}

struct Connector<'a> {
    templates: &'a [Template],
    index: Index<'a>,
    fans: Vec<Option<Fan>>,
    instances: Vec<Vec<Option<Instance>>>,
    /// The number of each template's first instance.
    first: Vec<usize>,
    problems: &'a mut Vec<Diagnostic>,
    /// What was told already: instances share their mistakes.
    told: HashSet<(Span, String)>,
    edges: usize,
}

impl Connector<'_> {
    fn tell(&mut self, problem: Diagnostic) {
        let Some((span, _)) = &problem.place else { return };
        if self.told.insert((*span, problem.message.clone())) {
            self.problems.push(problem);
        }
    }

    /// The edges of every instance of a template.
    fn template(&mut self, number: usize) -> Vec<Vec<Edge>> {
        let templates = self.templates;
        let mut edges = vec![Vec::new(); self.instances[number].len()];
        for connection in &templates[number].inputs {
            let Some(&source) = self.index.get(connection.stage.text.as_str()) else {
                self.unknown_stage(connection);
                continue;
            };
            match self.rows(number, source, connection) {
                Some(rows) => {
                    let mut checked = HashSet::new();
                    for (row, sources) in rows.into_iter().enumerate() {
                        for (input, from) in sources {
                            self.check(number, row, source, from, connection, &mut checked);
                            let from = self.first[source] + from;
                            edges[row].push(Edge { input, from, output: connection.output.text.clone() });
                        }
                    }
                }
                None => self.check(number, 0, source, 0, connection, &mut HashSet::new()),
            }
        }
        edges
    }

    fn unknown_stage(&mut self, connection: &Connection) {
        let name = &connection.stage.text;
        let problem = Diagnostic::at(connection.stage.span, format!("unknown stage `{name}`"));
        let problem = match self.problems.len() < SUGGESTED {
            true => problem.suggest(name, self.templates.iter().map(|template| template.key.text.as_str())),
            false => problem,
        };
        self.tell(problem);
    }

    /// For each instance of a template the instances that a connection leads to, each under the name of its input; `None`
    /// where there are none because something is wrong.
    fn rows(&mut self, number: usize, source: usize, connection: &Connection) -> Option<Vec<Vec<(String, usize)>>> {
        let template = &self.templates[number];
        let (ours, theirs) = (self.fans[number].as_ref()?, self.fans[source].as_ref()?);
        let name = &connection.input.text;
        if theirs.axes.is_empty() {
            self.edges += ours.rows.len();
            return Some(vec![vec![(name.clone(), 0)]; ours.rows.len()]);
        }
        let selected = expand::selected(theirs, connection, &mut Vec::new())?;
        let fixed = |axis: &str| connection.select.iter().any(|(name, _)| name == axis);
        let mut bound = Vec::new();
        let mut free = Vec::new();
        for (column, axis) in theirs.axes.iter().enumerate().filter(|(_, axis)| !fixed(&axis.name)) {
            match ours.column(&axis.name) {
                None => free.push(column),
                Some(mine) => match translation(&ours.axes[mine], axis) {
                    Ok(translation) => bound.push((mine, column, translation)),
                    Err(clash) => {
                        let problem = expand::clashing(clash, connection.stage.span, template);
                        self.tell(problem);
                        return None;
                    }
                },
            }
        }
        let mut by_key: HashMap<Vec<u32>, Vec<(String, usize)>> = HashMap::new();
        let collects = collects(template.kind, name);
        for row in selected {
            let key = bound.iter().map(|(_, column, translation)| translation[theirs.rows[row][*column] as usize]);
            let suffix = if collects { theirs.suffix(row, free.iter().copied()) } else { String::new() };
            by_key.entry(key.collect()).or_default().push((format!("{name}{suffix}"), row));
        }
        let mut found = Vec::with_capacity(ours.rows.len());
        for row in &ours.rows {
            let key: Vec<u32> = bound.iter().map(|(mine, _, _)| row[*mine]).collect();
            let sources = by_key.get(&key).cloned().unwrap_or_default();
            self.edges += sources.len();
            if self.edges > MOST_EDGES {
                let message = format!("the pipeline would have more than {MOST_EDGES} connections");
                self.tell(Diagnostic::at(connection.stage.span, message));
                return None;
            }
            found.push(sources);
        }
        Some(found)
    }

    /// Whether the ports at both ends are there and fit each other.
    fn check(
        &mut self,
        number: usize,
        row: usize,
        source: usize,
        from: usize,
        connection: &Connection,
        checked: &mut HashSet<(usize, usize)>,
    ) {
        let inputs = self.instances[number][row].as_ref().map(|instance| instance.inputs.clone());
        let outputs = self.instances[source][from].as_ref().map(|instance| instance.outputs.clone());
        let address = |ports: &Option<Rc<[PortSpec]>>| ports.as_ref().map_or(0, |ports| Rc::as_ptr(ports).addr());
        if !checked.insert((address(&inputs), address(&outputs))) {
            return;
        }
        let Connection { input, output, .. } = connection;
        let port = inputs.as_ref().map(|ports| accepting(ports, &input.text));
        if let (Some(None), Some(inputs)) = (port, &inputs) {
            let kind = self.templates[number].kind.map(|kind| kind.name).unwrap_or_default();
            let problem = Diagnostic::at(input.span, format!("`{kind}` has no input `{}`", input.text));
            self.tell(problem.suggest(&input.text, inputs.iter().map(|port| port.name.as_str())));
        }
        let Some(outputs) = outputs else { return };
        let Some(given) = outputs.iter().find(|candidate| candidate.name == output.text) else {
            let message = format!("stage `{}` has no output `{}`", connection.stage.text, output.text);
            let problem = Diagnostic::at(output.span, message);
            self.tell(problem.suggest(&output.text, outputs.iter().map(|port| port.name.as_str())));
            return;
        };
        if let Some(Some(port)) = port {
            self.compatible(port, given, connection);
        }
    }

    fn compatible(&mut self, input: &PortSpec, output: &PortSpec, connection: &Connection) {
        if input.holds == output.holds || input.holds == Holds::Anything || output.holds == Holds::Anything {
            return;
        }
        let (wanted, given) = (type_name(&input.holds), type_name(&output.holds));
        let stage = &connection.stage.text;
        let message = format!(
            "`{stage}.{}` carries `{given}`, the input `{}` takes `{wanted}`",
            output.name, connection.input.text
        );
        let span = Span { end: connection.output.span.end.max(connection.stage.span.end), ..connection.stage.span };
        let problem = Diagnostic::at(span, message).related(connection.input.span, format!("takes `{wanted}`"));
        let help = self.carriers(&input.holds);
        self.tell(if help.is_empty() { problem } else { problem.help(help) });
    }

    /// Who carries a type: outputs of this pipeline, or else kinds.
    fn carriers(&self, holds: &Holds) -> String {
        let mut found = Vec::new();
        for (template, instances) in self.templates.iter().zip(&self.instances) {
            if found.len() >= 5 {
                break;
            }
            let outputs = instances.first().and_then(Option::as_ref).map(|instance| &instance.outputs[..]);
            let carry = outputs.unwrap_or_default().iter().filter(|port| port.holds == *holds);
            found.extend(carry.map(|port| format!("`{}.{}`", template.key.text, port.name)));
        }
        if !found.is_empty() {
            found.truncate(5);
            return format!("`{}` is carried by {}", type_name(holds), found.join(", "));
        }
        let writes = |kind: &&stages::Kind| {
            ports(kind).is_some_and(|(_, outputs)| outputs.iter().any(|port| port.holds == *holds))
        };
        let kinds: Vec<String> = stages::kinds().filter(writes).map(|kind| format!("`{}`", kind.name)).collect();
        match kinds.is_empty() {
            true => String::new(),
            false => format!("`{}` is written by stages of the kind {}", type_name(holds), kinds.join(" or ")),
        }
    }

    /// Whether the parameters of each instance fit what is connected to it.
    fn connected(&mut self, number: usize, edges: &[Vec<Edge>]) {
        let template = &self.templates[number];
        // Where a connection could not be read nobody knows what would be connected.
        if template.named.as_ref().is_none_or(|named| named.len() != template.inputs.len()) {
            return;
        }
        for (row, edges) in edges.iter().enumerate() {
            let Some(instance) = self.instances[number][row].clone() else { continue };
            if edges.len() < template.inputs.len() {
                return;
            }
            let names: Vec<&str> = edges.iter().map(|edge| edge.input.as_str()).collect();
            for problem in instance.stage.check_inputs(&names) {
                let place = at(&template.with, &problem.field).unwrap_or(template.key.span);
                self.tell(Diagnostic::at(place, format!("`{}` {}", problem.field, problem.message)));
            }
        }
    }

    fn missing_inputs(&mut self, number: usize) {
        let template = &self.templates[number];
        let Some(instance) = self.instances[number].iter().flatten().next().cloned() else { return };
        let Some(named) = &template.named else { return };
        // An input that no port takes was meant for one that lacks its connection: that is one mistake.
        if named.iter().any(|named| accepting(&instance.inputs, &named.text).is_none()) {
            return;
        }
        for port in instance.inputs.iter() {
            let connected = named.iter().any(|named| named.text == port.name);
            let how = match port.arity {
                Arity::One if !connected => "connect it under `in:`",
                Arity::Many if named.is_empty() && port.holds != Holds::Anything => {
                    "connect at least one under `in:`, each under a name of yours"
                }
                _ => continue,
            };
            let carriers = self.carriers(&port.holds);
            let comma = if carriers.is_empty() { "" } else { "; " };
            let message = format!("stage `{}` lacks its input `{}`", template.key.text, port.name);
            self.tell(Diagnostic::at(template.key.span, message).help(format!("{how}{comma}{carriers}")));
        }
    }
}
