//! A suite of small tasks that say how to answer, judged by exact match: whether a model still does what it is asked after it
//! was trained on something narrow.
//!
//! The tasks are our own, the same for everybody, and easy: a chat model of 135 million parameters does a part of them. They are
//! no measure of how able a model is, only of whether two models differ.

mod ability;
mod judge;
mod suite;
mod words;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use ability::{AbilityRow, AnswerRow, abilities};
pub use suite::tasks;

/// What a task asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// To say a word or a sentence again.
    Repeat,
    /// To write something in capital letters; the only one where case counts.
    Uppercase,
    /// The first or the last letter of a word.
    Letter,
    /// A word's opposite.
    Opposite,
    /// A country's capital.
    Capital,
    /// Yes or no to a simple question.
    Fact,
    /// A small sum, difference or product.
    Sum,
    /// How many words or letters there are.
    Count,
    /// Words or numbers in their order.
    Order,
    /// What comes next.
    Sequence,
    /// The longest word of a list, or the colour in a sentence.
    Pick,
}

impl Category {
    /// All, in the order of the suite.
    pub const ALL: [Self; 11] = [
        Self::Repeat,
        Self::Uppercase,
        Self::Letter,
        Self::Opposite,
        Self::Capital,
        Self::Fact,
        Self::Sum,
        Self::Count,
        Self::Order,
        Self::Sequence,
        Self::Pick,
    ];

    /// As pipelines and tables name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Repeat => "repeat",
            Self::Uppercase => "uppercase",
            Self::Letter => "letter",
            Self::Opposite => "opposite",
            Self::Capital => "capital",
            Self::Fact => "fact",
            Self::Sum => "sum",
            Self::Count => "count",
            Self::Order => "order",
            Self::Sequence => "sequence",
            Self::Pick => "pick",
        }
    }
}

/// One task: a message to a model, and what is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// `category/what`: the same in every version of the suite that asks the same.
    pub name: String,
    /// What it asks for.
    pub category: Category,
    /// The only message that the model gets.
    pub prompt: String,
    /// The right answers: any of them.
    pub accepted: Vec<String>,
    /// The wrong choices, where there is a choice: a reply that names one beside the right answer has not chosen.
    pub others: Vec<String>,
    /// What the answer is to be found in: a reply that only says it again, or the whole prompt, has not found it.
    pub given: Option<String>,
}

impl Task {
    /// Whether the reply is a right answer and nothing else, but for whitespace, surrounding quotes and stars, a final full
    /// stop, and case where case is not what is asked for.
    pub fn exact(&self, reply: &str) -> bool {
        let keep_case = self.keeps_case();
        let reply = judge::bare(reply, keep_case);
        self.accepted.iter().any(|accepted| judge::bare(accepted, keep_case) == reply)
    }

    /// Whether a right answer stands in the reply as whole words, outside of what the task itself says, and no wrong choice does.
    pub fn holds(&self, reply: &str) -> bool {
        let words = |text: &str| judge::words(text, self.keeps_case());
        let told = [Some(&self.prompt), self.given.as_ref()];
        let own = told.into_iter().flatten().fold(words(reply), |reply, told| judge::without(&reply, &words(told)));
        let said = |text: &String| judge::contains(&own, &words(text));
        self.accepted.iter().any(said) && !self.others.iter().any(said)
    }

    fn keeps_case(&self) -> bool {
        self.category == Category::Uppercase
    }
}
