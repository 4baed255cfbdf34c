//! `thresh __complete -- WORDS`, which shells ask for names: of pipelines, runs, stages, outputs, kinds, profiles, endpoints.

use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, Command};

use super::{PipelineArgs, command, pipeline, say};
use crate::config::{Pipeline, Project};
use crate::engine::history::{self, RunRecord};
use crate::engine::store::Store;
use crate::stages;

/// The words behind `thresh` of the command line to complete, where a shell asks. It is none of clap's commands: the
/// completions that are generated would offer it.
pub(super) fn asked() -> Option<Vec<String>> {
    let mut words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    (words.next()? == "__complete" && words.next()? == "--").then(|| words.collect())
}

/// Prints the names that the last word may become, one a line; nothing where it is no name or anything is wrong: who presses
/// a key in the middle of a line wants no message.
pub(super) fn answer(words: &[String]) -> ExitCode {
    // Who asked may be gone.
    let _ = candidates(words).unwrap_or_default().iter().try_for_each(say);
    ExitCode::SUCCESS
}

/// What can be known of an argument.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Slot {
    Pipeline,
    PipelineName,
    Run,
    Reference,
    StageOfPipeline,
    StageOfRun,
    Output,
    KindOfStage,
    Profile,
    Endpoint,
}

/// What an argument of a command takes, by its name in the code.
fn kind(command: &str, argument: &str) -> Option<Slot> {
    Some(match (command, argument) {
        ("runs", "pipeline") => Slot::PipelineName,
        (_, "pipeline") => Slot::Pipeline,
        ("log", "stage") => Slot::StageOfRun,
        ("why", "stage") | ("run", "force" | "upto" | "downstream" | "only") => Slot::StageOfPipeline,
        ("path", "output") | ("export", "outputs") => Slot::Output,
        ("log" | "pin" | "tag" | "note", "run") | ("report", "runs") => Slot::Run,
        ("show", "target") | ("view", "targets") | ("compare", "arms") => Slot::Reference,
        ("kinds", "kind") => Slot::KindOfStage,
        (_, "profile") => Slot::Profile,
        ("doctor", "endpoint") => Slot::Endpoint,
        _ => return None,
    })
}

/// Whether there are names for an argument of a command.
pub(super) fn known(command: &str, argument: &str) -> bool {
    kind(command, argument).is_some()
}

/// A command line up to the word to complete.
#[derive(Debug, Default, PartialEq)]
struct Line {
    /// The path of the command, as in `model inspect`.
    command: String,
    /// The positional arguments so far: the name in the code, and the value.
    given: Vec<(String, String)>,
    /// The argument that the last word is of.
    argument: Option<String>,
    /// The value of `--project`.
    project: Option<String>,
}

/// Reads the words before the last one as the binary would.
fn line(root: &Command, words: &[String], last: &str) -> Line {
    let (mut line, mut at, mut open): (Line, &Command, Option<&Arg>) = (Line::default(), root, None);
    for word in words {
        if let Some(option) = open.take() {
            if option.get_id() == "project" {
                line.project = Some(word.clone());
            }
        } else if let Some(option) = word.strip_prefix("--") {
            let takes = |arg: &&Arg| arg.get_long() == Some(option) && arg.get_action().takes_values();
            open = at.get_opts().find(takes);
        } else if word.starts_with('-') {
            let short = word.chars().nth(1).filter(|_| word.chars().count() == 2);
            open = at
                .get_opts()
                .find(|arg| arg.get_short() == short && short.is_some() && arg.get_action().takes_values());
        } else if let Some(inner) = at.find_subcommand(word) {
            at = inner;
            line.command = format!("{} {word}", line.command).trim_start().to_owned();
        } else if let Some(arg) = positional(at, line.given.len()) {
            line.given.push((arg.get_id().to_string(), word.clone()));
        }
    }
    let argument = match open {
        Some(option) => Some(option),
        None if last.starts_with('-') || at.has_subcommands() => None,
        None => positional(at, line.given.len()),
    };
    line.argument = argument.map(|arg| arg.get_id().to_string());
    line
}

/// A command's argument of this place; the last one takes the rest where it takes several.
fn positional(command: &Command, place: usize) -> Option<&Arg> {
    let several = |arg: &&Arg| arg.get_num_args().is_some_and(|range| range.max_values() > 1);
    command.get_positionals().nth(place).or_else(|| command.get_positionals().last().filter(several))
}

fn candidates(words: &[String]) -> Option<Vec<String>> {
    let (last, before) = words.split_last()?;
    let mut root = command();
    root.build();
    let line = line(&root, before, last);
    let mut kind = kind(&line.command, line.argument.as_deref()?)?;
    if let Some(project) = &line.project {
        std::env::set_current_dir(project).ok()?;
    }
    let file = line.given.first().map(|(_, value)| value.as_str());
    // A pipeline in front of it: `thresh show pipelines/p.yaml stage.port`.
    if kind == Slot::Reference && file.is_some_and(|file| file.ends_with(".yaml") || file.ends_with(".yml")) {
        kind = Slot::Output;
    }
    let mut found = names(kind, file, last)?;
    found.retain(|name| name.starts_with(last.as_str()));
    Some(found)
}

