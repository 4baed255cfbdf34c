//! `desk.harvest`: visits as trees.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thresh::engine::port::{Port, PortSpec};
use thresh::engine::stage::{Context, Problem, Stage};
use thresh::josh::node::rows;
use thresh::josh::search::Settings;
use thresh::josh::{NodeRow, Outcome};

use crate::clerk::{Clerk, POLICY};
use crate::play::{Visits, search_all};

const TREES: Port<NodeRow> = Port::new("trees");

/// Lets the clerk serve every visit as a branching tree, and keeps the branches that found a book.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeskHarvest {
    /// Which visits.
    pub visits: Visits,
    /// Who serves.
    #[serde(default)]
    pub clerk: Clerk,
    /// The most branches at once.
    #[serde(default = "eight")]
    pub beam: usize,
    /// Decides all chance.
    #[serde(default)]
    pub seed: u64,
}

fn eight() -> usize {
    8
}

impl Stage for DeskHarvest {
    const KIND: &'static str = "desk.harvest";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "\
harvest:
  kind: desk.harvest
  in: {policy: base.model}
  with: {visits: {skip: 300, count: 100}, beam: 8}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![POLICY.optional()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![TREES.one()]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = [self.visits.check(), self.clerk.check()].concat();
        if self.beam == 0 {
            problems.push(Problem::new("beam", "must be at least 1"));
        }
        problems
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let settings = Settings { beam: self.beam, tries: 4, seed: self.seed, ..Settings::default() };
        let trees = search_all(context, &self.visits, &self.clerk, &settings)?;
        let complete = trees.iter().filter(|(_, tree)| tree.outcome() == Outcome::Complete).count();
        context.figure("trees", trees.len() as f64);
        context.figure("complete", complete as f64);
        context.write(&TREES, trees.iter().flat_map(|(visit, tree)| rows(visit, tree)))
    }
}
