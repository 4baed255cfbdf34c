//! What the training stages share: how they read, prepare and hold out examples, and what they write.

pub(super) mod listener;
pub(super) mod parameters;

use std::collections::BTreeSet;

use std::path::Path;

use anyhow::{Context as _, anyhow, ensure};

use self::listener::Listener;
use self::parameters::Preparation;
use crate::engine::port::{Folder, Port, PortSpec};
use crate::engine::stage::{Context, Stopped};
use crate::examples::{KtoExample, PairExample, SftExample};
use crate::model::device::Compute;
use crate::model::{Bundle, Decoder, Tokenizer, device, peft};
use crate::seed;
use crate::table::Row;
use crate::train::batch::Sequence;
use crate::train::dpo::PairRow;
use crate::train::encode::{EncodeError, Encoded};
use crate::train::kto::KtoRow;
use crate::train::plan::Plan;
use crate::train::rows::{Fate, TrainRow, reached};
use crate::train::{Examples, RowName, Settings, TrainError, TrainLog, Trained};

/// The model that training begins with.
pub(super) const BASE: Folder = Folder::new("base", "model.bundle/v1");

/// The trained model.
const MODEL: Folder = Folder::new("model", "model.bundle/v1");

/// The adapters as PEFT's folders hold them.
const ADAPTER: Folder = Folder::new("adapter", "model.adapter/v1");

/// One row for each step.
const LOG: Port<TrainLog> = Port::new("log");

/// One row for each example.
const ROWS: Port<TrainRow> = Port::new("rows");

/// The input whose examples are measured and not learnt.
pub(super) const EVAL_EXAMPLES: &str = "eval_examples";

/// What a training writes: the model unless its adapters are kept apart, adapters where they are trained, and its tables.
pub(super) fn outputs(preparation: &Preparation) -> Vec<PortSpec> {
    let (lora, merge) = (preparation.lora.is_some(), preparation.merge);
    let model = (!lora || merge).then(|| MODEL.one());
    model.into_iter().chain(lora.then(|| ADAPTER.one())).chain([LOG.one(), ROWS.one()]).collect()
}

/// An example of a data stage.
pub(super) trait Example: Row {
    /// The dialogue that it comes from, and whether it is desirable where examples are labelled.
    fn told(self) -> (String, Option<bool>);
}

impl Example for SftExample {
    fn told(self) -> (String, Option<bool>) {
        (self.dialogue, None)
    }
}

impl Example for KtoExample {
    fn told(self) -> (String, Option<bool>) {
        (self.dialogue, Some(self.label))
    }
}

impl Example for PairExample {
    fn told(self) -> (String, Option<bool>) {
        (self.dialogue, None)
    }
}

/// The places of the examples of this fate.
fn places(rows: &[TrainRow], fate: Fate) -> Vec<u64> {
    rows.iter().filter(|row| row.fate == fate).map(|row| row.place).collect()
}

/// What an example becomes.
pub(super) trait Encodable {
    /// The dialogue that it comes from.
    fn dialogue(&self) -> &str;
}

impl Encodable for Sequence {
    fn dialogue(&self) -> &str {
        &self.dialogue
    }
}

impl Encodable for KtoRow {
    fn dialogue(&self) -> &str {
        &self.sequence.dialogue
    }
}

impl Encodable for PairRow {
    fn dialogue(&self) -> &str {
        &self.sides[0].dialogue
    }
}

/// A training before its first step.
pub(super) struct Prepared<T> {
    /// The model, with adapters where they are to be trained.
    pub base: Bundle,
    /// The longest sequence.
    pub max_length: usize,
    /// What is trained on.
    pub train: Vec<T>,
    /// What is measured.
    pub held_out: Vec<T>,
    /// Their places among the examples that were read.
    measured: Vec<u64>,
    /// Every example of input `examples`.
    rows: Vec<TrainRow>,
    /// Whether the whole model is written, and not its adapters alone.
    merge: bool,
}

