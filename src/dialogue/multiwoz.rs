//! MultiWOZ's `data.json` (layout of version 2.0), dialogue by dialogue: the file is larger than what we want to hold.

use std::fmt;
use std::io::{self, BufReader, Read};
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Why a corpus could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// The text is no corpus.
    #[error("{place}: {reason} at line {line} column {column}")]
    Malformed { place: Place, line: usize, column: usize, reason: String },
    /// The file could not be read.
    #[error("{place}: cannot read on: {source}")]
    Io { place: Place, source: io::Error },
    /// The same dialogue stands there twice.
    #[error("dialogue `{name}` ({index} dialogues before it) stands in the corpus twice")]
    Twice { name: String, index: usize },
    /// What was to be done with a dialogue failed.
    #[error("dialogue `{name}` ({index} dialogues before it): {reason}")]
    Refused { name: String, index: usize, reason: String },
}

/// Where in a corpus something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// How many dialogues were read before.
    pub index: usize,
    /// The dialogue that was being read, if any.
    pub name: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(formatter, "dialogue `{name}` ({} dialogues before it)", self.index),
            None => write!(formatter, "corpus of dialogues ({} dialogues read)", self.index),
        }
    }
}

/// A dialogue in full.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dialogue {
    /// What the customer wants.
    pub goal: Goal,
    /// The utterances, customer first, system and customer in turn.
    pub log: Vec<Turn>,
}

/// What the customer wants: domains, `message`, `topic`, as the source gives them.
pub type Goal = Map<String, Value>;

/// One utterance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// What was said.
    pub text: String,
    /// The state that the system's side annotated, domain by domain: `{"semi": {…}, "book": {…}}`; empty for the customer.
    pub metadata: Map<String, Value>,
}

/// A dialogue without its words: the goal, and the last state that the system's side annotated.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Outline {
    /// What the customer wants.
    pub goal: Goal,
    /// The metadata of the last utterance, or of the one before it where that has none; empty where both are.
    #[serde(rename = "log", deserialize_with = "last_state")]
    pub state: Map<String, Value>,
}

/// Reads a corpus, `{"NAME": {"goal": …, "log": …}, …}`, and hands on each dialogue in the file's order. `D` says what of a
/// dialogue is kept: [`Dialogue`] or [`Outline`]. Memory is that of one dialogue and the names.
///
/// # Errors
/// On the first thing that is wrong, with the dialogue's name and its place; what `each` refuses is wrong too.
pub fn for_each<D: DeserializeOwned, E: fmt::Display>(
    reader: impl Read,
    each: impl FnMut(String, D) -> Result<(), E>,
) -> Result<(), CorpusError> {
    let mut seen = Seen { place: Place { index: 0, name: None }, refused: None };
    let mut json = serde_json::Deserializer::from_reader(BufReader::with_capacity(1 << 18, reader));
    let walk = Walk { each, seen: &mut seen, dialogue: PhantomData::<fn() -> D> };
    let end = walk.deserialize(&mut json).and_then(|()| json.end());
    match (end, seen.refused) {
        (_, Some(refused)) => Err(refused),
        (Ok(()), None) => Ok(()),
        (Err(error), None) => Err(CorpusError::from_json(error, seen.place)),
    }
}

impl CorpusError {
    fn from_json(error: serde_json::Error, place: Place) -> Self {
        if error.is_io() {
            return Self::Io { place, source: error.into() };
        }
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        let reason = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text).to_owned();
        Self::Malformed { place, line, column, reason }
    }
}

struct Seen {
    place: Place,
    refused: Option<CorpusError>,
}

struct Walk<'a, D, F> {
    each: F,
    seen: &'a mut Seen,
    dialogue: PhantomData<fn() -> D>,
}

impl<'de, D, E, F> DeserializeSeed<'de> for Walk<'_, D, F>
where
    D: DeserializeOwned,
    E: fmt::Display,
    F: FnMut(String, D) -> Result<(), E>,
{
    type Value = ();

    fn deserialize<S: Deserializer<'de>>(self, deserializer: S) -> Result<(), S::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, D, E, F> Visitor<'de> for Walk<'_, D, F>
where
    D: DeserializeOwned,
    E: fmt::Display,
    F: FnMut(String, D) -> Result<(), E>,
{
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of dialogues by their names")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<(), M::Error> {
        let mut names = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let index = self.seen.place.index;
            self.seen.place.name = Some(name.clone());
            if !names.insert(name.clone()) {
                self.seen.refused = Some(CorpusError::Twice { name, index });
                return Err(M::Error::custom("refused"));
            }
            let dialogue: D = map.next_value()?;
            if let Err(reason) = (self.each)(name.clone(), dialogue) {
                self.seen.refused = Some(CorpusError::Refused { name, index, reason: reason.to_string() });
                return Err(M::Error::custom("refused"));
            }
            self.seen.place = Place { index: index + 1, name: None };
        }
        Ok(())
    }
}

