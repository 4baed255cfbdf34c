//! ToolWOZ: MultiWOZ turned into a tool-calling environment with sparse rewards; its agents and its users.

pub mod agent;
pub mod agent_rule;
pub mod agent_tools;
pub mod agent_words;
pub mod belief;
pub mod command;
pub mod convert;
pub mod corpus;
pub mod demonstrations;
pub mod episode;
pub mod hearing;
mod index;
pub mod lexicon;
pub mod multiwoz;
pub mod observation;
pub mod oracle;
pub mod python_json;
pub mod react;
pub mod replay;
pub mod reward;
pub mod rules;
pub mod seed;
pub mod server;
pub mod source;
pub mod spelling;
pub mod synth;
pub mod synth_goal;
pub mod synth_world;
pub mod task;
pub mod template;
pub mod tools;
pub mod user;
pub mod user_agenda;
pub mod user_goal;
pub mod user_guide;
pub mod user_words;
pub mod values;
pub mod words;
pub mod world;

#[cfg(test)]
mod environment_tests;

#[cfg(test)]
mod golden_tests;

#[cfg(test)]
mod play_tests;
