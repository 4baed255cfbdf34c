//! The command line: one file a command. Data goes to stdout, everything else to stderr.

mod book;
mod chat;
mod check;
mod compare;
mod completions;
mod compute;
mod doctor;
mod export;
mod gc;
mod graph;
mod help;
mod init;
mod kinds;
mod log;
mod man;
mod manual;
mod model;
mod names;
mod path;
mod pipeline;
mod plan;
mod reference;
mod report;
mod run;
mod runs;
mod schema;
mod selection;
mod serve;
mod show;
mod source;
mod sql;
mod tag;
mod view;
mod watch;
mod why;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, FromArgMatches as _, Parser, Subcommand};

use serde::Serialize;

use crate::child;
use crate::config::{self, Diagnostics, Pipeline, Project};
use crate::engine::graph::Graph;
use crate::engine::history::{self, RunRecord};
use crate::engine::labels;
use crate::engine::stage::in_full;
use crate::engine::store::{Artifact, Store};
use crate::fs;
use crate::report::tell;
use crate::stages::{self, Extension};

pub use help::command;
pub use manual::commands;

/// Declarative pipelines for self-training dialogue agents from sparse rewards.
///
/// A pipeline is a YAML file of stages that read each other's results. `thresh` computes those that are missing and keeps all
/// of them as Parquet, so that runs can be compared, looked into and taken along.
#[derive(Parser)]
#[command(name = "thresh", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

/// What every command takes.
#[derive(Args, Clone, Debug, Default)]
struct Common {
    /// Answer in JSON: one object, or one a line where there are several.
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing on stderr but warnings and errors.
    #[arg(long, short, global = true)]
    quiet: bool,
    /// The project's folder: as if started there.
    #[arg(long, value_name = "DIR", global = true)]
    project: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Write a commented starter project.
    Init(init::InitArgs),
    /// Check a pipeline file: every mistake at once, nothing is run.
    Check(PipelineArgs),
    /// Draw the stages of a pipeline or a run.
    Graph(graph::GraphArgs),
    /// List the kinds of stages, or document one.
    Kinds(kinds::KindsArgs),
    /// Look whether what a run needs works, and say what to do.
    Doctor(doctor::DoctorArgs),
    /// Say what a run would compute, and why.
    Plan(plan::PlanArgs),
    /// Run a pipeline: compute what is missing.
    Run(run::RunArgs),
    /// Explain why a stage would run: the first cause, field by field.
    Why(why::WhyArgs),
    /// List the runs of this project: filtered, sorted, with tags.
    Runs(runs::RunsArgs),
    /// Write tags on a run; it can be called by them.
    Tag(tag::TagArgs),
    /// Write a note on a run.
    Note(tag::NoteArgs),
    /// Look at one dialogue, one tree, or two dialogues side by side.
    View(view::ViewArgs),
    /// Show what a run did: times, memory, figures, and what was said.
    Log(log::LogArgs),
    /// Show a table: its columns and first rows.
    Show(show::ShowArgs),
    /// Ask tables of any runs with SQL.
    Sql(sql::SqlArgs),
    /// Print where a result lies.
    Path(path::PathArgs),
    /// Compare runs: what differs in parameters, results and scores.
    Compare(compare::CompareArgs),
    /// Write one page about runs that needs no network.
    Report(report::ReportArgs),
    /// Write results out of the store as files.
    Export(export::ExportArgs),
    /// Look at a model, ask it for logits, write it in another form.
    Model(model::ModelArgs),
    /// Talk to a model: of a file, of a folder, or behind an address.
    Chat(chat::ChatArgs),
    /// Serve a model of our own over OpenAI's API.
    Serve(serve::ServeArgs),
    /// Remove from the store what no kept run needs.
    Gc(gc::GcArgs),
    /// Keep a run and its results whatever `thresh gc` removes.
    Pin(gc::PinArgs),
    /// Print what a shell needs to complete commands and names.
    Completions(completions::CompletionsArgs),
    /// Print a manual page, or write all of them.
    Man(man::ManArgs),
    /// Write the JSON Schemas of pipelines and tables.
    Schema(schema::SchemaArgs),
}

