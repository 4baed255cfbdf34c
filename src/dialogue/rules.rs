//! Where the reference's versions differ from each other and from a sound environment: one decision per quirk.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// How a found record's fields get their names when a booking lacks its entity (quirk Q1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// Each field keeps its name.
    ByName,
    /// The n-th field gets the n-th name of the SQLite table, whatever it holds.
    ByPosition,
}

/// What becomes of the records that answer the search that the customer's story says must fail (quirks Q3 and Q4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// They stay findable.
    Findable,
    /// They are hidden for this dialogue.
    Hidden,
    /// They are hidden for this dialogue, except those that its goal needs.
    HiddenUnlessWanted,
}

/// How values are compared (quirks Q5, Q6, Q8 and Q9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Arguments lose case and apostrophes, records do not; six exact texts mean "anything"; a number equals no text.
    Reference,
    /// Both sides lose case, apostrophes and outer blanks; one list of texts, and null, mean "anything"; numbers and truth
    /// values are read as text.
    Folded,
}

/// How `leaveAt` and `arriveBy` constrain (quirk Q7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Strictly later, strictly earlier, in the order of the texts.
    Text,
    /// Not earlier, not later, on the clock.
    Clock,
}

/// Which record misleads an agent that asks for less than the customer wants (quirk Q10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WrongRow {
    /// The last whose fields are not equal to the goal's, times included.
    LastByEquality,
    /// The first that breaks a constraint of the goal and is not the booked entity.
    FirstByConstraint,
}

/// How records look to the agent (quirk Q39).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Every column of the table, nested values included, `NaN` where a record lacks one.
    AllColumns,
    /// The SQLite table's columns as texts, `NULL` where a record lacks one.
    Sqlite,
    /// The fields that the record has, without lists and objects.
    Plain,
}

/// One decision per quirk of the environment. `Copy`, so that every session carries its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Quirk Q1.
    pub columns: Columns,
    /// Quirks Q3 and Q4.
    pub failing: Failing,
    /// Quirks Q5, Q6, Q8 and Q9.
    pub values: Values,
    /// Quirk Q5: the conversion's search doubles apostrophes, so that such a value finds nothing.
    pub doubled_apostrophes: bool,
    /// Quirk Q7.
    pub times: Times,
    /// Quirk Q10.
    pub wrong_row: WrongRow,
    /// Quirk Q12: a booking earns its reward only when the server granted it.
    pub booking_must_succeed: bool,
    /// Quirk Q13: JOSH judges a search by its booking even after the booking was found.
    pub judge_by_full_goals: bool,
    /// Quirk Q39.
    pub shape: Shape,
}

impl Rules {
    /// The decisions of a mode.
    pub const fn of(compat: Compat) -> Self {
        match compat {
            Compat::Fixed => Self {
                columns: Columns::ByName,
                failing: Failing::HiddenUnlessWanted,
                values: Values::Folded,
                doubled_apostrophes: false,
                times: Times::Clock,
                wrong_row: WrongRow::FirstByConstraint,
                booking_must_succeed: true,
                judge_by_full_goals: true,
                shape: Shape::Plain,
            },
            Compat::RepoHead | Compat::Pypi014 => Self {
                columns: Columns::ByPosition,
                failing: Failing::Findable,
                values: Values::Reference,
                doubled_apostrophes: true,
                times: Times::Text,
                wrong_row: WrongRow::LastByEquality,
                booking_must_succeed: false,
                judge_by_full_goals: false,
                shape: Shape::AllColumns,
            },
            Compat::Paper => Self {
                columns: Columns::ByName,
                failing: Failing::Hidden,
                doubled_apostrophes: false,
                shape: Shape::Sqlite,
                ..Self::of(Compat::RepoHead)
            },
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::of(Compat::Fixed)
    }
}

impl From<Compat> for Rules {
    fn from(compat: Compat) -> Self {
        Self::of(compat)
    }
}
