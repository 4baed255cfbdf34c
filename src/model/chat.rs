//! The chat template: messages to tokens, and which of them are to be learnt.

use super::tokenizer::{Tokenizer, TokenizerError};
use crate::chat::{Message, Role};

/// The template as Hugging Face's `tokenizer_config.json` holds it. It says what [`encode`] does: a role's token, the text,
/// `<|end|>`; then, where a reply is wanted, the assistant's token.
pub const JINJA: &str = "{% for message in messages %}<|{{ message.role }}|>\
    {% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|end|>{% endgeneration %}\
    {% else %}{{ message.content }}<|end|>{% endif %}{% endfor %}\
    {% if add_generation_prompt %}<|assistant|>{% endif %}";

/// A chat as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedChat {
    /// The tokens.
    pub ids: Vec<u32>,
    /// For every token whether the assistant writes it: its text and the `<|end|>` behind it. The loss mask.
    pub learnt: Vec<bool>,
}

impl EncodedChat {
    fn push(&mut self, ids: &[u32], learnt: bool) {
        self.ids.extend_from_slice(ids);
        self.learnt.resize(self.ids.len(), learnt);
    }
}

/// The tokens of a chat.
///
/// # Errors
/// When a message calls tools natively: only its text could be encoded, and half of a message is another message.
pub fn encode<'m>(
    tokenizer: &Tokenizer,
    messages: impl IntoIterator<Item = &'m Message>,
) -> Result<EncodedChat, TokenizerError> {
    let mut chat = EncodedChat::default();
    for message in messages {
        if !message.tool_calls.is_empty() {
            return Err(TokenizerError::NativeCalls);
        }
        let learnt = message.role == Role::Assistant;
        chat.push(&[tokenizer.role(message.role)], false);
        chat.push(&tokenizer.encode(&message.content)?, learnt);
        chat.push(&[tokenizer.end()], learnt);
    }
    Ok(chat)
}

/// The tokens of a chat that the assistant is to continue: the last one is the assistant's.
///
/// # Errors
/// As [`encode`].
pub fn encode_prompt<'m>(
    tokenizer: &Tokenizer,
    messages: impl IntoIterator<Item = &'m Message>,
) -> Result<Vec<u32>, TokenizerError> {
    let mut ids = encode(tokenizer, messages)?.ids;
    ids.push(tokenizer.role(Role::Assistant));
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tokenizer::tests::small;

    fn messages() -> Vec<Message> {
        vec![
            Message::system("You help."),
            Message::user("I want italian food in the centre."),
            Message::assistant("SPEAK When? <COMMAND_END>"),
            Message::user("<|end|>"),
            Message::assistant(""),
        ]
    }

    #[test]
    fn learns_what_the_assistant_writes_and_nothing_else() {
        let tokenizer = small();
        let chat = encode(&tokenizer, &messages()).unwrap();
        assert_eq!(chat.ids.len(), chat.learnt.len());
        let learnt: Vec<u32> =
            chat.ids.iter().zip(&chat.learnt).filter(|(_, learnt)| **learnt).map(|(id, _)| *id).collect();
        let mut expected = tokenizer.encode("SPEAK When? <COMMAND_END>").unwrap();
        expected.extend([tokenizer.end(), tokenizer.end()]);
        assert_eq!(learnt, expected);
    }

    #[test]
    fn native_calls_are_refused_and_not_half_encoded() {
        let tool_calls = vec![crate::chat::ToolCall::new("c", "search_hotel", "{}")];
        let calling = Message { tool_calls, ..Message::assistant("let me see") };
        let error = encode(&small(), &[calling]).unwrap_err().to_string();
        assert!(error.contains("as text"), "{error}");
        assert!(encode(&small(), &[Message::tool("c", "[]")]).is_ok());
    }

    #[test]
    fn a_prompt_is_a_prefix_of_the_chat_that_follows() {
        let tokenizer = small();
        let chat = encode(&tokenizer, &messages()).unwrap();
        let prompt = encode_prompt(&tokenizer, &messages()[..2]).unwrap();
        assert_eq!(chat.ids[..prompt.len()], prompt);
    }

    #[test]
    fn the_jinja_template_says_the_same() {
        let tokenizer = small();
        // `generation` only marks what is learnt, and is Hugging Face's own: here it is taken out.
        let template = JINJA.replace("{% generation %}", "").replace("{% endgeneration %}", "");
        let safe: Vec<Message> = messages().into_iter().filter(|message| message.content != "<|end|>").collect();
        let environment = minijinja::Environment::new();
        let text = environment
            .render_str(
                &template,
                minijinja::value::Serde(serde_json::json!({"messages": safe, "add_generation_prompt": true})),
            )
            .unwrap();
        let hugging_face = tokenizers::Tokenizer::from_bytes(tokenizer.to_json().unwrap()).unwrap();
        let ids = hugging_face.encode(text, false).unwrap().get_ids().to_vec();
        assert_eq!(ids, encode_prompt(&tokenizer, &safe).unwrap());
    }
}
