//! What differs between runs, or between arms of one run: parameters, scores, dialogues that flipped, figures, time and tokens.
//!
//! Arms stand side by side; the first is the baseline. Where something has a value for each arm, the values stand in a list
//! in the order of [`Comparison::arms`]. An arm may have several replicates: the same experiment with other seeds.

pub mod arms;
pub mod condition;
mod figures;
pub mod files;
mod flips;
pub mod gate;
pub mod library;
pub mod lines;
mod metrics;
mod stages;
mod tables;
pub mod text;
mod trials;

use std::collections::BTreeMap;

use anyhow::ensure;
use serde::Serialize;

pub use arms::{NoScoreTable, Target};
use library::Library;
pub use trials::trials;

/// What is compared, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether what does not differ is there, too.
    pub all: bool,
    /// Whether what differs in seeds only is one arm.
    pub pool: bool,
    /// Parameters and axes of matrices that make replicates as `seed` does.
    pub replicates: Vec<String>,
    /// Whether the replicates of one seed belong together, as where one arm's training goes on from the other's.
    pub pair_seeds: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { all: false, pool: true, replicates: Vec::new(), pair_seeds: false }
    }
}

/// Compares runs, or stages with score tables; the first is of the baseline. Everything is in what is returned, also what does
/// not differ: see [`Comparison::differing`].
///
/// # Errors
/// When there is nothing to compare, a stage has no scores, or results cannot be read.
pub fn compare(library: &Library, targets: &[Target], options: &Options) -> anyhow::Result<Comparison> {
    let mut notes = Vec::new();
    let sides = targets.iter().map(|target| arms::side(library, target)).collect::<anyhow::Result<Vec<_>>>()?;
    let parties = arms::parties(library, sides, options, arms::Fewest::Two, &mut notes)?;
    ensure!(parties.len() > 1, "there is nothing to compare: name two runs, or two stages of a run");
    let rows = stages::matched(options, &parties);
    let (parameters, lone_stages) = stages::parameters(library, options, &parties, &rows)?;
    let tables = tables::tables(library, options, &parties, &rows, &mut notes)?;
    let arms: Vec<Arm> = parties.iter().map(|party| party.arm.clone()).collect();
    let (metrics, flips) = told(&tables, &arms, options, &mut notes)?;
    Ok(Comparison {
        parameters,
        lone_stages,
        metrics,
        flips,
        figures: figures::figures(library, options, &parties, &rows)?,
        costs: figures::costs(library, options, &parties, &rows)?,
        notes,
        gates: Vec::new(),
        arms,
    })
}

/// What score tables come to, wherever they are from.
fn told(
    tables: &[tables::Table],
    arms: &[Arm],
    options: &Options,
    notes: &mut Vec<String>,
) -> Result<(Vec<Metric>, Vec<Flips>), NoScoreTable> {
    let pairings = arms::pairings(arms, options)?;
    let (mut metrics, mut flips) = (Vec::new(), Vec::new());
    for table in tables {
        if table.is_the_same() && !options.all {
            notes.push(format!("`{}`: the same scores", table.name));
        }
        metrics.extend(metrics::metrics(table, arms, &pairings));
        flips.extend(flips::flips(table));
    }
    Ok((metrics, flips))
}

impl Comparison {
    /// What differs: metrics, flips and figures that are the same in all arms are left out.
    pub fn differing(mut self) -> Self {
        fn vary<T: PartialEq>(mut values: impl Iterator<Item = T>) -> bool {
            let first = values.next();
            values.any(|value| Some(&value) != first.as_ref())
        }
        self.metrics.retain(|metric| {
            vary(metric.values.iter().map(|value| value.mean))
                || metric.differences.iter().flatten().any(|difference| difference.mean != 0.0)
        });
        self.flips.retain(|flips| !flips.dialogues.is_empty());
        // What only one arm has is no difference: the stages that not all have are listed.
        self.figures.retain(|figure| vary(figure.values.iter().flatten()));
        self
    }
}

