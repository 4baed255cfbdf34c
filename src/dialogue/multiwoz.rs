//! MultiWOZ's `data.json` (layout of version 2.0), dialogue by dialogue: the file is larger than what we want to hold.

use std::fmt;
use std::io::{self, BufReader, Read};
use std::marker::PhantomData;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
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

/// Keeps the metadata of the last two utterances only, as JSON, then chooses: to build every one would take most of the time.
fn last_state<'de, S: Deserializer<'de>>(deserializer: S) -> Result<Map<String, Value>, S::Error> {
    struct States;

    impl<'de> Visitor<'de> for States {
        type Value = Map<String, Value>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list of utterances")
        }

        fn visit_seq<Q: SeqAccess<'de>>(self, mut turns: Q) -> Result<Self::Value, Q::Error> {
            let (mut before, mut last) = (b"{}".to_vec(), b"{}".to_vec());
            loop {
                std::mem::swap(&mut before, &mut last);
                if turns.next_element_seed(Metadata(&mut last))?.is_none() {
                    // There was no further one: the last one is the one before.
                    std::mem::swap(&mut before, &mut last);
                    break;
                }
            }
            let state = if last == b"{}" { before } else { last };
            serde_json::from_slice(&state).map_err(Q::Error::custom)
        }
    }

    deserializer.deserialize_seq(States)
}

/// Copies the metadata of an utterance, in place of what the buffer held.
struct Metadata<'b>(&'b mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for Metadata<'_> {
    type Value = ();

    fn deserialize<S: Deserializer<'de>>(self, deserializer: S) -> Result<(), S::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Metadata<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an utterance")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut fields: M) -> Result<(), M::Error> {
        #[derive(Deserialize)]
        #[serde(field_identifier, rename_all = "lowercase")]
        enum Field {
            Metadata,
            #[serde(other)]
            Other,
        }

        let mut found = false;
        while let Some(field) = fields.next_key::<Field>()? {
            match field {
                Field::Metadata if found => return Err(M::Error::duplicate_field("metadata")),
                Field::Metadata => {
                    found = true;
                    self.0.clear();
                    fields.next_value_seed(Copied { json: self.0, object: true })?;
                }
                Field::Other => drop(fields.next_value::<IgnoredAny>()?),
            }
        }
        if found { Ok(()) } else { Err(M::Error::missing_field("metadata")) }
    }
}

/// Copies a value as JSON.
struct Copied<'b> {
    json: &'b mut Vec<u8>,
    /// Whether it must be an object.
    object: bool,
}

impl Copied<'_> {
    fn write<E: serde::de::Error>(self, value: &(impl Serialize + ?Sized)) -> Result<(), E> {
        serde_json::to_writer(self.json, value).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Copied<'_> {
    type Value = ();

    fn deserialize<S: Deserializer<'de>>(self, deserializer: S) -> Result<(), S::Error> {
        if self.object { deserializer.deserialize_map(self) } else { deserializer.deserialize_any(self) }
    }
}

impl<'de> Visitor<'de> for Copied<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.object { "a map" } else { "any JSON value" })
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.write(&value)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        self.write(value)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.write(&())
    }

    fn visit_seq<Q: SeqAccess<'de>>(self, mut items: Q) -> Result<(), Q::Error> {
        let json = self.json;
        json.push(b'[');
        while items.next_element_seed(Copied { json: &mut *json, object: false })?.is_some() {
            json.push(b',');
        }
        closed(json, b']');
        Ok(())
    }

    fn visit_map<M: MapAccess<'de>>(self, mut fields: M) -> Result<(), M::Error> {
        let json = self.json;
        json.push(b'{');
        while fields.next_key_seed(Copied { json: &mut *json, object: false })?.is_some() {
            json.push(b':');
            fields.next_value_seed(Copied { json: &mut *json, object: false })?;
            json.push(b',');
        }
        closed(json, b'}');
        Ok(())
    }
}

/// Closes a list or object: the comma behind its last item gives way.
fn closed(json: &mut Vec<u8>, end: u8) {
    if json.last() == Some(&b',') {
        json.pop();
    }
    json.push(end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

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

    #[test]
    fn utterances_need_an_object_of_metadata() {
        for (log, message) in [
            (json!([{"text": "a"}]), "missing field `metadata`"),
            (json!([{"metadata": []}]), "invalid type: sequence, expected a map"),
            (json!([3]), "invalid type: integer `3`, expected an utterance"),
            (json!({}), "invalid type: map, expected a list of utterances"),
        ] {
            let error = outlines(&json!({"A": {"goal": {}, "log": log}}).to_string()).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        let twice = r#"{"A": {"goal": {}, "log": [{"metadata": {}, "metadata": {}}]}}"#;
        assert!(outlines(twice).unwrap_err().to_string().contains("duplicate field `metadata`"));
        assert!(outlines(r#"{"A": {"goal": {}, "log": []}}"#).unwrap()[0].1.state.is_empty());
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            prop::num::f64::NORMAL.prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[,\\]}\"]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 30, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_last_state_is_what_stands_there(states in prop::collection::vec(value(), 0..5)) {
            let state = |value: &Value| if value == &json!(null) { json!({}) } else { json!({ "x": value }) };
            let log: Vec<Value> = states.iter().map(|value| json!({"text": "a", "metadata": state(value)})).collect();
            let read = outlines(&json!({"A": {"goal": {}, "log": log}}).to_string()).unwrap().remove(0).1.state;
            let empty = json!({});
            let [before, last] = [2, 1].map(|back| {
                log.len().checked_sub(back).map_or(&empty, |at| &log[at]["metadata"]).clone()
            });
            prop_assert_eq!(Value::Object(read), if last == empty { before } else { last });
        }
    }
}
