//! `thresh plan`: what a run would do.

use clap::Args;
use serde_json::json;

use super::{Common, Opened, Outcome, PipelineArgs, open, recent, say};
use crate::engine::plan::{Reason, Verdict, plan};

#[derive(Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
}

pub(super) fn run(args: &PlanArgs, common: &Common) -> Outcome {
    let Opened { pipeline, project, store } = open(&args.pipeline)?;
    let plans = plan(&pipeline.graph, &store, &project.root, &recent(&store, &pipeline.graph)?)?;
    let width = pipeline.graph.nodes.iter().map(|node| node.name.len()).max().unwrap_or(0);
    for (node, planned) in pipeline.graph.nodes.iter().zip(&plans) {
        let (state, reason) = match &planned.verdict {
            Verdict::Fresh => ("fresh", "the result is there".to_owned()),
            Verdict::Run(reason) => ("run", words(reason)),
            Verdict::After { upstream } => (
                "after",
                format!("`{}` comes first; the same result there cuts this off", pipeline.graph.nodes[*upstream].name),
            ),
            Verdict::Frozen if planned.result.is_some() => ("frozen", "its newest result counts".to_owned()),
            Verdict::Frozen => ("broken", "it is frozen and has no result yet".to_owned()),
            Verdict::Broken(why) => ("broken", why.clone()),
        };
        if common.json {
            say(json!({"stage": node.name, "state": state, "reason": reason}).to_string())?;
        } else {
            say(format!("{:width$}  {state:6}  {reason}", node.name))?;
        }
    }
    Ok(())
}

/// A reason in a sentence.
pub(super) fn words(reason: &Reason) -> String {
    match reason {
        Reason::New => "no result yet".to_owned(),
        Reason::Lost(what) => what.clone(),
        Reason::Changed { run, changes } => {
            let fields: Vec<String> = changes.iter().map(|change| format!("`{}`", change.field)).collect();
            format!("changed since run `{run}`: {}", fields.join(", "))
        }
    }
}
