//! What a customer wants, and which calls must be made to get it: one task of ToolWOZ.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::table::Row;

/// A named value, in the order in which the source gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Slot {
    /// The slot's name as the tools spell it: `food`, `leaveAt`, `trainID`.
    pub name: String,
    /// Its value as the source spells it.
    pub value: String,
}

/// What the customer wants of one domain, as MultiWOZ's goal says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DomainGoal {
    /// `hotel`, `attraction`, `train` or `restaurant`.
    pub domain: String,
    /// The constraints that hold in the end.
    pub info: Vec<Slot>,
    /// The constraints tried first, which find nothing.
    pub fail_info: Vec<Slot>,
    /// The booking that succeeds in the end.
    pub book: Vec<Slot>,
    /// The booking tried first, which is refused.
    pub fail_book: Vec<Slot>,
    /// The attributes that the customer asks for: `phone`, `postcode`.
    pub requests: Vec<String>,
}

/// A call that earns its share of the reward (reference, section 2.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GoalCall {
    /// The tool: `search_hotel`, `book_train`.
    pub api: String,
    /// All of the tool's parameters in the tool's order; an empty value is `""`.
    pub parameters: Vec<Slot>,
    /// For a search whose domain is also booked, and for a booking: the entity that must be served or booked.
    pub unique_id: Option<String>,
    /// What a successful booking returns, as JSON text; `None` for a search.
    pub returns: Option<String>,
}

/// One task: a dialogue's goal, and the calls that reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Task {
    /// The source dialogue: `MUL0003.json`.
    pub dialogue: String,
    /// `train`, `val` or `test`; here `test` is the reference's `full_test`. The paper's 450 test tasks are the first 450 of
    /// it in the order of `dialogue`.
    pub split: String,
    /// The goal in sentences, one a line, as the source gives them with its emphasis tags.
    pub message: String,
    /// What the customer wants, domain by domain in the order in which the goal message tells it.
    pub domains: Vec<DomainGoal>,
    /// The calls that earn reward, in the reference's order (hotel, attraction, train, restaurant; search before book).
    pub goals: Vec<GoalCall>,
}

impl Row for Task {
    const TYPE: &'static str = "toolwoz.task/v1";
}

/// One item of a world: a database record, or a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorldItem {
    /// `record` or `tool`.
    pub part: String,
    /// The domain of a record, the name of a tool.
    pub name: String,
    /// The record or the tool's definition (OpenAI function schema), as JSON text in the source's order of keys.
    pub body: String,
}

impl Row for WorldItem {
    const TYPE: &'static str = "toolwoz.world/v1";
}