impl<T: Encodable> Prepared<T> {
    /// Reads the base model and the examples, and warns of those that are left out.
    pub(super) fn read<E: Example>(
        context: &Context,
        preparation: &Preparation,
        port: &Port<E>,
        encode: impl Fn(&Tokenizer, &[E], usize) -> Result<Encoded<T>, EncodeError>,
    ) -> anyhow::Result<Self> {
        let base = base(context, preparation)?;
        let max_length = max_length(preparation.max_length, &base)?;
        let mut examples = context.read(port)?;
        let beyond = examples.split_off(preparation.limit.unwrap_or(usize::MAX).min(examples.len()));
        let Encoded { rows: encoded, examples: mut rows } = encode(&base.tokenizer, &examples, max_length)?;
        warn(context, &rows, "examples", max_length);
        let beyond = beyond.into_iter().map(E::told).enumerate();
        rows.extend(beyond.map(|(at, (dialogue, label))| TrainRow::beyond_limit(examples.len() + at, dialogue, label)));
        let chosen = held_out(&encoded, preparation.eval_share, preparation.seed);
        let (mut held_out, train): (Vec<T>, Vec<T>) =
            encoded.into_iter().partition(|row| chosen.contains(row.dialogue()));
        for row in rows.iter_mut().filter(|row| row.fate == Fate::Trained && chosen.contains(&row.dialogue)) {
            (row.fate, row.trained_tokens) = (Fate::HeldOut, 0);
        }
        let mut measured = places(&rows, Fate::HeldOut);
        if context.optional_input(EVAL_EXAMPLES).is_some() {
            let examples = context.read(&Port::<E>::new(EVAL_EXAMPLES))?;
            let Encoded { rows, examples } = encode(&base.tokenizer, &examples, max_length)?;
            warn(context, &examples, "examples of `eval_examples`", max_length);
            ensure!(
                !rows.is_empty() || train.is_empty(),
                "there is nothing to measure: input `eval_examples` has {} examples, and none of them can be measured",
                examples.len()
            );
            (held_out, measured) = (rows, places(&examples, Fate::Trained));
        }
        ensure!(
            preparation.eval_share <= 0.0 || !held_out.is_empty() || train.is_empty(),
            "there is nothing to measure: `eval_share` holds out whole dialogues, but all examples that can be trained on come from \
             one; give examples of more dialogues or connect input `eval_examples`"
        );
        Ok(Self { base, max_length, train, held_out, measured, rows, merge: preparation.merge })
    }

    /// Warns of a learning rate that rises until the end.
    fn warn_of_warmup(&self, context: &Context, settings: &Settings) {
        let steps = Plan::new(self.train.len(), settings).steps;
        let warmup = settings.warmup.steps(steps);
        if steps > 0 && warmup >= steps {
            let learnt = if steps == 1 { ": nothing is learnt" } else { "" };
            context.warn(format!(
                "the warm-up has {warmup} steps, the training {steps}, so the learning rate begins at 0 and never gets to \
                 `learning_rate`{learnt}; `warmup_steps: 0` begins at its height"
            ));
        }
    }

