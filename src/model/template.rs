//! Chat templates: the Jinja that comes with a model, filled in as Hugging Face's `apply_chat_template` does.
//!
//! The environment is that of transformers 5.23 (`utils/chat_template_utils.py`): blocks trimmed, the methods of Python's strings
//! and maps, `tojson` as `json.dumps` writes, `raise_exception`, `strftime_now`, `{% generation %}`, `break` and `continue`.
//! `strftime_now` knows a given day and no clock.

mod python;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};
use regex::Regex;
use serde_json::{Map, Value as Json};

pub use self::python::Date;
use super::tokenizer::TokenizerError;
use super::tokenizer::files::{Named, TextFiles};
use super::tokenizer::marks::{BEGIN, END};

/// The template of every chat, unless it calls tools and there is one for that.
const DEFAULT: &str = "default";
/// The template of chats that call tools.
const TOOL_USE: &str = "tool_use";

/// Why a chat cannot be written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TemplateError {
    /// The model has none.
    #[error(
        "the model has no chat template; base models have none: give `model.import` one as `chat_template`, or take the \
         model's `-Instruct` version"
    )]
    None,
    /// It is no template.
    #[error("the chat template is wrong: {0}")]
    Syntax(String),
    /// It cannot be filled in.
    #[error("the chat template cannot be filled in: {0}")]
    Render(String),
    /// The template itself refuses the chat.
    #[error("the chat template refuses this chat: {0}")]
    Refused(String),
    /// What an assistant's message gives is not told from the rest.
    #[error(
        "the chat template writes what was said before message {message} differently once there is more, so that what the \
         assistant wrote cannot be told from the rest; mark it with `{{% generation %}}` in a chat template of your own, or \
         train on chats that end with their only assistant message"
    )]
    Rewrites { message: usize },
    /// `chat.json` is wrong.
    #[error("`chat.json` is wrong: {0}")]
    Settings(String),
}

/// A model's chat templates, ready to be filled in.
#[derive(Clone)]
pub struct ChatTemplate(Arc<Compiled>);

struct Compiled {
    environment: Environment<'static>,
    sources: BTreeMap<String, String>,
    /// What every chat may name: the special tokens, and the variables of `chat.json`.
    variables: Map<String, Json>,
}

/// What a template is filled in with.
#[derive(Clone, Copy, Debug)]
pub struct Filling<'a> {
    /// The messages in the form of OpenAI's API, arguments of calls as objects.
    pub messages: &'a [Json],
    /// The definitions of the tools; empty where there are none.
    pub tools: &'a [Json],
    /// Whether the assistant is to speak next.
    pub prompt: bool,
}

impl ChatTemplate {
    /// The template among a model's files: `chat_template.jinja` before `chat_template.json` before `tokenizer_config.json`; none
    /// where there is none.
    ///
    /// # Errors
    /// When it is no template, or a file with its settings is wrong.
    pub fn read(files: &TextFiles, named: &Named) -> Result<Option<Self>, TokenizerError> {
        let mut sources = BTreeMap::new();
        for file in ["tokenizer_config.json", "chat_template.json"] {
            let value = files.json(file)?;
            match &value["chat_template"] {
                Json::String(text) => drop(sources.insert(DEFAULT.to_owned(), text.clone())),
                Json::Array(several) => {
                    let named =
                        |one: &Json| Some((one["name"].as_str()?.to_owned(), one["template"].as_str()?.to_owned()));
                    sources.extend(several.iter().filter_map(named));
                }
                _ => {}
            }
        }
        // The file stands for all templates of the older place, also for one of its own for tools.
        if let Some(text) = files.text("chat_template.jinja")? {
            sources = BTreeMap::from([(DEFAULT.to_owned(), text.to_owned())]);
        }
        if sources.is_empty() {
            return Ok(None);
        }
        let settings = Settings::read(files)?;
        let mut variables: Map<String, Json> =
            named.texts.iter().map(|(purpose, text)| (purpose.clone(), text.clone().into())).collect();
        variables.extend(settings.variables);
        Ok(Some(Self::new(sources, variables, settings.date)?))
    }

    /// Compiles templates: `default`, and `tool_use` where there is one of its own for chats that call tools. `date` is the day
    /// that `strftime_now` tells.
    ///
    /// # Errors
    /// When one is no template.
    pub fn new(
        sources: BTreeMap<String, String>,
        variables: Map<String, Json>,
        date: Date,
    ) -> Result<Self, TemplateError> {
        let mut environment = environment(date);
        for (name, source) in &sources {
            let added = environment.add_template_owned(name.clone(), without_generation(source));
            added.map_err(|error| TemplateError::Syntax(told(&error)))?;
        }
        Ok(Self(Arc::new(Compiled { environment, sources, variables })))
    }

