//! `toolwoz.replay`: recorded calls are made and judged once more.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::compat::{self, Compatible};
use crate::compat::{Compat, Quirk, Quirks, Rules};
use crate::dialogue::episode::{EpisodeRow, Outcome};
use crate::dialogue::replay::{OutcomeRow, RecordedCall, Replay};
use crate::dialogue::rules::ENVIRONMENT;
use crate::dialogue::task::{Task, WorldItem};
use crate::dialogue::world::World;
use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Problem, Stage};
use crate::fs;
use crate::table::{Aside, Place};

const TASKS: Port<Task> = Port::new("tasks");
const WORLD: Port<WorldItem> = Port::new("world");
const EPISODES: Port<EpisodeRow> = Port::new("episodes");
const OUTCOMES: Port<OutcomeRow> = Port::new("outcomes");
const RESCORED: Port<EpisodeRow> = Port::new("rescored");

/// Makes recorded calls again, under rules that may be others than those they were made under, and says what an agent sees and
/// what is earned.
///
/// The calls come from a file (`calls`) or from the input `episodes`; one of the two. Each is answered by a server of its own,
/// as servers here remember calls and never answer by them: `reward` and `goals_hit` are those of the call alone,
/// `reward_so_far` and `goals_so_far` those of the dialogue's calls up to it. Rows come in the order of the calls.
///
/// Episodes also come out again as `rescored`, with calls, rewards and outcomes under these rules and what was said left as it
/// was; `eval.toolwoz` scores them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolwozReplay {
    /// A file of the project with one call a line: `{"dialogue": "MUL0003.json", "api": "search_hotel", "args": {"area": "north"}}`.
    #[serde(default)]
    pub calls: Option<String>,
    /// Whose quirks server and reward keep; the tasks and the world should be converted under the same.
    #[serde(default)]
    pub compat: Compat,
    /// Single quirks that another mode decides: `{Q5: fixed, Q12: repo-head}`; `docs/src/reference/compat.md` lists them.
    #[serde(default)]
    pub quirks: Quirks,
}

impl Compatible for ToolwozReplay {
    const QUIRKS: &'static [&'static [Quirk]] = &[ENVIRONMENT];
}

impl Stage for ToolwozReplay {
    const KIND: &'static str = "toolwoz.replay";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "\
outcomes:
  kind: toolwoz.replay
  in: {tasks: toolwoz.tasks, world: toolwoz.world, episodes: played.episodes}
  with: {compat: repo-head, quirks: {Q12: fixed}}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![TASKS.one(), WORLD.one(), EPISODES.optional()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        let mut outputs = vec![OUTCOMES.one()];
        outputs.extend(self.calls.is_none().then(|| RESCORED.one()));
        outputs
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = compat::check::<Self>(&self.quirks);
        if self.calls.as_deref() == Some("") {
            problems.push(Problem::new("calls", "must name a file"));
        }
        problems
    }

    fn check_inputs(&self, connected: &[&str]) -> Vec<Problem> {
        let message = match (&self.calls, connected.contains(&EPISODES.name)) {
            (None, false) => "is missing: name a file of calls, or connect input `episodes`",
            (Some(_), true) => "is given and input `episodes` connected; calls come from one of them",
            _ => return Vec::new(),
        };
        vec![Problem::new("calls", message)]
    }

    fn also_depends_on(&self, project: &Path) -> anyhow::Result<Vec<(String, String)>> {
        let Some(calls) = &self.calls else { return Ok(Vec::new()) };
        let digest = fs::digest(project.join(calls)).context("`calls` must name a file of the project")?;
        Ok(vec![(format!("calls `{calls}`"), format!("blake3 {}", digest.hex))])
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let rules = Rules::new(self.compat, &self.quirks);
        match &self.calls {
            Some(calls) => replay_file(context, calls, rules),
            None => replay_episodes(context, rules),
        }
    }
}