/// What was found. Everything in it is data: the text, the page and the JSON show the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// What is compared; the first is the baseline.
    pub arms: Vec<Arm>,
    /// Parameters that differ, those of every stage upstream among them; what differs only because its inputs do is not here.
    pub parameters: Vec<Parameter>,
    /// Stages that not all arms have.
    pub lone_stages: Vec<LoneStage>,
    /// What score tables and their episodes come to.
    pub metrics: Vec<Metric>,
    /// Dialogues that ended otherwise than in the baseline: an entry for each table and other arm.
    pub flips: Vec<Flips>,
    /// Single numbers: figures of stages, summaries, trainings.
    pub figures: Vec<Figure>,
    /// Time and tokens by stage; the last entry is the sum.
    pub costs: Vec<Cost>,
    /// What a reader has to know, in sentences.
    pub notes: Vec<String>,
    /// What became of the conditions of the regression gate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<Verdict>,
}

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Arm {
    /// How it is called here; no other arm has this name.
    pub name: String,
    /// The same experiment, once for each seed; one where nothing was repeated.
    pub replicates: Vec<Replicate>,
}

/// A run, a stage of a run, or a part of a file that is an arm or one of its repetitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replicate {
    /// The run; `None` of what is in a file.
    pub run: Option<String>,
    /// The stage with the scores, where a part of a run is compared.
    pub stage: Option<String>,
    /// Its output.
    pub port: Option<String>,
    /// The file with the scores and the arm in it, as in `results.parquet:base`, where they are in none of the store's runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The seed, or the seeds, by which it differs from others; `None` where it differs from none.
    pub seed: Option<String>,
}

/// A parameter that differs, or another field that a result depends on by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parameter {
    /// The stage: its name, or the names that it has in the arms.
    pub stage: String,
    /// The field: `with.beam`, `kind`, `version`; `in.policy` where another stage is connected.
    pub field: String,
    /// The arms' values as JSON text; `None` where it has none.
    pub values: Vec<Option<String>>,
}

/// A stage that not all arms have, or whose result is gone in some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoneStage {
    /// Its name.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// What is known of it in each arm.
    pub arms: Vec<Presence>,
}

/// What is known of a stage in an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It is there with its result.
    Present,
    /// It has no result: it failed, was not run, or the result was removed since.
    WithoutResult,
    /// The arm has no such stage.
    Absent,
}

/// Something measured in every dialogue, such as `success`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metric {
    /// The stage that scored; `scores` where it is another in each arm.
    pub table: String,
    /// `reward`, `success`, `broken`; of the episodes: `messages`, `calls`, `agent_tokens`, `user_tokens`.
    pub name: String,
    /// Whether it is a share of dialogues, which people read in percent.
    pub share: bool,
    /// Whether more of it is better; `None` where that is for nobody to say.
    pub more_is_better: Option<bool>,
    /// The arms' means.
    pub values: Vec<Mean>,
    /// How the arms differ from the baseline; `None` of the baseline itself, and where no dialogue is common to both.
    pub differences: Vec<Option<Difference>>,
}

/// A mean over dialogues, and over replicates where there are several.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Mean {
    /// The mean; `None` where the arm has no such table, or no dialogue has a value.
    pub mean: Option<f64>,
    /// The lower end of its 95 % interval.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
    /// How many values it is of.
    pub count: u64,
    /// How many dialogues are broken, and therefore in no mean (of `broken` itself: the count).
    pub broken: u64,
    /// The mean of each replicate, in their order.
    pub replicates: Vec<Option<f64>>,
    /// The standard deviation from replicate to replicate; `None` of fewer than two.
    pub spread: Option<f64>,
}

/// How an arm differs from the baseline, dialogue by dialogue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The arm less the baseline, over the dialogues that both have a value of.
    pub mean: f64,
    /// The lower end of its 95 % interval.
    pub low: Option<f64>,
    /// The upper end.
    pub high: Option<f64>,
    /// The two-sided p value. With replicates on both sides it counts the chance of seeds, too.
    pub p: Option<f64>,
    /// The p value for the replicates as they are, by flipped signs over dialogues: only the chance of dialogues counts.
    pub p_dialogues: Option<f64>,
    /// How many dialogues both have a value of.
    pub matched: u64,
    /// How many only one of them has, or has a value of.
    pub unmatched: u64,
    /// How interval and p value were found.
    pub method: Method,
}

