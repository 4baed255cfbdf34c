//! ToolWOZ: MultiWOZ turned into a tool-calling environment with sparse rewards; its agents and its users.

pub mod agent_rule;
pub mod agent_words;
pub mod belief;
pub mod command;
pub mod convert;
pub mod corpus;
pub mod hearing;
pub mod lexicon;
pub mod multiwoz;
pub mod observation;
pub mod oracle;
pub mod python_json;
pub mod react;
pub mod reward;
pub mod rules;
pub mod seed;
pub mod server;
pub mod task;
pub mod tools;
pub mod user_agenda;
pub mod user_words;
pub mod values;
pub mod world;

#[cfg(test)]
mod environment_tests;
#[cfg(test)]
mod golden_tests;
