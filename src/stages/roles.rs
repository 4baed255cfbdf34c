//! The parameters `agent` and `user` of the stages that simulate: who plays, and how.

use std::path::Path;

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::prompt;
use super::served::{Replay, check_replay};
use crate::dialogue::template::{self, GOAL_VARIABLES, GUIDE_VARIABLES, Template};
use crate::engine::stage::{Problem, Profile};
use crate::fs;
use crate::llm::Sampling;

/// What writes the agent's commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AgentKind {
    /// The model on the input port `policy`.
    #[default]
    Policy,
    /// Rules, which find words of the world in what the user says.
    Rule,
    /// A served model that the profile knows by the name in `model`.
    Served,
}

/// How an agent calls tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AgentStyle {
    /// By commands in its text: PLAN, APICALL and SPEAK.
    #[default]
    React,
    /// By the native function calls of chat completions: requests carry `tools`, replies `tool_calls`.
    Tools,
}

/// The agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// What writes the agent's commands: `policy`, `rule` or `served`.
    #[serde(default)]
    pub kind: AgentKind,
    /// The name of a served model; the profile says where it is.
    #[serde(default)]
    pub model: Option<String>,
    /// How it calls tools: `react` (text commands PLAN, APICALL and SPEAK) or `tools` (native function calls, for models
    /// whose server or chat template knows them; several calls of one reply are all done).
    #[serde(default, skip_serializing_if = "is_react")]
    pub style: AgentStyle,
    /// The system message: `react` (commands, tools and rules, for large models), `brief` (one line), `tools` (rules for native
    /// calls), or the path of a minijinja template, in which `{{ tools }}` are the definitions of the tools as JSON. Where absent
    /// a served model gets the one of its style and a policy none.
    #[serde(default)]
    pub system_prompt: Option<String>,
    /// The probability that a decision of the rule agent is spoilt.
    #[serde(default)]
    pub noise: f64,
    /// 0 takes the likeliest token.
    #[serde(default)]
    pub temperature: f32,
    /// Only the k likeliest tokens.
    #[serde(default)]
    pub top_k: Option<usize>,
    /// Only the likeliest tokens whose probabilities reach this sum.
    #[serde(default = "one")]
    pub top_p: f32,
    /// Only tokens at least this share as likely as the likeliest one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_p: f32,
    /// Logits of tokens that were said before are divided by this where they are positive, multiplied where not.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub repetition_penalty: f32,
    /// The most tokens of one reply.
    #[serde(default = "reply_tokens")]
    pub max_tokens: usize,
    /// Texts that end a reply and are no part of it; `[APIRETURN]` keeps a model of style `react` from inventing answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Let a policy write nothing but whole commands whose calls can be read and name tools and parameters that there are
    /// (constrained decoding): a small model cannot break the form.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub constrained: bool,
    /// The seed that every reply is asked for with, as the reference's 42; where absent each reply has one of its own, derived
    /// from the stage's seed, the dialogue and its place there. Then siblings in a tree differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Replies that one turn may take before it counts as silent.
    #[serde(default = "three")]
    pub tries: usize,
    /// Ask a served model for the log-probabilities of its replies, whose sums the table `calls` keeps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub logprobs: bool,
    /// Have requests of a served model answered by the table on the input port `calls`: `only`, or `first` and else by the
    /// server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

/// Who speaks for the customer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UserKind {
    /// Rules, which speak from the goal by templates.
    #[default]
    Agenda,
    /// A served model that is told the goal in words.
    Goal,
    /// A served model that is told the goal and the dialogue that the task was made of.
    Guide,
    /// Says what the customer of that dialogue said, turn by turn, whatever it hears.
    Script,
}

/// The user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserSpec {
    /// Who speaks for the customer: `agenda`, `goal`, `guide` or `script`. The last two need input `sources`.
    #[serde(default)]
    pub kind: UserKind,
    /// The name of a served model; the profile says where it is.
    #[serde(default)]
    pub model: Option<String>,
    /// The path of a minijinja template, instead of the built-in prompt. It may name `goal` (in sentences) and `end` (the text
    /// that ends the dialogue); a goal user's also `opening` (whether it has yet to say its first words); a guide user's also
    /// `source` and `transcript` (the dialogue that the task was made of and the present one, as lines that begin with `agent: `
    /// or `customer: `). Of a guide user's reply counts what follows the last `Suggested quote:`.
    #[serde(default)]
    pub prompt: Option<String>,
    /// Of a model: 0 takes the likeliest token.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub temperature: f32,
    /// Of a model: only the likeliest tokens whose probabilities reach this sum.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub top_p: f32,
    /// Of a model: the most tokens of one reply.
    #[serde(default = "reply_tokens", skip_serializing_if = "is_reply_tokens")]
    pub max_tokens: usize,
    /// Misunderstandings that the agenda user bears before it gives up.
    #[serde(default = "four_times")]
    pub patience: u32,
    /// Have requests of a served model answered by the table on the input port `calls`: `only`, or `first` and else by the
    /// server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