/// Makes the calls of a file.
fn replay_file(context: &Context, calls: &str, rules: Rules) -> anyhow::Result<()> {
    let path = context.project.join(calls);
    let mut wanted = BTreeSet::new();
    for call in recorded(&path, calls)? {
        wanted.insert(call?.1.dialogue);
    }
    let dialogues = Dialogues::new(context, &wanted, rules)?;
    let mut replays: BTreeMap<String, Replay> = BTreeMap::new();
    let mut outcomes = context.writer(&OUTCOMES)?;
    for call in recorded(&path, calls)? {
        context.check_stop()?;
        let (line, call) = call?;
        if !replays.contains_key(&call.dialogue) {
            let replay = dialogues.replay(&call.dialogue).with_context(|| format!("`{calls}` line {line}"))?;
            replays.insert(call.dialogue.clone(), replay);
        }
        if let Some(replay) = replays.get_mut(&call.dialogue) {
            outcomes.push(replay.call(&call.api, &call.args))?;
        }
    }
    let written = outcomes.finish()?;
    context.figure("calls", written.rows as f64);
    context.figure("dialogues", replays.len() as f64);
    if written.rows == 0 {
        context.warn(format!("`{calls}` holds no call"));
    }
    Ok(())
}

/// The calls of a file with the numbers of their lines; empty lines are none.
fn recorded(path: &Path, name: &str) -> anyhow::Result<impl Iterator<Item = anyhow::Result<(usize, RecordedCall)>>> {
    let lines = BufReader::new(fs::open(path)?).lines().enumerate();
    let call = move |(number, line): (usize, std::io::Result<String>)| {
        let place = || format!("`{name}` line {}", number + 1);
        let line = match line {
            Ok(line) => line,
            Err(error) => return Some(Err(error).with_context(place)),
        };
        let wrong =
            |error| anyhow!("{} is no call `{{\"dialogue\": .., \"api\": .., \"args\": ..}}`: {error}", place());
        let call = (!line.trim().is_empty()).then(|| serde_json::from_str(&line).map_err(wrong))?;
        Some(call.map(|call| (number + 1, call)))
    };
    Ok(lines.filter_map(call))
}

/// Makes the calls of episodes.
fn replay_episodes(context: &Context, rules: Rules) -> anyhow::Result<()> {
    let mut wanted = BTreeSet::new();
    for episode in context.rows(&EPISODES)? {
        wanted.insert(episode?.dialogue);
    }
    let dialogues = Dialogues::new(context, &wanted, rules)?;
    let (mut outcomes, mut rescored) = (context.writer(&OUTCOMES)?, context.writer(&RESCORED)?);
    let (mut changed, mut scored, mut before, mut after) = (0_u32, 0_u32, 0.0, 0.0);
    for episode in context.rows(&EPISODES)? {
        context.check_stop()?;
        let episode = episode?;
        let replay = dialogues.replay(&episode.dialogue)?;
        let (old, dialogue) = (episode.reward, episode.dialogue.clone());
        let again =
            replay.episode(episode).with_context(|| format!("episode of `{dialogue}`: the arguments of a call"))?;
        if again.0.outcome != Outcome::Broken {
            scored += 1;
            changed += u32::from(again.0.reward != old);
            before += old;
            after += again.0.reward;
        }
        again.1.into_iter().try_for_each(|outcome| outcomes.push(outcome))?;
        rescored.push(again.0)?;
    }
    let (calls, episodes) = (outcomes.finish()?.rows as f64, rescored.finish()?.rows as f64);
    context.figure("calls", calls);
    context.figure("episodes", episodes);
    context.figure("episodes_with_another_reward", f64::from(changed));
    if scored > 0 {
        context.figure("reward_before", before / f64::from(scored));
        context.figure("reward", after / f64::from(scored));
    }
    Ok(())
}

/// The tasks of the dialogues that are called.
struct Dialogues {
    world: Arc<World>,
    rules: Rules,
    tasks: Aside<Task>,
    places: BTreeMap<String, Place>,
    count: usize,
}

impl Dialogues {
    fn new(context: &Context, wanted: &BTreeSet<String>, rules: Rules) -> anyhow::Result<Self> {
        let world = Arc::new(World::from_items(context.read(&WORLD)?)?);
        let (mut tasks, mut places, mut count) = (Aside::new(context.scratch()?), BTreeMap::new(), 0);
        for task in context.rows(&TASKS)? {
            let task = task?;
            count += 1;
            if wanted.contains(&task.dialogue) {
                let place = tasks.push(&task)?;
                places.insert(task.dialogue, place);
            }
        }
        Ok(Self { world, rules, tasks, places, count })
    }

    /// The dialogue of a name, without calls.
    fn replay(&self, dialogue: &str) -> anyhow::Result<Replay> {
        let Some(place) = self.places.get(dialogue) else {
            bail!("dialogue `{dialogue}` is none of the {} tasks", self.count);
        };
        Ok(Replay::new(Arc::clone(&self.world), Arc::new(self.tasks.read(*place)?), self.rules)?)
    }
}
