//! `eval.instructions`: a model answers the built-in suite of instructions.

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::eval_toolwoz::{check, confidence, samples};
use super::training::compute;
use crate::chat::Message;
use crate::engine::port::{Folder, Port, PortSpec};
use crate::engine::stage::{Context, Problem, Profile, Stage, Stopped};
use crate::eval::instructions::{AbilityRow, AnswerRow, Category, Task, abilities, tasks};
use crate::eval::score::Resampling;
use crate::llm::drive::drive_here;
use crate::llm::local::{LocalModel, REMEMBERED};
use crate::llm::{ChatModel, ChatRequest, ModelError, Reply, Sampling};
use crate::model::bundle::{self, Bundle};

const MODEL: Folder = Folder::new("model", bundle::FORMAT);
const ANSWERS: Port<AnswerRow> = Port::new("answers");
const ABILITIES: Port<AbilityRow> = Port::new("abilities");

/// Measures whether a model does what it is told: a built-in suite of small tasks, each a message that says how to answer.
///
/// Decoding is greedy. `exact` is the share of replies that are a right answer and nothing else, but for quotes, stars, a final
/// full stop, and case where case is not asked for; `holds` of those in which a right answer stands as whole words and no wrong
/// choice beside it. Small models seldom say the answer alone, so look at both; half of the questions of `fact` are
/// answered right by chance. The same suite before and after a training shows whether general abilities were kept: the tasks are easy, and
/// say little about how able a model is. A model whose context does not take a task is an error, never a wrong answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalInstructions {
    /// Only tasks of these categories; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub categories: Option<Vec<Category>>,
    /// The most tokens that one reply may have.
    #[serde(default = "max_tokens")]
    pub max_tokens: usize,
    /// Resamples that the intervals are made of.
    #[serde(default = "samples")]
    pub samples: usize,
    /// The share of intervals that hold the true value.
    #[serde(default = "confidence")]
    pub confidence: f64,
    /// Decides the resamples.
    #[serde(default)]
    pub seed: u64,
}

fn max_tokens() -> usize {
    48
}

impl Stage for EvalInstructions {
    const KIND: &'static str = "eval.instructions";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "\
abilities:
  kind: eval.instructions
  in: {model: kto.model}
  with: {max_tokens: 48}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![MODEL.one()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![ANSWERS.one(), ABILITIES.one()]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = check(self.resampling());
        if self.max_tokens == 0 {
            problems.push(Problem::new("max_tokens", "must be at least 1"));
        }
        let Some(categories) = &self.categories else { return problems };
        if categories.is_empty() {
            problems.push(Problem::new("categories", "must name at least one category; leave it out for all"));
        }
        for (place, category) in categories.iter().enumerate() {
            if categories[..place].contains(category) {
                problems.push(Problem::new("categories", format!("names `{}` twice", category.name())));
            }
        }
        problems
    }

    fn pool(&self, profile: &dyn Profile) -> &'static str {
        profile.device_pool()
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let device = compute(context)?;
        let bundle = Bundle::load(context.input(MODEL.name)?, &device)?;
        let bundle = Bundle { decoder: bundle.decoder.at(device.place()), ..bundle };
        let answers = self.ask(context, &LocalModel::new(&bundle, REMEMBERED)?)?;
        let abilities = abilities(&answers, self.resampling());
        let cut_off = answers.iter().filter(|answer| answer.cut_off).count();
        for row in abilities.iter().filter(|row| row.category == "all") {
            context.figure("exact", row.exact);
            context.figure("holds", row.holds);
        }
        context.figure("tasks", answers.len() as f64);
        context.figure("cut_off", cut_off as f64);
        context.write(&ANSWERS, answers)?;
        context.write(&ABILITIES, abilities)
    }
}

impl EvalInstructions {
    fn resampling(&self) -> Resampling {
        Resampling { samples: self.samples, confidence: self.confidence, seed: self.seed }
    }

    /// The tasks that are asked, in the suite's order.
    fn tasks(&self) -> Vec<Task> {
        let asked = |task: &Task| self.categories.as_ref().is_none_or(|asked| asked.contains(&task.category));
        tasks().into_iter().filter(asked).collect()
    }

