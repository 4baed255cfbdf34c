//! `thresh.toml`: where stages run. Nothing here changes a result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::Deserialize;

use super::settings::{self, Mistake};
use crate::engine::stage::{Endpoint, Profile};
use crate::fs::{self, PathError};
use crate::net;
use crate::net::gate::{Gate, Limits, Prices};

/// Why the settings could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file could not be read.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The file is no TOML, or holds what is no setting.
    #[error("`{}` is not right:\n{source}{advice}", fs::short(path).display())]
    Toml { path: PathBuf, source: Box<toml::de::Error>, advice: String },
    /// The profile that was asked for is not in the file.
    #[error("there is no profile `{name}`; known are {known}")]
    NoProfile { name: String, known: String },
}

impl SettingsError {
    fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Self {
        let known: Vec<String> = known.map(|name| format!("`{name}`")).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Self::NoProfile { name: name.to_owned(), known }
    }
}

/// A project: the folder that holds `thresh.toml`, and what that says.
#[derive(Clone, Debug)]
pub struct Project {
    /// Relative paths in parameters and settings start here.
    pub root: PathBuf,
    /// The settings of the chosen profile.
    pub settings: Settings,
}

/// The settings of one profile.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The folder of results and runs.
    pub store: PathBuf,
    /// The most stages side by side that compute here: the slots of the pool `cpu`.
    #[schemars(extend("default" = "as many as there are cores"))]
    pub jobs: usize,
    /// Slots of pools by their names: `gpu` has 1 and `llm` 4 where nothing is said; others are those named here.
    pub pools: BTreeMap<String, usize>,
    /// The device for tensors: `cpu`, `wgpu`, `cuda:0`.
    pub device: String,
    /// Served models by the name that pipelines use.
    pub endpoints: BTreeMap<String, EndpointSettings>,
    /// Other profiles: each a table with the settings that differ.
    #[schemars(with = "BTreeMap<String, serde_json::Map<String, serde_json::Value>>")]
    pub profiles: BTreeMap<String, toml::Table>,
    #[serde(skip)]
    cache: PathBuf,
    #[serde(skip)]
    gates: Gates,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            store: ".thresh".into(),
            jobs: std::thread::available_parallelism().map_or(2, usize::from),
            pools: BTreeMap::new(),
            device: "cpu".into(),
            endpoints: BTreeMap::new(),
            profiles: BTreeMap::new(),
            cache: PathBuf::new(),
            gates: Gates::default(),
        }
    }
}

/// How a served model is reached.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointSettings {
    /// The base address, up to and with `/v1`.
    pub url: String,
    /// The model's name at that address; the pipeline's name for it where absent.
    pub model: Option<String>,
    /// The environment variable that holds the key.
    pub key_env: Option<String>,
    /// The most requests in flight at once, of all stages of a run together.
    #[serde(default = "in_flight")]
    pub in_flight: usize,
    /// Requests that may begin in any minute.
    pub requests_per_minute: Option<f64>,
    /// Tokens, of requests and replies, that may begin in any minute.
    pub tokens_per_minute: Option<f64>,
    /// Seconds that a connection may take to come about.
    #[serde(default = "connect_timeout")]
    pub connect_timeout: f64,
    /// Seconds that one whole call may take, from connecting to the last byte.
    #[serde(default = "timeout")]
    pub timeout: f64,
    /// How often a call is tried again.
    #[serde(default = "retries")]
    pub retries: u32,
    /// What a million tokens cost.
    pub price_per_million: Option<PriceSettings>,
    /// What a run may spend here; calls beyond it are not made.
    pub budget: Option<f64>,
    /// The field that limits the tokens of a reply: `max_tokens`, or `max_completion_tokens` for servers that want that.
    pub max_tokens_field: Option<String>,
    /// Fields that the server refuses and that are left out: `temperature`, `seed`.
    #[serde(default)]
    pub omit: Vec<String>,
    /// What is merged into each request, for servers that need more than the usual fields.
    #[serde(default)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// What a million tokens cost.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceSettings {
    /// Tokens of requests.
    pub prompt: f64,
    /// Tokens of replies.
    pub completion: f64,
    /// Tokens of requests that the server had in its cache; as dear as the others where absent.
    pub cached: Option<f64>,
}

/// The gates to endpoints, made when first asked for: every stage of a run passes through the same.
#[derive(Clone, Debug, Default)]
struct Gates(Arc<Mutex<BTreeMap<String, Arc<Gate>>>>);

impl Gates {
    fn to(&self, name: &str, limits: Limits) -> Arc<Gate> {
        let mut gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gates.entry(name.to_owned()).or_insert_with(|| Arc::new(Gate::new(limits))).clone()
    }
}

impl EndpointSettings {
    fn limits(&self) -> Limits {
        Limits {
            in_flight: self.in_flight,
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
            budget: self.budget,
        }
    }
}

fn in_flight() -> usize {
    16
}

fn connect_timeout() -> f64 {
    net::CONNECT.as_secs_f64()
}

fn timeout() -> f64 {
    120.0
}

fn retries() -> u32 {
    5
}

impl Project {
    /// Finds the project of a pipeline: the nearest folder above it that holds `thresh.toml`, else the current folder.
    pub fn find(pipeline: &Path, profile: Option<&str>) -> Result<Self, SettingsError> {
        let root = Self::root(pipeline)?;
        let path = root.join("thresh.toml");
        let settings =
            if path.is_file() { Settings::read(&path, profile)? } else { Settings::default().chosen(profile)? };
        Ok(Self::of(root, settings))
    }

