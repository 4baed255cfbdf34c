//! The dialogues between people that tasks were made of: what customer and agent said, turn by turn.

use std::collections::HashMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::table::Row;

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Speaker {
    /// The customer, who begins.
    Customer,
    /// The agent.
    Agent,
}

impl Speaker {
    /// The name by which transcripts call who spoke.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Agent => "agent",
        }
    }
}

/// One utterance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceTurn {
    /// Who said it.
    pub speaker: Speaker,
    /// What was said, on one line.
    pub text: String,
}

/// A dialogue as it was spoken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// Its name: `MUL0003.json`.
    pub dialogue: String,
    /// The utterances in order.
    pub turns: Vec<SourceTurn>,
}

impl Row for Source {
    const TYPE: &'static str = "multiwoz.source/v1";
}

/// Dialogues by their names.
pub type Sources = Arc<HashMap<String, Arc<Source>>>;

/// The words of a dialogue in a corpus' layout; all else in it is skipped.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Spoken {
    log: Vec<Utterance>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Utterance {
    text: String,
}

impl Source {
    /// A dialogue of a corpus. The customer begins, and both speak in turn: annotations do not always tell who spoke.
    pub fn new(dialogue: String, spoken: &Spoken) -> Self {
        let speakers = [Speaker::Customer, Speaker::Agent].into_iter().cycle();
        let turn = |(speaker, said): (Speaker, &Utterance)| SourceTurn { speaker, text: one_line(&said.text) };
        Self { dialogue, turns: speakers.zip(&spoken.log).map(turn).collect() }
    }

    /// What the customer said, without utterances that say nothing.
    pub fn customer(&self) -> impl Iterator<Item = &str> {
        let spoken = self.turns.iter().filter(|turn| turn.speaker == Speaker::Customer && !turn.text.is_empty());
        spoken.map(|turn| turn.text.as_str())
    }

    /// As lines that begin with the speaker's name.
    pub fn transcript(&self) -> String {
        transcript(self.turns.iter().map(|turn| (turn.speaker, turn.text.as_str())))
    }
}

/// Utterances as lines that begin with the speaker's name. The reference exchanges the names in the present dialogue, but not
/// in its source (quirk Q25).
pub fn transcript<'t>(turns: impl Iterator<Item = (Speaker, &'t str)>) -> String {
    let line = |(speaker, text): (Speaker, &str)| format!("{}: {}", speaker.name(), one_line(text));
    turns.map(line).collect::<Vec<_>>().join("\n")
}

/// A text with single spaces for all white space.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialogue_of_a_corpus_is_a_transcript() {
        let json = r#"{"goal": {}, "log": [{"text": "hi,\n i want a train", "metadata": {}}, {"text": "where to?",
            "metadata": {"train": {}}}, {"text": " "}, {"text": "bye"}]}"#;
        let source = Source::new("A".to_owned(), &serde_json::from_str(json).unwrap());
        assert_eq!(source.transcript(), "customer: hi, i want a train\nagent: where to?\ncustomer: \nagent: bye");
        assert_eq!(source.customer().collect::<Vec<_>>(), ["hi, i want a train"]);
    }
}
