//! `thresh path`: where a result lies.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;

use super::{Failure, Opened, Outcome, PipelineArgs, open, say, stage_index};
use crate::config::diagnostic::nearest;
use crate::engine::history;
use crate::engine::plan::plan;
use crate::engine::store::{Found, Manifest};

#[derive(Args)]
pub(super) struct PathArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The output: `stage.port`.
    output: String,
}

pub(super) fn run(args: &PathArgs) -> Outcome {
    let (path, stale) = newest(&args.pipeline, &args.output)?;
    if stale {
        eprintln!("note: the pipeline has changed since; this is the newest result there is");
    }
    say(path.display().to_string())?;
    Ok(())
}

/// The newest result of `stage.port`, and whether the pipeline would compute another now.
pub(super) fn newest(args: &PipelineArgs, output: &str) -> Result<(PathBuf, bool), Failure> {
    let opened = open(args)?;
    let Some((stage, port)) = output.rsplit_once('.') else {
        return Err(Failure::Wrong(anyhow!("expected `stage.port`, found `{output}`")));
    };
    let index = stage_index(&opened.pipeline, stage)?;
    let ports = opened.pipeline.graph.nodes[index].stage.outputs();
    if !ports.iter().any(|known| known.name == port) {
        let near = nearest(port, ports.iter().map(|port| port.name.as_str()));
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        return Err(Failure::Wrong(anyhow!("stage `{stage}` has no output `{port}`{hint}")));
    }
    let (manifest, stale) = result(&opened, index)?
        .ok_or_else(|| Failure::Failed(anyhow!("`{stage}` has no result yet; `thresh run` computes it")))?;
    Ok((opened.store.path(&manifest.fingerprint, &manifest.outputs[port]), stale))
}

fn result(opened: &Opened, index: usize) -> Result<Option<(Arc<Manifest>, bool)>, Failure> {
    let Opened { pipeline, project, store } = opened;
    let records = history::read(store)?;
    let plans = plan(&pipeline.graph, store, &project.root, &records)?;
    if let Some(manifest) = plans[index].result.clone() {
        return Ok(Some((manifest, false)));
    }
    let name = &pipeline.graph.nodes[index].name;
    for record in records.iter().filter(|record| record.pipeline == pipeline.graph.name) {
        if let Some(fingerprint) = record.stage(name).and_then(|stage| stage.fingerprint.as_deref())
            && let Found::Whole(manifest) = store.find(fingerprint)?
        {
            return Ok(Some((Arc::from(manifest), true)));
        }
    }
    Ok(None)
}
