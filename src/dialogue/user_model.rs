//! The goal user: a language model that plays the customer from the goal in words (reference, section 2.7).

use std::rc::Rc;
use std::sync::Arc;

use minijinja::{Environment, context};

use super::react::Usage;
use super::user_agenda::{END, UserTurn};
use crate::chat::{Chat, Message, Role};
use crate::llm::{ChatModel, ChatRequest, ModelError, Sampling};

/// The prompts that come with the program.
pub const GOAL_PROMPT: &str = include_str!("prompts/goal_user.j2");

/// A model as the customer.
pub struct GoalUser {
    model: Rc<dyn ChatModel>,
    sampling: Sampling,
    template: String,
}

/// A prompt template that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the user's prompt template: {0}")]
pub struct PromptError(#[from] minijinja::Error);

impl GoalUser {
    /// A user whose model is told its part by `template`: `{{ goal }}` is the goal in sentences, `{{ end }}` the text that
    /// ends the dialogue, `{{ opening }}` whether the customer has yet to speak its first words.
    ///
    /// # Errors
    /// When the template is none, or names something else.
    pub fn new(model: Rc<dyn ChatModel>, sampling: Sampling, template: &str) -> Result<Self, PromptError> {
        let user = Self { model, sampling, template: template.to_owned() };
        user.prompt("a goal", true)?;
        Ok(user)
    }

    fn prompt(&self, goal: &str, opening: bool) -> Result<String, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
        let text = environment.render_str(&self.template, context! { goal, opening, end => END })?;
        Ok(text.trim().to_owned())
    }

    /// The next utterance: one reply of the model to its part and the dialogue with the roles swapped.
    ///
    /// # Errors
    /// When the model gives no reply.
    pub async fn speak(&self, goal: &str, visible: &Chat, seed: u64) -> Result<(UserTurn, Usage), ModelError> {
        let goal = without_tags(goal);
        let prompt = self.prompt(&goal, visible.is_empty()).map_err(|error| ModelError::Failed(error.to_string()))?;
        // Chat servers want a user's message first: the agent greets.
        let mut chat: Chat = [Message::user("Hello, how can I help you?")].into_iter().collect();
        chat.extend(visible.messages().into_iter().map(|message| match message.role {
            Role::Assistant => Message::user(message.content.clone()),
            _ => Message::assistant(message.content.clone()),
        }));
        let system = Some(Arc::new(Message::system(prompt)));
        let request = ChatRequest { system, chat, tools: None, sampling: self.sampling.clone(), seed };
        let reply = self.model.complete(request).await?;
        let usage = Usage { prompt: reply.prompt_tokens, completion: reply.completion_tokens };
        Ok((turn(&reply.text), usage))
    }
}

/// A turn ends the dialogue when it says so and asks for nothing besides: an end mark in a message that still wants something
/// is taken out of it, so that the agent answers (quirk Q23).
fn turn(text: &str) -> UserTurn {
    let text = text.trim();
    if !text.contains(END) {
        return UserTurn { text: text.to_owned(), ended: false };
    }
    let rest = text.replace(END, " ");
    let rest = rest.trim();
    if rest.contains('?') {
        return UserTurn { text: rest.to_owned(), ended: false };
    }
    UserTurn { text: format!("{rest} {END}").trim().to_owned(), ended: true }
}

/// The goal without its emphasis tags: customers do not speak them.
fn without_tags(goal: &str) -> String {
    let mut out = String::with_capacity(goal.len());
    let mut rest = goal;
    while let Some((before, after)) = rest.split_once('<') {
        out.push_str(before);
        match after.split_once('>') {
            Some((_, after)) => rest = after,
            None => {
                out.push('<');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_go_and_the_end_is_heard() {
        assert_eq!(without_tags("a <span class='emphasis'>cheap</span> hotel < 5"), "a cheap hotel < 5");
        assert!(turn("Thanks, bye. END_CONVERSATION").ended);
        let asks = turn("What is the phone number? END_CONVERSATION");
        assert!(!asks.ended && !asks.text.contains(END));
        assert_eq!(turn(" END_CONVERSATION").text, END);
    }
}
