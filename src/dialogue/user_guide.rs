//! The guide user: a language model that plays the customer after the dialogue that the task was made of (reference, section
//! 2.7). So it says what people say, in the order in which they say it.

use std::rc::Rc;

use minijinja::context;

use super::agent::Usage;
use super::source::{Speaker, transcript};
use super::template::{Template, TemplateError};
use super::user::{turn, unanswered};
use super::user_agenda::{END, UserTurn};
use crate::chat::{Chat, Message, Role};
use crate::compat::Rules;
use crate::llm::{ChatModel, ChatRequest, ModelError, Sampling};

/// What the model writes before the customer's words; all before it is thought.
const QUOTE: &str = "Suggested quote:";

/// What a guide user knows of its task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guide {
    /// The goal in sentences, without tags.
    pub goal: String,
    /// The dialogue that the task was made of, as lines.
    pub source: String,
}

/// A model as the customer.
pub struct GuideUser {
    model: Rc<dyn ChatModel>,
    sampling: Sampling,
    prompt: Template,
}

impl GuideUser {
    /// A user whose model is told all that it needs by a template over [`GUIDE_VARIABLES`](super::template::GUIDE_VARIABLES).
    ///
    /// # Errors
    /// When the template cannot be filled in.
    pub fn new(model: Rc<dyn ChatModel>, sampling: Sampling, prompt: Template) -> Result<Self, TemplateError> {
        let user = Self { model, sampling, prompt };
        user.part(&Guide { goal: "a goal".to_owned(), source: "customer: hello".to_owned() }, &Chat::new())?;
        Ok(user)
    }

    fn part(&self, guide: &Guide, visible: &Chat) -> Result<String, TemplateError> {
        let Guide { goal, source } = guide;
        let turns = visible.messages().into_iter().map(|message| match message.role {
            Role::User => (Speaker::Customer, message.content.as_str()),
            _ => (Speaker::Agent, message.content.as_str()),
        });
        self.prompt.render(context! { goal, source, transcript => transcript(turns), end => END })
    }

    /// The next utterance: what the model suggests in reply to one message that tells all.
    ///
    /// # Errors
    /// When the model gives no reply, or suggests nothing.
    pub async fn speak(
        &self,
        guide: &Guide,
        visible: &Chat,
        rules: &Rules,
        seed: u64,
    ) -> Result<(UserTurn, Usage), ModelError> {
        let part = self.part(guide, visible).map_err(|error| ModelError::Failed(error.to_string()))?;
        let chat = [Message::user(part)].into_iter().collect();
        let request = ChatRequest { system: None, chat, tools: None, sampling: self.sampling.clone(), seed };
        let reply = self.model.complete(request).await.map_err(unanswered)?;
        let usage = Usage { prompt: reply.prompt_tokens, completion: reply.completion_tokens };
        Ok((turn(&quote(&reply.text), rules)?, usage))
    }
}

/// What follows the last mark, on one line and without double quotes; all where there is no mark.
fn quote(text: &str) -> String {
    let quoted = text.rsplit_once(QUOTE).map_or(text, |(_, quoted)| quoted);
    let bare = quoted.replace(['"', '“', '”'], "");
    bare.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::template::GUIDE_VARIABLES;
    use super::*;
    use crate::llm::scripted::Scripted;

    #[test]
    fn the_last_quote_counts() {
        let text = "Suggested quote: no.\nBetter so:\nSuggested quote:\n \"I'd like a\n “cheap” hotel.\" ";
        assert_eq!(quote(text), "I'd like a cheap hotel.");
        assert_eq!(quote("just this"), "just this");
        assert_eq!(quote("hm. Suggested quote: \"\""), "");
    }

    #[test]
    fn what_a_search_notes_for_the_customer_is_no_word_of_its_own() {
        let prompt =
            Template::new("mine", "{{ goal }}{{ source }}{{ end }}\n{{ transcript }}", GUIDE_VARIABLES).unwrap();
        let sampling = Sampling { max_tokens: 8, ..Sampling::default() };
        let user = GuideUser::new(Rc::new(Scripted::new(["unasked"])), sampling, prompt).unwrap();
        let chat = [Message::user("hi"), Message::system("Error: out")].into_iter().collect();
        let part = user.part(&Guide { goal: String::new(), source: String::new() }, &chat).unwrap();
        assert!(part.ends_with("\ncustomer: hi\nagent: Error: out"), "{part}");
    }
}