/// What every command that reads a pipeline takes.
#[derive(Args, Clone)]
struct PipelineArgs {
    /// The pipeline file.
    pipeline: PathBuf,
    /// Change a value: `stage.parameter=VALUE` or `params.name=VALUE`.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// The profile of thresh.toml.
    #[arg(long)]
    profile: Option<String>,
}

impl PipelineArgs {
    /// The pipeline file: as given from the current folder, else from the project's.
    ///
    /// # Errors
    /// When it is in neither; what it may have been meant to be is said.
    fn file(&self) -> Result<PathBuf, Failure> {
        pipeline::find(&self.pipeline)
    }
}

/// Why a command ended without what was asked for.
#[derive(Debug)]
enum Failure {
    /// The pipeline or the command is wrong: exit code 2.
    Wrong(anyhow::Error),
    /// Something failed on the way: exit code 1.
    Failed(anyhow::Error),
    /// All is said already; the exit code.
    Said(u8),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        // A reader that went away (`thresh show … | head`) is no failure.
        let gone = error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        if gone { Self::Said(0) } else { Self::Failed(error) }
    }
}

type Outcome = Result<(), Failure>;

/// Runs the command of the process's arguments.
pub fn main() -> ExitCode {
    main_with(Extension { kinds: &[], rows: &[] })
}

/// Runs the command of the process's arguments with kinds of one's own beside ours: what a program does that adds some. All
/// commands know them, `kinds` and `schema` too.
pub fn main_with(extension: Extension) -> ExitCode {
    child::outlive_limits();
    if let Err(error) = extend(extension) {
        return fail(&error, 2);
    }
    if let Some(words) = names::asked() {
        return names::answer(&words);
    }
    let cli = Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit());
    if let Some(folder) = &cli.common.project
        && let Err(error) = std::env::set_current_dir(folder)
    {
        return fail(&anyhow::anyhow!("cannot go to the project `{}`: {error}", folder.display()), 2);
    }
    crate::report::quiet(cli.common.quiet);
    let outcome = match cli.command {
        Command::Run(args) => run::run(&args, &cli.common),
        Command::Init(args) => init::run(&args, &cli.common),
        Command::View(args) => view::run(&args, &cli.common),
        Command::Plan(args) => plan::run(&args, &cli.common),
        Command::Why(args) => why::run(&args, &cli.common),
        Command::Check(args) => check::run(&args, &cli.common),
        Command::Graph(args) => graph::run(&args, &cli.common),
        Command::Runs(args) => runs::run(&args, &cli.common),
        Command::Tag(args) => tag::run(&args, &cli.common),
        Command::Note(args) => tag::run_note(&args, &cli.common),
        Command::Log(args) => log::run(&args, &cli.common),
        Command::Show(args) => show::run(&args, &cli.common),
        Command::Sql(args) => sql::run(&args, &cli.common),
        Command::Report(args) => report::run(&args, &cli.common),
        Command::Compare(args) => compare::run(&args, &cli.common),
        Command::Path(args) => path::run(&args, &cli.common),
        Command::Export(args) => export::run(&args, &cli.common),
        Command::Gc(args) => gc::run(&args, &cli.common),
        Command::Pin(args) => gc::run_pin(&args, &cli.common),
        Command::Model(args) => model::run(&args, &cli.common),
        Command::Chat(args) => chat::run(&args, &cli.common),
        Command::Doctor(args) => doctor::run(&args, &cli.common),
        Command::Serve(args) => serve::run(&args, &cli.common),
        Command::Kinds(args) => kinds::run(&args, &cli.common),
        Command::Completions(args) => completions::run(&args, &cli.common),
        Command::Man(args) => man::run(&args, &cli.common),
        Command::Schema(args) => schema::run(&args, &cli.common),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Said(code)) => ExitCode::from(code),
        Err(Failure::Failed(error)) => fail(&error, 1),
        Err(Failure::Wrong(error)) => fail(&error, 2),
    }
}

