//! Who works at the desk: a clerk of rules with bad habits, or a policy.

use std::future::Future;
use std::pin::Pin;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thresh::engine::port::Folder;
use thresh::engine::stage::{Context, Problem};
use thresh::llm::local::{LocalModel, REMEMBERED};
use thresh::llm::{ChatModel, ChatRequest, ModelError, Reply, Sampling};
use thresh::model::bundle::{Bundle, FORMAT};
use thresh::model::device::device;
use thresh::seed::derive;

use crate::library::any_shelf;

/// A policy that training stages made.
pub const POLICY: Folder = Folder::new("policy", FORMAT);

/// The clerk.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Clerk {
    /// How often the rules guess a shelf instead of looking it up; of no meaning with a policy.
    pub guesses: f64,
    /// How freely a policy draws its words; 0 takes the likeliest.
    pub temperature: f32,
}

impl Default for Clerk {
    fn default() -> Self {
        Self { guesses: 0.0, temperature: 1.0 }
    }
}

impl Clerk {
    /// What is wrong with it.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(0.0..=1.0).contains(&self.guesses) {
            problems.push(Problem::new("clerk.guesses", "must lie between 0 and 1"));
        }
        if !(0.0..=10.0).contains(&self.temperature) {
            problems.push(Problem::new("clerk.temperature", "must lie between 0 and 10"));
        }
        problems
    }

    /// The clerk as a model: the policy where one is connected, else the rules.
    pub fn hire(&self, context: &Context) -> anyhow::Result<Box<dyn ChatModel>> {
        let Some(path) = context.optional_input(POLICY.name) else {
            return Ok(Box::new(Rules { guesses: self.guesses }));
        };
        let device = device(context.profile.device())?;
        let bundle = Bundle::load(path, &device)?;
        let bundle = Bundle { decoder: bundle.decoder.at(device.place()), ..bundle };
        Ok(Box::new(LocalModel::new(&bundle, REMEMBERED)?))
    }

    /// How it draws its words.
    pub fn sampling(&self) -> Sampling {
        Sampling { temperature: self.temperature, max_tokens: 24, ..Sampling::default() }
    }
}

/// A clerk of rules.
struct Rules {
    guesses: f64,
}

impl Rules {
    fn reply(&self, said: &str, seed: u64) -> String {
        let lazy = derive(seed, &["lazy"]) as f64 / u64::MAX as f64;
        if said.starts_with("RESULT held") {
            "It is kept for you.".to_owned()
        } else if let Some(shelf) = said.strip_prefix("RESULT ") {
            format!("HOLD {shelf}")
        } else if lazy < self.guesses {
            format!("HOLD {}", any_shelf(seed))
        } else {
            let title = said.trim_start_matches("Please keep ").trim_end_matches(" for me.");
            format!("FIND {title}")
        }
    }
}

impl ChatModel for Rules {
    fn complete(&self, request: ChatRequest) -> Pin<Box<dyn Future<Output = Result<Reply, ModelError>> + '_>> {
        let said = request.chat.last().map(|message| message.content.as_str()).unwrap_or_default();
        let text = self.reply(said, request.seed);
        let reply = Reply { text, tool_calls: Vec::new(), prompt_tokens: 0, completion_tokens: 0, cut_off: false };
        Box::pin(async move { Ok(reply) })
    }
}
