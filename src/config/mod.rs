//! YAML and TOML into a checked graph: every mistake of a file at once, each with its place and a hint.

pub mod diagnostic;
mod params;
pub mod pipeline;
mod policy;
pub mod profile;
pub mod schema;
mod stage;
mod yaml;

pub use diagnostic::{Diagnostic, Diagnostics, Sources};
pub use pipeline::{Pipeline, load};
pub use profile::{Project, Settings};

/// Reads YAML text as one node: for examples that stand in the code.
pub fn yaml_node(text: &str) -> Result<crate::value::Node, Diagnostic> {
    yaml::read(0, text)
}
