//! `desk.play`: visits as plain dialogues, with what each was worth.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thresh::dialogue::episode::Outcome as Ended;
use thresh::engine::port::{Port, PortSpec};
use thresh::engine::stage::{Context, Problem, Stage};
use thresh::eval::ScoreRow;
use thresh::examples::SftExample;
use thresh::josh::search::{Settings, search};
use thresh::josh::{Outcome, Tree};
use thresh::llm::drive::drive_here;

use crate::clerk::{Clerk, POLICY};
use crate::desk::{Desk, Visit};
use crate::library::wishes;

const SCORES: Port<ScoreRow> = Port::new("scores");
const CHATS: Port<SftExample> = Port::new("chats");

/// How many visits are served at once.
const WIDTH: usize = 32;

/// Lets the clerk serve every visit once, and says what each was worth.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeskPlay {
    /// Which visits.
    pub visits: Visits,
    /// Who serves.
    #[serde(default)]
    pub clerk: Clerk,
    /// Decides all chance.
    #[serde(default)]
    pub seed: u64,
}

/// Some of the visits that there are: readers are numbered, and each always has the same wishes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Visits {
    /// How many are left out at the beginning.
    #[serde(default)]
    pub skip: usize,
    /// How many follow.
    pub count: usize,
}

impl Visits {
    /// What is wrong with them.
    pub fn check(&self) -> Vec<Problem> {
        if self.count == 0 { vec![Problem::new("visits.count", "must be at least 1")] } else { Vec::new() }
    }
}

impl Stage for DeskPlay {
    const KIND: &'static str = "desk.play";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "\
scores:
  kind: desk.play
  in: {policy: base.model}
  with: {visits: {skip: 500, count: 200}}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![POLICY.optional()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![SCORES.one(), CHATS.one()]
    }

    fn check(&self) -> Vec<Problem> {
        [self.visits.check(), self.clerk.check()].concat()
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        // A tree that may not branch is a dialogue.
        let settings = Settings { beam: 1, tries: 4, seed: self.seed, ..Settings::default() };
        let trees = search_all(context, &self.visits, &self.clerk, &settings)?;
        context.write(&SCORES, trees.iter().map(|(visit, tree)| score(visit, tree)))?;
        let chats = trees.iter().filter(|(_, tree)| tree.outcome() != Outcome::Broken);
        context.write(&CHATS, chats.map(|(visit, tree)| chat(visit, tree)))
    }
}

/// Searches all visits, and gives the trees in the visits' order.
pub fn search_all(
    context: &Context,
    visits: &Visits,
    clerk: &Clerk,
    settings: &Settings,
) -> anyhow::Result<Vec<(String, Tree)>> {
    let model = clerk.hire(context)?;
    let desk = &Desk { clerk: model.as_ref(), sampling: clerk.sampling() };
    let names: Vec<String> =
        (visits.skip..visits.skip + visits.count).map(|number| format!("visit-{number}")).collect();
    let jobs = names.iter().map(|name| async move {
        let wishes = wishes(name);
        let goals = wishes.len();
        search(desk, name, Visit::new(wishes), goals, settings).await
    });
    let mut trees: Vec<Option<Tree>> = names.iter().map(|_| None).collect();
    let mut done = 0;
    let finished = |place: usize, tree: Tree| {
        trees[place] = Some(tree);
        done += 1;
        context.progress(done, names.len() as u64, "visits", "");
    };
    drive_here(&[model.as_ref()], WIDTH, jobs, finished, &context.stop)?;
    Ok(names.iter().cloned().zip(trees.into_iter().flatten()).collect())
}

/// A broken visit has no score, and so enters no average.
fn score(visit: &str, tree: &Tree) -> ScoreRow {
    let (outcome, reward) = match tree.outcome() {
        Outcome::Broken => (Ended::Broken, None),
        Outcome::Complete => (Ended::Success, Some(1.0)),
        Outcome::Partial | Outcome::Empty => (Ended::Failure, Some(tree.reward.unwrap_or(0.0))),
    };
    let success = reward.map(|_| outcome == Ended::Success);
    ScoreRow { dialogue: visit.to_owned(), reward, success, outcome, reachable: Some(1.0) }
}

/// All that was said, as a chat to imitate: with the bad habits.
fn chat(visit: &str, tree: &Tree) -> SftExample {
    SftExample { dialogue: visit.to_owned(), messages: tree.dialogue(tree.root), tools: None }
}
