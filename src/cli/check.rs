//! `thresh check`: is the pipeline right?

use anyhow::Error;
use serde_json::json;

use super::{Common, Failure, Outcome, PipelineArgs, load, project, say, say_json};
use crate::config::{Diagnostics, Pipeline};
use crate::fs;

pub(super) fn run(args: &PipelineArgs, common: &Common) -> Outcome {
    project(args)?;
    let file = fs::short(args.file()?);
    match load(args) {
        Ok(Pipeline { graph, .. }) if common.json => say_json(
            &json!({"ok": true, "file": file, "pipeline": graph.name, "stages": graph.nodes.len(), "problems": []}),
        ),
        Ok(Pipeline { graph, .. }) => Ok(say(format!("{}: {} stages, no problem", file.display(), graph.nodes.len()))?),
        Err(Failure::Wrong(error)) if common.json => {
            let Some(diagnostics) = Error::downcast_ref::<Diagnostics>(&error) else {
                return Err(Failure::Wrong(error));
            };
            say_json(&json!({"ok": false, "file": file, "problems": diagnostics.problems()}))?;
            Err(Failure::Said(2))
        }
        Err(failure) => Err(failure),
    }
}
