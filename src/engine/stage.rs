//! What a stage is: parameters, ports, and the work.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, anyhow};
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use super::port::{Folder, Port, PortSpec};
use crate::table::{self, Row, TableReader, TableWriter};

/// A parameter whose value is of the right type and still wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The parameter: `beam`, or a path into it: `outputs.scores`.
    pub field: String,
    /// What is wrong, lower case: "must be at least 1".
    pub message: String,
}

impl Problem {
    /// A problem with a parameter.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// A stage: its type's fields are the parameters (the `with:` of a pipeline), its docstring the documentation.
///
/// A stage reads its input ports and writes its output ports through [`Context`], and nothing else decides what it writes:
/// no clock, no environment, no chance that a parameter does not seed. The same parameters and inputs give the same bytes.
///
/// Implementors derive `Serialize`, `Deserialize` and `JsonSchema`, carry `#[serde(deny_unknown_fields)]`, and give every
/// parameter that has a sensible default a `#[serde(default = "…")]`.
pub trait Stage: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The kind that pipelines name: `family.verb`; its file is `stages/family_verb.rs`.
    const KIND: &'static str;

    /// Rises whenever the same parameters and inputs give other results than before.
    const VERSION: u32;

    /// A stage of this kind as it stands in a pipeline, for the documentation.
    const EXAMPLE: &'static str;

    /// The ports that it reads.
    fn inputs(&self) -> Vec<PortSpec>;

    /// The ports that it writes.
    fn outputs(&self) -> Vec<PortSpec>;

    /// What is wrong with the parameters beyond their types; all of it, not the first.
    fn check(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// What the result depends on beyond parameters and inputs, such as the content of a file that a parameter names: it
    /// becomes part of the fingerprint. Called before every plan, so it must be quick.
    fn also_depends_on(&self, _project: &Path) -> anyhow::Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    /// Does the work. Blocking is right: every stage runs on a thread of its own.
    fn run(&self, context: &Context) -> anyhow::Result<()>;
}

/// A stage of any kind, as the engine runs it.
pub trait AnyStage: Send + Sync {
    /// The kind's name.
    fn kind(&self) -> &'static str;
    /// The kind's version.
    fn version(&self) -> u32;
    /// The parameters, defaults filled in.
    fn parameters(&self) -> serde_json::Value;
    /// See [`Stage::inputs`].
    fn inputs(&self) -> Vec<PortSpec>;
    /// See [`Stage::outputs`].
    fn outputs(&self) -> Vec<PortSpec>;
    /// See [`Stage::check`].
    fn check(&self) -> Vec<Problem>;
    /// See [`Stage::also_depends_on`].
    fn also_depends_on(&self, project: &Path) -> anyhow::Result<Vec<(String, String)>>;
    /// See [`Stage::run`].
    fn run(&self, context: &Context) -> anyhow::Result<()>;
}

impl<S: Stage> AnyStage for S {
    fn kind(&self) -> &'static str {
        S::KIND
    }

    fn version(&self) -> u32 {
        S::VERSION
    }

    fn parameters(&self) -> serde_json::Value {
        // Parameters came from text, so they can be written as text again.
        serde_json::to_value(self)
            .unwrap_or_else(|error| panic!("parameters of `{}` cannot be written: {error}", S::KIND))
    }

    fn inputs(&self) -> Vec<PortSpec> {
        Stage::inputs(self)
    }

    fn outputs(&self) -> Vec<PortSpec> {
        Stage::outputs(self)
    }

    fn check(&self) -> Vec<Problem> {
        Stage::check(self)
    }

    fn also_depends_on(&self, project: &Path) -> anyhow::Result<Vec<(String, String)>> {
        Stage::also_depends_on(self, project)
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        Stage::run(self, context)
    }
}

/// An artifact that a stage reads.
#[derive(Clone, Debug)]
pub struct Input {
    /// The input port, or for a port that takes many the user's name for it.
    pub name: String,
    /// The Parquet file or the folder.
    pub path: PathBuf,
}

/// What a stage says while it runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// How far it is.
    Progress { done: u64, total: u64, unit: &'static str, detail: String },
    /// Something that the user should know although the stage goes on.
    Warning(String),
    /// A figure of this run that is no part of the result: seconds, rows taken from a journal.
    Figure { name: String, value: f64 },
}

/// Where notices go.
pub type Notify = Arc<dyn Fn(Notice) + Send + Sync>;

