//! Trees in short, for tests: a record is its mark and the texts of its messages.

use super::forest::Point;
use super::paths::{Harvest, Harvests, Recorded};
use super::tree::Outcome;
use crate::chat::Message;

/// A message in short: `u…` is the customer's, `r…` a tool's, `s…` the system's, all others the agent's.
fn message(text: &str) -> Message {
    match text.chars().next() {
        Some('u' | 'v' | 'E') => Message::user(text),
        Some('r') => Message::user(format!("APIRETURN {text}")),
        Some('s') => Message::system(text),
        _ => Message::assistant(text),
    }
}

/// Trees of records such as `G:u a`: `G` is golden, `S` succeeded, `F` failed.
pub fn harvests<S: AsRef<str>>(trees: &[(&str, Outcome, &[S])]) -> Harvests {
    let mut harvests = Harvests::default();
    for (dialogue, outcome, records) in trees {
        let mut record = |short: &S| {
            let (marks, texts) = short.as_ref().split_once(':').unwrap();
            let forest = &mut harvests.forest;
            let end = texts.split_whitespace().fold(Point::START, |place, text| forest.after(place, message(text)));
            Recorded { end, success: marks != "F", golden: marks == "G" }
        };
        let records = records.iter().map(&mut record).collect();
        harvests.trees.push(Harvest { dialogue: (*dialogue).to_owned(), outcome: *outcome, records });
    }
    harvests
}

/// Golden records of these messages.
pub fn golden_records(records: &[&str]) -> Vec<String> {
    records.iter().map(|texts| format!("G:{texts}")).collect()
}
