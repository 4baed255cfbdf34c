//! ToolWOZ: MultiWOZ turned into a tool-calling environment with sparse rewards; its agents and its users.

pub mod task;
