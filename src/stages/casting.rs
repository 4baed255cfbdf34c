//! Who plays in a dialogue: the parameters `agent` and `user` of the stages that simulate, made an agent and a user.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::bail;

use super::prompt;
pub use super::roles::{Agent, AgentKind, UserSpec, calls_are_made, check_inputs, pool, templates};
use super::roles::{AgentStyle, UserKind};
use super::served::Served;
use super::training::compute;
use crate::dialogue::agent::{ChatAgent, Style};
use crate::dialogue::agent_rule::RuleAgent;
use crate::dialogue::agent_tools::schemas;
use crate::dialogue::episode::Cast;
use crate::dialogue::lexicon::Lexicon;
use crate::dialogue::source::{Source, Sources};
use crate::dialogue::user::User;
use crate::dialogue::user_goal::GoalUser;
use crate::dialogue::user_guide::GuideUser;
use crate::dialogue::world::World;
use crate::engine::port::{Folder, Port};
use crate::engine::stage::Context;
use crate::llm::local::{LocalModel, REMEMBERED};
use crate::llm::{ChatModel, Sampling};
use crate::model::bundle::{self, Bundle};
use crate::model::grammar::calls::{CallForm, CallFormat};

/// The dialogues that the tasks were made of, for users that follow them.
pub const SOURCES: Port<Source> = Port::new("sources");

/// The agent of our own: a model that a training stage made.
pub const POLICY: Folder = Folder::new("policy", bundle::FORMAT);

/// The players of many dialogues, on one thread.
pub struct Casting<'c> {
    /// Agent and user.
    pub cast: Cast,
    /// The models that compute here.
    pub models: Vec<Rc<dyn ChatModel>>,
    /// The models that are served.
    pub served: Served<'c>,
    local: Option<Rc<LocalModel>>,
}

/// Makes the players that parameters describe.
///
/// # Errors
/// When the port `policy` is not connected though the agent is it, a model or template cannot be loaded, or the profile does
/// not know a served model.
pub fn casting<'c>(
    context: &'c Context,
    agent: &Agent,
    user: &UserSpec,
    world: &Arc<World>,
) -> anyhow::Result<Casting<'c>> {
    let lexicon = Arc::new(Lexicon::new(world));
    let mut served = Served::new(context);
    let mut local = None;
    let model: Rc<dyn ChatModel> = match agent.kind {
        AgentKind::Rule => Rc::new(RuleAgent::new(lexicon.clone(), agent.noise)),
        AgentKind::Served => served.serve(agent.model.as_deref().unwrap_or_default(), agent.replay, agent.logprobs)?,
        AgentKind::Policy => {
            let Some(path) = context.optional_input(POLICY.name) else {
                bail!("the agent is a `policy`, and the input `policy` is not connected");
            };
            let device = compute(context)?;
            let bundle = Bundle::load(path, &device)?;
            let bundle = Bundle { decoder: bundle.decoder.at(device.place()), ..bundle };
            let model = Rc::new(LocalModel::new(&bundle, REMEMBERED)?);
            local = Some(model.clone());
            model
        }
    };
    let user = match user.template(&context.project)? {
        None if user.kind == UserKind::Script => User::Script(sources(context)?),
        None => User::Agenda { lexicon, patience: user.patience },
        Some((prompt, _)) => {
            let model = served.serve(user.model.as_deref().unwrap_or_default(), user.replay, false)?;
            let sampling = user.sampling();
            if user.kind == UserKind::Guide {
                User::Guide(Rc::new(GuideUser::new(model, sampling, prompt)?), sources(context)?)
            } else {
                User::Goal(Rc::new(GoalUser::new(model, sampling, prompt)?))
            }
        }
    };
    let agent = ChatAgent {
        model: model.clone(),
        system: prompt::system_message(context, agent.template())?.map(Arc::new),
        sampling: Sampling { calls: calls(agent, world), ..agent.sampling() },
        seed: agent.seed,
        tries: agent.tries,
        style: match agent.style {
            AgentStyle::React => Style::React,
            AgentStyle::Tools => Style::Tools(schemas(world)),
        },
    };
    Ok(Casting { cast: Cast { user, agent }, models: vec![model], served, local })
}

/// What a constrained policy's calls must keep to.
fn calls(agent: &Agent, world: &World) -> Option<Arc<CallFormat>> {
    let form = match agent.style {
        AgentStyle::React => CallForm::Commands,
        AgentStyle::Tools => CallForm::Hermes,
    };
    agent.constrained.then(|| Arc::new(CallFormat { form, tools: schemas(world) }))
}

fn sources(context: &Context) -> anyhow::Result<Sources> {
    let mut sources = HashMap::new();
    for source in context.rows(&SOURCES)? {
        let source = source?;
        sources.insert(source.dialogue.clone(), Arc::new(source));
    }
    Ok(Arc::new(sources))
}

impl Casting<'_> {
    /// How many dialogues at once: enough for the servers, or as many as suits models that compute here.
    pub fn width(&self, here: usize) -> usize {
        let served = self.served.width();
        if self.local.is_some() || served == 0 { here.max(served) } else { served }
    }

    /// The models as the driver wants them.
    pub fn driven(&self) -> Vec<&dyn ChatModel> {
        self.models.iter().map(|model| model.as_ref()).collect()
    }

    /// Records what the models did and cost.
    pub fn record(&self, context: &Context) {
        self.served.record();
        if let Some(local) = &self.local {
            let counters = local.counters();
            context.figure("policy.prompt_tokens", counters.prompt as f64);
            context.figure("policy.reused_tokens", counters.reused as f64);
            context.figure("policy.generated_tokens", counters.generated as f64);
        }
    }
}
