//! `thresh runs`: what was run.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Failure, Outcome, records, say};
use crate::config::Project;
use crate::engine::history::{Outcome as Became, RunRecord};
use crate::engine::store::Store;

#[derive(Args)]
pub(super) struct RunsArgs {
    /// Only runs of this pipeline, by its name.
    pipeline: Option<String>,
    /// The project's folder.
    #[arg(long, default_value = ".")]
    project: PathBuf,
    /// One JSON object a run.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &RunsArgs) -> Outcome {
    let store = store(&args.project)?;
    let records = records(&store)?;
    let wanted = |record: &&RunRecord| args.pipeline.as_ref().is_none_or(|name| *name == record.pipeline);
    for record in records.iter().filter(wanted) {
        if args.json {
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

/// The store of the project of a folder.
pub(super) fn store(folder: &Path) -> Result<Store, Failure> {
    let project = Project::find(&folder.join("any"), None).map_err(|error| Failure::Wrong(error.into()))?;
    Ok(Store::open(project.store())?)
}
