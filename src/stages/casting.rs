//! Who plays in a dialogue: the parameters `agent` and `user` of the stages that simulate, made an agent and a user.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::bail;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::{record_account, served_model};
use super::prompt;
use crate::dialogue::agent_rule::RuleAgent;
use crate::dialogue::episode::Cast;
use crate::dialogue::lexicon::Lexicon;
use crate::dialogue::react::ReactAgent;
use crate::dialogue::user::User;
use crate::dialogue::user_model::{GOAL_PROMPT, GoalUser};
use crate::dialogue::world::World;
use crate::engine::port::Folder;
use crate::engine::stage::{Context, Problem, Profile};
use crate::fs;
use crate::llm::http::HttpModel;
use crate::llm::local::{LocalModel, REMEMBERED};
use crate::llm::{ChatModel, Sampling};
use crate::model::bundle::{self, Bundle};
use crate::model::device::device;

/// The agent of our own: a model that a training stage made.
pub const POLICY: Folder = Folder::new("policy", bundle::FORMAT);

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
    /// The system message: `react` (tools and rules, for large models), `brief` (one line), or a template's path. Where absent
    /// a served model gets `react` and a policy none.
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
    /// The most tokens of one reply.
    #[serde(default = "reply_tokens")]
    pub max_tokens: usize,
    /// Replies that one turn may take before it counts as silent.
    #[serde(default = "three")]
    pub tries: usize,
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
}

/// The user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserSpec {
    /// Who speaks for the customer: `agenda` or `goal`.
    #[serde(default)]
    pub kind: UserKind,
    /// The name of a served model; the profile says where it is.
    #[serde(default)]
    pub model: Option<String>,
    /// The template of the goal user's prompt, instead of the built-in one.
    #[serde(default)]
    pub prompt: Option<String>,
    /// Misunderstandings that the agenda user bears before it gives up.
    #[serde(default = "four_times")]
    pub patience: u32,
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

impl Default for Agent {
    fn default() -> Self {
        Self {
            kind: AgentKind::default(),
            model: None,
            system_prompt: None,
            noise: 0.0,
            temperature: 0.0,
            top_k: None,
            top_p: one(),
            max_tokens: reply_tokens(),
            tries: three(),
        }
    }
}

impl Default for UserSpec {
    fn default() -> Self {
        Self { kind: UserKind::default(), model: None, prompt: None, patience: four_times() }
    }
}

impl Agent {
    /// What is wrong beyond types.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |field: &str, message: &str, bad: bool| {
            if bad {
                problems.push(Problem::new(format!("agent.{field}"), message));
            }
        };
        wrong("noise", "must lie between 0 and 1", !(0.0..=1.0).contains(&self.noise));
        wrong("temperature", "must be 0 or more", !(self.temperature >= 0.0 && self.temperature.is_finite()));
        wrong("top_p", "must be above 0 and at most 1", !(self.top_p > 0.0 && self.top_p <= 1.0));
        wrong("top_k", "must be at least 1", self.top_k == Some(0));
        wrong("max_tokens", "must be at least 1", self.max_tokens == 0);
        wrong("tries", "must be at least 1", self.tries == 0);
        wrong("model", "must name a served model", self.kind == AgentKind::Served && self.model.is_none());
        problems
    }

    fn template(&self) -> Option<&str> {
        match (self.system_prompt.as_deref(), self.kind) {
            (None, AgentKind::Served) => Some("react"),
            (named, _) => named,
        }
    }

    fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            max_tokens: self.max_tokens,
            stop: Vec::new(),
        }
    }
}

impl UserSpec {
    /// What is wrong beyond types.
    pub fn check(&self) -> Vec<Problem> {
        let nameless = self.kind == UserKind::Goal && self.model.is_none();
        nameless.then(|| Problem::new("user.model", "must name a served model")).into_iter().collect()
    }
}