fn one() -> f32 {
    1.0
}

fn reply_tokens() -> usize {
    256
}

fn three() -> usize {
    3
}

fn four_times() -> u32 {
    4
}

// What was not a parameter in earlier versions is left out of fingerprints where it has its default.

fn is_react(style: &AgentStyle) -> bool {
    *style == AgentStyle::React
}

fn is_zero(number: &f32) -> bool {
    *number == 0.0
}

fn is_one(number: &f32) -> bool {
    *number == one()
}

fn is_reply_tokens(number: &usize) -> bool {
    *number == reply_tokens()
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            kind: AgentKind::default(),
            model: None,
            style: AgentStyle::default(),
            system_prompt: None,
            noise: 0.0,
            temperature: 0.0,
            top_k: None,
            top_p: one(),
            min_p: 0.0,
            repetition_penalty: one(),
            max_tokens: reply_tokens(),
            stop: Vec::new(),
            constrained: false,
            seed: None,
            tries: three(),
            logprobs: false,
            replay: None,
        }
    }
}

impl Default for UserSpec {
    fn default() -> Self {
        Self {
            kind: UserKind::default(),
            model: None,
            prompt: None,
            temperature: 0.0,
            top_p: one(),
            max_tokens: reply_tokens(),
            patience: four_times(),
            replay: None,
        }
    }
}

impl Agent {
    /// What is wrong beyond types.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = sampling_problems("agent", self.temperature, self.top_p, self.max_tokens);
        let mut wrong = |field: &str, message: &str, bad: bool| {
            if bad {
                problems.push(Problem::new(format!("agent.{field}"), message));
            }
        };
        let native = self.style == AgentStyle::Tools;
        wrong("noise", "must lie between 0 and 1", !(0.0..=1.0).contains(&self.noise));
        wrong("top_k", "must be at least 1", self.top_k == Some(0));
        wrong("min_p", "must lie between 0 and 1", !(0.0..=1.0).contains(&self.min_p));
        let penalty = self.repetition_penalty;
        wrong("repetition_penalty", "must be positive; 1 changes nothing", !(penalty > 0.0 && penalty.is_finite()));
        wrong("tries", "must be at least 1", self.tries == 0);
        wrong("stop", "must not hold an empty text", self.stop.iter().any(String::is_empty));
        let served = self.kind == AgentKind::Served;
        wrong("model", "must name a served model", served && self.model.is_none());
        let policy = self.kind == AgentKind::Policy;
        wrong("constrained", "is for policies: what others write is not ours to choose", self.constrained && !policy);
        wrong("logprobs", "are given by served models only", self.logprobs && !served);
        wrong("replay", "is for served models: calls of others are not recorded", self.replay.is_some() && !served);
        wrong(
            "style",
            "`tools` takes a model (`kind: served` or `policy`): rules write their calls as text, which is `react`",
            native && self.kind == AgentKind::Rule,
        );
        let prompt = self.system_prompt.as_deref().unwrap_or_default();
        let other = if native { matches!(prompt, "react" | "brief") } else { prompt == "tools" };
        wrong("system_prompt", "tells of another `style` of calls than the agent has", other);
        problems
    }

    /// The template of the system message, where there is one.
    pub fn template(&self) -> Option<&str> {
        match (self.system_prompt.as_deref(), self.kind, self.style) {
            (None, AgentKind::Served, AgentStyle::React) => Some("react"),
            (None, AgentKind::Served, AgentStyle::Tools) => Some("tools"),
            (named, ..) => named,
        }
    }

    /// How its replies are drawn.
    pub fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            max_tokens: self.max_tokens,
            stop: self.stop.clone(),
            calls: None,
        }
    }
}

