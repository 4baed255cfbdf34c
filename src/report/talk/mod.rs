//! Dialogues and trees as people look at them: plain structs, built from the tables, for the terminal, for pages and as JSON.
//!
//! A table says what was written to the model and back. Here that is read once: replies are split into what was planned, called
//! and said, each call stands with what it returned, and goals with the turn that reached them.

pub mod dialogue;
pub mod example;
pub mod goal;
pub mod source;
pub mod tree;
pub mod turn;

pub use dialogue::{Headline, Talk, Tokens};
pub use goal::{Briefs, Goal};
pub use source::{Holds, Source};
pub use tree::{Tree, TreeHeadline, TreeNode};
pub use turn::{Call, Step, Turn};
