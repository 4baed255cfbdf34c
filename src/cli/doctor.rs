//! `thresh doctor`: does what a run needs work?

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use super::{Common, Failure, Outcome, say};
use crate::config::Project;
use crate::config::diagnostic::nearest;
use crate::engine::stage::Profile;
use crate::engine::store::Store;
use crate::fs;
use crate::report::tell;
use crate::stages::endpoint::{Finding, Verdict, examine, examine_device};

/// Less room than this is worth a word.
const LITTLE_ROOM: u64 = 1 << 30;

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
}

pub(super) fn run(args: &DoctorArgs, common: &Common) -> Outcome {
    let project = find(args)?;
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
        show("project", vec![profile(&project), examine_device(project.settings.device())])?;
        // A folder that is no project gets no store.
        if project.root.join("thresh.toml").is_file() || project.store().exists() {
            show("store", store(&project))?;
        }
    }
    for name in names.into_iter().filter(|name| args.endpoint.as_ref().is_none_or(|only| only == *name)) {
        if !args.offline {
            tell(format!("asking `{name}`: at most seven tiny calls"));
        }
        let endpoint =
            project.settings.endpoint(name).ok_or_else(|| anyhow!("the profile names no endpoint `{name}`"))?;
        show(name, examine(name, endpoint, !args.offline))?;
    }
    if wrong { Err(Failure::Said(1)) } else { Ok(()) }
}

fn find(args: &DoctorArgs) -> Result<Project, Failure> {
    let path = &args.project;
    if !path.exists() {
        return Err(Failure::Wrong(anyhow!("`{}` is not there", path.display())));
    }
    // A project is found from a file in it.
    let file = if path.is_dir() { path.join("thresh.toml") } else { path.clone() };
    Project::find(&file, args.profile.as_deref()).map_err(|error| Failure::Wrong(error.into()))
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

fn profile(project: &Project) -> Finding {
    let file = project.root.join("thresh.toml");
    let endpoints = project.settings.endpoints.len();
    if file.is_file() {
        return Finding::fine("profile", format!("`{}` names {endpoints} endpoints", file.display()));
    }
    let said =
        format!("there is no thresh.toml above `{}`: what it would say has its defaults", project.root.display());
    Finding::lacking("profile", said, "write one where the project begins")
}

/// Whether results can be written, locked and have room.
fn store(project: &Project) -> Vec<Finding> {
    let path = project.store();
    let shown = path.display();
    let free = "choose another folder with `store = \"…\"` in thresh.toml, or make this one writable";
    let store = match Store::open(&path) {
        Ok(store) => store,
        Err(error) => return vec![Finding::wrong("writable", error.to_string(), free)],
    };
    let mut findings = vec![match written(store.root()) {
        Ok(()) => Finding::fine("writable", format!("`{shown}`")),
        Err(error) => Finding::wrong("writable", error.to_string(), free),
    }];
    findings.push(match locks(&store) {
        Ok(true) => Finding::fine("locks", "who computes a result keeps others from it"),
        Ok(false) => {
            Finding::wrong("locks", "two could compute the same result at once", "use a store on a local disk")
        }
        Err(reason) => Finding::wrong("locks", reason, "use a store on a disk that has locks"),
    });
    findings.push(match fs::room(&path) {
        None => Finding::lacking("room", "the system does not say how much there is", "nothing"),
        Some(room) if room < LITTLE_ROOM => Finding::lacking(
            "room",
            format!("only {} MiB are free", room >> 20),
            "`thresh gc` removes what no run needs",
        ),
        Some(room) => Finding::fine("room", format!("{} GiB are free", room >> 30)),
    });
    findings
}

fn written(folder: &Path) -> Result<(), fs::PathError> {
    let path = folder.join(format!("doctor-{}.tmp", std::process::id()));
    fs::write_whole(&path, b"is this disk writable?")?;
    fs::remove_file(&path)
}

/// Whether a lock keeps a second one away.
fn locks(store: &Store) -> Result<bool, String> {
    let name = format!("doctor-{}", std::process::id());
    let first = store.lock(&name).map_err(|error| error.to_string())?;
    let second = store.lock(&name).map_err(|error| error.to_string())?;
    Ok(first.is_some() && second.is_none())
}
