//! `command.run`: any program as a stage.

mod results;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf, absolute};
use std::process::Command;
use std::sync::atomic::Ordering;

use anyhow::{Context as _, anyhow, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataset::is_plain;
use crate::engine::graph::base;
use crate::engine::port::{Arity, Holds, PortSpec};
use crate::engine::stage::{Context, Problem, Stage, Stopped};
use crate::{child, fs};

pub use words::Words;

/// What programs are found in where the caller has no `PATH`.
const USUAL_PATH: &str = "/usr/bin:/bin";

/// Linux starts no program with a variable of 128 KiB or more.
const LONGEST_VARIABLE: usize = 120_000;

/// With less room on the disk, in bytes, that is the likely reason of a failure.
const LITTLE_ROOM: u64 = 1 << 20;

/// How many lines of a failed command's last words an error shows.
const LAST_WORDS: usize = 20;

/// Runs a program on the files of other stages.
///
/// The inputs may be of any kind and bear any names. The program finds them, and the places for its outputs, in two ways: as
/// placeholders in `command` (`{in.NAME}`, `{out.NAME}`, and `{project}` for the project's folder) and as the environment
/// variables `THRESH_INPUT_NAME` and `THRESH_OUTPUT_NAME`. It must not change its inputs.
///
/// An input that collects the instances of a matrix stands for all of their paths, in the order of the instances' names: in a
/// list of words `{in.NAME}` alone becomes as many words, in a text for the shell the paths are parted by spaces, in the
/// variable by line ends. `{in.NAME[seed=2]}` is one of them. Linux takes no text longer than 128 KiB, some 800 paths: a variable
/// that would be longer is not set, and more paths than that want a list of words.
///
/// It runs in an empty folder of its own and with an empty environment but for `PATH`, `HOME`, `LANG`, `PYTHONDONTWRITEBYTECODE` and what `env` names,
/// so that its results do not depend on who calls. Results are kept as long as `command`, `outputs`, `env`, the inputs and the
/// content of `files` stay the same; so name every script and setting that it reads under `files`. When the run is stopped
/// or killed, the program dies with everything that it started. Linux only.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandRun {
    /// The program and its arguments, as a list; or one text for `sh -c`, into which paths are put in quotes.
    pub command: Words,
    /// What it writes: at least one.
    pub outputs: BTreeMap<String, Output>,
    /// Environment variables for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Files and folders of the project that it reads. When their content changes, it runs again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
}

/// Something that a command writes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Where the command writes it, relative to its working folder: a Parquet file, a folder, or another file (which then is
    /// a folder with this one file for the stages that read it).
    pub path: String,
    /// The row type of a Parquet file, or the format of a folder: with it, stages that want that type can read the output.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
}

impl Output {
    /// Whether it is a table.
    fn is_table(&self) -> bool {
        self.path.ends_with(".parquet")
    }
}

impl Stage for CommandRun {
    const KIND: &'static str = "command.run";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = r#"scores:
  kind: command.run
  in: {episodes: evaluate.episodes}
  with:
    command: [python3, "{project}/scripts/score.py", "{in.episodes}", "{out.scores}"]
    files: [scripts/score.py]
    outputs: {scores: {path: scores.parquet}}
"#;

    fn inputs(&self) -> Vec<PortSpec> {
        vec![PortSpec { name: "inputs".to_owned(), holds: Holds::Anything, arity: Arity::Many }]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        let port = |(name, output): (&String, &Output)| {
            let holds = match &output.holds {
                None => Holds::Anything,
                Some(row) if output.is_table() => Holds::Table(row.clone()),
                Some(format) => Holds::Folder(format.clone()),
            };
            PortSpec { name: name.clone(), holds, arity: Arity::One }
        };
        self.outputs.iter().map(port).collect()
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = self.command.problems();
        problems.extend(self.output_problems());
        for name in self.command.outputs().into_iter().filter(|name| !self.outputs.contains_key(name)) {
            problems.push(Problem::new("command", format!("names `{{out.{name}}}`, but `outputs` has no `{name}`")));
        }
        for (name, value) in &self.env {
            let field = format!("env.{name}");
            if !is_variable(name) {
                problems.push(Problem::new(field, "is no name of an environment variable"));
            } else if name.starts_with("THRESH_") {
                problems.push(Problem::new(field, "starts with `THRESH_`, which is kept for inputs and outputs"));
            } else if value.contains('\0') {
                problems.push(Problem::new(field, "holds a character that no variable can hold"));
            }
        }
        for file in self.files.iter().filter(|file| !is_plain(file)) {
            problems.push(Problem::new(
                "files",
                format!("names `{file}`, which is no plain path below the project's folder"),
            ));
        }
        problems
    }

