//! Training examples to token sequences. Nothing is cut: an example that is too long stops the training or is left out, as
//! the caller says, and is counted.

use serde_json::Value;

use super::batch::{Sequence, TooLong};
use super::kto::KtoRow;
use super::rows::{Fate, TrainRow};
use crate::examples::{KtoExample, SftExample};
use crate::model::chat::{Completion, encode, encode_completion};
use crate::model::tokenizer::{Tokenizer, TokenizerError};

/// Why examples cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// An example is longer than allowed.
    #[error(
        "dialogue `{dialogue}` has {tokens} tokens, more than `max_length`, {limit} ({count} examples are too long); \
         raise `max_length`, or leave them out with `too_long: drop`"
    )]
    TooLong {
        /// The first such example's dialogue.
        dialogue: String,
        /// Its tokens.
        tokens: usize,
        /// The most tokens allowed.
        limit: usize,
        /// How many examples are too long.
        count: usize,
    },
    /// An example's `tools` are no list of definitions.
    #[error("the `tools` of an example are no list of function schemas: {0}")]
    Tools(String),
    /// The tokenizer refuses a text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// What encoding gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded<T> {
    /// What can be trained on, in the order of the examples.
    pub rows: Vec<T>,
    /// Every example with its tokens and, so far as encoding knows, its fate.
    pub examples: Vec<TrainRow>,
}

impl<T> Encoded<T> {
    /// How many examples have this fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.examples.iter().filter(|example| example.fate == fate).count()
    }
}

/// Chats as sequences whose assistant messages are scored.
///
/// # Errors
/// When an example has more than `limit` tokens and none may be left out.
pub fn sft(
    tokenizer: &Tokenizer,
    examples: &[SftExample],
    limit: usize,
    too_long: TooLong,
) -> Result<Encoded<Sequence>, EncodeError> {
    let one = |example: &SftExample| {
        let chat = encode(tokenizer, &example.messages, &tools(example.tools.as_deref())?)?;
        Ok(Sequence { dialogue: example.dialogue.clone(), ids: chat.ids, scored: chat.learnt })
    };
    let all = examples.iter().map(one).collect::<Result<Vec<_>, EncodeError>>()?;
    sift(all, limit, too_long, |sequence| (sequence, None))
}

/// Prompts and completions as rows; every token of the completion is scored.
///
/// As in the reference the prompt is the common start of the encoded prompt and the encoded whole.
///
/// # Errors
/// As [`sft`].
pub fn kto(
    tokenizer: &Tokenizer,
    examples: &[KtoExample],
    limit: usize,
    too_long: TooLong,
) -> Result<Encoded<KtoRow>, EncodeError> {
    let one = |example: &KtoExample| {
        let tools = tools(example.tools.as_deref())?;
        let Completion { ids, prompt } = encode_completion(tokenizer, &example.prompt, &example.completion, &tools)?;
        let scored = (0..ids.len()).map(|place| place >= prompt).collect();
        let sequence = Sequence { dialogue: example.dialogue.clone(), ids, scored };
        Ok(KtoRow { sequence, prompt, desirable: example.label })
    };
    let all = examples.iter().map(one).collect::<Result<Vec<_>, EncodeError>>()?;
    sift(all, limit, too_long, |row| (&row.sequence, Some(row.desirable)))
}

/// The definitions of the tools that an example's chat may call.
fn tools(schemas: Option<&str>) -> Result<Vec<Value>, EncodeError> {
    schemas.map_or(Ok(Vec::new()), serde_json::from_str).map_err(|error| EncodeError::Tools(error.to_string()))
}

