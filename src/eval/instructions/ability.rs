//! Answers, and the shares of them that are right.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Category, Task};
use crate::eval::bootstrap::{Interval, percentile_interval};
use crate::eval::mean;
use crate::eval::score::Resampling;
use crate::llm::Reply;
use crate::seed::derive;
use crate::table::Row;

/// What a model answered to one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AnswerRow {
    /// The task: `capital/france`.
    pub task: String,
    /// What it asks for.
    pub category: Category,
    /// The message that the model got.
    pub prompt: String,
    /// The right answers.
    pub accepted: Vec<String>,
    /// What the model said.
    pub reply: String,
    /// Whether that is a right answer and nothing else, but for quotes, stars, a final full stop, and case where case is not asked for.
    pub exact: bool,
    /// Whether a right answer stands in it as whole words, outside of what the task itself says, and no wrong choice beside it.
    pub holds: bool,
    /// Whether `max_tokens` or the model's context cut it off.
    pub cut_off: bool,
    /// Its tokens.
    pub completion_tokens: u64,
}

impl Row for AnswerRow {
    const TYPE: &'static str = "eval.answer/v1";
}

impl AnswerRow {
    /// Judges a reply.
    pub fn new(task: Task, reply: Reply) -> Self {
        let (exact, holds) = (task.exact(&reply.text), task.holds(&reply.text));
        Self {
            task: task.name,
            category: task.category,
            prompt: task.prompt,
            accepted: task.accepted,
            exact,
            holds,
            reply: reply.text,
            cut_off: reply.cut_off,
            completion_tokens: reply.completion_tokens,
        }
    }
}

/// The shares of a category's tasks, or of all, that were answered rightly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AbilityRow {
    /// The category; `all` for all tasks that were asked.
    pub category: String,
    /// How many tasks were asked.
    pub tasks: u64,
    /// The share whose reply is a right answer and nothing else.
    pub exact: f64,
    /// The lower end of its confidence interval.
    pub exact_low: f64,
    /// The upper end.
    pub exact_high: f64,
    /// The share whose reply holds a right answer.
    pub holds: f64,
    /// The lower end of its confidence interval.
    pub holds_low: f64,
    /// The upper end.
    pub holds_high: f64,
}

impl Row for AbilityRow {
    const TYPE: &'static str = "eval.ability/v1";
}

/// Sums up answers: all of them first, then category by category, those without answers left out. A category's interval is the
/// same whichever others were asked.
pub fn abilities(answers: &[AnswerRow], resampling: Resampling) -> Vec<AbilityRow> {
    let all: Vec<&AnswerRow> = answers.iter().collect();
    let categories = Category::ALL.into_iter().map(|category| {
        let own = answers.iter().filter(|answer| answer.category == category).collect::<Vec<_>>();
        (category.name(), own)
    });
    let groups = [("all", all)].into_iter().chain(categories);
    groups.filter_map(|(name, answers)| ability(name, &answers, resampling)).collect()
}

/// `None` of no answers, or of no resamples.
fn ability(category: &str, answers: &[&AnswerRow], resampling: Resampling) -> Option<AbilityRow> {
    let share = |name: &str, right: fn(&AnswerRow) -> bool| -> Option<(f64, Interval)> {
        let values: Vec<f64> = answers.iter().map(|answer| f64::from(u8::from(right(answer)))).collect();
        let seed = derive(resampling.seed, &["instructions", category, name]);
        Some((mean(&values)?, percentile_interval(&values, resampling.samples, resampling.confidence, seed)?))
    };
    let (exact, exact_ends) = share("exact", |answer| answer.exact)?;
    let (holds, holds_ends) = share("holds", |answer| answer.holds)?;
    Some(AbilityRow {
        category: category.to_owned(),
        tasks: answers.len() as u64,
        exact,
        exact_low: exact_ends.low,
        exact_high: exact_ends.high,
        holds,
        holds_low: holds_ends.low,
        holds_high: holds_ends.high,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::instructions::tasks;

    const RESAMPLING: Resampling = Resampling { samples: 300, confidence: 0.9, seed: 2 };

    /// Answers sums and facts: sums rightly, facts with a sentence, one of both not at all.
    fn answered() -> Vec<AnswerRow> {
        let asked = tasks().into_iter().filter(|task| matches!(task.category, Category::Sum | Category::Fact));
        let mut missed = Vec::new();
        let answer = |task: Task| {
            let text = match task.category {
                category if !missed.contains(&category) => {
                    missed.push(category);
                    String::new()
                }
                Category::Fact => format!("I say {}!", task.accepted[0]),
                _ => task.accepted[0].clone(),
            };
            let reply = Reply { text, tool_calls: Vec::new(), prompt_tokens: 9, completion_tokens: 2, cut_off: false };
            AnswerRow::new(task, reply)
        };
        asked.map(answer).collect()
    }

    #[test]
    fn shares_are_those_of_each_category_and_of_all() {
        let rows = abilities(&answered(), RESAMPLING);
        let names: Vec<(&str, u64)> = rows.iter().map(|row| (row.category.as_str(), row.tasks)).collect();
        assert_eq!(names, [("all", 34), ("fact", 16), ("sum", 18)]);
        let (all, fact, sum) = (&rows[0], &rows[1], &rows[2]);
        assert_eq!((fact.exact, fact.exact_low, fact.exact_high, fact.holds), (0.0, 0.0, 0.0, 15.0 / 16.0));
        assert_eq!((sum.exact, sum.holds), (17.0 / 18.0, 17.0 / 18.0));
        assert_eq!((all.exact, all.holds), (0.5, 32.0 / 34.0));
        assert!(all.exact_low < 0.5 && 0.5 < all.exact_high && all.exact_high < 0.75, "{all:?}");
        assert!(all.holds_low <= all.holds && all.holds <= all.holds_high);
    }

    #[test]
    fn a_categorys_interval_does_not_depend_on_the_others() {
        let answers = answered();
        let both = abilities(&answers, RESAMPLING);
        let sums: Vec<AnswerRow> = answers.into_iter().filter(|answer| answer.category == Category::Sum).collect();
        assert_eq!(abilities(&sums, RESAMPLING)[1], both[2]);
        assert!(abilities(&[], RESAMPLING).is_empty());
    }
}
