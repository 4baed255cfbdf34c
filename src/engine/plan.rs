//! What a run would do, without doing it, and why.

use std::path::Path;
use std::sync::Arc;

use super::fingerprint::{Change, Fields, changes, fields, fingerprint};
use super::graph::Graph;
use super::history::{Newest, RunRecord};
use super::port::Holds;
use super::stage::in_full;
use super::store::{Found, Manifest, Store, StoreError};

/// What a run would do with a stage.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Its result is there.
    Fresh,
    /// It would be computed.
    Run(Reason),
    /// It is frozen: its newest result counts, where it has one.
    Frozen,
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
    pub result: Option<Arc<Manifest>>,
}

/// The fields of a stage whose inputs are all there.
///
/// # Errors
/// When the stage cannot say what else it depends on.
pub fn fields_of(
    graph: &Graph,
    index: usize,
    results: &[Option<Arc<Manifest>>],
    project: &Path,
) -> anyhow::Result<Fields> {
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
    let newest = Newest::of(records, &graph.name);
    let mut plans: Vec<Option<Planned>> = vec![None; graph.nodes.len()];
    let mut results: Vec<Option<Arc<Manifest>>> = vec![None; graph.nodes.len()];
    for &index in graph.order() {
        if graph.nodes[index].policy.frozen {
            let result = frozen(store, newest.get(&graph.nodes[index].name))?;
            let fingerprint = result.as_ref().map(|result| result.fingerprint.clone());
            results[index].clone_from(&result);
            plans[index] = Some(Planned { verdict: Verdict::Frozen, fingerprint, result });
            continue;
        }
        let missing = graph.nodes[index].inputs.iter().find(|edge| results[edge.from].is_none());
        let planned = match missing {
            Some(edge) => Planned { verdict: Verdict::After { upstream: edge.from }, fingerprint: None, result: None },
            None => match fields_of(graph, index, &results, project) {
                Ok(fields) => decide(store, newest.get(&graph.nodes[index].name), &fields)?,
                Err(error) => Planned { verdict: Verdict::Broken(in_full(&error)), fingerprint: None, result: None },
            },
        };
        results[index].clone_from(&planned.result);
        plans[index] = Some(planned);
    }
    Ok(plans.into_iter().flatten().collect())
}

/// The newest result of a frozen stage.
fn frozen(store: &Store, newest: Option<(&RunRecord, &str)>) -> Result<Option<Arc<Manifest>>, StoreError> {
    let Some((_, fingerprint)) = newest else { return Ok(None) };
    Ok(match store.find(fingerprint)? {
        Found::Whole(manifest) => Some(Arc::from(manifest)),
        _ => None,
    })
}

fn decide(store: &Store, newest: Option<(&RunRecord, &str)>, fields: &Fields) -> Result<Planned, StoreError> {
    let id = fingerprint(fields);
    let (verdict, result) = match store.find(&id)? {
        Found::Whole(manifest) => (Verdict::Fresh, Some(Arc::from(manifest))),
        Found::Damaged(what) => (Verdict::Run(Reason::Lost(what)), None),
        Found::Absent => (Verdict::Run(reason(store, newest, fields, &id)?), None),
    };
    Ok(Planned { verdict, fingerprint: Some(id), result })
}

fn reason(store: &Store, newest: Option<(&RunRecord, &str)>, fields: &Fields, id: &str) -> Result<Reason, StoreError> {
    let Some((record, old)) = newest else { return Ok(Reason::New) };
    if old == id {
        return Ok(Reason::Lost(format!("the result of run `{}` is gone", record.run)));
    }
    match store.find(old)? {
        Found::Whole(old) => Ok(Reason::Changed { run: old.run.clone(), changes: changes(&old.fields, fields) }),
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
