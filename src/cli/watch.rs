//! `thresh run --watch`: again whenever something changes that the pipeline depends on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use super::{Failure, Outcome, PipelineArgs, fail, load, project};
use crate::config::{Pipeline, Project};
use crate::engine::graph::Node;
use crate::report::note;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(300);

/// The files that say what is run, with their times and sizes, and the pipeline where it is right.
struct Files {
    seen: BTreeMap<PathBuf, Option<(SystemTime, u64)>>,
    loaded: Option<(Project, Pipeline)>,
}

impl Files {
    fn load(args: &PipelineArgs) -> Self {
        let loaded = project(args).and_then(|project| Ok((project, load(args)?))).ok();
        let mut files = vec![args.file().unwrap_or_else(|_| args.pipeline.clone())];
        if let Some((project, pipeline)) = &loaded {
            files.extend(pipeline.files.iter().cloned());
            files.push(project.root.join("thresh.toml"));
        }
        Self { seen: files.into_iter().map(|file| (file.clone(), state(&file))).collect(), loaded }
    }

    fn changed(&self) -> bool {
        self.seen.iter().any(|(file, seen)| state(file) != *seen)
    }

    /// What the stages say of the files that their parameters name; unchanged files are not read again.
    fn stages(&self) -> Vec<Result<Vec<(String, String)>, String>> {
        let Some((project, pipeline)) = &self.loaded else { return Vec::new() };
        let depends = |node: &Node| node.stage.also_depends_on(&project.root).map_err(|error| error.to_string());
        pipeline.graph.nodes.iter().map(depends).collect()
    }
}

fn state(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Runs, and again after each change, until the process is told to stop. What is wrong is told and waited out.
pub(super) fn run(args: &PipelineArgs, stop: &AtomicBool, mut once: impl FnMut() -> Outcome) -> Outcome {
    let stopped = || stop.load(Ordering::Relaxed);
    loop {
        let files = Files::load(args);
        let stages = files.stages();
        match once() {
            Err(Failure::Failed(error)) => drop(fail(&error, 1)),
            Err(Failure::Wrong(error)) => drop(fail(&error, 2)),
            Ok(()) | Err(Failure::Said(_)) => {}
        }
        if stopped() {
            return Err(Failure::Said(130));
        }
        note("waiting for changes; Ctrl-C ends");
        while !files.changed() && files.stages() == stages {
            std::thread::sleep(LOOK);
            if stopped() {
                return Err(Failure::Said(130));
            }
        }
    }
}