impl UserSpec {
    /// What is wrong beyond types.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = sampling_problems("user", self.temperature, self.top_p, self.max_tokens);
        if self.is_model() && self.model.is_none() {
            problems.push(Problem::new("user.model", "must name a served model"));
        }
        if self.replay.is_some() && !self.is_model() {
            problems.push(Problem::new("user.replay", "is for served models: calls of others are not recorded"));
        }
        problems
    }

    /// Whether a served model speaks for the customer.
    pub fn is_model(&self) -> bool {
        matches!(self.kind, UserKind::Goal | UserKind::Guide)
    }

    /// Whether it needs the dialogues that the tasks were made of.
    pub fn follows_sources(&self) -> bool {
        matches!(self.kind, UserKind::Guide | UserKind::Script)
    }

    /// How its replies are drawn.
    pub fn sampling(&self) -> Sampling {
        let Self { temperature, top_p, max_tokens, .. } = *self;
        Sampling { temperature, top_p, max_tokens, ..Sampling::default() }
    }

    /// The prompt of a user that is a model, and its text.
    ///
    /// # Errors
    /// When there is no such file, or it is no prompt of this kind of user.
    pub fn template(&self, project: &Path) -> anyhow::Result<Option<(Template, String)>> {
        let (built_in, variables) = match self.kind {
            UserKind::Goal => (template::GOAL_USER, GOAL_VARIABLES),
            UserKind::Guide => (template::GUIDE_USER, GUIDE_VARIABLES),
            UserKind::Agenda | UserKind::Script => return Ok(None),
        };
        let (name, text) = match &self.prompt {
            None => ("built-in", built_in.to_owned()),
            Some(path) => {
                let text = fs::read_to_string(project.join(path));
                (path.as_str(), text.context("`user.prompt` must name a file of the project")?)
            }
        };
        Ok(Some((Template::new(name, &text, variables)?, text)))
    }
}

fn sampling_problems(who: &str, temperature: f32, top_p: f32, max_tokens: usize) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |field: &str, message: &str, bad: bool| {
        if bad {
            problems.push(Problem::new(format!("{who}.{field}"), message));
        }
    };
    wrong("temperature", "must be 0 or more", !(temperature >= 0.0 && temperature.is_finite()));
    wrong("top_p", "must be above 0 and at most 1", !(top_p > 0.0 && top_p <= 1.0));
    wrong("max_tokens", "must be at least 1", max_tokens == 0);
    problems
}

/// What is wrong with these players, given the names under which inputs are connected.
pub fn check_inputs(agent: &Agent, user: &UserSpec, connected: &[&str]) -> Vec<Problem> {
    let mut problems = Vec::new();
    if agent.kind == AgentKind::Policy && !connected.contains(&"policy") {
        problems.push(Problem::new("agent.kind", "is `policy`, so input `policy` must be connected"));
    }
    if user.follows_sources() && !connected.contains(&"sources") {
        let kind = if user.kind == UserKind::Guide { "guide" } else { "script" };
        let message = format!("is `{kind}`, so input `sources` must be connected: `multiwoz.transcribe` makes them");
        problems.push(Problem::new("user.kind", message));
    }
    let replays = [
        (agent.kind == AgentKind::Served).then_some(("agent.replay", agent.replay)),
        user.is_model().then_some(("user.replay", user.replay)),
    ];
    problems.extend(check_replay(&replays.into_iter().flatten().collect::<Vec<_>>(), connected));
    problems
}

/// Whether calls of served models are made, which the output `calls` records.
pub fn calls_are_made(agent: &Agent, user: &UserSpec) -> bool {
    agent.kind == AgentKind::Served || user.is_model()
}

/// The content of the templates that parameters name, for fingerprints.
///
/// # Errors
/// When one cannot be read or is none.
pub fn templates(agent: &Agent, user: &UserSpec, project: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let mut found = prompt::depends_on(agent.template(), project)?;
    if let Some((_, text)) = user.template(project)? {
        found.push(("user.prompt".to_owned(), prompt::digest(&text)));
    }
    Ok(found)
}

/// The pool of a stage with these players: a served model's answers are waited for, one of our own computes on the device.
pub fn pool(agent: &Agent, user: &UserSpec, profile: &dyn Profile) -> &'static str {
    match agent.kind {
        AgentKind::Policy => profile.device_pool(),
        AgentKind::Rule if !user.is_model() => "cpu",
        AgentKind::Served | AgentKind::Rule => "llm",
    }
}
