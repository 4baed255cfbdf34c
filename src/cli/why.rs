//! `thresh why`: the first cause of a stage's running.

use clap::Args;

use super::{Opened, Outcome, PipelineArgs, open, plan::words, recent, say, stage_index};
use crate::engine::plan::{Reason, Verdict, cause, plan};

#[derive(Args)]
pub(super) struct WhyArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage; without it, every stage that would run of itself.
    stage: Option<String>,
}

pub(super) fn run(args: &WhyArgs) -> Outcome {
    let Opened { pipeline, project, store } = open(&args.pipeline)?;
    let asked = args.stage.as_deref().map(|name| stage_index(&pipeline, name)).transpose()?;
    let plans = plan(&pipeline.graph, &store, &project.root, &recent(&store, &pipeline.graph)?)?;
    let causes: Vec<usize> = match asked {
        Some(index) => vec![cause(&plans, index)],
        None => (0..plans.len())
            .filter(|&i| !matches!(plans[i].verdict, Verdict::Fresh | Verdict::Frozen | Verdict::After { .. }))
            .collect(),
    };
    if causes.is_empty() {
        say("every result is there")?;
    }
    for index in causes {
        let name = &pipeline.graph.nodes[index].name;
        if let Some(asked) = asked.filter(|&asked| asked != index) {
            say(format!("`{}` would run because of `{name}`", pipeline.graph.nodes[asked].name))?;
        }
        match &plans[index].verdict {
            Verdict::Fresh => say(format!("`{name}` would not run: its result is there"))?,
            Verdict::Frozen if plans[index].result.is_some() => {
                say(format!("`{name}` would not run: it is frozen, and its newest result counts"))?;
            }
            Verdict::Frozen => say(format!("`{name}` cannot run: it is frozen and has no result yet"))?,
            Verdict::Broken(why) => say(format!("`{name}` cannot run: {why}"))?,
            Verdict::After { .. } => {}
            Verdict::Run(Reason::Changed { run, changes }) => {
                say(format!("`{name}` would run: since run `{run}`"))?;
                for change in changes {
                    let old = change.old.as_deref().unwrap_or("(absent)");
                    let new = change.new.as_deref().unwrap_or("(absent)");
                    say(format!("  {}: {old} -> {new}", change.field))?;
                }
            }
            Verdict::Run(reason) => say(format!("`{name}` would run: {}", words(reason)))?,
        }
    }
    Ok(())
}
