//! JOSH: a search over the turns of a simulated dialogue that harvests the paths which earn sparse rewards.
//!
//! [`search`] is generic over a [`Simulation`]; it knows no dialogue and no language model. What it records becomes rows
//! ([`node`]), and the rows become training data ([`sft_data`], [`kto_data`]).

#[cfg(test)]
mod golden;
pub mod import;
pub mod kto_data;
pub mod node;
pub mod paths;
#[cfg(test)]
mod rows_tests;
pub mod rules;
pub mod search;
#[cfg(test)]
mod search_tests;
pub mod sft_data;
pub mod simulation;
pub mod tree;

pub use node::NodeRow;
pub use paths::{Harvest, Path, harvests, paths};
pub use search::{Settings, search};
pub use simulation::{AgentError, AgentTurn, Broken, GoalIndex, Simulation, UserTurn};
pub use tree::{Outcome, Tree};
