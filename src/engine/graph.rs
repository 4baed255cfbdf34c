//! The stages of a pipeline and what connects them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use super::stage::AnyStage;

/// One stage in its place.
pub struct Node {
    /// Its name in the pipeline.
    pub name: String,
    /// What it does.
    pub stage: Arc<dyn AnyStage>,
    /// What it reads.
    pub inputs: Vec<Edge>,
    /// How it is run.
    pub policy: Policy,
}

/// How a stage is run, as its pipeline says: nothing here is part of a fingerprint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// The pool that it takes a slot of; the kind's own where absent.
    pub pool: Option<String>,
    /// How often it is tried again after it failed.
    pub retries: u32,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// Whether its newest result counts whatever has changed since.
    pub frozen: bool,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The input port, or the user's name for it where a port takes many.
    pub input: String,
    /// The stage that it comes from, by its index.
    pub from: usize,
    /// That stage's output port.
    pub output: String,
}

/// Stages that wait for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle {
    /// Indices in the order of the data, the first not repeated at the end.
    pub path: Vec<usize>,
}

/// A pipeline whose stages are known to have an order.
pub struct Graph {
    /// The pipeline's name.
    pub name: String,
    /// The stages, in the file's order.
    pub nodes: Vec<Node>,
    order: Vec<usize>,
    readers: Vec<Vec<(usize, usize)>>,
    names: HashMap<String, usize>,
    instances: HashMap<String, Vec<usize>>,
}

impl Graph {
    /// Puts stages in order.
    pub fn new(name: impl Into<String>, nodes: Vec<Node>) -> Result<Self, Cycle> {
        let inputs: Vec<Vec<usize>> =
            nodes.iter().map(|node| node.inputs.iter().map(|edge| edge.from).collect()).collect();
        let order = order(&inputs)?;
        let mut readers: Vec<Vec<(usize, usize)>> = vec![Vec::new(); nodes.len()];
        for (index, node) in nodes.iter().enumerate().filter(|(_, node)| !node.policy.frozen) {
            for edge in &node.inputs {
                match readers[edge.from].last_mut() {
                    Some((reader, connections)) if *reader == index => *connections += 1,
                    _ => readers[edge.from].push((index, 1)),
                }
            }
        }
        let names = nodes.iter().enumerate().map(|(index, node)| (node.name.clone(), index)).collect();
        let mut instances: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, node) in nodes.iter().enumerate() {
            instances.entry(base(&node.name).to_owned()).or_default().push(index);
        }
        Ok(Self { name: name.into(), nodes, order, readers, names, instances })
    }

    /// The stages' indices, each after everything it reads.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The stages that read a stage's outputs, and through how many connections each. Frozen stages read nothing.
    pub fn readers(&self, index: usize) -> &[(usize, usize)] {
        &self.readers[index]
    }

    /// What a stage reads: nothing where it is frozen, as its newest result counts whatever has changed.
    pub fn reads(&self, index: usize) -> &[Edge] {
        let node = &self.nodes[index];
        if node.policy.frozen { &[] } else { &node.inputs }
    }

    /// The index of a stage, or of one instance of a stage with a matrix: `train[lr=1e-4,seed=2]`.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// The indices of all that a name means, in the file's order: one stage, every instance of `train`, or those instances
    /// that have the named values: `train[seed=2]`.
    pub fn find_all(&self, name: &str) -> Vec<usize> {
        if let Some(index) = self.find(name) {
            return vec![index];
        }
        let instances = self.instances.get(base(name)).map(Vec::as_slice).unwrap_or_default();
        let Some(wanted) = values(name) else {
            return if name.contains('[') { Vec::new() } else { instances.to_vec() };
        };
        let has = |index: &usize| values(&self.nodes[*index].name).is_some_and(|has| wanted.is_subset(&has));
        instances.iter().copied().filter(has).collect()
    }
}

/// The name that a pipeline gives a stage, without the values that tell its instances apart.
pub fn base(name: &str) -> &str {
    name.split('[').next().unwrap_or(name)
}

/// The values in an instance's name: `lr=1e-4` and `seed=2` of `train[lr=1e-4,seed=2]`; `None` where it has none.
fn values(name: &str) -> Option<BTreeSet<&str>> {
    let inner = name.split_once('[')?.1.strip_suffix(']')?;
    Some(pairs(inner).into_iter().map(str::trim).collect())
}

