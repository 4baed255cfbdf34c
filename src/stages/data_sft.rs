//! `data.sft`: the golden paths of trees become chats to imitate.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::compat::{self, Compatible};
use super::frame::{Bare, frame};
use super::prompt::{self, WORLD};
use crate::compat::{Compat, Quirk, Quirks, Rules};
use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Problem, Stage};
use crate::eval::mersenne::Mersenne;
use crate::examples::SftExample;
use crate::josh::extraction::{CHATS, SHUFFLE_SEED, Trees};
use crate::josh::forest::Forest;
use crate::josh::node::NodeRow;
use crate::josh::paths::{Harvest, trees};
use crate::josh::sft_data::sft_example;

/// The trees.
pub(super) const TREES: Port<NodeRow> = Port::new("trees");
const EXAMPLES: Port<SftExample> = Port::new("examples");

/// Makes chats to imitate of trees: of each the first longest golden path, unless a message on it tells of an error.
///
/// Trees that broke give nothing, whatever is recorded of them. With `compat: paper` the file is the one that the paper's
/// authors made; `repo-head` takes the last golden path instead of the longest, adds no system message and shuffles.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSft {
    /// Whose quirks are kept.
    #[serde(default)]
    pub compat: Compat,
    /// Single quirks that another mode decides: `{Q29: fixed}`; `docs/src/reference/compat.md` lists them.
    #[serde(default)]
    pub quirks: Quirks,
    /// Which trees give examples.
    #[serde(default)]
    pub trees: Trees,
    /// The system message of every example, which should be the one that the agent gets: `react`, `brief`, `tools` or a template
    /// file of the project; none when absent. A template that shows tools needs input `world`.
    #[serde(default)]
    pub system_prompt: Option<String>,
}

impl Compatible for DataSft {
    const QUIRKS: &'static [&'static [Quirk]] = &[CHATS];
}

impl Stage for DataSft {
    const KIND: &'static str = "data.sft";
    const VERSION: u32 = 2;
    const EXAMPLE: &'static str = "\
sft_data:
  kind: data.sft
  in: {trees: harvest.trees, world: toolwoz.world}
  with: {system_prompt: react}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![TREES.one(), WORLD.optional()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![EXAMPLES.one()]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = compat::check::<Self>(&self.quirks);
        problems.extend(super::data_kto::only_complete(self.compat, self.trees));
        if self.system_prompt.is_some() && !self.rules().adds_system_message() {
            let mode = self.rules().mode(Quirk::Q30).name();
            let message =
                format!("has no place in `{mode}`, whose examples have none; `quirks: {{Q30: fixed}}` adds it");
            problems.push(Problem::new("system_prompt", message));
        }
        problems
    }

    fn also_depends_on(&self, project: &Path) -> anyhow::Result<Vec<(String, String)>> {
        prompt::depends_on(self.system_prompt.as_deref(), project)
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let rules = self.rules();
        let frame = frame(context, self.system_prompt.as_deref(), rules.attaches_tools())?;
        let (mut examples, mut shuffled) = (context.writer(&EXAMPLES)?, Vec::new());
        let (mut bare, mut count, mut taken) = (Bare::default(), 0, 0);
        for tree in trees(context.rows(&TREES)?.map(|row| row.map_err(anyhow::Error::from))) {
            context.check_stop()?;
            count += 1;
            let mut forest = Forest::default();
            let harvest = Harvest::new(&mut forest, tree?)?;
            let Some(example) = sft_example(&forest, &harvest, self.trees, &rules, &frame) else { continue };
            taken += 1;
            bare.see(example.tools.as_deref(), example.messages.iter());
            if rules.shuffles_chats() {
                shuffled.push(example);
            } else {
                examples.push(example)?;
            }
        }
        Mersenne::python(SHUFFLE_SEED).python_shuffle(&mut shuffled);
        shuffled.into_iter().try_for_each(|example| examples.push(example))?;
        examples.finish()?;
        context.figure("trees", f64::from(count));
        context.figure("examples", f64::from(taken));
        bare.warn(context, rules.attaches_tools());
        if taken == 0 {
            context.warn(format!("none of {count} trees gives an example"));
        }
        Ok(())
    }
}

impl DataSft {
    fn rules(&self) -> Rules {
        Rules::new(self.compat, &self.quirks)
    }
}
