//! `eval.perplexity`: how well a model foretells a text.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::eval_toolwoz::{check, confidence, samples};
use super::training::compute;
use crate::engine::port::{Folder, Port, PortSpec};
use crate::engine::stage::{Context, Problem, Profile, Stage};
use crate::eval::perplexity::{PassageRow, Passages, PerplexityRow, perplexity, windows};
use crate::eval::score::Resampling;
use crate::fs;
use crate::model::{Bundle, Tokenizer, bundle};
use crate::train::batch::Sequence;
use crate::train::learner::{self, LearnerSettings, Precision, Under};

const MODEL: Folder = Folder::new("model", bundle::FORMAT);
const TEXTS: Folder = Folder::new("texts", "files/v1");
const PASSAGES: Port<PassageRow> = Port::new("passages");
const PERPLEXITY: Port<PerplexityRow> = Port::new("perplexity");

/// Sequences that are handed to the device at once.
const AT_ONCE: usize = 32;

/// Measures how well a model foretells a text that it was not trained on: its perplexity, and bits for each byte.
///
/// A model that is trained for one task may forget others; the same text before and after tells how much. The text is read as
/// plain text, passage by passage, without a chat's marks: each passage, or window of a long one, begins anew behind the token
/// that begins texts. Perplexities compare models of one tokenizer; bits per byte compare any.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalPerplexity {
    /// The text: a file of the folder, in UTF-8.
    pub file: PathBuf,
    /// What it is cut into.
    #[serde(default)]
    pub passages: Passages,
    /// Only so many passages, from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The most tokens that are read at once; longer passages are read in windows of like length.
    #[serde(default = "window")]
    pub window: usize,
    /// In how many bits a CUDA device computes.
    #[serde(default)]
    pub precision: Precision,
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

fn window() -> usize {
    1024
}

impl EvalPerplexity {
    fn resampling(&self) -> Resampling {
        Resampling { samples: self.samples, confidence: self.confidence, seed: self.seed }
    }

    /// The passages of the text.
    fn read(&self, folder: &Path) -> anyhow::Result<Vec<String>> {
        let path = folder.join(&self.file);
        let mut passages = self.passages.of(&fs::read_to_string(&path)?);
        passages.truncate(self.limit.unwrap_or(usize::MAX));
        ensure!(!passages.is_empty(), "`{}` has no text", self.file.display());
        Ok(passages)
    }
}

impl Stage for EvalPerplexity {
    const KIND: &'static str = "eval.perplexity";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "\
general:
  kind: eval.perplexity
  in: {model: kto.model, texts: news.files}
  with: {file: lee_background.cor, passages: lines}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![MODEL.one(), TEXTS.one()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![PASSAGES.one(), PERPLEXITY.one()]
    }

    fn check(&self) -> Vec<Problem> {
        let mut problems = check(self.resampling());
        let inside = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
        if self.file.as_os_str().is_empty() || !self.file.components().all(inside) {
            problems.push(Problem::new("file", "must be the path of a file within the folder"));
        }
        if self.window < 2 {
            problems.push(Problem::new("window", "must be at least 2"));
        }
        if self.limit == Some(0) {
            problems.push(Problem::new("limit", "must be at least 1"));
        }
        problems
    }

    fn pool(&self, profile: &dyn Profile) -> &'static str {
        profile.device_pool()
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let texts = self.read(context.input(TEXTS.name)?)?;
        let device = compute(context)?;
        let Bundle { decoder, tokenizer } = Bundle::load(context.input(MODEL.name)?, &device)?;
        // One place is the beginning's.
        let longest = self.window.min(decoder.architecture().context).saturating_sub(1);
        ensure!(longest > 0, "the model takes a single token at once: it cannot foretell any");
        let encoded = texts.iter().enumerate().map(|(place, text)| {
            let windows = sequences(&tokenizer, text, longest);
            windows.with_context(|| format!("passage {} of `{}`", place + 1, self.file.display()))
        });
        let encoded = encoded.collect::<anyhow::Result<Vec<Vec<Sequence>>>>()?;
        let settings = LearnerSettings { precision: self.precision, ..LearnerSettings::default() };
        let mut learner = learner::open(decoder.merged().at(device.place()), settings)?;
        let sequences: Vec<&Sequence> = encoded.iter().flatten().collect();
        let mut log_probs = Vec::with_capacity(sequences.len());
        for some in sequences.chunks(AT_ONCE) {
            context.check_stop()?;
            log_probs.extend(learner.log_probs(some, Under::Policy)?);
            context.progress(log_probs.len() as u64, sequences.len() as u64, "windows", "");
        }
        let mut log_probs = log_probs.into_iter();
        let rows = texts.iter().zip(&encoded).enumerate().map(|(place, (text, windows))| PassageRow {
            passage: place as u64 + 1,
            bytes: text.len() as u64,
            tokens: windows.iter().map(|window| window.scored_tokens() as u64).sum(),
            log_prob: log_probs.by_ref().take(windows.len()).sum(),
        });
        let rows: Vec<PassageRow> = rows.collect();
        if let Some(row) = rows.iter().find(|row| !row.log_prob.is_finite()) {
            anyhow::bail!("the model gives passage {} the log-probability {}", row.passage, row.log_prob);
        }
        let whole = perplexity(&rows, self.resampling()).context("there is nothing to measure")?;
        context.figure("perplexity", whole.perplexity);
        context.figure("bits_per_byte", whole.bits_per_byte);
        context.write(&PASSAGES, rows)?;
        context.write(&PERPLEXITY, [whole])
    }
}