/// The parts of `lr=1e-4,seed=2`; commas in quotes part nothing.
pub fn pairs(text: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    let separates = |c: char| {
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        c == ',' && !quoted
    };
    if text.is_empty() { Vec::new() } else { text.split(separates).collect() }
}

/// Orders stages by what they read (`inputs[i]` are the stages that stage i reads), those that could run side by side in the
/// file's order; or shows a cycle.
pub fn order(inputs: &[Vec<usize>]) -> Result<Vec<usize>, Cycle> {
    let mut graph = DiGraph::<(), ()>::with_capacity(inputs.len(), inputs.len());
    for _ in inputs {
        graph.add_node(());
    }
    for (index, from) in inputs.iter().enumerate() {
        for &from in from {
            graph.add_edge(NodeIndex::new(from), NodeIndex::new(index), ());
        }
    }
    let mut waits: Vec<usize> = inputs.iter().map(Vec::len).collect();
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..inputs.len()).filter(|&index| waits[index] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(inputs.len());
    while let Some(Reverse(index)) = ready.pop() {
        order.push(index);
        for reader in graph.neighbors(NodeIndex::new(index)) {
            waits[reader.index()] -= 1;
            if waits[reader.index()] == 0 {
                ready.push(Reverse(reader.index()));
            }
        }
    }
    if order.len() == inputs.len() { Ok(order) } else { Err(cycle(&graph)) }
}

/// The shortest way round within the first component that has one: what a person needs to see.
fn cycle(graph: &DiGraph<(), ()>) -> Cycle {
    let mut components: Vec<Vec<NodeIndex>> = kosaraju_scc(graph)
        .into_iter()
        .filter(|component| component.len() > 1 || graph.contains_edge(component[0], component[0]))
        .collect();
    components.sort_by_key(|component| component.iter().min().copied());
    let start = components.first().and_then(|component| component.iter().min().copied()).unwrap_or_default();
    let mut before = HashMap::new();
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        let mut next: Vec<NodeIndex> = graph.neighbors(node).collect();
        next.sort();
        for neighbour in next {
            if neighbour == start {
                let mut path = vec![node.index()];
                let mut at = node;
                while at != start {
                    at = before[&at];
                    path.push(at.index());
                }
                path.reverse();
                return Cycle { path };
            }
            if neighbour != start && !before.contains_key(&neighbour) {
                before.insert(neighbour, node);
                queue.push_back(neighbour);
            }
        }
    }
    Cycle { path: vec![start.index()] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_puts_inputs_first_and_a_long_chain_is_no_problem() {
        assert_eq!(order(&[vec![1, 2], vec![2], vec![]]).unwrap(), [2, 1, 0]);
        // Of those that are free the file's order decides; a stage may be read twice by one reader.
        assert_eq!(order(&[vec![], vec![3, 3], vec![], vec![0], vec![]]).unwrap(), [0, 2, 3, 1, 4]);
        assert_eq!(order(&[vec![], vec![4], vec![0, 0], vec![], vec![]]).unwrap(), [0, 2, 3, 4, 1]);
        let chain: Vec<Vec<usize>> =
            (0..20_000).map(|index| if index == 0 { vec![] } else { vec![index - 1] }).collect();
        assert_eq!(order(&chain).unwrap(), (0..20_000).collect::<Vec<_>>());
    }

    #[test]
    fn names_mean_one_instance_or_all_that_have_the_values() {
        let pairs_of = |text| pairs(text).into_iter().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(pairs_of("lr=1e-4,seed=2"), ["lr=1e-4", "seed=2"]);
        assert_eq!(pairs_of(r#"a="x,\"y",b=1"#), [r#"a="x,\"y""#, "b=1"]);
        assert!(pairs_of("").is_empty());
        assert_eq!((base("train[lr=1]"), base("train")), ("train", "train"));
        assert_eq!(values("train[lr=1, seed=2]").unwrap().into_iter().collect::<Vec<_>>(), ["lr=1", "seed=2"]);
        assert_eq!(values("train"), None);
    }

    #[test]
    fn a_cycle_is_shown_as_the_way_round() {
        assert_eq!(order(&[vec![], vec![3, 0], vec![1], vec![2]]).unwrap_err().path, [1, 2, 3]);
        assert_eq!(order(&[vec![0]]).unwrap_err().path, [0]);
    }
}
