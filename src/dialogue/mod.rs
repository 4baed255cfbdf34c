//! ToolWOZ: MultiWOZ turned into a tool-calling environment with sparse rewards; its agents and its users.

pub mod convert;
pub mod corpus;
pub mod multiwoz;
pub mod observation;
pub mod oracle;
pub mod python_json;
pub mod reward;
pub mod rules;
pub mod server;
pub mod task;
pub mod tools;
pub mod values;
pub mod world;

#[cfg(test)]
mod environment_tests;
#[cfg(test)]
mod golden_tests;
