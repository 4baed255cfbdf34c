//! `thresh run`: compute what is missing.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::anyhow;
use clap::Args;
use tokio::runtime::Handle;

use super::selection::{Selected, SelectionArgs};
use super::{Common, Failure, Opened, Outcome, PipelineArgs, intact, open, say, stage_indices, watch};
use crate::child;
use crate::config::Pipeline;
use crate::engine::graph::Graph;
use crate::engine::runner::{self, Options, RunError};
use crate::engine::store::{Manifest, Store};
use crate::net;
use crate::report::tell;
use crate::report::{self, Report};

#[derive(Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The most stages side by side that compute here.
    #[arg(long, short)]
    jobs: Option<usize>,
    /// Compute this stage even if its result is there.
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// Compute again what is broken in results: rows for which a model did not answer, and only those.
    #[arg(long)]
    retry_broken: bool,
    /// After a failure, still start the stages that need nothing that failed.
    #[arg(long, short)]
    keep_going: bool,
    /// Run again whenever the pipeline or a file that it names changes.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    selection: SelectionArgs,
}

pub(super) fn run(args: &RunArgs, common: &Common) -> Outcome {
    // Before there are threads, and before this process grows.
    child::start()?;
    // After that, so that commands keep the limit that they were given.
    net::allow_many();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_stack_size(16 << 20)
        .enable_all()
        .build()?;
    let stop = Arc::new(AtomicBool::new(false));
    let handle = runtime.handle();
    handle.spawn(interrupts(stop.clone()));
    let outcome = if args.watch {
        watch::run(&args.pipeline, &stop, || once(args, common, handle, &stop))
    } else {
        once(args, common, handle, &stop)
    };
    child::finish();
    outcome
}

/// One run, from the files as they are now.
fn once(args: &RunArgs, common: &Common, runtime: &Handle, stop: &Arc<AtomicBool>) -> Outcome {
    let Opened { pipeline, mut project, store } = open(&args.pipeline)?;
    if let Some(jobs) = args.jobs {
        project.settings.jobs = jobs;
        project.settings.pools.remove("cpu");
    }
    let selected = args.selection.choose(&pipeline)?;
    let options = Options {
        profile: Arc::new(project.settings.clone()),
        project: project.root.clone(),
        force: forced(args, &pipeline, &selected)?,
        retry_broken: args.retry_broken,
        keep_going: args.keep_going,
        wanted: selected.wanted,
        allowed: selected.allowed,
        file: project.inside(&args.pipeline.file()?).display().to_string(),
        set: args.pipeline.set.clone(),
        stop: stop.clone(),
    };
    let mut report = reporter(common);
    let run = runner::run(&pipeline.graph, &store, &options, |event| report.event(&pipeline.graph, event));
    let ran = runtime.block_on(run).map_err(|error| match error {
        RunError::NoPool(_) => Failure::Wrong(error.into()),
        RunError::Store(error) => error.into(),
    })?;
    drop(report);
    if !common.json {
        tables(&pipeline.graph, &store, &ran.results)?;
    }
    match (ran.summary.failed, ran.summary.stopped) {
        (0, false) => Ok(()),
        (0, true) => Err(Failure::Said(130)),
        _ => Err(Failure::Said(1)),
    }
}

/// The stages to compute whatever is there. One that would not be computed all the same is a mistake to tell.
fn forced(args: &RunArgs, pipeline: &Pipeline, selected: &Selected) -> Result<BTreeSet<usize>, Failure> {
    let forced: BTreeSet<usize> = stage_indices(pipeline, &args.force)?.into_iter().collect();
    for &index in &forced {
        let node = &pipeline.graph.nodes[index];
        let why = match (node.policy.frozen, selected.wanted[index] && selected.allowed[index]) {
            (true, _) => "is frozen: take `frozen` away to compute it",
            (_, false) => "is not among the stages to run",
            _ => continue,
        };
        return Err(Failure::Wrong(anyhow!("`--force {}`: this stage {why}", node.name)));
    }
    Ok(forced)
}

fn reporter(common: &Common) -> Box<dyn Report> {
    if common.json {
        Box::new(report::json::Json::default())
    } else if common.quiet {
        Box::new(report::plain::Plain::quiet())
    } else if std::io::stderr().is_terminal() {
        Box::new(report::terminal::Terminal::new())
    } else {
        Box::new(report::plain::Plain::default())
    }
}

/// The first Ctrl-C (or SIGTERM) lets running stages come to a place where they can go on later, the second ends the process.
async fn interrupts(stop: Arc<AtomicBool>) {
    let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else { return };
    loop {
        tokio::select! {
            result = tokio::signal::ctrl_c() => if result.is_err() { return },
            received = terminate.recv() => if received.is_none() { return },
        }
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        tell("stopping; once more ends at once");
    }
}

/// Prints the comparisons that the pipeline ends with.
fn tables(graph: &Graph, store: &Store, results: &[Option<Arc<Manifest>>]) -> Outcome {
    let mut shown = BTreeSet::new();
    for (node, manifest) in graph.nodes.iter().zip(results) {
        let Some(manifest) = manifest else { continue };
        for artifact in manifest.outputs.values().filter(|artifact| report::comparison::shows(&artifact.holds)) {
            let path = intact(store, &manifest.fingerprint, artifact)?;
            if shown.insert(path.clone()) {
                say(format!("\n{}\n{}", node.name, report::comparison::text(&path)?))?;
            }
        }
    }
    Ok(())
}
