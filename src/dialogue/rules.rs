//! What the environment asks of the rules: one question per quirk (reference, section 2.9).

use crate::compat::{Compat, Quirk, Rules};

/// The quirks that a conversion asks about.
pub const CONVERSION: &[Quirk] = &[Quirk::Q1, Quirk::Q5, Quirk::Q6, Quirk::Q7, Quirk::Q8, Quirk::Q9, Quirk::Q11];

/// The quirks that a server and its rewards ask about.
pub const ENVIRONMENT: &[Quirk] =
    &[Quirk::Q3, Quirk::Q4, Quirk::Q5, Quirk::Q6, Quirk::Q7, Quirk::Q8, Quirk::Q9, Quirk::Q10, Quirk::Q12, Quirk::Q39];

/// The quirks that users ask about.
pub const USERS: &[Quirk] = &[Quirk::Q23];

/// The quirks that the judgement of a single turn asks about besides.
pub const TURNS: &[Quirk] = &[Quirk::Q13];

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

impl Rules {
    /// Quirk Q1.
    pub const fn columns(&self) -> Columns {
        match self.mode(Quirk::Q1) {
            Compat::RepoHead | Compat::Pypi014 => Columns::ByPosition,
            Compat::Paper | Compat::Fixed => Columns::ByName,
        }
    }

    /// Quirks Q3 (whether records are hidden) and Q4 (which).
    pub const fn failing(&self) -> Failing {
        match (self.mode(Quirk::Q3), self.mode(Quirk::Q4)) {
            (Compat::RepoHead | Compat::Pypi014, _) => Failing::Findable,
            (_, Compat::Fixed) => Failing::HiddenUnlessWanted,
            _ => Failing::Hidden,
        }
    }

    /// Quirk Q5: whether apostrophes are ignored in records and booked entities, as they always are in arguments.
    pub const fn ignores_apostrophes(&self) -> bool {
        self.mends(Quirk::Q5)
    }

    /// Quirk Q5: whether the conversion's search doubles apostrophes, so that such a value finds nothing.
    pub const fn doubles_apostrophes(&self) -> bool {
        matches!(self.mode(Quirk::Q5), Compat::RepoHead | Compat::Pypi014)
    }

    /// Quirk Q6: whether case and spelling are ignored in records and booked entities, as case always is in arguments.
    pub const fn ignores_spelling(&self) -> bool {
        self.mends(Quirk::Q6)
    }

    /// Quirk Q7.
    pub const fn times(&self) -> Times {
        if self.mends(Quirk::Q7) { Times::Clock } else { Times::Text }
    }

    /// Quirk Q8: whether every spelling of not caring, and null, constrains nothing; otherwise six exact texts do.
    pub const fn ignores_indifference(&self) -> bool {
        self.mends(Quirk::Q8)
    }

    /// Quirk Q9: whether numbers and truth values are read as the texts that they stand for.
    pub const fn reads_scalars(&self) -> bool {
        self.mends(Quirk::Q9)
    }

    /// Quirk Q10.
    pub const fn wrong_row(&self) -> WrongRow {
        if self.mends(Quirk::Q10) { WrongRow::FirstByConstraint } else { WrongRow::LastByEquality }
    }

    /// Quirk Q11: whether a conversion says how many bookings it leaves out.
    pub const fn tells_of_unrecorded_bookings(&self) -> bool {
        self.mends(Quirk::Q11)
    }

    /// Quirk Q12: whether a booking earns its reward only when the server granted it.
    pub const fn booking_must_succeed(&self) -> bool {
        self.mends(Quirk::Q12)
    }

    /// Quirk Q13: whether JOSH judges a search by its booking even after the booking was found.
    pub const fn judges_by_full_goals(&self) -> bool {
        self.mends(Quirk::Q13)
    }

    /// Quirk Q39.
    pub const fn shape(&self) -> Shape {
        match self.mode(Quirk::Q39) {
            Compat::RepoHead | Compat::Pypi014 => Shape::AllColumns,
            Compat::Paper => Shape::Sqlite,
            Compat::Fixed => Shape::Plain,
        }
    }

    /// Whether records are those of the SQLite tables where these differ from the JSON files: no quirk, but the paper's data.
    pub const fn sqlite_records(&self) -> bool {
        matches!(self.compat(), Compat::Paper)
    }
}
