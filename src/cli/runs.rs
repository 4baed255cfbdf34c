//! `thresh runs`: what was run.

use std::path::Path;

use clap::Args;

use super::{Common, Failure, Outcome, records, say};
use crate::config::Project;
use crate::engine::history::{Outcome as Became, RunRecord};
use crate::engine::store::Store;

#[derive(Args)]
pub(super) struct RunsArgs {
    /// Only runs of this pipeline, by its name.
    pipeline: Option<String>,
}

pub(super) fn run(args: &RunsArgs, common: &Common) -> Outcome {
    let store = store()?;
    let records = records(&store)?;
    let wanted = |record: &&RunRecord| args.pipeline.as_ref().is_none_or(|name| *name == record.pipeline);
    for record in records.iter().filter(wanted) {
        if common.json {
            say(serde_json::to_string(record)?)?;
            continue;
        }
        let seconds = record.seconds.map_or_else(|| "unfinished".to_owned(), |seconds| format!("{seconds:.1} s"));
        let counts = [("computed", Became::Computed), ("fresh", Became::Fresh), ("failed", Became::Failed)]
            .map(|(name, outcome)| format!("{} {name}", record.count(outcome)))
            .join(", ");
        let set = if record.set.is_empty() { String::new() } else { format!("  --set {}", record.set.join(" --set ")) };
        say(format!("{}  {}  {counts}  {seconds}{set}", record.run, record.started))?;
    }
    Ok(())
}

/// The store of the project that the current folder is of.
pub(super) fn store() -> Result<Store, Failure> {
    let project = Project::find(Path::new("any"), None).map_err(|error| Failure::Wrong(error.into()))?;
    Ok(Store::open(project.store())?)
}
