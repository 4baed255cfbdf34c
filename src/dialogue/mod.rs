//! ToolWOZ: MultiWOZ turned into a tool-calling environment with sparse rewards; its agents and its users.

pub mod agent_rule;
pub mod agent_words;
pub mod belief;
pub mod command;
pub mod convert;
pub mod corpus;
pub mod demonstrations;
pub mod episode;
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
pub mod synth;
pub mod synth_goal;
pub mod synth_world;
pub mod task;
pub mod tools;
pub mod user;
pub mod user_agenda;
pub mod user_model;
pub mod user_words;
pub mod values;
pub mod world;

#[cfg(test)]
mod environment_tests;

#[cfg(test)]
mod golden_tests;

#[cfg(test)]
mod play_tests;
