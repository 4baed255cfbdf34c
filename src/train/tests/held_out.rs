//! Trainings that measure examples which they do not learn from.

use super::*;

/// Trains on sequences that count, with others of the same kind or of nothing but noise held out.
fn with_held_out(
    settings: &Settings,
    learnable: bool,
    scratch: &Path,
    listener: &Listener,
) -> Result<Trained, TrainError> {
    let mut held_out = sequences(35).split_off(30);
    if !learnable {
        held_out
            .iter_mut()
            .for_each(|one| one.ids.iter_mut().enumerate().for_each(|(at, id)| *id = (at * at % 19) as u32));
    }
    let examples = Examples { train: &sequences(30), held_out: &held_out };
    sft::train(decoder(), examples, settings, BUCKETS, scratch, listener)
}

#[test]
fn a_training_ends_when_held_out_examples_gain_nothing_and_keeps_the_best_weights() {
    let evaluation = Evaluation { every: Some(2), patience: Some(3) };
    let settings = Settings { epochs: 8.0, evaluation, ..settings() };
    let listener = Listener::default();
    let trained = with_held_out(&settings, false, nowhere(), &listener).unwrap();
    let evaluations: Vec<(u64, f64)> =
        trained.log.iter().filter_map(|row| row.eval_loss.map(|loss| (row.step, loss))).collect();
    assert_eq!(*listener.evaluations.borrow(), evaluations);
    let best =
        evaluations.iter().copied().fold((0, f64::INFINITY), |best, new| if new.1 < best.1 { new } else { best });
    assert_eq!(trained.kept, best.0);
    assert_eq!(trained.log.len() as u64, best.0 + 6, "three more evaluations: {evaluations:?}");
    assert!(trained.log.len() < 64);
    // The same training, ended there by hand, has the same weights: the rate is that of the whole plan.
    let stop = Listener { stop_after: Some(best.0), ..Listener::default() };
    let scratch = tempfile::tempdir().unwrap();
    with_held_out(&settings, false, scratch.path(), &stop).unwrap_err();
    let Saved { state, .. } = checkpoint::load(scratch.path()).unwrap().unwrap();
    let weights: Vec<u32> = state.parameters.concat().into_iter().map(f32::to_bits).collect();
    assert!(bits(&trained) == weights);
    let pieces =
        interrupted(&settings, |settings, scratch, listener| with_held_out(settings, false, scratch, listener));
    assert!(bits(&pieces) == bits(&trained));
    assert_eq!((pieces.log, pieces.kept), (trained.log, trained.kept));
}

#[test]
fn held_out_examples_are_measured_and_touch_nothing() {
    let settings = Settings { epochs: 2.0, ..settings() };
    let trained = with_held_out(&settings, true, nowhere(), &Listener::default()).unwrap();
    let measured: Vec<(u64, bool)> = trained.log.iter().map(|row| (row.step, row.eval_loss.is_some())).collect();
    assert_eq!(measured.iter().filter(|(_, is)| *is).map(|(step, _)| *step).collect::<Vec<_>>(), [8, 16]);
    let (first, last) = (trained.log[7].eval_loss.unwrap(), trained.log[15].eval_loss.unwrap());
    assert!(last < first, "{first} {last}");
    assert!(bits(&trained) == bits(&sft(&settings).unwrap()) && trained.kept == 16);
    let examples = Examples { train: &rows(20), held_out: &rows(5) };
    let kto = kto::train(decoder(), examples, &settings, &kto_settings(), nowhere(), &Listener::default()).unwrap();
    assert!(kto.log.last().unwrap().eval_loss.unwrap() < 0.5);
    let examples = Examples { train: &pairs(20), held_out: &pairs(5) };
    let loss = pair_settings(PairLoss::Dpo);
    let dpo = dpo::train(decoder(), examples, &settings, loss, nowhere(), &Listener::default()).unwrap();
    assert!(dpo.log.last().unwrap().eval_loss.unwrap() < 2_f64.ln());
}
