//! `data.sft`: the golden paths of trees become chats to imitate.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::prompt::{self, WORLD};
use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Stage};
use crate::examples::SftExample;
use crate::josh::node::NodeRow;
use crate::josh::paths::harvests;
use crate::josh::sft_data::{Trees, sft_example};

/// The trees.
pub const TREES: Port<NodeRow> = Port::new("trees");
const EXAMPLES: Port<SftExample> = Port::new("examples");

/// Makes chats to imitate of trees: of each the first longest golden path, unless a message on it tells of an error.
///
/// Trees that broke give nothing, whatever is recorded of them. The paper's authors made their file in the same way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSft {
    /// Which trees give examples.
    #[serde(default)]
    pub trees: Trees,
    /// The system message of every example, which should be the one that the agent gets: `react`, `brief`, `tools` or a template
    /// file of the project; none when absent. A template that shows tools needs input `world`.
    #[serde(default)]
    pub system_prompt: Option<String>,
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

    fn also_depends_on(&self, project: &Path) -> anyhow::Result<Vec<(String, String)>> {
        prompt::depends_on(self.system_prompt.as_deref(), project)
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let system = prompt::system_message(context, self.system_prompt.as_deref())?;
        let mut examples = context.writer(&EXAMPLES)?;
        let (mut trees, mut taken) = (0, 0);
        for harvest in harvests(context.rows(&TREES)?.map(|row| row.map_err(anyhow::Error::from))) {
            context.check_stop()?;
            trees += 1;
            if let Some(example) = sft_example(&harvest?, self.trees, system.as_ref()) {
                examples.push(example)?;
                taken += 1;
            }
        }
        examples.finish()?;
        context.figure("trees", f64::from(trees));
        context.figure("examples", f64::from(taken));
        if taken == 0 {
            context.warn(format!("none of {trees} trees gives an example"));
        }
        Ok(())
    }
}
