//! Training examples as people look at them: the chat so far, and the answers that are to become likelier or less likely.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::turn::{Turn, turns};
use crate::chat::{Message, Role};
use crate::examples::{KtoExample, PairExample, SftExample};
use crate::table::{self, Row, TableError, TableReader};

/// The row types of examples.
pub const TYPES: [&str; 3] = [SftExample::TYPE, KtoExample::TYPE, PairExample::TYPE];

/// One training example.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// The dialogue that it comes from.
    pub dialogue: String,
    /// The system message, where there is one.
    pub system: Option<String>,
    /// The chat; of an example to imitate the whole of it.
    pub turns: Vec<Turn>,
    /// The answers: none of an example to imitate, one with its label, or the better and the worse one.
    pub answers: Vec<Answer>,
}

/// An answer to the chat before it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// Whether it is to become likelier.
    pub desirable: bool,
    /// What was written.
    pub turns: Vec<Turn>,
}

/// The examples of one dialogue, in the table's order.
///
/// # Errors
/// When the table cannot be read; of a table without examples there are none.
pub fn of(path: &Path, dialogue: &str) -> Result<Vec<Example>, TableError> {
    fn read<T: Row + Into<Example>>(path: &Path, dialogue: &str) -> Result<Vec<Example>, TableError> {
        TableReader::<T>::open_where(path, "dialogue", dialogue)?.map(|row| row.map(Into::into)).collect()
    }
    match table::read_type(path)?.as_deref() {
        Some(SftExample::TYPE) => read::<SftExample>(path, dialogue),
        Some(KtoExample::TYPE) => read::<KtoExample>(path, dialogue),
        Some(PairExample::TYPE) => read::<PairExample>(path, dialogue),
        _ => Ok(Vec::new()),
    }
}

/// How many examples a dialogue gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExampleCount {
    /// The dialogue.
    pub dialogue: String,
    /// Its examples.
    pub examples: u32,
    /// Those of them whose answer is desirable; absent of examples that have no label.
    pub desirable: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct SftName {
    dialogue: String,
}

impl Row for SftName {
    const TYPE: &'static str = SftExample::TYPE;
}

#[derive(Serialize, Deserialize)]
struct PairName {
    dialogue: String,
}

impl Row for PairName {
    const TYPE: &'static str = PairExample::TYPE;
}

#[derive(Serialize, Deserialize)]
struct KtoLabel {
    dialogue: String,
    label: bool,
}

impl Row for KtoLabel {
    const TYPE: &'static str = KtoExample::TYPE;
}

/// The dialogues of a table of examples, in the order in which they first stand there. Reads no message.
///
/// # Errors
/// When the table cannot be read.
pub fn counts(path: &Path) -> Result<Vec<ExampleCount>, TableError> {
    match table::read_type(path)?.as_deref() {
        Some(KtoExample::TYPE) => counted::<KtoLabel>(path, |row| (row.dialogue, Some(row.label))),
        Some(PairExample::TYPE) => counted::<PairName>(path, |row| (row.dialogue, None)),
        _ => counted::<SftName>(path, |row| (row.dialogue, None)),
    }
}

fn counted<T: Row>(path: &Path, label: impl Fn(T) -> (String, Option<bool>)) -> Result<Vec<ExampleCount>, TableError> {
    let mut counts: Vec<ExampleCount> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for row in TableReader::<T>::open(path)? {
        let (dialogue, label) = label(row?);
        let place = *places.entry(dialogue.clone()).or_insert_with(|| {
            counts.push(ExampleCount { dialogue, examples: 0, desirable: label.map(|_| 0) });
            counts.len() - 1
        });
        let count = &mut counts[place];
        count.examples += 1;
        count.desirable = count.desirable.zip(label).map(|(count, label)| count + u32::from(label));
    }
    Ok(counts)
}

impl Example {
    fn new(dialogue: String, chat: &[Message], answers: Vec<(bool, Vec<Message>)>) -> Self {
        let system = chat.first().filter(|message| message.role == Role::System);
        let turns = turns(&chat[usize::from(system.is_some())..], 0);
        // An answer goes on with the agent's turn where that is not over.
        let before = turns
            .iter()
            .filter(|turn| Some(turn.number) != turns.last().map(|last| last.number) || turn.role != Role::Assistant)
            .count();
        let answer = |(desirable, messages): (bool, Vec<Message>)| Answer {
            desirable,
            turns: super::turn::turns(&messages, before as u32),
        };
        Self {
            dialogue,
            system: system.map(|message| message.content.clone()),
            answers: answers.into_iter().map(answer).collect(),
            turns,
        }
    }
}

impl From<SftExample> for Example {
    fn from(row: SftExample) -> Self {
        Self::new(row.dialogue, &row.messages, Vec::new())
    }
}

impl From<KtoExample> for Example {
    fn from(row: KtoExample) -> Self {
        Self::new(row.dialogue, &row.prompt, vec![(row.label, row.completion)])
    }
}

impl From<PairExample> for Example {
    fn from(row: PairExample) -> Self {
        Self::new(row.dialogue, &row.prompt, vec![(true, row.chosen), (false, row.rejected)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialogue::react::{observed, spoken};

    fn kto(dialogue: &str, label: bool) -> KtoExample {
        KtoExample {
            dialogue: dialogue.to_owned(),
            prompt: vec![
                Message::system("act"),
                Message::user("hi"),
                Message::assistant(r#"APICALL {"name": "a", "parameters": {}}"#),
                observed("[]"),
            ],
            completion: vec![spoken("hello")],
            label,
            tools: None,
        }
    }

    #[test]
    fn examples_of_a_dialogue_are_found_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("examples.parquet");
        table::write(&path, [kto("b", true), kto("a", false), kto("b", false)]).unwrap();
        let found = of(&path, "b").unwrap();
        assert_eq!(found.iter().map(|example| example.answers[0].desirable).collect::<Vec<_>>(), [true, false]);
        let (example, answer) = (&found[0], &found[0].answers[0].turns[0]);
        assert_eq!((example.system.as_deref(), example.turns.len()), (Some("act"), 2));
        assert_eq!((answer.number, answer.said()), (2, "hello".to_owned()));
        let count =
            |dialogue: &str, examples, desirable| ExampleCount { dialogue: dialogue.to_owned(), examples, desirable };
        assert_eq!(counts(&path).unwrap(), [count("b", 2, Some(1)), count("a", 1, Some(0))]);
    }

    #[test]
    fn pairs_have_two_answers_and_chats_none() {
        let KtoExample { dialogue, prompt, completion, .. } = kto("a", true);
        let rejected = vec![spoken("go away")];
        let pair = PairExample {
            dialogue: dialogue.clone(),
            prompt: prompt.clone(),
            chosen: completion,
            rejected,
            tools: None,
        };
        let pair = Example::from(pair);
        let said: Vec<_> = pair.answers.iter().map(|answer| (answer.desirable, answer.turns[0].said())).collect();
        assert_eq!(said, [(true, "hello".to_owned()), (false, "go away".to_owned())]);
        let chat = Example::from(SftExample { dialogue, messages: prompt, tools: None });
        assert!(chat.answers.is_empty() && chat.turns.len() == 2);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("examples.parquet");
        table::write(&path, [SftExample::default()]).unwrap();
        assert_eq!(counts(&path).unwrap()[0].desirable, None);
        assert_eq!(of(&path, "").unwrap().len(), 1);
    }
}
