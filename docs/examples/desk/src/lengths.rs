//! `talk.lengths`: how much was said.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thresh::chat::{Message, Role};
use thresh::engine::port::{Port, PortSpec};
use thresh::engine::stage::{Context, Problem, Stage};
use thresh::table::Row;

/// What this stage reads of an episode: some of its columns.
#[derive(Serialize, Deserialize)]
struct Talk {
    dialogue: String,
    messages: Vec<Message>,
}

impl Row for Talk {
    const TYPE: &'static str = "dialogue.episode/v2";
}

/// How long a dialogue is.
#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Length {
    /// The dialogue.
    pub dialogue: String,
    /// How often the agent spoke.
    pub turns: u32,
    /// How many words it said.
    pub words: u32,
}

impl Row for Length {
    const TYPE: &'static str = "talk.length/v1";
}

const EPISODES: Port<Talk> = Port::new("episodes");
const LENGTHS: Port<Length> = Port::new("lengths");

/// Counts turns and words of the agent in each dialogue.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TalkLengths {
    /// Words with fewer letters than this do not count.
    #[serde(default = "one")]
    pub shortest: usize,
}

fn one() -> usize {
    1
}

impl Stage for TalkLengths {
    const KIND: &'static str = "talk.lengths";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "\
lengths:
  kind: talk.lengths
  in: {episodes: episodes.episodes}
  with: {shortest: 3}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![EPISODES.one()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![LENGTHS.one()]
    }

    fn check(&self) -> Vec<Problem> {
        match self.shortest {
            0 => vec![Problem::new("shortest", "must be at least 1")],
            _ => Vec::new(),
        }
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let mut lengths = context.writer(&LENGTHS)?;
        for talk in context.rows(&EPISODES)? {
            context.check_stop()?;
            lengths.push(self.measure(talk?))?;
        }
        lengths.finish()?;
        Ok(())
    }
}

impl TalkLengths {
    fn measure(&self, talk: Talk) -> Length {
        let said = || talk.messages.iter().filter(|message| message.role == Role::Assistant);
        let long = |word: &&str| word.chars().count() >= self.shortest;
        let words: usize = said().map(|message| message.content.split_whitespace().filter(long).count()).sum();
        Length { turns: said().count() as u32, words: words as u32, dialogue: talk.dialogue }
    }
}