    /// Has all tasks answered together. The first task without a reply is the error.
    fn ask(&self, context: &Context, model: &LocalModel) -> anyhow::Result<Vec<AnswerRow>> {
        let tasks = self.tasks();
        let jobs = tasks.iter().map(|task| model.complete(self.request(task)));
        let mut replies = BTreeMap::new();
        let on_done = |place: usize, reply: Result<Reply, ModelError>| {
            replies.insert(place, reply);
            context.progress(replies.len() as u64, tasks.len() as u64, "tasks", "");
        };
        drive_here(&[model], tasks.len(), jobs, on_done, &context.stop).map_err(|_| anyhow!(Stopped))?;
        ensure!(replies.len() == tasks.len(), "{} of {} tasks got no reply", tasks.len() - replies.len(), tasks.len());
        let judged = tasks.iter().zip(replies.into_values()).map(|(task, reply)| {
            let reply = reply.with_context(|| format!("task `{}` got no reply", task.name))?;
            Ok(AnswerRow::new(task.clone(), reply))
        });
        judged.collect()
    }

    fn request(&self, task: &Task) -> ChatRequest {
        let sampling = Sampling { max_tokens: self.max_tokens, ..Sampling::default() };
        let chat = [Message::user(task.prompt.as_str())].into_iter().collect();
        ChatRequest { system: None, chat, tools: None, sampling, seed: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::stage::in_full;
    use crate::model::bundle::tests::untrained;
    use crate::model::{Decoder, ModelConfig};
    use crate::stages::bench::Bench;

    fn stage(parameters: serde_json::Value) -> EvalInstructions {
        serde_json::from_value(parameters).unwrap()
    }

    #[test]
    fn a_model_answers_the_categories_that_are_asked_for() {
        let bench = Bench::new();
        let model = bench.project().join("model");
        let bundle = untrained();
        let config = ModelConfig { max_position_embeddings: 600, ..bundle.decoder.config().clone() };
        let decoder = Decoder::init(&config, 3, &burn::tensor::Device::flex()).unwrap();
        Bundle { decoder, ..bundle }.save(&model).unwrap();
        let asked = stage(serde_json::json!({"categories": ["sum", "letter"], "max_tokens": 3, "samples": 50}));
        bench.run(&asked, &[("model", &model)]).unwrap();
        let answers: Vec<AnswerRow> = crate::table::read(&bench.out("answers.parquet")).unwrap();
        assert_eq!(answers.len(), asked.tasks().len());
        let tokens: u64 = answers.iter().map(|answer| answer.completion_tokens).sum();
        assert!(tokens > 0 && answers.iter().all(|answer| answer.completion_tokens <= 3));
        let rows: Vec<AbilityRow> = crate::table::read(&bench.out("abilities.parquet")).unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row.category.as_str()).collect();
        assert_eq!(names, ["all", "letter", "sum"]);
        assert_eq!(rows, abilities(&answers, asked.resampling()));
    }

    #[test]
    fn a_task_that_does_not_fit_is_an_error_that_names_it() {
        let bench = Bench::new();
        let model = bench.project().join("model");
        untrained().save(&model).unwrap();
        let error = bench.run(&stage(serde_json::json!({})), &[("model", &model)]).unwrap_err();
        let error = in_full(&error);
        assert!(error.starts_with("task `repeat/door` got no reply: the chat has "), "{error}");
        assert!(error.ends_with("tokens, the model's context 64"), "{error}");
    }

    #[test]
    fn wrong_parameters_are_told_all_at_once() {
        let wrong = stage(serde_json::json!({"categories": ["sum", "sum"], "max_tokens": 0, "samples": 0}));
        let fields: Vec<String> = wrong.check().into_iter().map(|problem| problem.field).collect();
        assert_eq!(fields, ["samples", "max_tokens", "categories"]);
        assert_eq!(stage(serde_json::json!({"categories": []})).check().len(), 1);
        assert!(stage(serde_json::json!({})).check().is_empty());
    }
}
