//! `thresh doctor`: does what a run needs work?

mod store;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use super::{Common, Failure, Outcome, say};
use crate::config::diagnostic::nearest;
use crate::config::{Mistake, Project};
use crate::engine::stage::Profile;
use crate::fs;
use crate::report::note;
use crate::stages::endpoint::{Finding, Verdict, examine, examine_device};

#[derive(Args)]
pub(super) struct DoctorArgs {
    /// The project's folder, or a pipeline in it.
    #[arg(default_value = ".")]
    project: PathBuf,
    /// The profile of thresh.toml.
    #[arg(long)]
    profile: Option<String>,
    /// Only this endpoint, and nothing else.
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Ask no server. Otherwise each endpoint gets at most seven tiny calls, which may cost a little.
    #[arg(long)]
    offline: bool,
    /// Read every result whole, and compare it with what was written.
    #[arg(long)]
    deep: bool,
}

pub(super) fn run(args: &DoctorArgs, common: &Common) -> Outcome {
    let (project, mistakes) = find(args)?;
    let mut wrong = false;
    let mut show = |about: &str, findings: Vec<Finding>| {
        wrong |= findings.iter().any(|finding| finding.verdict == Verdict::Wrong);
        findings.iter().try_for_each(|finding| line(common.json, about, finding))
    };
    let names: Vec<&String> = project.settings.endpoints.keys().collect();
    if let Some(name) = &args.endpoint
        && !names.contains(&name)
    {
        let hint = match nearest(name, names.iter().map(|name| name.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add `[endpoints.{name}]` with `url` to thresh.toml"),
        };
        return Err(Failure::Wrong(anyhow!("the profile names no endpoint `{name}`; {hint}")));
    }
    if args.endpoint.is_none() {
        let mut findings = vec![program(), profile(&project)];
        findings.extend(mistakes.into_iter().map(mistake));
        findings.push(examine_device(project.settings.device()));
        show("project", findings)?;
        // A folder that is no project gets no store.
        if project.root.join("thresh.toml").is_file() || project.store().exists() {
            show("store", store::examine(&project, args.deep))?;
        }
    }
    for name in names.into_iter().filter(|name| args.endpoint.as_ref().is_none_or(|only| only == *name)) {
        if !args.offline {
            note(format!("asking `{name}`: at most seven tiny calls"));
        }
        let endpoint =
            project.settings.endpoint(name).ok_or_else(|| anyhow!("the profile names no endpoint `{name}`"))?;
        show(name, examine(name, endpoint, !args.offline))?;
    }
    if wrong { Err(Failure::Said(1)) } else { Ok(()) }
}

/// The project, and what is wrong with its `thresh.toml`: that must not keep us from looking at the rest.
fn find(args: &DoctorArgs) -> Result<(Project, Vec<Mistake>), Failure> {
    let path = &args.project;
    if !path.exists() {
        return Err(Failure::Wrong(anyhow!("`{}` is not there", path.display())));
    }
    // A project is found from a file in it.
    let file = if path.is_dir() { path.join("thresh.toml") } else { path.clone() };
    Project::find_leniently(&file, args.profile.as_deref()).map_err(|error| Failure::Wrong(error.into()))
}

fn line(json: bool, about: &str, finding: &Finding) -> std::io::Result<()> {
    let Finding { check, verdict, said, advice } = finding;
    let state = match verdict {
        Verdict::Fine => "fine",
        Verdict::Lacking => "lacking",
        Verdict::Wrong => "wrong",
    };
    if json {
        return say(json!({"about": about, "check": check, "state": state, "said": said, "advice": advice}).to_string());
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{state:8} {about}, {check}: {said}")?;
    if let (Some(advice), false) = (advice, *verdict == Verdict::Fine) {
        writeln!(out, "{:8}   {advice}", "")?;
    }
    Ok(())
}

fn program() -> Finding {
    Finding::fine("program", format!("thresh {}", super::help::version().replace('\n', ", ")))
}

fn mistake(Mistake { said, advice }: Mistake) -> Finding {
    Finding::wrong("thresh.toml", said, advice)
}

fn profile(project: &Project) -> Finding {
    let file = project.root.join("thresh.toml");
    let endpoints = project.settings.endpoints.len();
    if file.is_file() {
        let profiles = project.settings.profiles.len();
        let said = format!("`{}` names {endpoints} endpoints and {profiles} profiles", fs::short(&file).display());
        return Finding::fine("profile", said);
    }
    let said = format!(
        "there is no thresh.toml above `{}`: what it would say has its defaults",
        fs::short(&project.root).display()
    );
    Finding::lacking("profile", said, "write one where the project begins")
}
