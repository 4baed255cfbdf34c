//! `data.kto`: the turns of trees become desirable and undesirable examples.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::compat::{self, Compatible};
use super::data_sft::TREES;
use super::frame::{Bare, frame};
use super::prompt::{self, WORLD};
use crate::compat::{Compat, Quirk, Quirks, Rules};
use crate::engine::port::{Port, PortSpec};
use crate::engine::stage::{Context, Problem, Stage};
use crate::examples::KtoExample;
use crate::josh::extraction::{TURNS, Trees};
use crate::josh::kto_data::KtoData;
use crate::josh::paths::Harvests;
use crate::josh::turns::Good;

const EXAMPLES: Port<KtoExample> = Port::new("examples");

/// Makes single agent turns of trees: desirable those of the golden path, undesirable those with which failed paths left it.
///
/// Desirable examples come first, both in the trees' order. A turn that failed word for word as it succeeded gets no label,
/// neither do error messages that the agent did not write; trees that broke give nothing. In the modes of the reference turns
/// are labelled as its authors did it, which blames fewer turns and labels some both ways (quirk Q36).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataKto {
    /// Whose quirks are kept; `paper` gives the file that the paper's authors trained on.
    #[serde(default)]
    pub compat: Compat,
    /// Single quirks that another mode decides: `{Q36: paper}`; `docs/src/reference/compat.md` lists them.
    #[serde(default)]
    pub quirks: Quirks,
    /// Which trees give examples.
    #[serde(default)]
    pub trees: Trees,
    /// Which turns are desirable.
    #[serde(default)]
    pub good: Good,
    /// The system message before every prompt, which should be the one that the agent gets: `react`, `brief`, `tools` or a template
    /// file of the project; none when absent. A template that shows tools needs input `world`.
    #[serde(default)]
    pub system_prompt: Option<String>,
}

/// The reference takes complete trees only.
pub(super) fn only_complete(compat: Compat, trees: Trees) -> Option<Problem> {
    let clash = compat != Compat::Fixed && trees != Trees::Complete;
    clash.then(|| Problem::new("trees", format!("must be `complete` where `compat` is `{}`", compat.name())))
}

impl Compatible for DataKto {
    const QUIRKS: &'static [&'static [Quirk]] = &[TURNS];
}

impl Stage for DataKto {
    const KIND: &'static str = "data.kto";
    const VERSION: u32 = 2;
    const EXAMPLE: &'static str = "\
kto_data:
  kind: data.kto
  in: {trees: harvest.trees, world: toolwoz.world}
  with: {good: golden, system_prompt: react}
";
    const REPLACED: &'static [(&'static str, &'static str)] =
        &[("recipe", "`compat: paper` is what `recipe: paper` was, and `compat: fixed` is the default")];

