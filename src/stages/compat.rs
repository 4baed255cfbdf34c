//! The parameters `compat` and `quirks` of the stages that keep the reference's behaviour.

use crate::compat::{Quirk, Quirks};
use crate::engine::stage::{Problem, Stage};

/// A stage with the parameters `compat` and `quirks`.
pub trait Compatible: Stage {
    /// The quirks that it asks about, part by part; no quirk twice.
    const QUIRKS: &'static [&'static [Quirk]];
}

/// What is wrong with the quirks that a stage is given: those about which it never asks.
pub(super) fn check<S: Compatible>(quirks: &Quirks) -> Vec<Problem> {
    let asked = || S::QUIRKS.iter().copied().flatten();
    let problem = |quirk: &Quirk| {
        let known: Vec<String> = asked().map(|quirk| format!("`{}` ({})", quirk.name(), quirk.entry().title)).collect();
        let title = quirk.entry().title;
        let message = format!("({title}) decides nothing here; this stage asks about {}", known.join(", "));
        Problem::new(format!("quirks.{}", quirk.name()), message)
    };
    quirks.0.keys().filter(|quirk| !asked().any(|known| known == *quirk)).map(problem).collect()
}
