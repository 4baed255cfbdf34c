//! Whose behaviour holds where the reference's versions differ from each other and from a sound program.
//!
//! The modes and the numbered quirks stand here, and nothing of what they mean for the code: each part of the domain adds to
//! [`Rules`] the questions that it asks (`dialogue/rules.rs`, `josh/rules.rs`), and every question names its quirk.

pub mod document;
pub mod quirk;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use quirk::Quirk;

/// Whose behaviour is kept (reference, section 2.10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Compat {
    /// The state of the code that made the published trees: SQLite records, failing alternatives deleted.
    #[serde(rename = "paper")]
    Paper,
    /// The state of October 2024: JSON records, nothing deleted.
    #[serde(rename = "repo-head")]
    RepoHead,
    /// The published package; its environment is that of `repo-head`.
    #[serde(rename = "pypi-0.1.4")]
    Pypi014,
    /// The quirks mended.
    #[default]
    #[serde(rename = "fixed")]
    Fixed,
}

impl Compat {
    /// All modes, oldest first.
    pub const ALL: [Self; 4] = [Self::Paper, Self::RepoHead, Self::Pypi014, Self::Fixed];

    /// The mode as pipelines spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::RepoHead => "repo-head",
            Self::Pypi014 => "pypi-0.1.4",
            Self::Fixed => "fixed",
        }
    }
}

/// Single quirks that another mode decides, as a stage's parameter: `{Q5: fixed, Q12: repo-head}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Quirks(pub BTreeMap<Quirk, Compat>);

/// Whose behaviour holds, quirk by quirk. `Copy`, so that every session and every search carries its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    compat: Compat,
    modes: [Compat; Quirk::COUNT],
}

impl Rules {
    /// One mode for all quirks.
    pub const fn of(compat: Compat) -> Self {
        Self { compat, modes: [compat; Quirk::COUNT] }
    }

    /// A mode, and the quirks that other modes decide.
    pub fn new(compat: Compat, quirks: &Quirks) -> Self {
        quirks.0.iter().fold(Self::of(compat), |rules, (quirk, mode)| rules.with(*quirk, *mode))
    }

    /// These rules with another mode for one quirk.
    pub const fn with(mut self, quirk: Quirk, mode: Compat) -> Self {
        self.modes[quirk as usize] = mode;
        self
    }

    /// The mode of all that no quirk stands for.
    pub const fn compat(&self) -> Compat {
        self.compat
    }

    /// The mode that decides a quirk.
    pub const fn mode(&self, quirk: Quirk) -> Compat {
        self.modes[quirk as usize]
    }

    /// Whether a quirk is mended.
    pub const fn mends(&self, quirk: Quirk) -> bool {
        matches!(self.mode(quirk), Compat::Fixed)
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::of(Compat::default())
    }
}

impl From<Compat> for Rules {
    fn from(compat: Compat) -> Self {
        Self::of(compat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quirk_goes_its_own_way() {
        let quirks: Quirks = serde_json::from_str(r#"{"Q5": "fixed", "Q12": "paper"}"#).unwrap();
        let rules = Rules::new(Compat::RepoHead, &quirks);
        assert!(rules.mends(Quirk::Q5) && !rules.mends(Quirk::Q6));
        assert_eq!((rules.mode(Quirk::Q12), rules.mode(Quirk::Q13)), (Compat::Paper, Compat::RepoHead));
        assert_eq!(rules.compat(), Compat::RepoHead);
        assert_eq!(Rules::default(), Rules::of(Compat::Fixed));
    }

    #[test]
    fn modes_are_spelled_as_they_are_read() {
        for mode in Compat::ALL {
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.name());
        }
    }
}
