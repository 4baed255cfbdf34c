//! What became of every example: how many tokens it has, how many of them are trained on, how often, and if not, why not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::table::Row;

/// What became of an example. None is ever cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It was trained on.
    Trained,
    /// It is held out: the evaluations measure its loss.
    HeldOut,
    /// The training ended before it was its turn.
    NotReached,
    /// It is left out: longer than allowed.
    TooLong,
    /// It is left out: no token of it is to be learnt.
    NothingToLearn,
    /// It lies beyond the limit of how many examples are read.
    BeyondLimit,
}

impl Fate {
    /// As it stands in tables and figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trained => "trained",
            Self::HeldOut => "held_out",
            Self::NotReached => "not_reached",
            Self::TooLong => "too_long",
            Self::NothingToLearn => "nothing_to_learn",
            Self::BeyondLimit => "beyond_limit",
        }
    }
}

/// One example of a training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrainRow {
    /// Its place among the examples, from 0.
    pub place: u64,
    /// The dialogue that it comes from.
    pub dialogue: String,
    /// Whether it is desirable, where examples are labelled.
    pub label: Option<bool>,
    /// Its tokens; absent where it lies beyond the limit and was not read.
    pub tokens: Option<u64>,
    /// How many of them carry a loss each time that it is trained on; 0 where it never is.
    pub trained_tokens: u64,
    /// How often it was trained on.
    pub times: u64,
    /// What became of it.
    pub fate: Fate,
}

impl Row for TrainRow {
    const TYPE: &'static str = "train.row/v1";
}

impl TrainRow {
    /// An example that is not read.
    pub fn beyond_limit(place: usize, dialogue: String, label: Option<bool>) -> Self {
        let place = place as u64;
        Self { place, dialogue, label, tokens: None, trained_tokens: 0, times: 0, fate: Fate::BeyondLimit }
    }
}

/// Enters how often each of the rows that can be trained on is: `times` has one number for each of these, in their order.
pub fn reached(rows: &mut [TrainRow], times: &[u64]) {
    let trainable = rows.iter_mut().filter(|row| row.fate == Fate::Trained);
    for (row, &times) in trainable.zip(times) {
        row.times = times;
        if times == 0 {
            row.fate = Fate::NotReached;
            row.trained_tokens = 0;
        }
    }
}
