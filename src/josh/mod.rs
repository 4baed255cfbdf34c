//! JOSH: a search over the turns of a simulated dialogue that harvests the paths which earn sparse rewards.
//!
//! [`search`] is generic over a [`Simulation`]; it knows no dialogue and no language model. What it records becomes rows
//! ([`node`]), a table of rows becomes a [`Forest`] again ([`paths`]), and that training data ([`sft_data`], [`kto_data`],
//! [`pair_data`]).

pub mod diversity;
pub mod extraction;
pub mod forest;
pub mod frame;
#[cfg(test)]
mod golden;
pub mod import;
pub mod kto_data;
pub mod node;
pub mod pair_data;
pub mod paths;
#[cfg(test)]
mod rows_tests;
pub mod rules;
pub mod search;
#[cfg(test)]
mod search_tests;
pub mod sft_data;
#[cfg(test)]
pub(crate) mod short;
pub mod simulation;
pub mod tree;
pub mod turns;

pub use forest::{Forest, Point};
pub use node::NodeRow;
pub use paths::{Harvest, Harvests};
pub use search::{Settings, search};
pub use simulation::{AgentError, AgentTurn, Broken, GoalIndex, Simulation, UserTurn};
pub use tree::{Outcome, Tree};
