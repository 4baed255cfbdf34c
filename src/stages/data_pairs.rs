//! `data.pairs`: the turns of trees become preference pairs.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::data_sft::TREES;
use super::frame::{Bare, frame};
use super::prompt::{self, WORLD};
use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Problem, Stage};
use crate::examples::PairExample;
use crate::josh::extraction::Trees;
use crate::josh::pair_data::PairData;
use crate::josh::paths::Harvests;

const EXAMPLES: Port<PairExample> = Port::new("examples");

/// Makes preference pairs of trees, for losses like DPO's: each turn of the golden path is chosen over each turn with which a
/// failed path left it.
///
/// Both sides answer the same prompt. A turn of a path that led to a reward is never rejected, nor an error message that the
/// agent did not write; pairs of which two dialogues say the opposite are dropped and counted; trees that broke give nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataPairs {
    /// Which trees give examples.
    #[serde(default)]
    pub trees: Trees,
    /// The most pairs of one prompt of a dialogue, the first ones; all, where absent.
    #[serde(default)]
    pub max_per_prompt: Option<usize>,
    /// The system message before every prompt, which should be the one that the agent gets: `react`, `brief` or a template
    /// file of the project; none when absent. A template that shows tools needs input `world`.
    #[serde(default)]
    pub system_prompt: Option<String>,
}

impl Stage for DataPairs {
    const KIND: &'static str = "data.pairs";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "\
pairs:
  kind: data.pairs
  in: {trees: harvest.trees, world: toolwoz.world}
  with: {max_per_prompt: 4, system_prompt: react}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![TREES.one(), WORLD.optional()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![EXAMPLES.one()]
    }

    fn check(&self) -> Vec<Problem> {
        let none = self.max_per_prompt == Some(0);
        none.then(|| Problem::new("max_per_prompt", "must be at least 1")).into_iter().collect()
    }

    fn also_depends_on(&self, project: &Path) -> anyhow::Result<Vec<(String, String)>> {
        prompt::depends_on(self.system_prompt.as_deref(), project)
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let frame = frame(context, self.system_prompt.as_deref(), true)?;
        let harvests = Harvests::read(context.rows(&TREES)?.map(|row| row.map_err(anyhow::Error::from)))?;
        context.check_stop()?;
        let data = PairData::of(&harvests, self.trees, self.max_per_prompt);
        let (mut examples, mut bare) = (context.writer(&EXAMPLES)?, Bare::default());
        for example in data.examples(&harvests, &frame) {
            let sides = example.chosen.iter().chain(&example.rejected);
            bare.see(example.tools.as_deref(), example.prompt.iter().chain(sides));
            examples.push(example)?;
        }
        examples.finish()?;
        context.figure("trees", harvests.trees.len() as f64);
        context.figure("pairs", data.pairs.len() as f64);
        context.figure("unpaired", data.unpaired as f64);
        context.figure("contradictions", data.contradictions as f64);
        if data.beyond > 0 {
            context.figure("beyond_limit", data.beyond as f64);
        }
        bare.warn(context, true);
        if data.pairs.is_empty() {
            context.warn(format!("none of {} trees gives a pair", harvests.trees.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, ToolCall};
    use crate::dialogue::tools::{TOOLS, Tool};
    use crate::engine::stage::Notice;
    use crate::josh::import::{RecordedTree, rows};
    use crate::stages::bench::Bench;
    use crate::table;

    #[test]
    fn pairs_say_what_they_are_and_show_what_they_call() {
        let bench = Bench::new();
        let said = |reply: Message, won: bool| (vec![Message::user("hi"), reply], won, won);
        let call = Message { tool_calls: vec![ToolCall::new("1", "search_hotel", "{}")], ..Message::assistant("") };
        let spoken = |text: &str| Message::assistant(text);
        let paths = vec![said(call.clone(), true), said(spoken("bad"), false), said(spoken("worse"), false)];
        let tree = RecordedTree { training_paths: paths, complete: true };
        let nodes = bench.write("trees.parquet", "");
        table::write(&nodes, rows("A.json", &tree)).unwrap();
        let stage = DataPairs { max_per_prompt: Some(1), ..DataPairs::default() };
        bench.run(&stage, &[("trees", &nodes)]).unwrap();
        let warning = "1 examples call functions that they do not show: connect input `world`".to_owned();
        assert!(bench.notices.lock().unwrap().contains(&Notice::Warning(warning)));

        let world = bench.write("world.parquet", "");
        table::write(&world, TOOLS.iter().map(Tool::item)).unwrap();
        bench.run(&stage, &[("trees", &nodes), ("world", &world)]).unwrap();
        let [pair] = &table::read::<PairExample>(&bench.out("examples.parquet")).unwrap()[..] else {
            panic!("one pair")
        };
        assert_eq!((&pair.prompt[..], &pair.chosen[..]), (&[Message::user("hi")][..], &[call][..]));
        assert_eq!((pair.dialogue.as_str(), &pair.rejected[..]), ("A.json", &[spoken("bad")][..]));
        assert!(pair.tools.as_deref().unwrap().starts_with(r#"[{"#), "{:?}", pair.tools);
        let figure = |name: &str, value| Notice::Figure { name: name.to_owned(), value };
        for told in [figure("pairs", 1.0), figure("beyond_limit", 1.0), figure("contradictions", 0.0)] {
            assert!(bench.notices.lock().unwrap().contains(&told), "{told:?}");
        }
        assert_eq!(DataPairs { max_per_prompt: Some(0), ..stage }.check()[0].field, "max_per_prompt");
    }
}
