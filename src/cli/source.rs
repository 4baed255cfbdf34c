//! What `thresh graph` and `thresh export` take: a pipeline file, or what was run.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;

use super::{Failure, PipelineArgs};

#[derive(Args, Clone)]
pub(super) struct SourceArgs {
    /// A pipeline file; or a run by its name, `latest`, or the name of a pipeline for its newest run.
    #[arg(id = "pipeline", value_name = "PIPELINE|RUN")]
    source: String,
    /// Change a value of a pipeline: `stage.parameter=VALUE` or `params.name=VALUE`.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// The profile of thresh.toml.
    #[arg(long)]
    profile: Option<String>,
}

/// Which of the two it is.
pub(super) enum Source<'a> {
    /// A file, whether it is there or not.
    Pipeline(PipelineArgs),
    /// The name of a run, or of something in one.
    Run(&'a str),
}

impl SourceArgs {
    /// What looks like a file is one, and so is what is there.
    pub(super) fn source(&self) -> Result<Source<'_>, Failure> {
        let path = PathBuf::from(&self.source);
        let ending = path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
        if ending || path.is_file() || self.source.starts_with(['.', '/']) {
            return Ok(Source::Pipeline(PipelineArgs {
                pipeline: path,
                set: self.set.clone(),
                profile: self.profile.clone(),
            }));
        }
        if !self.set.is_empty() {
            let name = &self.source;
            return Err(Failure::Wrong(anyhow!("`--set` changes a pipeline, and there is no file `{name}`")));
        }
        Ok(Source::Run(&self.source))
    }
}
