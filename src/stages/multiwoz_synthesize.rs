//! `multiwoz.synthesize`: a corpus of our own in MultiWOZ's layout.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dialogue::synth::{Synthesizer, write_corpus};
use crate::dialogue::synth_goal::GoalMix;
use crate::dialogue::tools::DOMAINS;
use crate::engine::port::{Folder, PortSpec};
use crate::engine::stage::{Context, Problem, Stage};

const CORPUS: Folder = Folder::new("corpus", "files/v1");

/// Invents a town and its customers: databases, goals and two-sided dialogues, in the layout of MultiWOZ 2.0.
///
/// The dialogues are written by templates of our own: an agenda-based user talks to a rule-based agent, and the log is
/// annotated with belief states and bookings as MultiWOZ is. Every goal is reached in the end, also where `noise` lets the
/// agent make mistakes. Memory does not grow with the number of dialogues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MultiwozSynthesize {
    /// How many dialogues.
    #[serde(default = "thousand")]
    pub dialogues: usize,
    /// The domains of goals: `restaurant`, `hotel`, `attraction`, `train`.
    #[serde(default = "all_domains")]
    pub domains: Vec<String>,
    /// The most domains of one goal.
    #[serde(default = "two")]
    pub max_domains: usize,
    /// The share of searches, and of bookings, that the customer first tries with values that fail.
    #[serde(default = "seldom")]
    pub failing: f64,
    /// The probability that a decision of the agent that writes the dialogues is spoilt: mistakes, and how they are mended.
    #[serde(default)]
    pub noise: f64,
    /// The share of dialogues that `valListFile.json` names.
    #[serde(default = "tenth")]
    pub val: f64,
    /// The share of dialogues that `testListFile.json` names.
    #[serde(default = "fifth")]
    pub test: f64,
    /// Decides town, goals and words.
    #[serde(default)]
    pub seed: u64,
}

fn thousand() -> usize {
    1000
}

fn all_domains() -> Vec<String> {
    DOMAINS.iter().map(|&domain| domain.to_owned()).collect()
}

fn two() -> usize {
    2
}

fn seldom() -> f64 {
    0.1
}

fn tenth() -> f64 {
    0.1
}

fn fifth() -> f64 {
    0.2
}

impl Stage for MultiwozSynthesize {
    const KIND: &'static str = "multiwoz.synthesize";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "\
corpus:
  kind: multiwoz.synthesize
  with: {dialogues: 1000, domains: [restaurant, train], max_domains: 2, seed: 20}
";

    fn inputs(&self) -> Vec<PortSpec> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![CORPUS.one()]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.dialogues == 0 {
            problems.push(Problem::new("dialogues", "must be at least 1"));
        }
        if self.domains.is_empty() {
            problems.push(Problem::new("domains", "must name at least one domain"));
        }
        for (place, domain) in self.domains.iter().enumerate() {
            if !DOMAINS.contains(&domain.as_str()) {
                let message =
                    format!("is `{domain}`; known are {}", DOMAINS.map(|name| format!("`{name}`")).join(", "));
                problems.push(Problem::new(format!("domains.{place}"), message));
            }
        }
        if self.max_domains == 0 {
            problems.push(Problem::new("max_domains", "must be at least 1"));
        }
        for (field, share) in [("failing", self.failing), ("noise", self.noise), ("val", self.val), ("test", self.test)]
        {
            if !(0.0..=1.0).contains(&share) {
                problems.push(Problem::new(field, "must lie between 0 and 1"));
            }
        }
        if self.val + self.test > 1.0 {
            problems.push(Problem::new("test", "and `val` must leave something for training"));
        }
        problems
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let mix = GoalMix { domains: self.domains.clone(), max_domains: self.max_domains, failing: self.failing };
        let mut synthesizer = Synthesizer::new(self.seed, mix)?.noisy(self.noise);
        let folder = context.folder(&CORPUS)?;
        write_corpus::<anyhow::Error>(&mut synthesizer, &folder, self.dialogues, (self.val, self.test), |done| {
            context.progress(done as u64, self.dialogues as u64, "dialogues", "");
            context.check_stop()
        })
    }
}
