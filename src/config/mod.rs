//! YAML and TOML into a checked graph: every mistake of a file at once, each with its place and a hint.

mod change;
mod connect;
pub mod diagnostic;
mod expand;
mod fan;
mod kind_ports;
mod matrix;
mod parameters;
mod params;
pub mod pipeline;
mod policy;
pub mod profile;
mod read;
pub mod schema;
mod settings;
mod stage;
mod sweep;
mod yaml;

pub use diagnostic::{Diagnostic, Diagnostics, Sources};
pub use kind_ports::ports;
pub use pipeline::{Pipeline, load, load_through};
pub use policy::seconds;
pub use profile::{Project, Settings};
pub use settings::Mistake;

/// Reads YAML text as one node: for examples that stand in the code.
pub fn yaml_node(text: &str) -> Result<crate::value::Node, Diagnostic> {
    yaml::read(0, text).map_err(|mut problems| problems.swap_remove(0))
}
