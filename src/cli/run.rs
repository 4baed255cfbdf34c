//! `thresh run`: compute what is missing.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;

use super::{Failure, Opened, Outcome, PipelineArgs, open, say, stage_index};
use crate::engine::graph::Graph;
use crate::engine::history::RunRecord;
use crate::engine::runner::{self, Options};
use crate::engine::store::{Found, Store};
use crate::report::{self, Report};

#[derive(Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// JSON lines on stdout, one an event.
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Only warnings, failures and the tables at the end.
    #[arg(long, short)]
    quiet: bool,
    /// The most stages side by side.
    #[arg(long, short)]
    jobs: Option<usize>,
    /// Compute this stage even if its result is there.
    #[arg(long, value_name = "STAGE")]
    force: Vec<String>,
    /// Compute again what is broken in results: rows for which a model did not answer, and only those.
    #[arg(long)]
    retry_broken: bool,
    /// Run only up to this stage.
    #[arg(long, value_name = "STAGE")]
    upto: Vec<String>,
}

pub(super) fn run(args: &RunArgs) -> Outcome {
    let Opened { pipeline, project, store } = open(&args.pipeline)?;
    let indices =
        |names: &[String]| names.iter().map(|name| stage_index(&pipeline, name)).collect::<Result<Vec<_>, _>>();
    let stop = Arc::new(AtomicBool::new(false));
    let options = Options {
        jobs: args.jobs.unwrap_or(project.settings.jobs),
        profile: Arc::new(project.settings.clone()),
        project: project.root.clone(),
        force: indices(&args.force)?.into_iter().collect(),
        retry_broken: args.retry_broken,
        wanted: wanted(&pipeline.graph, &indices(&args.upto)?),
        file: args.pipeline.pipeline.display().to_string(),
        set: args.pipeline.set.clone(),
        stop: stop.clone(),
    };
    let mut report: Box<dyn Report> = if args.json {
        Box::new(report::json::Json)
    } else if args.quiet {
        Box::new(report::plain::Plain::quiet())
    } else if std::io::stderr().is_terminal() {
        Box::new(report::terminal::Terminal::new())
    } else {
        Box::new(report::plain::Plain::default())
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_stack_size(16 << 20)
        .enable_all()
        .build()?;
    let (summary, record) = runtime.block_on(async {
        tokio::spawn(interrupts(stop));
        runner::run(&pipeline.graph, &store, &options, |event| report.event(&pipeline.graph, event)).await
    })?;
    drop(report);
    if !args.json {
        tables(&store, &record)?;
    }
    match (summary.failed, summary.stopped) {
        (0, false) => Ok(()),
        (0, true) => Err(Failure::Said(130)),
        _ => Err(Failure::Said(1)),
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
        eprintln!("stopping; once more ends at once");
    }
}

/// The named stages and all that they need; all stages where none is named.
fn wanted(graph: &Graph, upto: &[usize]) -> Vec<bool> {
    if upto.is_empty() {
        return vec![true; graph.nodes.len()];
    }
    let mut wanted = vec![false; graph.nodes.len()];
    let mut open: Vec<usize> = upto.to_vec();
    while let Some(index) = open.pop() {
        if !std::mem::replace(&mut wanted[index], true) {
            open.extend(graph.nodes[index].inputs.iter().map(|edge| edge.from));
        }
    }
    wanted
}

/// Prints the comparisons that the pipeline ends with.
fn tables(store: &Store, record: &RunRecord) -> Outcome {
    let mut shown = BTreeSet::new();
    for stage in &record.stages {
        let Some(fingerprint) = stage.fingerprint.as_deref() else { continue };
        let Found::Whole(manifest) = store.find(fingerprint)? else { continue };
        for artifact in manifest.outputs.values().filter(|artifact| report::comparison::shows(&artifact.holds)) {
            let path = store.path(fingerprint, artifact);
            if shown.insert(path.clone()) {
                say(format!("\n{}\n{}", stage.name, report::comparison::text(&path)?))?;
            }
        }
    }
    Ok(())
}