    fn check_inputs(&self, connected: &[&str]) -> Vec<Problem> {
        let names: BTreeSet<&str> = connected.iter().flat_map(|name| [*name, base(name)]).collect();
        let known = || match names.is_empty() {
            true => "nothing is connected".to_owned(),
            false => {
                format!("connected are {}", names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
            }
        };
        let unknown = self.command.inputs().into_iter().filter(|name| !names.contains(name.as_str()));
        unknown.map(|name| Problem::new("command", format!("names `{{in.{name}}}`, but {}", known()))).collect()
    }

    fn also_depends_on(&self, project: &Path) -> anyhow::Result<Vec<(String, String)>> {
        let mut parts = Vec::new();
        for file in &self.files {
            hash_content(project, Path::new(file), &mut parts)?;
        }
        Ok(parts)
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let work = absolute(&context.scratch)?;
        // What an interrupted run left must not mix with this one's results.
        fs::remove_dir_all(&work)?;
        fs::create_dir_all(&work)?;
        let outcome = self.run_in(&work, context);
        // Of no use to anybody: a further attempt starts from nothing, and the disk may be full of it.
        let removed = fs::remove_dir_all(&work);
        outcome?;
        Ok(removed?)
    }
}

impl CommandRun {
    fn run_in(&self, work: &Path, context: &Context) -> anyhow::Result<()> {
        let command = self.prepare(context, work)?;
        let log = context.log("output.txt")?;
        let program = command.get_program().to_string_lossy();
        let ended =
            child::run(&command, &fs::create(&log)?, context.lock.as_deref(), || context.stop.load(Ordering::Relaxed))
                .with_context(|| format!("cannot start `{program}`"))?;
        context.took(ended.usage);
        let Some(status) = ended.status else { bail!(Stopped) };
        if !status.success() {
            let how = child::describe(status);
            bail!("the command failed: {how}{}{}", little_room(work), last_words(&log));
        }
        for (name, output) in &self.outputs {
            results::take(name, output, work, &context.out)?;
        }
        // What was said stays with the run; most commands say nothing.
        if log.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            fs::remove_file(log)?;
        }
        Ok(())
    }