fn sift<T>(
    all: Vec<T>,
    limit: usize,
    too_long: TooLong,
    part: impl Fn(&T) -> (&Sequence, Option<bool>),
) -> Result<Encoded<T>, EncodeError> {
    let example = |(place, one): (usize, &T)| {
        let (sequence, label) = part(one);
        let (tokens, scored) = (sequence.ids.len(), sequence.scored_tokens());
        let (trained_tokens, fate) = if tokens > limit {
            (0, Fate::TooLong)
        } else if scored == 0 {
            (0, Fate::NothingToLearn)
        } else {
            (scored as u64, Fate::Trained)
        };
        let (place, dialogue) = (place as u64, sequence.dialogue.clone());
        TrainRow { place, dialogue, label, tokens: Some(tokens as u64), trained_tokens, times: 0, fate }
    };
    let examples: Vec<TrainRow> = all.iter().enumerate().map(example).collect();
    let long = || examples.iter().zip(&all).filter(|(example, _)| example.fate == Fate::TooLong);
    if let (TooLong::Error, Some((_, first))) = (too_long, long().next()) {
        let Sequence { dialogue, ids, .. } = part(first).0;
        return Err(EncodeError::TooLong {
            dialogue: dialogue.clone(),
            tokens: ids.len(),
            limit,
            count: long().count(),
        });
    }
    let trained = all.into_iter().zip(&examples).filter(|(_, example)| example.fate == Fate::Trained);
    Ok(Encoded { rows: trained.map(|(one, _)| one).collect(), examples })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Message;

    fn tokenizer() -> Tokenizer {
        Tokenizer::train(["I want a cheap hotel", "SPEAK Which area? <COMMAND_END>"], 300).unwrap()
    }

    fn example(dialogue: &str, label: bool, text: &str) -> KtoExample {
        KtoExample {
            dialogue: dialogue.to_owned(),
            prompt: vec![Message::system("Help."), Message::user("a cheap hotel")],
            completion: vec![Message::assistant(text)],
            label,
            tools: None,
        }
    }

    #[test]
    fn the_completion_and_its_end_are_scored() {
        let tokenizer = tokenizer();
        let examples = [example("a", true, "SPEAK Which area?"), example("b", false, "")];
        let encoded = kto(&tokenizer, &examples, 500, TooLong::Error).unwrap();
        let row = &encoded.rows[0];
        let completion = tokenizer.encode("SPEAK Which area?").unwrap();
        assert_eq!(row.sequence.scored_tokens(), completion.len() + 1);
        assert_eq!(row.sequence.ids[row.prompt..], [completion, tokenizer.encode_marked("<|end|>").unwrap()].concat());
        assert_eq!((encoded.rows[1].sequence.scored_tokens(), encoded.rows[1].desirable), (1, false));
    }

    #[test]
    fn only_assistant_messages_are_scored() {
        let tokenizer = tokenizer();
        let chat =
            |messages: &[Message]| SftExample { dialogue: "d".to_owned(), messages: messages.to_vec(), tools: None };
        let examples = [
            chat(&[
                Message::user("I want"),
                Message::assistant("area"),
                Message::user("hotel"),
                Message::assistant("a"),
            ]),
            chat(&[Message::user("I want")]),
        ];
        let encoded = sft(&tokenizer, &examples, 500, TooLong::Error).unwrap();
        let counts = [Fate::Trained, Fate::NothingToLearn, Fate::TooLong].map(|fate| encoded.count(fate));
        assert_eq!((encoded.rows.len(), counts), (1, [1, 1, 0]));
        let expected = tokenizer.encode("area").unwrap().len() + tokenizer.encode("a").unwrap().len() + 2;
        assert_eq!(encoded.rows[0].scored_tokens(), expected);
        let [first, second] = &encoded.examples[..] else { panic!("one for each example") };
        assert_eq!((first.trained_tokens, first.tokens), (expected as u64, Some(encoded.rows[0].ids.len() as u64)));
        assert_eq!((second.trained_tokens, second.fate, second.place), (0, Fate::NothingToLearn, 1));
    }

    #[test]
    fn what_is_too_long_is_named_or_counted_and_never_cut() {
        let tokenizer = tokenizer();
        let examples = [example("short", true, "a"), example("long", true, &"area ".repeat(60))];
        let error = kto(&tokenizer, &examples, 50, TooLong::Error).unwrap_err().to_string();
        assert!(error.starts_with("dialogue `long` has "), "{error}");
        assert!(error.contains("more than `max_length`, 50 (1 examples are too long)"), "{error}");
        let encoded = kto(&tokenizer, &examples, 50, TooLong::Drop).unwrap();
        assert_eq!((encoded.rows.len(), encoded.count(Fate::TooLong)), (1, 1));
        let long = &encoded.examples[1];
        assert!(long.tokens.unwrap() > 50 && long.trained_tokens == 0 && long.label == Some(true));
        assert_eq!(encoded.rows, kto(&tokenizer, &examples[..1], 50, TooLong::Error).unwrap().rows);
    }
}
