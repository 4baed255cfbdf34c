//! The pools of a run: how many stages compute at once, and in which.

use std::collections::HashMap;

use super::graph::Graph;
use super::profile::Profile;

/// A stage wants a pool in which the profile has no slots.
#[derive(Debug, thiserror::Error)]
#[error(
    "stage `{stage}` wants the pool `{pool}`, which the profile does not have; write `pools.{pool} = 1` into thresh.toml"
)]
pub struct NoPool {
    /// The stage.
    pub stage: String,
    /// The pool.
    pub pool: String,
}

struct Pool {
    slots: usize,
    busy: usize,
}

/// The pools that the wanted stages of a graph use.
pub struct Pools {
    pools: Vec<Pool>,
    /// Each stage's pool; 0 for those that are not wanted.
    of: Vec<usize>,
}

impl Pools {
    /// The pools that pipeline and kinds name, with the slots that the profile gives them.
    ///
    /// # Errors
    /// When the profile gives one none.
    pub fn new(graph: &Graph, wanted: &[bool], profile: &dyn Profile) -> Result<Self, NoPool> {
        let (mut pools, mut known, mut of) = (Vec::new(), HashMap::new(), Vec::new());
        for (node, wanted) in graph.nodes.iter().zip(wanted) {
            if !wanted {
                of.push(0);
                continue;
            }
            let name = node.policy.pool.as_deref().unwrap_or_else(|| node.stage.pool(profile));
            let number = match known.get(name) {
                Some(&number) => number,
                None => {
                    let slots = profile.slots(name).filter(|&slots| slots > 0);
                    let none = || NoPool { stage: node.name.clone(), pool: name.to_owned() };
                    pools.push(Pool { slots: slots.ok_or_else(none)?, busy: 0 });
                    known.insert(name, pools.len() - 1);
                    pools.len() - 1
                }
            };
            of.push(number);
        }
        Ok(Self { pools, of })
    }

    /// The number of each stage's pool.
    pub fn of(&self) -> Vec<usize> {
        self.of.clone()
    }

    /// The pools that have a slot to give.
    pub fn free(&self) -> impl Iterator<Item = usize> {
        (0..self.pools.len()).filter(|&pool| self.pools[pool].busy < self.pools[pool].slots)
    }

    /// A stage takes a slot of its pool.
    pub fn take(&mut self, stage: usize) {
        self.pools[self.of[stage]].busy += 1;
    }

    /// A stage gives its slot back.
    pub fn give_back(&mut self, stage: usize) {
        self.pools[self.of[stage]].busy -= 1;
    }
}