    /// Trains the base model on the examples and writes what came of it. `train` gets both, the scratch folder and who listens;
    /// `times` says how often each row of the training was trained on in so many steps. A training that was stopped becomes the
    /// engine's own error.
    pub(super) fn train(
        self,
        context: &Context,
        settings: &Settings,
        train: impl FnOnce(Decoder, Examples<'_, T>, &Path, &Listener) -> Result<Trained, TrainError>,
        times: impl Fn(&[T], u64) -> Vec<u64>,
    ) -> anyhow::Result<()> {
        self.warn_of_warmup(context, settings);
        let listener = Listener::new(context);
        let examples = Examples { train: &self.train, held_out: &self.held_out };
        let trained = train(self.base.decoder.clone(), examples, context.scratch()?, &listener);
        self.finish(context, trained, &listener, times)
    }

    /// Writes the trained model, the log and what became of every example.
    fn finish(
        self,
        context: &Context,
        trained: Result<Trained, TrainError>,
        listener: &Listener,
        times: impl Fn(&[T], u64) -> Vec<u64>,
    ) -> anyhow::Result<()> {
        let Trained { model, log, kept } = trained.map_err(|error| self.explain(error))?;
        listener.report();
        tell_evaluations(context, &log, self.held_out.len(), kept);
        write_rows(context, self.rows, &times(&self.train, kept))?;
        if model.lora().is_some() {
            peft::save(&model, &context.folder(&ADAPTER)?, None).context("cannot save the trained adapters")?;
        }
        if self.merge {
            let (folder, decoder) = (context.folder(&MODEL)?, model.merged());
            Bundle { decoder, ..self.base }.save(&folder).context("cannot save the trained model")?;
        }
        context.write(&LOG, log)
    }

    /// The error as users see it: rows of a batch have their places among the examples that were read.
    fn explain(&self, error: TrainError) -> anyhow::Error {
        let placed = |mut rows: Vec<RowName>, places: &[u64]| {
            for row in &mut rows {
                row.place = places.get(row.place as usize).copied().unwrap_or(row.place);
            }
            rows
        };
        match error {
            TrainError::Stopped(_) => anyhow!(Stopped),
            TrainError::NotFinite { step, what, value, rows } => {
                let rows = placed(rows, &places(&self.rows, Fate::Trained));
                TrainError::NotFinite { step, what, value, rows }.into()
            }
            TrainError::HeldOut { step, value, rows } => {
                TrainError::HeldOut { step, value, rows: placed(rows, &self.measured) }.into()
            }
            other => other.into(),
        }
    }
}

/// The base model on the profile's device, adapters of its own merged, fresh ones attached where they are asked for.
fn base(context: &Context, preparation: &Preparation) -> anyhow::Result<Bundle> {
    let device = compute(context)?;
    let bundle = Bundle::load(context.input(BASE.name)?, &device)?;
    ensure!(
        preparation.merge || bundle.decoder.lora().is_none(),
        "the base model has adapters of its own, so new ones without `merge` would fit weights that are written nowhere: put \
         `model.merge` before this stage, or set `merge: true`"
    );
    let merged = bundle.decoder.merged().at(device.place());
    let decoder = match &preparation.lora {
        Some(lora) => merged.adapt(&lora.config(), seed::derive(preparation.seed, &["lora"]))?,
        None => merged,
    };
    Ok(Bundle { decoder, ..bundle })
}

/// Where the profile lets models compute; kernels that are compiled for it are kept in the store.
pub(super) fn compute(context: &Context) -> anyhow::Result<Compute> {
    Ok(device::device(context.profile.device())?.keeping(&context.profile.cache().join("cuda")))
}

/// The longest sequence: what is asked for, or all that the model takes.
fn max_length(asked: Option<usize>, base: &Bundle) -> anyhow::Result<usize> {
    let most = base.decoder.architecture().context;
    let length = asked.unwrap_or(most);
    ensure!(length <= most, "`max_length` is {length}, but the base model takes sequences of at most {most} tokens");
    Ok(length)
}

/// The dialogues that are held out: about this share of them, at least one and not all, where it is more than 0.
fn held_out<T: Encodable>(rows: &[T], share: f64, seed: u64) -> BTreeSet<String> {
    let dialogues: BTreeSet<&str> = rows.iter().map(Encodable::dialogue).collect();
    if share <= 0.0 || dialogues.len() < 2 {
        return BTreeSet::new();
    }
    let count = ((dialogues.len() as f64 * share).round() as usize).clamp(1, dialogues.len() - 1);
    let mut drawn: Vec<(u64, &str)> =
        dialogues.into_iter().map(|dialogue| (seed::derive(seed, &["held-out", dialogue]), dialogue)).collect();
    drawn.sort_unstable();
    drawn.into_iter().take(count).map(|(_, dialogue)| dialogue.to_owned()).collect()
}

fn warn(context: &Context, rows: &[TrainRow], what: &str, max_length: usize) {
    let (all, count) = (rows.len(), |fate: Fate| rows.iter().filter(|row| row.fate == fate).count());
    if let long @ 1.. = count(Fate::TooLong) {
        context.warn(format!("{long} of {all} {what} are left out: longer than `max_length`, {max_length} tokens"));
    }
    if let empty @ 1.. = count(Fate::NothingToLearn) {
        context.warn(format!("{empty} of {all} {what} are left out: nothing in them to learn"));
    }
}

/// What the evaluations found, in figures of the run.
fn tell_evaluations(context: &Context, log: &[TrainLog], held_out: usize, kept: u64) {
    let Some(last) = log.iter().rev().find_map(|row| row.eval_loss) else { return };
    context.figure("eval.examples", held_out as f64);
    context.figure("eval.loss", last);
    let best = log.iter().find(|row| row.step == kept).and_then(|row| row.eval_loss);
    if let Some(best) = best.filter(|_| kept < log.len() as u64) {
        context.figure("eval.best_loss", best);
        context.figure("eval.best_step", kept as f64);
    }
}

/// Writes what became of every example and says it in figures. `times` says how often each row of the training was trained on.
fn write_rows(context: &Context, mut rows: Vec<TrainRow>, times: &[u64]) -> anyhow::Result<()> {
    reached(&mut rows, times);
    let count = |fate: Fate| rows.iter().filter(|row| row.fate == fate).count();
    for fate in [Fate::Trained, Fate::HeldOut, Fate::NotReached, Fate::TooLong, Fate::NothingToLearn, Fate::BeyondLimit]
    {
        if fate == Fate::Trained || count(fate) > 0 {
            context.figure(format!("examples.{}", fate.name()), count(fate) as f64);
        }
    }
    let trained = || rows.iter().filter(|row| row.fate == Fate::Trained);
    context.figure("tokens", trained().filter_map(|row| row.tokens).sum::<u64>() as f64);
    context.figure("tokens.trained", trained().map(|row| row.trained_tokens).sum::<u64>() as f64);
    context.write(&ROWS, rows)
}
