//! The goal user: a language model that plays the customer from the goal in words (reference, section 2.7).

use std::rc::Rc;
use std::sync::Arc;

use minijinja::context;

use super::agent::Usage;
use super::template::{Template, TemplateError};
use super::user::{turn, unanswered};
use super::user_agenda::{END, UserTurn};
use crate::chat::{Chat, Message, Role};
use crate::compat::Rules;
use crate::llm::{ChatModel, ChatRequest, ModelError, Sampling};

/// A model as the customer.
pub struct GoalUser {
    model: Rc<dyn ChatModel>,
    sampling: Sampling,
    prompt: Template,
}

impl GoalUser {
    /// A user whose model is told its part by a template over [`GOAL_VARIABLES`](super::template::GOAL_VARIABLES).
    ///
    /// # Errors
    /// When the template cannot be filled in.
    pub fn new(model: Rc<dyn ChatModel>, sampling: Sampling, prompt: Template) -> Result<Self, TemplateError> {
        let user = Self { model, sampling, prompt };
        user.part("a goal", true)?;
        Ok(user)
    }

    fn part(&self, goal: &str, opening: bool) -> Result<String, TemplateError> {
        self.prompt.render(context! { goal, opening, end => END })
    }

    /// The next utterance: one reply of the model to its part and the dialogue with the roles swapped. `goal` is the goal in
    /// sentences, without tags.
    ///
    /// # Errors
    /// When the model gives no reply, or an empty one.
    pub async fn speak(
        &self,
        goal: &str,
        visible: &Chat,
        rules: &Rules,
        seed: u64,
    ) -> Result<(UserTurn, Usage), ModelError> {
        let part = self.part(goal, visible.is_empty()).map_err(|error| ModelError::Failed(error.to_string()))?;
        // Chat servers want a user's message first: the agent greets.
        let mut chat: Chat = [Message::user("Hello, how can I help you?")].into_iter().collect();
        chat.extend(visible.messages().into_iter().map(|message| match message.role {
            Role::User => Message::assistant(message.content.clone()),
            _ => Message::user(message.content.clone()),
        }));
        let system = Some(Arc::new(Message::system(part)));
        let request = ChatRequest { system, chat, tools: None, sampling: self.sampling.clone(), seed };
        let reply = self.model.complete(request).await.map_err(unanswered)?;
        let usage = Usage { prompt: reply.prompt_tokens, completion: reply.completion_tokens };
        Ok((turn(&reply.text, rules)?, usage))
    }
}