/// The names of a kind; `first` is the first positional argument, `last` the word so far.
fn names(kind: Slot, first: Option<&str>, last: &str) -> Option<Vec<String>> {
    let project = Project::find(Path::new("any"), None).ok()?;
    let owned = |names: Vec<&String>| names.into_iter().cloned().collect();
    Some(match kind {
        Slot::KindOfStage => stages::kinds().map(|kind| kind.name.to_owned()).collect(),
        Slot::Profile => owned(project.settings.profiles.keys().collect()),
        Slot::Endpoint => owned(project.settings.endpoints.keys().collect()),
        Slot::Pipeline => {
            let here = std::env::current_dir().ok()?;
            let known = pipeline::known(&here, &project.root);
            known.iter().map(|path| path.to_string_lossy().into_owned()).collect()
        }
        Slot::StageOfPipeline => stages_of(&pipeline(first?)?),
        Slot::Output => outputs(&pipeline(first?)?),
        Slot::PipelineName => pipelines(&records(&project)?),
        Slot::StageOfRun => {
            let records = records(&project)?;
            let run = super::reference::run_of(&records, first?).ok()?;
            run.stages.iter().map(|stage| stage.name.clone()).collect()
        }
        Slot::Run => runs(&records(&project)?),
        Slot::Reference => references(&project, last)?,
    })
}

fn pipeline(file: &str) -> Option<Pipeline> {
    super::load(&PipelineArgs { pipeline: file.into(), set: Vec::new(), profile: None }).ok()
}

fn stages_of(pipeline: &Pipeline) -> Vec<String> {
    pipeline.graph.nodes.iter().map(|node| node.name.clone()).collect()
}

fn outputs(pipeline: &Pipeline) -> Vec<String> {
    let nodes = pipeline.graph.nodes.iter();
    nodes.flat_map(|node| node.stage.outputs().into_iter().map(|port| format!("{}.{}", node.name, port.name))).collect()
}

fn records(project: &Project) -> Option<Vec<RunRecord>> {
    // Where there is no store, none is made.
    let store = project.store().is_dir().then(|| Store::open(project.store()))?.ok()?;
    Some(history::read_all(&store).ok()?.0)
}

/// Runs, and `stage.port` of the newest; once a run is named, its outputs.
fn references(project: &Project, last: &str) -> Option<Vec<String>> {
    let records = records(project)?;
    let store = Store::open(project.store()).ok()?;
    let named = runs(&records).into_iter().filter(|name| last.starts_with(&format!("{name}."))).max_by_key(String::len);
    let run = match &named {
        Some(name) => super::reference::run_of(&records, name).ok()?,
        None => records.first()?,
    };
    let prefix = named.as_ref().map(|name| format!("{name}.")).unwrap_or_default();
    let mut found = if named.is_none() { runs(&records) } else { Vec::new() };
    for stage in &run.stages {
        let manifest = super::reference::result(&store, stage).ok().flatten();
        let ports = manifest.map(|manifest| manifest.outputs.into_keys().collect::<Vec<_>>()).unwrap_or_default();
        found.extend(ports.into_iter().map(|port| format!("{prefix}{}.{port}", stage.name)));
    }
    Some(found)
}

fn pipelines(records: &[RunRecord]) -> Vec<String> {
    let mut names: Vec<String> = records.iter().map(|record| record.pipeline.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// What runs can be called: `latest`, their pipelines, their tags, and their own names.
fn runs(records: &[RunRecord]) -> Vec<String> {
    let own = records.iter().map(|record| record.run.clone());
    let tags = records.iter().flat_map(|record| record.labels.tags.iter().cloned());
    std::iter::once("latest".to_owned()).chain(pipelines(records)).chain(tags).chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, Option<String>) {
        let mut root = command();
        root.build();
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let (last, before) = words.split_last().unwrap();
        let line = line(&root, before, last);
        (line.command, line.argument)
    }

    #[test]
    fn the_word_to_complete_is_found_among_options() {
        for (text, command, argument) in [
            ("run ", "run", Some("pipeline")),
            ("run p.yaml --keep-going --force ", "run", Some("force")),
            ("run p.yaml -k --upto a --only b", "run", Some("only")),
            ("--json why --set a.b=1 p.yaml st", "why", Some("stage")),
            ("export p.yaml a.b c.d ", "export", Some("outputs")),
            ("model inspect ", "model inspect", Some("path")),
            ("pin a b ", "pin", None),
            ("run --fo", "run", None),
            ("mod", "", None),
        ] {
            assert_eq!(read(text), (command.to_owned(), argument.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn every_kind_of_name_belongs_to_an_argument_that_there_is() {
        let root = command();
        let mut seen = Vec::new();
        for (name, one) in super::super::commands(&root) {
            seen.extend(one.get_arguments().filter_map(|arg| kind(&name, arg.get_id().as_str())));
        }
        for kind in
            [Slot::Pipeline, Slot::PipelineName, Slot::Run, Slot::Reference, Slot::StageOfPipeline, Slot::StageOfRun]
        {
            assert!(seen.contains(&kind), "{kind:?}");
        }
        for kind in [Slot::Output, Slot::KindOfStage, Slot::Profile, Slot::Endpoint] {
            assert!(seen.contains(&kind), "{kind:?}");
        }
    }
}