/// Where a stage runs: what the profile says. Never part of a fingerprint.
pub trait Profile: Send + Sync {
    /// The device for tensors: `cpu`, `wgpu`, `cuda:0`.
    fn device(&self) -> &str;

    /// An endpoint's settings by the name that a pipeline gives the model, or `None` where the profile names none.
    fn endpoint(&self, model: &str) -> Option<Endpoint>;
}

/// How a served model is reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// The base address, up to and with `/v1`.
    pub url: String,
    /// The model's name at that address.
    pub model: String,
    /// The environment variable that holds the key, where one is needed.
    pub key_env: Option<String>,
    /// The most requests in flight at once.
    pub in_flight: usize,
    /// Seconds that one whole call may take.
    pub timeout: f64,
    /// How often a call is tried again after 429, 5xx and broken connections.
    pub retries: u32,
}

/// What a running stage may touch.
pub struct Context {
    /// The connected inputs.
    pub inputs: Vec<Input>,
    /// The folder that receives the outputs: `PORT.parquet` or `PORT/`.
    pub out: PathBuf,
    /// A folder that outlives an interrupted run, to go on from: empty on a first run, removed when the stage is done.
    pub scratch: PathBuf,
    /// The project's root: relative paths in parameters start here.
    pub project: PathBuf,
    /// Where the stage runs.
    pub profile: Arc<dyn Profile>,
    /// Set when the run is being stopped.
    pub stop: Arc<AtomicBool>,
    /// Receives what the stage says.
    pub notify: Notify,
}

impl Context {
    /// The path of a connected input.
    pub fn input(&self, name: &str) -> anyhow::Result<&Path> {
        self.optional_input(name).ok_or_else(|| anyhow!("input `{name}` is not connected"))
    }

    /// The path of an input that may be unconnected.
    pub fn optional_input(&self, name: &str) -> Option<&Path> {
        self.inputs.iter().find(|input| input.name == name).map(|input| input.path.as_path())
    }

    /// Reads a whole table.
    pub fn read<T: Row>(&self, port: &Port<T>) -> anyhow::Result<Vec<T>> {
        Ok(table::read(self.input(port.name)?)?)
    }

    /// Reads a table row by row, in constant memory.
    pub fn rows<T: Row>(&self, port: &Port<T>) -> anyhow::Result<TableReader<T>> {
        Ok(TableReader::open(self.input(port.name)?)?)
    }

    /// Writes a whole table.
    pub fn write<T: Row>(&self, port: &Port<T>, rows: impl IntoIterator<Item = T>) -> anyhow::Result<()> {
        let mut writer = self.writer(port)?;
        for row in rows {
            writer.push(row)?;
        }
        writer.finish()?;
        Ok(())
    }

    /// Writes a table row by row; the caller finishes it.
    pub fn writer<T: Row>(&self, port: &Port<T>) -> anyhow::Result<TableWriter<T>> {
        TableWriter::create(&self.out.join(format!("{}.parquet", port.name)))
    }

    /// The folder of an output port, created empty.
    pub fn folder(&self, port: &Folder) -> anyhow::Result<PathBuf> {
        let path = self.out.join(port.name);
        crate::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Says how far the stage is.
    pub fn progress(&self, done: u64, total: u64, unit: &'static str, detail: impl Into<String>) {
        (self.notify)(Notice::Progress { done, total, unit, detail: detail.into() });
    }

    /// Says something that the user should know.
    pub fn warn(&self, text: impl Into<String>) {
        (self.notify)(Notice::Warning(text.into()));
    }

    /// Records a figure of this run: it stands in the run record, not in the result.
    pub fn figure(&self, name: impl Into<String>, value: f64) {
        (self.notify)(Notice::Figure { name: name.into(), value });
    }

    /// Fails when the run is being stopped: long loops call it once a turn.
    pub fn check_stop(&self) -> anyhow::Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(anyhow!(Stopped)) } else { Ok(()) }
    }

    /// The settings of a served model.
    pub fn endpoint(&self, model: &str) -> anyhow::Result<Endpoint> {
        self.profile.endpoint(model).with_context(|| {
            format!("the profile names no endpoint `{model}`; add `[endpoints.{model}]` with `url` to thresh.toml")
        })
    }
}

/// An error with its causes in one line; a cause that the text above it already tells is not told again.
pub fn in_full(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// The error of a stage that was asked to stop.
#[derive(Debug, thiserror::Error)]
#[error("stopped before it was done")]
pub struct Stopped;
