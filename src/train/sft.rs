//! Supervised fine-tuning: the scored tokens of every example are made likelier.

use std::collections::BTreeSet;
use std::path::Path;

use super::batch::{Part, Sequence, parts, shuffled_batches};
use super::optimise::{Gradients, tracked};
use super::step::{Measured, Plan, Settings, Trained, Training, check_lengths, device, host, limits, log_probs};
use super::workers::Workers;
use super::{TrainError, TrainLog, Watch, loss};
use crate::model::Decoder;

/// Trains `base` on the examples.
///
/// Each epoch sees every example once, in an order that the seed decides. The loss of a step is the mean over all its scored
/// tokens, however many batches it has. A checkpoint in `scratch` is gone
/// on from, to the same weights; the folder is made where it is needed.
///
/// # Errors
/// When there is nothing to learn, when loss or gradient is no finite number, when asked to stop, and when a checkpoint
/// cannot be read or written.
pub fn train(
    base: Decoder,
    examples: &[Sequence],
    settings: &Settings,
    scratch: &Path,
    watch: &dyn Watch,
) -> Result<Trained, TrainError> {
    let examples: Vec<&Sequence> = examples.iter().filter(|example| example.scored_tokens() > 0).collect();
    if examples.is_empty() {
        return Err(TrainError::NoExamples(" that have a scored token".to_owned()));
    }
    check_lengths(&base, &examples)?;
    let lengths: Vec<usize> = examples.iter().map(|example| example.ids.len()).collect();
    let plan = Plan::new(examples.len(), settings);
    let mut training = Training::begin(base, plan, settings, scratch, watch)?;
    let mut order = (u64::MAX, Vec::new());
    while !training.done() {
        let (epoch, batches) = plan.batches_of(training.step);
        if order.0 != epoch {
            order = (epoch, shuffled_batches(&lengths, settings.batch_size, settings.seed, epoch));
        }
        let rows: Vec<&Sequence> = order.1[batches].iter().flatten().map(|place| examples[*place]).collect();
        training.advance(step(&training.model, &rows, &training.workers))?;
    }
    Ok(training.finish())
}

/// How often [`train`] trains on each of these examples, all of which must have a scored token.
pub fn times(examples: &[Sequence], settings: &Settings) -> Vec<u64> {
    if examples.is_empty() {
        return Vec::new();
    }
    let (whole, rest) = Plan::new(examples.len(), settings).extent();
    let mut times = vec![whole; examples.len()];
    if !rest.is_empty() {
        let lengths: Vec<usize> = examples.iter().map(|example| example.ids.len()).collect();
        let batches = shuffled_batches(&lengths, settings.batch_size, settings.seed, whole);
        batches[rest].iter().flatten().for_each(|&place| times[place] += 1);
    }
    times
}

/// Loss and gradient over the rows of one step. The mean is over tokens, so all batches of a step are one.
fn step(model: &Decoder, rows: &[&Sequence], workers: &Workers) -> Measured {
    let total: usize = rows.iter().map(|row| row.scored_tokens()).sum();
    let jobs: Vec<(Decoder, Part)> =
        parts(rows, 1, limits(model)).into_iter().map(|part| (model.clone(), part)).collect();
    let work = |(model, part): (Decoder, Part)| {
        let model = tracked(model, &[]);
        let part = part.tensors(&device(&model));
        let loss = loss::sft_nll(log_probs(&model, &part), part.weights.clone(), total);
        (host(loss.clone())[0], Gradients::backward(&model, &loss))
    };
    let (mut loss, mut gradients) = (0.0, Gradients::default());
    workers.in_order(jobs, work, |(part_loss, part_gradients)| {
        loss += part_loss;
        gradients.add(part_gradients);
    });
    Measured {
        gradients,
        row: TrainLog {
            loss,
            tokens: rows.iter().map(|row| row.ids.len() as u64).sum(),
            scored_tokens: total as u64,
            ..TrainLog::default()
        },
        dialogues: rows.iter().map(|row| row.dialogue.clone()).collect::<BTreeSet<_>>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::batch::Limits;
    use crate::train::optimise::parameters;
    use crate::train::tests::{decoder, sequences};

    #[test]
    fn the_number_of_workers_does_not_touch_a_bit() {
        let sequences = sequences(40);
        let rows: Vec<&Sequence> = sequences.iter().collect();
        let measure = |count: usize| {
            let measured = step(&decoder(), &rows, &Workers::of(count).unwrap());
            (measured.row.loss.to_bits(), measured.gradients.norm().to_bits())
        };
        assert!(parts(&rows, 1, limits(&decoder())).len() > 4);
        let alone = measure(0);
        for count in [1, 2, 5] {
            assert_eq!(measure(count), alone, "{count} workers");
        }
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let sequences = sequences(12);
        let rows: Vec<&Sequence> = sequences.iter().collect();
        let total = rows.iter().map(|row| row.scored_tokens()).sum();
        let model = tracked(decoder(), &[]);
        let [whole] = &parts(&rows, 1, Limits { tokens: usize::MAX, width: 256 })[..] else { panic!("one part") };
        let whole = whole.tensors(&device(&model));
        // Without the short cut of scored places: logits everywhere, then the scored ones.
        let logits = model.forward(whole.tokens.clone()); // [rows, width, vocab]
        let [count, width, vocab] = logits.dims();
        let logits = logits.reshape([count * width, vocab]).select(0, whole.places.clone());
        let tokens = loss::token_log_probs(logits, whole.targets.clone());
        let loss = loss::sft_nll(tokens, whole.weights.clone(), total);
        let gradients = Gradients::backward(&model, &loss);
        let measured = step(&decoder(), &rows, &Workers::of(2).unwrap());
        assert!((host(loss)[0] - measured.row.loss).abs() < 1e-6);
        let difference = {
            let mut difference = gradients.clone();
            difference.add(measured.gradients.scaled(-1.0));
            difference.norm()
        };
        assert!(difference < 1e-5 * gradients.norm().max(1.0), "{difference}");
        assert_eq!(parameters(&model).len(), 2 + 2 * 9);
    }
}