/// The content of the templates that parameters name, for fingerprints.
pub fn templates(agent: &Agent, user: &UserSpec, project: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let mut found = prompt::depends_on(agent.template(), project)?;
    if let Some(path) = &user.prompt {
        found.push(("user.prompt".to_owned(), blake3::hash(&fs::read(project.join(path))?).to_hex().to_string()));
    }
    Ok(found)
}

/// The pool of a stage with these players: a served model's answers are waited for, one of our own computes on the device.
pub fn pool(agent: &Agent, user: &UserSpec, profile: &dyn Profile) -> &'static str {
    match (agent.kind, user.kind) {
        (AgentKind::Policy, _) => profile.device_pool(),
        (AgentKind::Served, _) | (_, UserKind::Goal) => "llm",
        _ => "cpu",
    }
}

/// The players of many dialogues, on one thread.
pub struct Casting {
    /// Agent and user.
    pub cast: Cast,
    /// The models that compute here.
    pub models: Vec<Rc<dyn ChatModel>>,
    served: Vec<(String, Rc<HttpModel>)>,
    local: Option<Rc<LocalModel>>,
}

/// Makes the players that parameters describe.
///
/// # Errors
/// When the port `policy` is not connected though the agent is it, a model or template cannot be loaded, or the profile does
/// not know a served model.
pub fn casting(context: &Context, agent: &Agent, user: &UserSpec, world: &Arc<World>) -> anyhow::Result<Casting> {
    let lexicon = Arc::new(Lexicon::new(world));
    let mut served: Vec<(String, Rc<HttpModel>)> = Vec::new();
    let mut serve = |name: &str| -> anyhow::Result<Rc<HttpModel>> {
        if let Some((_, model)) = served.iter().find(|(known, _)| known == name) {
            return Ok(model.clone());
        }
        let model = Rc::new(served_model(context, name)?);
        served.push((name.to_owned(), model.clone()));
        Ok(model)
    };
    let mut local = None;
    let model: Rc<dyn ChatModel> = match agent.kind {
        AgentKind::Rule => Rc::new(RuleAgent::new(lexicon.clone(), agent.noise)),
        AgentKind::Served => serve(agent.model.as_deref().unwrap_or_default())?,
        AgentKind::Policy => {
            let Some(path) = context.optional_input(POLICY.name) else {
                bail!("the agent is a `policy`, and the input `policy` is not connected");
            };
            let bundle = Bundle::load(path, &device(context.profile.device())?)?;
            let model = Rc::new(LocalModel::new(&bundle, REMEMBERED));
            local = Some(model.clone());
            model
        }
    };
    let user = match user.kind {
        UserKind::Agenda => User::Agenda { lexicon, patience: user.patience },
        UserKind::Goal => {
            let template = match &user.prompt {
                Some(path) => fs::read_to_string(context.project.join(path))?,
                None => GOAL_PROMPT.to_owned(),
            };
            let model = serve(user.model.as_deref().unwrap_or_default())?;
            let sampling = Sampling { temperature: 0.0, top_k: None, top_p: 1.0, max_tokens: 256, stop: Vec::new() };
            User::Goal(Rc::new(GoalUser::new(model, sampling, &template)?))
        }
    };
    let system = prompt::system_message(context, agent.template())?.map(Arc::new);
    let agent = ReactAgent { model: model.clone(), system, sampling: agent.sampling(), tries: agent.tries };
    Ok(Casting { cast: Cast { user, agent }, models: vec![model], served, local })
}

impl Casting {
    /// The models as the driver wants them.
    pub fn driven(&self) -> Vec<&dyn ChatModel> {
        self.models.iter().map(|model| model.as_ref()).collect()
    }

    /// Records what the models did and cost.
    pub fn record(&self, context: &Context) {
        for (name, model) in &self.served {
            record_account(context, name, model.account());
        }
        if let Some(local) = &self.local {
            let counters = local.counters();
            context.figure("policy.prompt_tokens", counters.prompt as f64);
            context.figure("policy.reused_tokens", counters.reused as f64);
            context.figure("policy.generated_tokens", counters.generated as f64);
        }
    }
}