    fn output_problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.outputs.is_empty() {
            problems.push(Problem::new("outputs", "must name at least one output"));
        }
        for (name, output) in &self.outputs {
            let field = format!("outputs.{name}");
            let legal = |one: char| one.is_ascii_alphanumeric() || one == '_' || one == '-';
            if !name.starts_with(|first: char| first.is_ascii_alphabetic()) || !name.chars().all(legal) {
                problems
                    .push(Problem::new(&field, "must start with a letter and hold letters, digits, `_` and `-` only"));
            }
            if !is_plain(&output.path) {
                let message = format!("is `{}`, which is no plain path below the working folder", output.path);
                problems.push(Problem::new(format!("{field}.path"), message));
            }
            for (other, theirs) in self.outputs.range::<String, _>(..name) {
                if variable(other) == variable(name) {
                    problems.push(Problem::new(&field, format!("shares `{}` with `{other}`", variable(name))));
                }
                let (ours, theirs) = (Path::new(&output.path), Path::new(&theirs.path));
                if ours.starts_with(theirs) || theirs.starts_with(ours) {
                    problems.push(Problem::new(format!("{field}.path"), format!("overlaps the path of `{other}`")));
                }
            }
        }
        problems
    }

    /// The command with its environment and working folder, every placeholder replaced.
    fn prepare(&self, context: &Context, work: &Path) -> anyhow::Result<Command> {
        let project = absolute(&context.project)?;
        let mut inputs: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for input in &context.inputs {
            let path = absolute(&input.path)?;
            // What is collected from a matrix also goes by the name that the pipeline gives to all of it.
            let all = base(&input.name);
            if all != input.name {
                inputs.entry(all.to_owned()).or_default().push(path.clone());
            }
            inputs.entry(input.name.clone()).or_default().push(path);
        }
        let outputs: BTreeMap<String, Vec<PathBuf>> =
            self.outputs.iter().map(|(name, output)| (name.clone(), vec![work.join(&output.path)])).collect();
        let mut command =
            self.command.command(&words::Places { project: &project, inputs: &inputs, outputs: &outputs })?;
        command.current_dir(work).env_clear();
        for name in ["PATH", "HOME", "LANG"] {
            match (std::env::var_os(name), name) {
                (Some(value), _) => command.env(name, value),
                (None, "PATH") => command.env(name, USUAL_PATH),
                (None, _) => &mut command,
            };
        }
        // Python would write its caches into folders that `files` names, and they would count as changes.
        command.env("PYTHONDONTWRITEBYTECODE", "1").envs(&self.env);
        for (prefix, paths) in [("THRESH_INPUT_", &inputs), ("THRESH_OUTPUT_", &outputs)] {
            let mut taken = BTreeMap::new();
            // An instance alone has no variable: its name would hardly be one.
            for (name, paths) in paths.iter().filter(|(name, _)| base(name) == *name) {
                let other = taken.insert(variable(name), name);
                ensure!(other.is_none(), "`{}` and `{name}` share `{prefix}{}`", other.unwrap_or(name), variable(name));
                let lines: Vec<&OsStr> = paths.iter().map(|path| path.as_os_str()).collect();
                let lines = lines.join(OsStr::new("\n"));
                if lines.len() <= LONGEST_VARIABLE {
                    command.env(format!("{prefix}{}", variable(name)), lines);
                }
            }
        }
        Ok(command)
    }
}

/// A port's name as part of an environment variable.
fn variable(name: &str) -> String {
    name.chars().map(|one| if one.is_ascii_alphanumeric() { one.to_ascii_uppercase() } else { '_' }).collect()
}

fn is_variable(name: &str) -> bool {
    let legal = |one: char| one.is_ascii_alphanumeric() || one == '_';
    name.starts_with(|first: char| legal(first) && !first.is_ascii_digit()) && name.chars().all(legal)
}

/// Says so where the disk is about full: the command's own last words may be missing for the same reason.
fn little_room(folder: &Path) -> String {
    match fs::room(folder) {
        Some(room) if room < LITTLE_ROOM => format!("; the disk of `{}` has {room} bytes left", folder.display()),
        _ => String::new(),
    }
}

/// The end of a log.
fn last_words(log: &Path) -> String {
    match child::last_lines(log, LAST_WORDS) {
        Ok(lines) if !lines.trim().is_empty() => {
            let lines = lines.replace('\n', "\n  ");
            format!("; it ended with these lines (all are in `{}`):\n  {lines}", log.display())
        }
        _ => "; it printed nothing".to_owned(),
    }
}

/// A file's hash, or those of all files in a folder.
fn hash_content(project: &Path, path: &Path, parts: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    let full = project.join(path);
    if full.is_dir() {
        ensure!(!full.is_symlink(), "`files`: `{}` is a link to a folder; name the folder itself", path.display());
        for entry in fs::list(&full)? {
            let name = entry.file_name().ok_or_else(|| anyhow!("`{}` has no name", entry.display()))?;
            hash_content(project, &path.join(name), parts)?;
        }
        return Ok(());
    }
    // A pipe would be read for ever.
    ensure!(!full.exists() || full.is_file(), "`files`: `{}` is neither a file nor a folder", path.display());
    parts.push((format!("file `{}`", path.display()), format!("blake3 {}", fs::digest(&full)?.hex)));
    Ok(())
}

#[cfg(test)]
mod tests;