/// Adds kinds, each with an example that says what its ports are.
fn extend(extension: Extension) -> anyhow::Result<()> {
    stages::extend(extension)?;
    match extension.kinds.iter().find(|kind| config::ports(kind).is_none()) {
        Some(kind) => {
            anyhow::bail!("the example of the kind `{}` is no stage of its own:\n{}", kind.name, kind.example)
        }
        None => Ok(()),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    match error.downcast_ref::<Diagnostics>() {
        Some(diagnostics) => tell(diagnostics.render(colour()).trim_end()),
        None => tell(format!("error: {}", in_full(error))),
    }
    ExitCode::from(code)
}

/// Whether stderr shows colours: a terminal does, unless `NO_COLOR` is set; anything does with `CLICOLOR_FORCE`.
fn colour() -> bool {
    anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
}

/// A pipeline, its project and its store.
struct Opened {
    pipeline: Pipeline,
    project: Project,
    store: Store,
}

fn project(args: &PipelineArgs) -> Result<Project, Failure> {
    Project::find(&args.file()?, args.profile.as_deref()).map_err(|error| Failure::Wrong(error.into()))
}

fn load(args: &PipelineArgs) -> Result<Pipeline, Failure> {
    config::load(&args.file()?, &args.set).map_err(|error| Failure::Wrong(error.into()))
}

fn open(args: &PipelineArgs) -> Result<Opened, Failure> {
    let project = project(args)?;
    let pipeline = load(args)?;
    let store = Store::open(project.store())?;
    Ok(Opened { pipeline, project, store })
}

/// Where an artifact lies, its bytes found to be those that were written. A damaged result is discarded, so that the next
/// run computes it again.
fn intact(store: &Store, fingerprint: &str, artifact: &Artifact) -> Result<PathBuf, Failure> {
    match store.damage(fingerprint, artifact)? {
        None => Ok(store.path(fingerprint, artifact)),
        Some(what) => {
            if let Err(why) = store.discard_damaged(fingerprint) {
                return Err(Failure::Failed(anyhow::anyhow!("{what}, and it cannot be thrown away: {why}")));
            }
            Err(Failure::Failed(anyhow::anyhow!("{what}; the result is discarded, `thresh run` computes it again")))
        }
    }
}

/// The records of all runs, the newest first; of damaged ones the user is told.
fn records(store: &Store) -> Result<Vec<RunRecord>, Failure> {
    let mut records = told(history::read_all(store)?);
    for path in labels::put_on(store, &mut records)? {
        tell(format!("warning: the tags and the note in `{}` are damaged; they are left out", path.display()));
    }
    Ok(records)
}

/// The records that tell of each stage what became of it last, the newest first; of damaged ones the user is told.
fn recent(store: &Store, graph: &Graph) -> Result<Vec<RunRecord>, Failure> {
    let names: Vec<&str> = graph.nodes.iter().map(|node| node.name.as_str()).collect();
    Ok(told(history::recent(store, &graph.name, &names)?))
}

fn told((records, damaged): (Vec<RunRecord>, Vec<PathBuf>)) -> Vec<RunRecord> {
    for path in damaged {
        tell(format!("warning: the record `{}` is damaged; its run is left out", fs::short(path).display()));
    }
    records
}

/// Writes a value as one line of JSON to stdout.
fn say_json(value: &impl Serialize) -> Outcome {
    Ok(say(serde_json::to_string(value)?)?)
}

/// Writes a line to stdout.
fn say(text: impl AsRef<str>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref().as_bytes())?;
    out.write_all(b"\n")
}

/// The index of a stage of a pipeline, or a message that suggests one.
fn stage_index(pipeline: &Pipeline, name: &str) -> Result<usize, Failure> {
    pipeline.graph.find(name).ok_or_else(|| {
        let names = pipeline.graph.nodes.iter().map(|node| node.name.as_str());
        let hint = match config::diagnostic::nearest(name, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`thresh graph` shows the stages".to_owned(),
        };
        Failure::Wrong(anyhow::anyhow!("unknown stage `{name}`; {hint}"))
    })
}

/// The indices of the stages of these names; the bare name of a matrix stands for all of its stages.
fn stage_indices(pipeline: &Pipeline, names: &[String]) -> Result<Vec<usize>, Failure> {
    let mut found = Vec::new();
    for name in names {
        match pipeline.graph.find_all(name).as_slice() {
            [] => found.push(stage_index(pipeline, name)?),
            all => found.extend(all),
        }
    }
    Ok(found)
}

/// Says it where a model is asked to reply on a device that only trains.
fn tell_who_replies(device: &str) {
    if device == "wgpu" {
        tell("warning: replies are computed on the processor; `wgpu` only trains");
    }
}
