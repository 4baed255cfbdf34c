//! What flows between stages: typed ports.

use std::marker::PhantomData;

use crate::table::Row;

/// What a port carries. Two ports connect only when these are equal, or when one side takes anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// A Parquet table of this row type.
    Table(String),
    /// A folder of this format: `model.bundle/v1`.
    Folder(String),
    /// Any artifact: only `command.run` has such ports.
    Anything,
}

/// How many connections an input port takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly one.
    One,
    /// One or none.
    Optional,
    /// Any number, each under a name of the user's; the port's own name stands for them in the documentation.
    Many,
}

/// A port as the engine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// The name that pipelines use.
    pub name: String,
    /// What it carries.
    pub holds: Holds,
    /// How many connections it takes; outputs are always `One`.
    pub arity: Arity,
}

/// A table port as a stage names it: reading and writing through it is typed.
pub struct Port<T: Row> {
    /// The name that pipelines use.
    pub name: &'static str,
    row: PhantomData<fn() -> T>,
}

impl<T: Row> Port<T> {
    /// A table port.
    pub const fn new(name: &'static str) -> Self {
        Self { name, row: PhantomData }
    }

    /// As a port that takes exactly one connection.
    pub fn one(&self) -> PortSpec {
        self.with(Arity::One)
    }

    /// As a port that may stay unconnected.
    pub fn optional(&self) -> PortSpec {
        self.with(Arity::Optional)
    }

    /// As a port that takes any number of connections.
    pub fn many(&self) -> PortSpec {
        self.with(Arity::Many)
    }

    fn with(&self, arity: Arity) -> PortSpec {
        PortSpec { name: self.name.to_owned(), holds: Holds::Table(T::TYPE.to_owned()), arity }
    }
}

/// A folder port as a stage names it.
pub struct Folder {
    /// The name that pipelines use.
    pub name: &'static str,
    /// The folder's format and its version.
    pub format: &'static str,
}

impl Folder {
    /// A folder port.
    pub const fn new(name: &'static str, format: &'static str) -> Self {
        Self { name, format }
    }

    /// As a port that takes exactly one connection.
    pub fn one(&self) -> PortSpec {
        self.with(Arity::One)
    }

    /// As a port that may stay unconnected.
    pub fn optional(&self) -> PortSpec {
        self.with(Arity::Optional)
    }

    fn with(&self, arity: Arity) -> PortSpec {
        PortSpec { name: self.name.to_owned(), holds: Holds::Folder(self.format.to_owned()), arity }
    }
}
