//! What a running stage may touch, and how it says how far it is.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, anyhow};

use super::fingerprint::Fields;
use super::history::log_name;
use super::port::{Folder, Port};
use super::profile::{Endpoint, Profile};
use super::stage::Stopped;
use crate::child::Usage;
use crate::table::{self, Row, TableReader, TableWriter};

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

/// Where logs of an attempt are kept.
#[derive(Clone, Debug)]
pub struct Logs {
    /// The folder of the run's logs.
    pub folder: PathBuf,
    /// The stage's name.
    pub stage: String,
    /// Which attempt, counted from 1.
    pub attempt: usize,
}

/// What a running stage may touch.
pub struct Context {
    /// The connected inputs.
    pub inputs: Vec<Input>,
    /// The folder that receives the outputs: `PORT.parquet` or `PORT/`.
    pub out: PathBuf,
    /// A folder that outlives an interrupted run, to go on from: absent on a first run, removed when the stage is done.
    pub scratch: PathBuf,
    /// The project's root: relative paths in parameters start here.
    pub project: PathBuf,
    /// Where the stage runs.
    pub profile: Arc<dyn Profile>,
    /// Set when the run is being stopped.
    pub stop: Arc<AtomicBool>,
    /// Receives what the stage says.
    pub notify: Notify,
    /// Where logs of this attempt are kept with the run.
    pub logs: Logs,
    /// What the result depends on: the fields of its fingerprint.
    pub fields: Fields,
    /// The folder of the journals of finished rows.
    pub rows: PathBuf,
    /// Whether journalled rows are to be computed again.
    pub anew: bool,
    /// How many rows of the result are broken; the store remembers it with the result.
    pub broken: Arc<AtomicU64>,
    /// The journals that the stage used, by their names in `rows`; the store remembers them with the result.
    pub journals: Arc<Mutex<BTreeSet<String>>>,
    /// The lock under which the result is computed: programs hold it, too, so that nobody else begins while one of them lives.
    pub lock: Option<Arc<File>>,
    /// What programs took that the stage ran.
    pub took: Arc<Mutex<Usage>>,
}

impl Context {
    /// A context below one folder, that nobody listens to: for tests and for stages that run alone. It has no fields that could
    /// tell one stage's journals from another's, so all rows are computed.
    pub fn below(folder: &Path, inputs: Vec<Input>, profile: Arc<dyn Profile>) -> Self {
        Self {
            inputs,
            out: folder.join("out"),
            scratch: folder.join("scratch"),
            project: folder.join("project"),
            profile,
            stop: Arc::default(),
            notify: Arc::new(|_| {}),
            logs: Logs { folder: folder.join("logs"), stage: "stage".to_owned(), attempt: 1 },
            journals: Arc::default(),
            lock: None,
            took: Arc::default(),
            fields: Fields::new(),
            rows: folder.join("rows"),
            anew: true,
            broken: Arc::default(),
        }
    }

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

    /// The folder that outlives an interrupted run, created where it is not there.
    pub fn scratch(&self) -> anyhow::Result<&Path> {
        crate::fs::create_dir_all(&self.scratch)?;
        Ok(&self.scratch)
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

    /// The path of a log of this attempt, which is kept with the run; its folder is there.
    pub fn log(&self, name: &str) -> anyhow::Result<PathBuf> {
        let Logs { folder, stage, attempt } = &self.logs;
        crate::fs::create_dir_all(folder)?;
        Ok(folder.join(log_name(stage, *attempt, name)))
    }

    /// Counts what a program took that the stage ran.
    pub fn took(&self, usage: Usage) {
        let mut sum = self.took.lock().unwrap_or_else(PoisonError::into_inner);
        sum.cpu_seconds += usage.cpu_seconds;
        sum.peak_memory = sum.peak_memory.max(usage.peak_memory);
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