/// How an interval and a p value were found; `eval/replicates.rs` says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// As `eval.compare` does: resampled dialogues, flipped signs.
    Resampled,
    /// Student's t over dialogues.
    Dialogues,
    /// Student's t over dialogues and seeds.
    DialoguesAndSeeds,
    /// The same over the differences within seeds.
    SeedsInPairs,
}

/// How the dialogues of an arm ended otherwise than in the baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flips {
    /// As in [`Metric::table`].
    pub table: String,
    /// The arm, by its place in [`Comparison::arms`].
    pub arm: usize,
    /// How many succeed that did not.
    pub gained: u64,
    /// How many do not succeed any more.
    pub lost: u64,
    /// How many are broken that were not.
    pub broken: u64,
    /// How many are not broken any more.
    pub mended: u64,
    /// The dialogues: broken, lost, gained, mended ones, each in the order of their names.
    pub dialogues: Vec<Flip>,
}

/// A dialogue that ended otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Flip {
    /// The dialogue.
    pub dialogue: String,
    /// The seed with which it was played, where replicates played other tasks each: then a name may stand here twice.
    pub seed: Option<String>,
    /// What became of it.
    pub change: Change,
    /// How it ended in the baseline.
    pub before: Ending,
    /// How it ended in the arm.
    pub after: Ending,
    /// Goals that are reached (in more replicates) than before, by their tools.
    pub reached: Vec<String>,
    /// Goals that are reached no more, or in fewer replicates.
    pub missed: Vec<String>,
}

/// What became of a dialogue. With replicates: in which direction its share of broken ones, else of successes, changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It had a score and is broken.
    Broken,
    /// It succeeded and does no more.
    Lost,
    /// It succeeds and did not.
    Gained,
    /// It was broken and has a score.
    Mended,
}

/// How a dialogue ended, over the replicates.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ending {
    /// In how many replicates it succeeded.
    pub successes: u64,
    /// In how many it failed.
    pub failures: u64,
    /// In how many it is broken.
    pub broken: u64,
    /// The mean reward of those that are not broken.
    pub reward: Option<f64>,
    /// In how many the customer did not end it, but the limit of messages; `None` where no episodes are known.
    pub cut_off: Option<u64>,
    /// Why it is broken, where that is known.
    pub reasons: Vec<String>,
}

/// A single number of a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The stage: its name, or the names that it has in the arms.
    pub stage: String,
    /// What it is of.
    pub source: Source,
    /// Its name: `loss`, `of_ceiling`, `examples`.
    pub name: String,
    /// The arms' values: means over their replicates.
    pub values: Vec<Option<f64>>,
    /// The standard deviations from replicate to replicate.
    pub spreads: Vec<Option<f64>>,
}

/// Where a figure is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A summary of scores.
    Summary,
    /// A training's log: its last step, or a sum over all.
    Training,
    /// What the stage itself said while it was computed.
    Stage,
}

/// What a stage took. Of a result that was there already, what it took when it was computed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// The stage; `None` of the sum over all stages, those among them that all arms share.
    pub stage: Option<String>,
    /// What it took in each arm, a replicate.
    pub arms: Vec<Spent>,
}

/// Time and tokens: `None` where nobody counted, or nobody knows any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spent {
    /// Wall seconds.
    pub seconds: Option<f64>,
    /// CPU seconds.
    pub cpu_seconds: Option<f64>,
    /// Tokens that models read; of a training, those of its sequences.
    pub tokens_read: Option<f64>,
    /// Tokens that models wrote.
    pub tokens_written: Option<f64>,
    /// What endpoints with a price asked for, in that price's currency.
    pub money: Option<f64>,
}

/// What became of a condition of the regression gate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdict {
    /// The condition as it was written.
    pub condition: String,
    /// Whether it holds anywhere: then the gate fails.
    pub failed: bool,
    /// Where it was looked at.
    pub cases: Vec<Case>,
}

/// A place where a condition was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Case {
    /// The table, the stage, or empty for a sum over stages.
    pub table: String,
    /// The arm's name.
    pub arm: String,
    /// What was compared with the condition's numbers, by its names: `success` and `p`.
    pub values: BTreeMap<String, f64>,
    /// Whether the condition holds here.
    pub failed: bool,
}