/// A passage as the sequences in which it is read: each begins with the token that begins texts, or else one that ends them,
/// and every token behind that is scored.
fn sequences(tokenizer: &Tokenizer, text: &str, longest: usize) -> anyhow::Result<Vec<Sequence>> {
    let begin = tokenizer.begin().or_else(|| tokenizer.ends().first().copied());
    let begin = begin.context("the tokenizer has no token that begins or ends texts")?;
    let ids = tokenizer.encode(text)?;
    ensure!(!ids.is_empty(), "the tokenizer makes no token of it");
    let one = |range: std::ops::Range<usize>| {
        let ids: Vec<u32> = std::iter::once(begin).chain(ids[range].iter().copied()).collect();
        let scored = (0..ids.len()).map(|place| place > 0).collect();
        Sequence { dialogue: String::new(), ids, scored }
    };
    Ok(windows(ids.len(), longest).into_iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::bundle::tests::untrained;
    use crate::stages::bench::Bench;

    fn stage(with: serde_json::Value) -> EvalPerplexity {
        serde_json::from_value(with).unwrap()
    }

    fn measured(window: usize) -> (Vec<PassageRow>, PerplexityRow) {
        let bench = Bench::new();
        untrained().save(&bench.project().join("model")).unwrap();
        bench.write("texts/news.txt", "food in the centre\n\nitalian food italian food\n");
        let with = serde_json::json!({"file": "news.txt", "passages": "lines", "window": window, "samples": 20});
        let (model, texts) = (bench.project().join("model"), bench.project().join("texts"));
        bench.run(&stage(with), &[("model", &model), ("texts", &texts)]).unwrap();
        let mut whole: Vec<PerplexityRow> = crate::table::read(&bench.out("perplexity.parquet")).unwrap();
        (crate::table::read(&bench.out("passages.parquet")).unwrap(), whole.remove(0))
    }

    #[test]
    fn every_token_of_a_passage_counts_whatever_the_window() {
        let (wide, narrow) = (measured(1024), measured(4));
        let tokens = |rows: &[PassageRow]| rows.iter().map(|row| (row.bytes, row.tokens)).collect::<Vec<_>>();
        assert_eq!(tokens(&wide.0), tokens(&narrow.0));
        assert_eq!(wide.0.iter().map(|row| row.bytes).collect::<Vec<_>>(), [18, 25]);
        // A model that was never trained hardly tells tokens apart: about as many bits as its vocabulary asks for.
        let vocabulary = untrained().decoder.architecture().vocab as f64;
        assert!((wide.1.perplexity.ln() - vocabulary.ln()).abs() < 0.5, "{:?} {vocabulary}", wide.1);
        assert!(wide.1.perplexity_low <= wide.1.perplexity && wide.1.perplexity <= wide.1.perplexity_high);
        assert!(wide.1.perplexity != narrow.1.perplexity && narrow.1.bits_per_byte > 0.0);
        assert_eq!(measured(4), narrow);
    }

    #[test]
    fn wrong_parameters_are_told() {
        let fields = |with| stage(with).check().into_iter().map(|problem| problem.field).collect::<Vec<_>>();
        assert_eq!(fields(serde_json::json!({"file": "../x", "window": 1, "limit": 0})), ["file", "window", "limit"]);
        assert!(fields(serde_json::json!({"file": "a/b.txt"})).is_empty());
        assert_eq!(fields(serde_json::json!({"file": ""})), ["file"]);
    }
}
