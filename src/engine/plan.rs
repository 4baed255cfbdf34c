//! What a run would do, without doing it, and why.

use std::path::Path;

use super::fingerprint::{Change, Fields, changes, fields, fingerprint};
use super::graph::Graph;
use super::history::{self, RunRecord};
use super::port::Holds;
use super::stage::in_full;
use super::store::{Found, Manifest, Store};

/// What a run would do with a stage.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Its result is there.
    Fresh,
    /// It would be computed.
    Run(Reason),
    /// A stage that it needs would be computed; if that yields the same as before, this one is cut off.
    After { upstream: usize },
    /// What it depends on cannot be read.
    Broken(String),
}

/// Why a stage would be computed.
#[derive(Clone, Debug, PartialEq)]
pub enum Reason {
    /// No run of this pipeline has computed it.
    New,
    /// What it depends on changed since a run.
    Changed { run: String, changes: Vec<Change> },
    /// Nothing changed, and the result is gone or damaged.
    Lost(String),
}

/// A stage of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// What would be done.
    pub verdict: Verdict,
    /// Its fingerprint, where everything it reads is there.
    pub fingerprint: Option<String>,
    /// Its result, where it is there.
    pub result: Option<Manifest>,
}

/// The fields of a stage whose inputs are all there.
///
/// # Errors
/// When the stage cannot say what else it depends on.
pub fn fields_of(graph: &Graph, index: usize, results: &[Option<Manifest>], project: &Path) -> anyhow::Result<Fields> {
    let node = &graph.nodes[index];
    let mut inputs = Vec::new();
    for edge in &node.inputs {
        let artifact = results[edge.from].as_ref().and_then(|result| result.outputs.get(&edge.output));
        let artifact =
            artifact.ok_or_else(|| anyhow::anyhow!("`{}` has no result yet", graph.nodes[edge.from].name))?;
        inputs.push((edge.input.clone(), Holds::Table(artifact.holds.clone()), artifact.digest.clone()));
    }
    let also = node.stage.also_depends_on(project)?;
    Ok(fields(node.stage.as_ref(), &inputs, &also))
}

/// Plans a run.
pub fn plan(graph: &Graph, store: &Store, project: &Path, records: &[RunRecord]) -> anyhow::Result<Vec<Planned>> {
    let mut plans: Vec<Option<Planned>> = vec![None; graph.nodes.len()];
    let mut results: Vec<Option<Manifest>> = vec![None; graph.nodes.len()];
    for &index in graph.order() {
        let missing = graph.nodes[index].inputs.iter().find(|edge| results[edge.from].is_none());
        let planned = match missing {
            Some(edge) => Planned { verdict: Verdict::After { upstream: edge.from }, fingerprint: None, result: None },
            None => match fields_of(graph, index, &results, project) {
                Ok(fields) => decide(graph, index, store, records, &fields)?,
                Err(error) => Planned { verdict: Verdict::Broken(in_full(&error)), fingerprint: None, result: None },
            },
        };
        results[index].clone_from(&planned.result);
        plans[index] = Some(planned);
    }
    Ok(plans.into_iter().flatten().collect())
}

fn decide(
    graph: &Graph,
    index: usize,
    store: &Store,
    records: &[RunRecord],
    fields: &Fields,
) -> anyhow::Result<Planned> {
    let id = fingerprint(fields);
    let (verdict, result) = match store.find(&id)? {
        Found::Whole(manifest) => (Verdict::Fresh, Some(*manifest)),
        Found::Damaged(what) => (Verdict::Run(Reason::Lost(what)), None),
        Found::Absent => (Verdict::Run(reason(graph, index, store, records, fields, &id)?), None),
    };
    Ok(Planned { verdict, fingerprint: Some(id), result })
}

fn reason(
    graph: &Graph,
    index: usize,
    store: &Store,
    records: &[RunRecord],
    fields: &Fields,
    id: &str,
) -> anyhow::Result<Reason> {
    let Some((record, old)) = history::newest(records, &graph.name, &graph.nodes[index].name) else {
        return Ok(Reason::New);
    };
    if old == id {
        return Ok(Reason::Lost(format!("the result of run `{}` is gone", record.run)));
    }
    match store.find(old)? {
        Found::Whole(old) => Ok(Reason::Changed { run: record.run.clone(), changes: changes(&old.fields, fields) }),
        _ => Ok(Reason::New),
    }
}

/// The first stage upstream that makes a stage run: itself, or the one it waits for, all the way up.
pub fn cause(plans: &[Planned], index: usize) -> usize {
    let mut at = index;
    while let Verdict::After { upstream } = plans[at].verdict {
        at = upstream;
    }
    at
}
