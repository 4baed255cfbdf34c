//! `thresh check`: is the pipeline right?

use super::{Outcome, PipelineArgs, load, project, say};

pub(super) fn run(args: &PipelineArgs) -> Outcome {
    project(args)?;
    let pipeline = load(args)?;
    say(format!("{}: {} stages, no problem", args.pipeline.display(), pipeline.graph.nodes.len()))?;
    Ok(())
}
