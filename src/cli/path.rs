//! `thresh path`: where a result lies.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use super::{Common, Failure, Opened, Outcome, PipelineArgs, intact, open, records, say, say_json, stage_index};
use crate::config::diagnostic::nearest;
use crate::engine::plan::{Planned, plan};
use crate::engine::store::{Found, Manifest};
use crate::report::note;

#[derive(Args)]
pub(super) struct PathArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The output: `stage.port`.
    output: String,
}

pub(super) fn run(args: &PathArgs, common: &Common) -> Outcome {
    let results = Results::open(&args.pipeline)?;
    let found = results.find(&args.output)?;
    if found.stale {
        note("note: the pipeline has changed since; this is the newest result there is");
    }
    let path = found.path(&results);
    if common.json {
        let Located { manifest, port, stale } = &found;
        let artifact = &manifest.outputs[port];
        return say_json(&json!({
            "output": args.output, "path": path, "holds": artifact.holds, "bytes": artifact.bytes(), "stale": stale,
        }));
    }
    Ok(say(path.display().to_string())?)
}

/// A pipeline and the results of its stages.
pub(super) struct Results {
    pub opened: Opened,
    plans: Vec<Planned>,
    /// The fingerprints of each stage's results, the newest first.
    older: HashMap<String, Vec<String>>,
}

/// An output's newest result.
pub(super) struct Located {
    manifest: Arc<Manifest>,
    port: String,
    /// Whether the pipeline would compute another now.
    pub stale: bool,
}

impl Located {
    /// Where it lies.
    pub(super) fn path(&self, results: &Results) -> PathBuf {
        results.opened.store.path(&self.manifest.fingerprint, &self.manifest.outputs[&self.port])
    }

    /// Where it lies, read and found whole.
    pub(super) fn intact(&self, results: &Results) -> Result<PathBuf, Failure> {
        intact(&results.opened.store, &self.manifest.fingerprint, &self.manifest.outputs[&self.port])
    }
}

impl Results {
    /// Looks up what there is.
    pub(super) fn open(args: &PipelineArgs) -> Result<Self, Failure> {
        let opened = open(args)?;
        let mut records = records(&opened.store)?;
        records.retain(|record| record.pipeline == opened.pipeline.graph.name);
        let plans = plan(&opened.pipeline.graph, &opened.store, &opened.project.root, &records)?;
        let mut older: HashMap<String, Vec<String>> = HashMap::new();
        for stage in records.into_iter().flat_map(|record| record.stages) {
            if let Some(fingerprint) = stage.fingerprint {
                older.entry(stage.name).or_default().push(fingerprint);
            }
        }
        Ok(Self { opened, plans, older })
    }

    /// The newest result of `stage.port`.
    pub(super) fn find(&self, output: &str) -> Result<Located, Failure> {
        let Some((stage, port)) = output.rsplit_once('.') else {
            return Err(Failure::Wrong(anyhow!("expected `stage.port`, found `{output}`")));
        };
        let index = stage_index(&self.opened.pipeline, stage)?;
        let ports = self.opened.pipeline.graph.nodes[index].stage.outputs();
        if !ports.iter().any(|known| known.name == port) {
            let near = nearest(port, ports.iter().map(|port| port.name.as_str()));
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            return Err(Failure::Wrong(anyhow!("stage `{stage}` has no output `{port}`{hint}")));
        }
        let (manifest, stale) = self
            .result(index, port)?
            .ok_or_else(|| Failure::Failed(anyhow!("`{stage}` has no result yet; `thresh run` computes it")))?;
        Ok(Located { manifest, port: port.to_owned(), stale })
    }

    /// A stage's newest result that has a port: an earlier state of the stage may have had others.
    fn result(&self, index: usize, port: &str) -> Result<Option<(Arc<Manifest>, bool)>, Failure> {
        let has = |manifest: &Manifest| manifest.outputs.contains_key(port);
        if let Some(manifest) = self.plans[index].result.clone().filter(|manifest| has(manifest)) {
            return Ok(Some((manifest, false)));
        }
        let graph = &self.opened.pipeline.graph;
        let name = &graph.nodes[index].name;
        for fingerprint in self.older.get(name).into_iter().flatten() {
            if let Found::Whole(manifest) = self.opened.store.find(fingerprint)?
                && has(&manifest)
            {
                return Ok(Some((Arc::from(manifest), true)));
            }
        }
        Ok(None)
    }
}