/// Keeps the metadata of the last two utterances only, then chooses.
fn last_state<'de, S: Deserializer<'de>>(deserializer: S) -> Result<Map<String, Value>, S::Error> {
    struct States;

    #[derive(Deserialize)]
    struct State {
        metadata: Map<String, Value>,
    }

    impl<'de> Visitor<'de> for States {
        type Value = Map<String, Value>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list of utterances")
        }

        fn visit_seq<Q: SeqAccess<'de>>(self, mut turns: Q) -> Result<Self::Value, Q::Error> {
            let (mut before, mut last) = (Map::new(), Map::new());
            while let Some(State { metadata }) = turns.next_element()? {
                before = std::mem::replace(&mut last, metadata);
            }
            Ok(if last.is_empty() { before } else { last })
        }
    }

    deserializer.deserialize_seq(States)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IgnoredAny;

    const TWO: &str = r#"{
        "A.json": {"goal": {"hotel": {"info": {}}}, "log": [
            {"text": "hi", "metadata": {}, "dialog_act": {}}, {"text": "yes?", "metadata": {"hotel": {"book": {}}}}]},
        "B.json": {"log": [{"metadata": {"train": {}}, "text": "?"}, {"text": "bye", "metadata": {}}], "goal": {}}
    }"#;

    fn outlines(text: &str) -> Result<Vec<(String, Outline)>, CorpusError> {
        let mut all = Vec::new();
        for_each(text.as_bytes(), |name, outline| {
            all.push((name, outline));
            Ok::<(), String>(())
        })?;
        Ok(all)
    }

    #[test]
    fn hands_on_dialogues_in_the_files_order() {
        let mut texts = Vec::new();
        for_each(TWO.as_bytes(), |name, dialogue: Dialogue| {
            texts.push((name, dialogue.log.into_iter().map(|turn| turn.text).collect::<Vec<_>>()));
            Ok::<(), String>(())
        })
        .unwrap();
        assert_eq!(texts[0], ("A.json".to_owned(), vec!["hi".to_owned(), "yes?".to_owned()]));
        assert_eq!(texts[1].0, "B.json");
    }

    #[test]
    fn the_last_state_may_stand_before_the_last_utterance() {
        let outlines = outlines(TWO).unwrap();
        assert!(outlines[0].1.state.contains_key("hotel"));
        assert!(outlines[1].1.state.contains_key("train"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, message) in [
            (
                TWO.replace("\"B.json\": {\"log\": [{", "\"B.json\": {\"log\": [{{"),
                "dialogue `B.json` (1 dialogues before it): key must be a string at line 4 column 29",
            ),
            (
                TWO.replace("\"goal\": {}}", "\"goal\": []}"),
                "dialogue `B.json` (1 dialogues before it): invalid type: sequence, expected a map at line 4 column 112",
            ),
            (TWO.replace("B.json", "A.json"), "dialogue `A.json` (1 dialogues before it) stands in the corpus twice"),
            (
                "[]".to_owned(),
                "corpus of dialogues (0 dialogues read): invalid type: sequence, expected an object of dialogues by their names at line 1 column 1",
            ),
            (
                TWO[..TWO.len() - 1].to_owned(),
                "corpus of dialogues (2 dialogues read): EOF while parsing an object at line 5 column 4",
            ),
            (format!("{TWO} x"), "corpus of dialogues (2 dialogues read): trailing characters at line 5 column 7"),
        ] {
            assert_eq!(outlines(&text).unwrap_err().to_string(), message);
        }
        let refused = for_each(TWO.as_bytes(), |_, _: IgnoredAny| Err("no")).unwrap_err();
        assert_eq!(refused.to_string(), "dialogue `A.json` (0 dialogues before it): no");
    }
}