    fn inputs(&self) -> Vec<PortSpec> {
        vec![TREES.one(), WORLD.optional()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![EXAMPLES.one()]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = compat::check::<Self>(&self.quirks);
        let rules = Rules::new(self.compat, &self.quirks);
        if !rules.labels_soundly() {
            let mode = rules.mode(Quirk::Q36);
            problems.extend(only_complete(mode, self.trees));
            if self.good != Good::Golden {
                problems.push(Problem::new("good", format!("must be `golden` where `{}` labels turns", mode.name())));
            }
        }
        problems
    }

    fn also_depends_on(&self, project: &Path) -> anyhow::Result<Vec<(String, String)>> {
        prompt::depends_on(self.system_prompt.as_deref(), project)
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let rules = Rules::new(self.compat, &self.quirks);
        let frame = frame(context, self.system_prompt.as_deref(), rules.attaches_tools())?;
        let harvests = Harvests::read(context.rows(&TREES)?.map(|row| row.map_err(anyhow::Error::from)))?;
        context.check_stop()?;
        let data = KtoData::of(&harvests, &rules, self.trees, self.good);
        let (mut examples, mut bare) = (context.writer(&EXAMPLES)?, Bare::default());
        for example in data.examples(&harvests, &frame) {
            bare.see(example.tools.as_deref(), example.prompt.iter().chain(&example.completion));
            examples.push(example)?;
        }
        examples.finish()?;
        let (all, desirable) = (data.turns.len(), data.turns.iter().filter(|turn| turn.desirable).count());
        context.figure("trees", harvests.trees.len() as f64);
        context.figure("desirable", desirable as f64);
        context.figure("undesirable", (all - desirable) as f64);
        context.figure("contradictions", data.contradictions as f64);
        bare.warn(context, rules.attaches_tools());
        if desirable == 0 || desirable == all {
            context.warn(format!("of {all} examples {desirable} are desirable: KTO needs both kinds"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Message;
    use crate::engine::stage::Notice;
    use crate::examples::SftExample;
    use crate::josh::import::{RecordedTree, rows};
    use crate::stages::bench::Bench;
    use crate::stages::data_sft::DataSft;
    use crate::table;

    fn bench() -> (Bench, std::path::PathBuf) {
        let bench = Bench::new();
        let path = |reply: &str, won: bool| (vec![Message::user("hi"), Message::assistant(reply)], won, won);
        let tree = RecordedTree { training_paths: vec![path("good", true), path("bad", false)], complete: true };
        let nodes = bench.write("trees.parquet", "");
        table::write(&nodes, [rows("A.json", &tree), rows("B.json", &tree)].concat()).unwrap();
        (bench, nodes)
    }

    #[test]
    fn both_kinds_of_data_come_from_the_same_trees() {
        let (bench, nodes) = bench();
        bench.write("prompt.txt", "Be kind.\n");
        let system_prompt = Some("prompt.txt".to_owned());
        bench
            .run(&DataKto { system_prompt: system_prompt.clone(), ..DataKto::default() }, &[("trees", &nodes)])
            .unwrap();
        let examples: Vec<KtoExample> = table::read(&bench.out("examples.parquet")).unwrap();
        let seen: Vec<_> = examples.iter().map(|one| (one.dialogue.as_str(), one.label, &one.completion[..])).collect();
        let (good, bad) = ([Message::assistant("good")], [Message::assistant("bad")]);
        let expected =
            [("A.json", true, &good[..]), ("B.json", true, &good), ("A.json", false, &bad), ("B.json", false, &bad)];
        assert_eq!(seen, expected);
        assert!(examples.iter().all(|one| one.prompt == [Message::system("Be kind."), Message::user("hi")]));
        let figure = Notice::Figure { name: "undesirable".to_owned(), value: 2.0 };
        assert!(bench.notices.lock().unwrap().contains(&figure));

        bench.run(&DataSft { system_prompt, ..DataSft::default() }, &[("trees", &nodes)]).unwrap();
        let examples: Vec<SftExample> = table::read(&bench.out("examples.parquet")).unwrap();
        let chat = [Message::system("Be kind."), Message::user("hi"), Message::assistant("good")];
        assert_eq!(examples.iter().map(|one| &one.messages[..]).collect::<Vec<_>>(), [&chat[..], &chat]);
    }

    #[test]
    fn a_prompt_decides_the_fingerprint_and_its_faults_are_named() {
        let (bench, nodes) = bench();
        let stage = |name: &str| DataKto { system_prompt: Some(name.to_owned()), ..DataKto::default() };
        bench.write("prompt.txt", "one");
        let before = stage("prompt.txt").also_depends_on(&bench.project()).unwrap();
        bench.write("prompt.txt", "two");
        assert_ne!(stage("prompt.txt").also_depends_on(&bench.project()).unwrap(), before);
        assert!(DataKto::default().also_depends_on(&bench.project()).unwrap().is_empty());
        let error = |name| format!("{:#}", bench.run(&stage(name), &[("trees", &nodes)]).unwrap_err());
        assert_eq!(error("react"), "template `react` shows tools: connect input `world`");
        assert!(error("reakt").contains("none of `react`, `brief` and `tools`"));
        let fields = |stage: DataKto| stage.check().into_iter().map(|problem| problem.field).collect::<Vec<_>>();
        let clash =
            DataKto { compat: Compat::Paper, trees: Trees::Rewarded, good: Good::Successful, ..DataKto::default() };
        assert_eq!(fields(clash.clone()), ["trees", "good"]);
        let quirks = Quirks([(Quirk::Q36, Compat::Fixed)].into());
        assert!(fields(DataKto { quirks, ..clash }).is_empty());
        let bare = DataSft { compat: Compat::RepoHead, system_prompt: Some("react".to_owned()), ..DataSft::default() };
        assert_eq!(bare.check()[0].field, "system_prompt");
        let quirks = Quirks([(Quirk::Q30, Compat::Fixed)].into());
        assert!(DataSft { quirks, ..bare }.check().is_empty());
    }
}
