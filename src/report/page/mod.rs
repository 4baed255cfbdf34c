//! One self-contained page about some runs: no network, no clock, the same bytes for the same runs.
//!
//! A page is a list of [`Section`]s. Each has a part here, which reads the runs and says what the section is drawn from, and a
//! script in `assets/`, which draws it in the browser. `assets/page.js` is what all scripts stand on.

mod browse;
mod comparison;
mod curves;
mod graph;
mod material;
mod rewards;
mod runs;
mod shell;
mod stages;

use serde_json::Value;

pub use material::{Found, Material};

use crate::engine::history::RunRecord;
use crate::engine::store::Store;

/// A part of the page.
pub struct Section {
    /// Its anchor, and the name under which its script asks for its data.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// Its rules, beside those of `page.css`.
    pub style: &'static str,
    /// Its script: calls `thresh.section(id, draw)`.
    pub script: &'static str,
    /// What it is drawn from; `None` where the runs have nothing for it, and the page then is without it.
    pub make: fn(&Material) -> anyhow::Result<Option<Content>>,
}

/// What a section is drawn from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Content {
    /// Small things, there before the first paint.
    pub data: Value,
    /// HTML that stands in the section from the start. Whoever makes it escapes what it puts in.
    pub markup: String,
    /// Large things, read after the first paint: each is the text of an element `<script type="text/plain" id="ID-N">`, N from 0.
    /// Characters of base64 only.
    pub chunks: Vec<String>,
}

impl From<Value> for Content {
    fn from(data: Value) -> Self {
        Self { data, ..Self::default() }
    }
}

/// The sections in their order.
pub const SECTIONS: &[Section] = &[
    runs::SECTION,
    graph::SECTION,
    stages::TIMELINE,
    comparison::SECTION,
    comparison::FLIPS,
    curves::SECTION,
    rewards::SECTION,
    browse::SECTION,
];

/// The page about runs, whose order is that on the page. What is missing or damaged in the store stands on the page.
///
/// `records` are those of all runs of the store: they know what it took to compute results that were there already.
/// `dialogues` is how many dialogues and trees are in the page at most; `None` is all.
///
/// # Errors
/// When the store cannot be read, or a table in it is not what its manifest says.
pub fn page(
    store: &Store,
    records: &[RunRecord],
    runs: &[&RunRecord],
    dialogues: Option<usize>,
) -> anyhow::Result<String> {
    let material = Material::new(store, records, runs, dialogues)?;
    let mut made = Vec::new();
    for section in SECTIONS {
        if let Some(content) = (section.make)(&material)? {
            made.push((section, content));
        }
    }
    Ok(shell::page(&material, &made))
}
