//! `thresh why`: the first cause of a stage's running.

use clap::Args;
use serde_json::json;

use super::{Common, Opened, Outcome, PipelineArgs, open, plan::words, recent, say, say_json, stage_index};
use crate::engine::plan::{Planned, Reason, Verdict, cause, plan};

#[derive(Args)]
pub(super) struct WhyArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage; without it, every stage that would run of itself.
    stage: Option<String>,
}

pub(super) fn run(args: &WhyArgs, common: &Common) -> Outcome {
    let Opened { pipeline, project, store } = open(&args.pipeline)?;
    let asked = args.stage.as_deref().map(|name| stage_index(&pipeline, name)).transpose()?;
    let plans = plan(&pipeline.graph, &store, &project.root, &recent(&store, &pipeline.graph)?)?;
    let causes: Vec<usize> = match asked {
        Some(index) => vec![cause(&plans, index)],
        None => (0..plans.len())
            .filter(|&i| !matches!(plans[i].verdict, Verdict::Fresh | Verdict::Frozen | Verdict::After { .. }))
            .collect(),
    };
    let name = |index: usize| pipeline.graph.nodes[index].name.as_str();
    if causes.is_empty() && !common.json {
        say("every result is there")?;
    }
    for index in causes {
        let asked = asked.filter(|&asked| asked != index).map(name);
        if common.json {
            object(name(index), asked, &plans[index])?;
        } else {
            lines(name(index), asked, &plans[index])?;
        }
    }
    Ok(())
}

/// Why a stage would run or not, as one object; `asked` is the stage downstream that was asked for.
fn object(stage: &str, asked: Option<&str>, planned: &Planned) -> Outcome {
    let mut object = json!({"stage": stage, "asked": asked, "runs": false, "reason": sentence(planned)});
    if let Verdict::Run(reason) = &planned.verdict {
        object["runs"] = json!(true);
        if let Reason::Changed { run, changes } = reason {
            object["since"] = json!(run);
            let change = changes.iter().map(|one| json!({"field": one.field, "old": one.old, "new": one.new}));
            object["changes"] = change.collect();
        }
    }
    say_json(&object)
}

fn lines(stage: &str, asked: Option<&str>, planned: &Planned) -> Outcome {
    if let Some(asked) = asked {
        say(format!("`{asked}` would run because of `{stage}`"))?;
    }
    match &planned.verdict {
        Verdict::After { .. } => {}
        Verdict::Run(Reason::Changed { run, changes }) => {
            say(format!("`{stage}` would run: since run `{run}`"))?;
            for change in changes {
                let old = change.old.as_deref().unwrap_or("(absent)");
                let new = change.new.as_deref().unwrap_or("(absent)");
                say(format!("  {}: {old} -> {new}", change.field))?;
            }
        }
        Verdict::Run(_) => say(format!("`{stage}` would run: {}", sentence(planned)))?,
        Verdict::Fresh => say(format!("`{stage}` would not run: {}", sentence(planned)))?,
        Verdict::Frozen if planned.result.is_some() => say(format!("`{stage}` would not run: {}", sentence(planned)))?,
        Verdict::Frozen | Verdict::Broken(_) => say(format!("`{stage}` cannot run: {}", sentence(planned)))?,
    }
    Ok(())
}

fn sentence(planned: &Planned) -> String {
    match &planned.verdict {
        Verdict::Fresh => "its result is there".to_owned(),
        Verdict::Frozen if planned.result.is_some() => "it is frozen, and its newest result counts".to_owned(),
        Verdict::Frozen => "it is frozen and has no result yet".to_owned(),
        Verdict::Broken(why) => why.clone(),
        Verdict::After { .. } => "a stage that it reads comes first".to_owned(),
        Verdict::Run(reason) => words(reason),
    }
}
