//! The table that an experiment ends with.

use std::path::Path;

/// Whether artifacts of a type are shown when a run ends.
pub fn shows(holds: &str) -> bool {
    holds.starts_with("eval.comparison/")
}

/// A comparison as text.
pub fn text(path: &Path) -> anyhow::Result<String> {
    super::table::overview(path, 1000)
}
