//! Kinds and row types that a program of one's own adds to ours.

use std::collections::HashSet;
use std::sync::OnceLock;

use super::{KINDS, Kind, ROWS, RowType};

/// What a program of one's own adds to the kinds and row types that there are.
#[derive(Clone, Copy)]
pub struct Extension {
    /// The kinds.
    pub kinds: &'static [Kind],
    /// The row types of their ports that are new, for `schema`.
    pub rows: &'static [RowType],
}

/// Why kinds or row types cannot be added.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtendError {
    /// A name that another kind or row type has.
    #[error("there are two {what} `{name}`; give yours a name of its own")]
    Twice {
        /// `kinds` or `row types`.
        what: &'static str,
        /// The name.
        name: &'static str,
    },
    /// Something was added before.
    #[error("kinds are added once a process, and all together")]
    Again,
}

static ADDED: OnceLock<Extension> = OnceLock::new();

/// Adds kinds and row types for the rest of the process. [`cli::main_with`](crate::cli::main_with) calls it first of all:
/// pipelines that are read before know only ours.
///
/// # Errors
/// Where a name is taken, or something was added before.
pub fn extend(extension: Extension) -> Result<(), ExtendError> {
    let kinds = KINDS.iter().chain(extension.kinds).map(|kind| kind.name);
    let rows = ROWS.iter().chain(extension.rows).map(|row| row.name);
    if let Some(name) = repeated(kinds) {
        return Err(ExtendError::Twice { what: "kinds", name });
    }
    if let Some(name) = repeated(rows) {
        return Err(ExtendError::Twice { what: "row types", name });
    }
    ADDED.set(extension).map_err(|_| ExtendError::Again)
}

/// The first name that stands twice.
fn repeated(names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let mut seen = HashSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

/// Every kind that there is: ours, then those that the program added.
pub fn kinds() -> impl Iterator<Item = &'static Kind> + Clone {
    KINDS.iter().chain(ADDED.get().map_or(&[][..], |added| added.kinds))
}

/// Every row type that there is: ours, then those that the program added.
pub fn rows() -> impl Iterator<Item = &'static RowType> + Clone {
    ROWS.iter().chain(ADDED.get().map_or(&[][..], |added| added.rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_taken_is_refused() {
        let twice = |kinds: &'static [Kind], rows: &'static [RowType]| extend(Extension { kinds, rows }).unwrap_err();
        assert_eq!(twice(&KINDS[3..4], &[]), ExtendError::Twice { what: "kinds", name: KINDS[3].name });
        assert_eq!(twice(&[], &ROWS[..1]), ExtendError::Twice { what: "row types", name: ROWS[0].name });
        assert_eq!(kinds().count(), KINDS.len());
        assert_eq!(rows().count(), ROWS.len());
    }
}
