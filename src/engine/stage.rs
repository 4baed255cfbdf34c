//! What a stage is: parameters, ports, and the work.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

pub use super::context::{Context, Input, Notice, Notify};
use super::port::PortSpec;
pub use super::profile::{Endpoint, NoSettings, Profile};

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

    /// Parameters that there once were, each with a sentence on what is written now: lower case, names in backticks.
    const REPLACED: &'static [(&'static str, &'static str)] = &[];

    /// The ports that it reads.
    fn inputs(&self) -> Vec<PortSpec>;

    /// The ports that it writes.
    fn outputs(&self) -> Vec<PortSpec>;

    /// What is wrong with the parameters beyond their types; all of it, not the first.
    fn check(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// What is wrong with the parameters given the names under which inputs are connected.
    fn check_inputs(&self, _connected: &[&str]) -> Vec<Problem> {
        Vec::new()
    }

    /// What the result depends on beyond parameters and inputs, such as the content of a file that a parameter names: it
    /// becomes part of the fingerprint. Called before every plan, so it must be quick.
    fn also_depends_on(&self, _project: &Path) -> anyhow::Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    /// The pool that it takes a slot of while it runs: `cpu`, `gpu` or `llm`. A pipeline's `pool:` goes before.
    fn pool(&self, _profile: &dyn Profile) -> &'static str {
        "cpu"
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
    /// See [`Stage::check_inputs`].
    fn check_inputs(&self, connected: &[&str]) -> Vec<Problem>;
    /// See [`Stage::also_depends_on`].
    fn also_depends_on(&self, project: &Path) -> anyhow::Result<Vec<(String, String)>>;
    /// See [`Stage::pool`].
    fn pool(&self, profile: &dyn Profile) -> &'static str;
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

    fn check_inputs(&self, connected: &[&str]) -> Vec<Problem> {
        Stage::check_inputs(self, connected)
    }

    fn also_depends_on(&self, project: &Path) -> anyhow::Result<Vec<(String, String)>> {
        Stage::also_depends_on(self, project)
    }

    fn pool(&self, profile: &dyn Profile) -> &'static str {
        Stage::pool(self, profile)
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        Stage::run(self, context)
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