    /// Like [`find`](Self::find), leaving out what is wrong in `thresh.toml`: that is told beside.
    ///
    /// # Errors
    /// When the file cannot be read, or the profile is not in it.
    pub fn find_leniently(pipeline: &Path, profile: Option<&str>) -> Result<(Self, Vec<Mistake>), SettingsError> {
        let root = Self::root(pipeline)?;
        let path = root.join("thresh.toml");
        if !path.is_file() {
            return Ok((Self::of(root, Settings::default().chosen(profile)?), Vec::new()));
        }
        let (mut table, mut mistakes) = settings::cleaned(&fs::read_to_string(&path)?);
        let profiles = table.get("profiles").and_then(toml::Value::as_table).cloned().unwrap_or_default();
        if let Some(name) = profile
            && !profiles.contains_key(name)
        {
            return Err(SettingsError::unknown(name, profiles.keys()));
        }
        let base = table.clone();
        if let Some(toml::Value::Table(over)) = profile.and_then(|name| profiles.get(name)) {
            overlay(&mut table, over.clone());
        }
        let settings = table.try_into().unwrap_or_else(|error: toml::de::Error| {
            mistakes.push(Mistake::new(
                error.message(),
                "put the value right; until then all settings have their defaults",
            ));
            Settings::default()
        });
        for (name, over) in profiles.iter().filter(|(name, _)| profile != Some(name)) {
            let mut whole = base.clone();
            overlay(&mut whole, over.as_table().cloned().unwrap_or_default());
            if let Err(error) = whole.try_into::<Settings>() {
                mistakes.push(Mistake::new(format!("`profiles.{name}`: {}", error.message()), "put the value right"));
            }
        }
        mistakes.dedup();
        Ok((Self::of(root, settings), mistakes))
    }

    fn of(root: PathBuf, mut settings: Settings) -> Self {
        settings.cache = root.join(&settings.store).join("cache");
        Self { root, settings }
    }

    fn root(pipeline: &Path) -> Result<PathBuf, PathError> {
        let here = std::env::current_dir().map_err(|source| PathError { action: "find", path: ".".into(), source })?;
        // The system names the current folder without links, so that the `..` in front can be taken literally.
        let (mut folder, mut rest) = (here.clone(), pipeline);
        loop {
            rest = match (rest.strip_prefix(".."), rest.strip_prefix(".")) {
                (Ok(rest), _) => {
                    folder.pop();
                    rest
                }
                (_, Ok(rest)) => rest,
                _ => break,
            };
        }
        Ok(folder.join(rest).parent().and_then(Self::root_above).map_or(here, Path::to_owned))
    }

    /// The folder of the project that a folder with this absolute path is in: the nearest upwards that holds `thresh.toml`.
    pub fn root_above(folder: &Path) -> Option<&Path> {
        folder.ancestors().find(|folder| folder.join("thresh.toml").is_file())
    }

    /// A file's path from the project's folder, where it lies in there; else as it is given.
    pub fn inside(&self, file: &Path) -> PathBuf {
        let [root, whole] = [&self.root, file].map(|path| path.canonicalize().unwrap_or_default());
        whole.strip_prefix(&root).map_or_else(|_| file.to_owned(), Path::to_owned)
    }

    /// The store's folder.
    pub fn store(&self) -> PathBuf {
        self.root.join(&self.settings.store)
    }
}

impl Settings {
    fn read(path: &Path, profile: Option<&str>) -> Result<Self, SettingsError> {
        let text = fs::read_to_string(path)?;
        let wrong = |source| {
            let advice =
                settings::cleaned(&text).1.iter().map(|one| format!("help: {}: {}\n", one.said, one.advice)).collect();
            SettingsError::Toml { path: path.to_owned(), source: Box::new(source), advice }
        };
        let settings: Self = toml::from_str(&text).map_err(wrong)?;
        let Some(name) = profile else { return Ok(settings) };
        let Some(over) = settings.profiles.get(name) else { return settings.chosen(Some(name)) };
        let mut table: toml::Table = toml::from_str(&text).map_err(wrong)?;
        overlay(&mut table, over.clone());
        table.try_into().map_err(wrong)
    }

    fn chosen(self, profile: Option<&str>) -> Result<Self, SettingsError> {
        match profile {
            None => Ok(self),
            Some(name) => Err(SettingsError::unknown(name, self.profiles.keys())),
        }
    }
}

fn overlay(base: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(over)) => overlay(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

impl Profile for Settings {
    fn cache(&self) -> &Path {
        &self.cache
    }

    fn slots(&self, pool: &str) -> Option<usize> {
        let usual = match pool {
            "cpu" => Some(self.jobs),
            "gpu" => Some(1),
            "llm" => Some(4),
            _ => None,
        };
        self.pools.get(pool).copied().or(usual)
    }

    fn device(&self) -> &str {
        &self.device
    }

    fn endpoint(&self, model: &str) -> Option<Endpoint> {
        let settings = self.endpoints.get(model)?.clone();
        let gate = self.gates.to(model, settings.limits());
        let prices = settings.price_per_million.map(|PriceSettings { prompt, completion, cached }| Prices {
            prompt,
            completion,
            cached: cached.unwrap_or(prompt),
        });
        Some(Endpoint {
            url: settings.url,
            model: settings.model.unwrap_or_else(|| model.to_owned()),
            key_env: settings.key_env,
            gate,
            connect_timeout: settings.connect_timeout,
            timeout: settings.timeout,
            retries: settings.retries,
            prices,
            max_tokens_field: settings.max_tokens_field,
            omit: settings.omit,
            extra: settings.extra,
        })
    }
}