    /// The text of all templates.
    pub fn sources(&self) -> String {
        self.0.sources.values().map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Whether the template says itself what the assistant writes.
    pub fn marks_generation(&self, tools: bool) -> bool {
        self.source(tools).is_some_and(|(_, source)| generation().is_match(source))
    }

    /// The text of a chat. Where the template says what the assistant writes, that stands between [`BEGIN`] and [`END`].
    ///
    /// # Errors
    /// When the template refuses the chat, or asks of it what it has not.
    pub fn fill(&self, filling: Filling<'_>) -> Result<String, TemplateError> {
        let (name, _) = self.source(!filling.tools.is_empty()).ok_or(TemplateError::None)?;
        let template = self.0.environment.get_template(name).map_err(|error| TemplateError::Render(told(&error)))?;
        let mut variables = self.0.variables.clone();
        // As in Hugging Face's, what is absent is none rather than undefined.
        let tools = if filling.tools.is_empty() { Json::Null } else { filling.tools.into() };
        variables.insert("messages".to_owned(), filling.messages.into());
        variables.insert("tools".to_owned(), tools);
        variables.insert("documents".to_owned(), Json::Null);
        variables.insert("add_generation_prompt".to_owned(), filling.prompt.into());
        template.render(Value::from(Serde(variables))).map_err(|error| match refusal(&error) {
            Some(reason) => TemplateError::Refused(reason),
            None => TemplateError::Render(told(&error)),
        })
    }

    fn source(&self, tools: bool) -> Option<(&str, &str)> {
        let wanted = if tools { [TOOL_USE, DEFAULT] } else { [DEFAULT, TOOL_USE] };
        let found = wanted.iter().find_map(|name| self.0.sources.get_key_value(*name));
        found.map(|(name, source)| (name.as_str(), source.as_str()))
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ChatTemplate").field("sources", &self.0.sources).finish_non_exhaustive()
    }
}

/// `chat.json`: what a template is told beside the chat. It is our own file; Hugging Face's programs take the same as arguments.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The day that `strftime_now` tells.
    #[serde(default)]
    pub date: Date,
    /// Further variables of the template, such as `enable_thinking`.
    #[serde(default)]
    pub variables: Map<String, Json>,
}

impl Settings {
    /// The file's name.
    pub const FILE: &'static str = "chat.json";

    fn read(files: &TextFiles) -> Result<Self, TokenizerError> {
        let Some(text) = files.text(Self::FILE)? else { return Ok(Self::default()) };
        Ok(serde_json::from_str(text).map_err(|error| TemplateError::Settings(error.to_string()))?)
    }
}

/// An exception of a template's own, told from errors of filling it in.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn environment(date: Date) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the delimiters are the usual ones"));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(python::print);
    environment.add_filter("tojson", python::tojson);
    // In Python none is not, and `tools is iterable and tools | length` counts on it.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raised by the template").with_source(Raised(message)))
    });
    environment.add_function("strftime_now", move |format: String| date.format(&format));
    environment.add_function(GENERATION, |state: &mut State, inner: Kwargs| -> Result<String, Error> {
        let caller: Value = inner.get("caller")?;
        Ok(format!("{BEGIN}{}{END}", caller.call(state, &[])?))
    });
    environment
}

/// The function that `{% generation %}` becomes a call of.
const GENERATION: &str = "__generation__";

/// A template with `{% generation %}`, which minijinja does not know, as a `call` block: that is what Hugging Face makes of it too,
/// so blanks around it fall alike. A block sees the namespaces that it assigns to only where it also reads them, so it does.
fn without_generation(source: &str) -> String {
    let assigned: BTreeSet<&str> =
        pattern(&ASSIGNED).captures_iter(source).filter_map(|found| Some(found.get(1)?.as_str())).collect();
    let reads: String = assigned.into_iter().map(|name| format!("{{{{ {name} }}}}")).collect();
    let calls = generation().replace_all(source, |found: &regex::Captures<'_>| {
        let (before, after) = (&found[1], &found[3]);
        if &found[2] == "generation" {
            format!("{{%{before} call {GENERATION}() %}}{{% if false %}}{reads}{{% endif {after}%}}")
        } else {
            format!("{{%{before} endcall {after}%}}")
        }
    });
    calls.into_owned()
}

/// The start of an assignment to a namespace.
static ASSIGNED: LazyLock<Result<Regex, regex::Error>> = LazyLock::new(|| Regex::new(r"\{%[-+]?\s*set\s+(\w+)\."));

/// The tags around what the assistant writes.
static TAGS: LazyLock<Result<Regex, regex::Error>> =
    LazyLock::new(|| Regex::new(r"\{%([-+]?)\s*(generation|endgeneration)\s*([-+]?)%\}"));

fn generation() -> &'static Regex {
    pattern(&TAGS)
}

fn pattern(pattern: &'static Result<Regex, regex::Error>) -> &'static Regex {
    pattern.as_ref().expect("the pattern is right")
}

/// What `raise_exception` was called with, where that is what went wrong.
fn refusal(error: &Error) -> Option<String> {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(raised) = inner.downcast_ref::<Raised>() {
            return Some(raised.0.clone());
        }
        source = inner.source();
    }
    None
}

fn told(error: &Error) -> String {
    let detail =
        error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    error.line().map_or(detail.clone(), |line| format!("{detail} in line {line}"))
}

#[cfg(test)]
mod tests;
