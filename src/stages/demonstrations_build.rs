//! `demonstrations.build`: annotated dialogues become chats to learn from.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::compat::{self, Compatible};
use super::selection::{Selection, TASKS};
use crate::compat::{Compat, Quirk, Quirks, Rules};
use crate::dialogue::corpus::Corpus;
use crate::dialogue::demonstrations::demonstrate;
use crate::dialogue::multiwoz::Dialogue;
use crate::dialogue::rules::ENVIRONMENT;
use crate::dialogue::task::WorldItem;
use crate::dialogue::world::World;
use crate::engine::port::{Folder, Port, PortSpec};
use crate::engine::stage::{Context, Problem, Stage};
use crate::examples::SftExample;
use crate::table::{Aside, Place};

const CORPUS: Folder = Folder::new("corpus", "files/v1");
const WORLD: Port<WorldItem> = Port::new("world");
const EXAMPLES: Port<SftExample> = Port::new("examples");

/// Turns dialogues between people, or synthetic ones, into PLAN, APICALL and SPEAK traces of an agent.
///
/// The belief states and bookings of the annotation say which calls the system's side would have made; they are made on the
/// task's own server, so that the observations are what an agent sees. Examples come in the order of the dialogues' names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DemonstrationsBuild {
    /// Which tasks' dialogues.
    #[serde(default = "Selection::train")]
    pub tasks: Selection,
    /// Leave out dialogues whose trace earns less than this share of their goals.
    #[serde(default)]
    pub min_reward: f64,
    /// Whose quirks the environment keeps; the same as in `toolwoz.convert`.
    #[serde(default)]
    pub compat: Compat,
    /// Single quirks that another mode decides: `{Q5: fixed, Q12: repo-head}`; `docs/src/reference/compat.md` lists them.
    #[serde(default)]
    pub quirks: Quirks,
}

impl Compatible for DemonstrationsBuild {
    const QUIRKS: &'static [&'static [Quirk]] = &[ENVIRONMENT];
}

impl Stage for DemonstrationsBuild {
    const KIND: &'static str = "demonstrations.build";
    const VERSION: u32 = 3;
    const EXAMPLE: &'static str = "\
demonstrations:
  kind: demonstrations.build
  in: {corpus: woz.files, tasks: toolwoz.tasks, world: toolwoz.world}
  with: {tasks: {split: train}, min_reward: 1.0}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![CORPUS.one(), TASKS.one(), WORLD.one()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![EXAMPLES.one()]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = compat::check::<Self>(&self.quirks);
        problems.extend(self.tasks.check());
        if !(0.0..=1.0).contains(&self.min_reward) {
            problems.push(Problem::new("min_reward", "must lie between 0 and 1"));
        }
        problems
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let corpus = Corpus::open(context.input(CORPUS.name)?)?;
        let world = Arc::new(World::from_items(context.read(&WORLD)?)?);
        let rules = Rules::new(self.compat, &self.quirks);
        let chosen = self.tasks.choose(context, &world, rules)?;
        let total = chosen.count() as u64;
        let mut tasks: BTreeMap<&str, Place> = chosen.chosen().iter().map(|(name, place)| (&**name, *place)).collect();
        // In the order of the corpus, which is not that of the names.
        let mut aside = Aside::<SftExample>::new(context.scratch()?);
        let mut examples: Vec<(String, Place)> = Vec::new();
        let (mut unfit, mut poor, mut reward) = (0_u64, 0_u64, 0.0);
        let read = corpus.for_each_dialogue(|name, dialogue: Dialogue| {
            let Some(place) = tasks.remove(&*name) else { return Ok(()) };
            context.check_stop()?;
            match demonstrate(&world, Arc::new(chosen.read(place)?), &dialogue, rules) {
                Ok(made) if made.reward + 1e-9 >= self.min_reward => {
                    reward += made.reward;
                    let place =
                        aside.push(&SftExample { dialogue: name.clone(), messages: made.messages, tools: None })?;
                    examples.push((name, place));
                    context.progress(examples.len() as u64, total, "dialogues", "");
                }
                Ok(_) => poor += 1,
                Err(_) => unfit += 1,
            }
            anyhow::Ok(())
        });
        // A stop is no fault of the corpus.
        context.check_stop()?;
        read?;
        let missing = tasks.len() as u64;
        let left_out = [
            (missing, "have no dialogue in the corpus"),
            (unfit, "cannot be followed turn by turn"),
            (poor, "earn less than `min_reward`"),
        ];
        for (count, why) in left_out.iter().filter(|(count, _)| *count > 0) {
            context.warn(format!("{count} of {total} dialogues {why} and are left out"));
        }
        anyhow::ensure!(!examples.is_empty(), "none of {total} dialogues makes a demonstration");
        context.figure("reward", reward / examples.len() as f64);
        examples.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut writer = context.writer(&EXAMPLES)?;
        for (_, place) in examples {
            context.check_stop()?;
            writer.push(aside.read(place)?)?;
        }
        writer.finish()?;
        Ok(())
    }
}
