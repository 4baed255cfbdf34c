//! `thresh run --watch`: again whenever something changes that the pipeline depends on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::{Failure, Outcome, PipelineArgs, fail, load, project};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(300);

/// What the run depends on beside the store: the times and sizes of the files that were read, and what the stages say of the
/// files that their parameters name. Where the pipeline is wrong, only its file.
#[derive(Default, PartialEq)]
struct Seen {
    files: BTreeMap<PathBuf, Option<(SystemTime, u64)>>,
    stages: Vec<Result<Vec<(String, String)>, String>>,
}

/// Runs, and again after each change, until the process is told to stop. What is wrong is told and waited out.
pub(super) fn run(args: &PipelineArgs, stop: &AtomicBool, mut once: impl FnMut() -> Outcome) -> Outcome {
    let stopped = || stop.load(Ordering::Relaxed);
    loop {
        let before = look(args);
        match once() {
            Err(Failure::Failed(error)) => drop(fail(&error, 1)),
            Err(Failure::Wrong(error)) => drop(fail(&error, 2)),
            Ok(()) | Err(Failure::Said(_)) => {}
        }
        if stopped() {
            return Err(Failure::Said(130));
        }
        eprintln!("waiting for changes; Ctrl-C ends");
        while look(args) == before {
            std::thread::sleep(LOOK);
            if stopped() {
                return Err(Failure::Said(130));
            }
        }
    }
}

fn look(args: &PipelineArgs) -> Seen {
    let mut seen = Seen::default();
    let mut files = vec![args.pipeline.clone()];
    if let (Ok(project), Ok(pipeline)) = (project(args), load(args)) {
        files.extend(pipeline.files);
        files.push(project.root.join("thresh.toml"));
        let depends = |node: &crate::engine::graph::Node| {
            node.stage.also_depends_on(&project.root).map_err(|error| error.to_string())
        };
        seen.stages = pipeline.graph.nodes.iter().map(depends).collect();
    }
    for file in files {
        let metadata = std::fs::metadata(&file).ok();
        let state = metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len())));
        seen.files.insert(file, state);
    }
    seen
}
