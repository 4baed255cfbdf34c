//! The ports of kinds, read off their examples: what documentation and schemas show. Those of a stage may depend on parameters.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::yaml_node;
use crate::engine::port::{Arity, PortSpec};
use crate::stages::{self, Kind};
use crate::value::{Node, Value};

/// Inputs and outputs.
pub type Ports = (Vec<PortSpec>, Vec<PortSpec>);

static PORTS: LazyLock<HashMap<&'static str, Ports>> =
    LazyLock::new(|| stages::kinds().filter_map(|kind| Some((kind.name, read(kind)?))).collect());

/// The ports of a kind's example; `None` where the example is wrong, which a test excludes of ours and
/// the start of those that a program adds.
pub fn ports(kind: &Kind) -> Option<&'static Ports> {
    PORTS.get(kind.name)
}

fn read(kind: &Kind) -> Option<Ports> {
    let node = yaml_node(kind.example).ok()?;
    let (_, stage) = node.entries().first()?;
    let empty = Node { value: Value::Map(Vec::new()), span: stage.span };
    let stage = (kind.parse)(stage.get("with").unwrap_or(&empty)).ok()?;
    Some((stage.inputs(), stage.outputs()))
}

/// Whether an input of a kind takes many connections, and so every instance of what it reads.
pub fn collects(kind: Option<&Kind>, input: &str) -> bool {
    let Some((inputs, _)) = kind.and_then(ports) else { return false };
    accepting(inputs, input).is_some_and(|port| port.arity == Arity::Many)
}

/// The port that takes an input of this name: the one so named, or one that takes many.
pub fn accepting<'a>(ports: &'a [PortSpec], name: &str) -> Option<&'a PortSpec> {
    let named = ports.iter().find(|port| port.arity != Arity::Many && port.name == name);
    named.or_else(|| ports.iter().find(|port| port.arity == Arity::Many))
}
