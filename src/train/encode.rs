//! Training examples to token sequences. Nothing is cut: an example that is too long stops the training or is left out, as
//! the caller says, and is counted.

use serde_json::Value;

use super::batch::{Sequence, TooLong};
use super::dpo::PairRow;
use super::kto::KtoRow;
use super::rows::{Fate, TrainRow};
use crate::chat::Message;
use crate::examples::{KtoExample, PairExample, SftExample};
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

/// Pairs as rows; every token of both completions is scored.
///
/// As in the reference the prompt is the common start of the encoded prompt and of both encoded wholes. A pair's tokens are
/// those of both sides together; it is too long where one of them is.
///
/// # Errors
/// As [`sft`].
pub fn pairs(
    tokenizer: &Tokenizer,
    examples: &[PairExample],
    limit: usize,
    too_long: TooLong,
) -> Result<Encoded<PairRow>, EncodeError> {
    let one = |example: &PairExample| {
        let tools = tools(example.tools.as_deref())?;
        let side = |completion: &[Message]| encode_completion(tokenizer, &example.prompt, completion, &tools);
        let (chosen, rejected) = (side(&example.chosen)?, side(&example.rejected)?);
        let prompt = chosen.prompt.min(rejected.prompt);
        let sides = [chosen, rejected].map(|Completion { ids, .. }| {
            let scored = (0..ids.len()).map(|place| place >= prompt).collect();
            Sequence { dialogue: example.dialogue.clone(), ids, scored }
        });
        Ok(PairRow { sides })
    };
    let all = examples.iter().map(one).collect::<Result<Vec<_>, EncodeError>>()?;
    sift_all(all, limit, too_long, |row: &PairRow| (row.sides.iter().collect(), None))
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
    sift_all(all, limit, too_long, |one| {
        let (sequence, label) = part(one);
        (vec![sequence], label)
    })
}

/// Parts what can be trained on from the rest. A row has one or several sequences, and is too long or without anything to
/// learn where one of them is.
fn sift_all<T>(
    all: Vec<T>,
    limit: usize,
    too_long: TooLong,
    parts: impl Fn(&T) -> (Vec<&Sequence>, Option<bool>),
) -> Result<Encoded<T>, EncodeError> {
    let longest = |sequences: &[&Sequence]| sequences.iter().map(|one| one.ids.len()).max().unwrap_or(0);
    let example = |(place, one): (usize, &T)| {
        let (sequences, label) = parts(one);
        let scored: Vec<usize> = sequences.iter().map(|one| one.scored_tokens()).collect();
        let (trained_tokens, fate) = if longest(&sequences) > limit {
            (0, Fate::TooLong)
        } else if scored.contains(&0) {
            (0, Fate::NothingToLearn)
        } else {
            (scored.iter().sum::<usize>() as u64, Fate::Trained)
        };
        let tokens = Some(sequences.iter().map(|one| one.ids.len() as u64).sum());
        let dialogue = sequences.first().map(|one| one.dialogue.clone()).unwrap_or_default();
        TrainRow { place: place as u64, dialogue, label, tokens, trained_tokens, times: 0, fate }
    };
    let examples: Vec<TrainRow> = all.iter().enumerate().map(example).collect();
    let long = || examples.iter().zip(&all).filter(|(example, _)| example.fate == Fate::TooLong);
    if let (TooLong::Error, Some((example, first))) = (too_long, long().next()) {
        let (dialogue, tokens) = (example.dialogue.clone(), longest(&parts(first).0));
        return Err(EncodeError::TooLong { dialogue, tokens, limit, count: long().count() });
    }
    let trained = all.into_iter().zip(&examples).filter(|(_, example)| example.fate == Fate::Trained);
    Ok(Encoded { rows: trained.map(|(one, _)| one).collect(), examples })
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn native_calls_are_scored_and_what_tools_return_is_not() {
        let tokenizer = tokenizer();
        let call = crate::chat::ToolCall::new("c1", "search_hotel", r#"{"area":"north"}"#);
        let messages = vec![
            Message::user("a cheap hotel"),
            Message { tool_calls: vec![call], ..Message::assistant("") },
            Message::tool("c1", "[]"),
            Message::assistant("area"),
        ];
        let tools = Some(r#"[{"type":"function","function":{"name":"search_hotel","parameters":{}}}]"#.to_owned());
        let example = SftExample { dialogue: "d".to_owned(), messages, tools };
        let encoded = sft(&tokenizer, std::slice::from_ref(&example), 500, TooLong::Error).unwrap();
        let row = &encoded.rows[0];
        let scored = row.ids.iter().zip(&row.scored).filter(|(_, scored)| **scored).map(|(id, _)| *id);
        let text = tokenizer.decode(&scored.collect::<Vec<_>>()).unwrap();
        assert_eq!(text, r#"<tool_call>{"name": "search_hotel", "arguments": {"area": "north"}}</tool_call> area"#);
        let wrong = SftExample { tools: Some("{".to_owned()), ..example };
        let error = sft(&tokenizer, &[wrong], 500, TooLong::Error).unwrap_err().to_string();
        assert!(error.starts_with("the `tools` of an example are no list of function schemas"), "{error}");
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

    #[test]
    fn both_sides_of_a_pair_answer_the_same_prompt() {
        let tokenizer = tokenizer();
        let pair = |dialogue: &str, chosen: &str, rejected: &str| PairExample {
            dialogue: dialogue.to_owned(),
            prompt: vec![Message::system("Help."), Message::user("a cheap hotel")],
            chosen: vec![Message::assistant(chosen)],
            rejected: vec![Message::assistant(rejected)],
            tools: None,
        };
        let examples = [pair("a", "SPEAK Which area?", "a"), pair("b", "a", &"area ".repeat(60))];
        let encoded = pairs(&tokenizer, &examples, 60, TooLong::Drop).unwrap();
        assert_eq!((encoded.rows.len(), encoded.count(Fate::TooLong)), (1, 1));
        let alone = |label, text| {
            kto(&tokenizer, &[example("a", label, text)], 60, TooLong::Error).unwrap().rows.remove(0).sequence
        };
        let [chosen, rejected] = &encoded.rows[0].sides;
        assert_eq!((chosen, rejected), (&alone(true, "SPEAK Which area?"), &alone(false, "a")));
        let tokens = (chosen.ids.len() + rejected.ids.len()) as u64;
        assert_eq!((encoded.examples[0].tokens, encoded.examples[0].label), (Some(tokens), None));
        let error = pairs(&tokenizer, &examples, 60, TooLong::Error).unwrap_err().to_string();
        assert!(error.starts_with("dialogue `b` has ") && error.contains("(1 examples are too long)"), "{error}");
    }
}
