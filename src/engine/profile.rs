//! Where stages run: what the engine and the stages ask of a profile.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::net::gate::{Gate, Prices};

/// Where a stage runs: what the profile says. Never part of a fingerprint.
pub trait Profile: Send + Sync {
    /// How many stages compute at once in a pool: `cpu`, `gpu`, `llm`, or one of the profile's own; `None` for an unknown one.
    fn slots(&self, pool: &str) -> Option<usize>;

    /// The device for tensors: `cpu`, `wgpu`, `cuda:0`.
    fn device(&self) -> &str;

    /// The folder of what may be made anew at any time and is kept to save that time, such as compiled kernels. It belongs to
    /// the store, and may be carried to another machine.
    fn cache(&self) -> &Path;

    /// The pool of stages that compute on the device.
    fn device_pool(&self) -> &'static str {
        if self.device() == "cpu" { "cpu" } else { "gpu" }
    }

    /// An endpoint's settings by the name that a pipeline gives the model, or `None` where the profile names none.
    fn endpoint(&self, model: &str) -> Option<Endpoint>;
}

/// How a served model is reached.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The base address, up to and with `/v1`.
    pub url: String,
    /// The model's name at that address.
    pub model: String,
    /// The environment variable that holds the key, where one is needed.
    pub key_env: Option<String>,
    /// What the server bears: one gate for all stages of a run.
    pub gate: Arc<Gate>,
    /// Seconds that a connection may take to come about.
    pub connect_timeout: f64,
    /// Seconds that one whole call may take.
    pub timeout: f64,
    /// How often a call is tried again after 429, 5xx, broken connections and answers that make no sense.
    pub retries: u32,
    /// What tokens cost.
    pub prices: Option<Prices>,
    /// The field that limits the tokens of a reply; `max_tokens` where absent.
    pub max_tokens_field: Option<String>,
    /// Fields that the server refuses.
    pub omit: Vec<String>,
    /// What is merged into each request.
    pub extra: Map<String, Value>,
}

/// The profile of a project that says nothing: everything on the CPU, no served models, no pools.
pub struct NoSettings;

impl Profile for NoSettings {
    fn cache(&self) -> &Path {
        Path::new(".thresh/cache")
    }

    fn slots(&self, _: &str) -> Option<usize> {
        None
    }

    fn device(&self) -> &str {
        "cpu"
    }

    fn endpoint(&self, _: &str) -> Option<Endpoint> {
        None
    }
}
