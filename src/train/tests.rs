//! Whole trainings on a tiny decoder.

use std::cell::{Cell, RefCell};
use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};

use super::batch::{BUCKETING, Sequence};
use super::checkpoint::{self, Saved};
use super::dpo::{PairRow, PairSettings};
use super::kto::{KtoRow, KtoSettings};
use super::learner::{LearnerSettings, Precision};
use super::objective::{KtoConstants, KtoLoss, PairConstants, PairLoss};
use super::optimise::{AdamWConfig, parameters};
use super::schedule::{Schedule, Warmup};
use super::sft::SftSettings;
use super::{Evaluation, Examples, Settings, TrainError, TrainLog, Trained, Watch, dpo, kto, sft};
use crate::model::linear::Adapter;
use crate::model::lora::LoraConfig;
use crate::model::{Decoder, ModelConfig};

mod held_out;

/// Settings for a short training without checkpoints.
pub(super) fn settings() -> Settings {
    let adam = AdamWConfig { weight_decay: 0.1, ..AdamWConfig::default() };
    Settings {
        epochs: 1.0,
        max_steps: None,
        batch_size: 4,
        accumulation: 1,
        learning_rate: 1e-2,
        schedule: Schedule::Linear,
        warmup: Warmup::Ratio(0.1),
        max_grad_norm: 1.0,
        seed: 7,
        checkpoint_every: 0,
        evaluation: Evaluation::default(),
        learner: LearnerSettings { adam, ..LearnerSettings::default() },
    }
}

pub(super) fn decoder() -> Decoder {
    let config = r#"{"model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 20, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": true}"#;
    Decoder::init(&ModelConfig::parse(config).unwrap(), 3, &Device::flex()).unwrap()
}

/// The decoder with an adapter beside every linear map, none of whose numbers is 0.
pub(super) fn adapted(model: Decoder, rank: usize, dropout: f64) -> Decoder {
    let (alpha, targets) = (1.5 * rank as f64, vec!["all-linear".to_owned()]);
    let config = LoraConfig { rank, alpha, rank_stabilised: false, dropout, targets };
    let mut model = model.adapt(&config, 1).unwrap();
    let draw = |dims: [usize; 2], seed: usize| {
        let numbers: Vec<f32> =
            (0..dims[0] * dims[1]).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 250.0 - 0.21).collect();
        Param::from_tensor(Tensor::<2>::from_data(TensorData::new(numbers, dims), &Device::flex()))
    };
    for (index, layer) in model.layers.iter_mut().enumerate() {
        let (attention, mlp) = (&mut layer.self_attn, &mut layer.mlp);
        let maps = [&mut attention.q_proj, &mut attention.k_proj, &mut attention.v_proj, &mut attention.o_proj];
        let maps = maps.into_iter().chain([&mut mlp.gate_proj, &mut mlp.up_proj, &mut mlp.down_proj]);
        for (place, map) in maps.enumerate() {
            let ([inputs, outputs], seed) = (map.dims(), index * 20 + place * 2);
            let (a, b) = (draw([inputs, rank], seed), draw([rank, outputs], seed + 1));
            map.adapter = Some(Adapter { a, b, scale: 1.5, dropout });
        }
    }
    model
}

/// Counting upwards from a start that differs: learnable, of differing lengths.
pub(super) fn sequences(count: usize) -> Vec<Sequence> {
    let one = |index: usize| {
        let length = 6 + index % 5 * 20;
        Sequence {
            dialogue: format!("d{index}"),
            ids: (0..length).map(|place| (1 + (index + place) % 19) as u32).collect(),
            scored: (0..length).map(|place| place >= 3).collect(),
        }
    };
    (0..count).map(one).collect()
}

/// The same prompts, counted on upwards (desirable) and downwards (undesirable).
fn rows(count: usize) -> Vec<KtoRow> {
    let one = |index: usize| {
        let desirable = index.is_multiple_of(2);
        let next = |place: usize| if place < 4 || desirable { index + place } else { index + 190 - place };
        let length = 8 + index % 3;
        let sequence = Sequence {
            dialogue: format!("d{index}"),
            ids: (0..length).map(|place| (1 + next(place) % 19) as u32).collect(),
            scored: (0..length).map(|place| place >= 4).collect(),
        };
        KtoRow { sequence, prompt: 4, desirable }
    };
    (0..count).map(one).collect()
}

/// Stops before the given step, and keeps what it heard.
#[derive(Default)]
pub(super) struct Listener {
    stop_after: Option<u64>,
    prepared: Cell<u64>,
    heard: RefCell<Vec<TrainLog>>,
    evaluations: RefCell<Vec<(u64, f64)>>,
}

impl Watch for Listener {
    fn stop(&self) -> bool {
        let step = self.heard.borrow().last().map_or(0, |row| row.step);
        self.stop_after.is_some_and(|stop| step >= stop)
    }

    fn prepared(&self, done: u64, sequences: u64) {
        assert!(done <= sequences);
        self.prepared.set(done);
    }

    fn step(&self, row: &TrainLog, steps: u64) {
        assert!(row.step <= steps);
        self.heard.borrow_mut().push(row.clone());
    }

    fn evaluated(&self, step: u64, loss: f64) {
        self.evaluations.borrow_mut().push((step, loss));
    }
}

/// No folder: those trainings keep no checkpoint.
fn nowhere() -> &'static Path {
    Path::new("no such folder")
}

fn bits(trained: &Trained) -> Vec<u32> {
    let bits = |tensor: Tensor<1>| tensor.into_data().iter::<f32>().map(f32::to_bits).collect::<Vec<u32>>();
    parameters(&trained.model).into_iter().flat_map(bits).collect()
}

fn sft(settings: &Settings) -> Result<Trained, TrainError> {
    sft_on(decoder(), settings, nowhere(), &Listener::default())
}

/// SFT of a model on thirty sequences, checkpoints in `scratch`.
fn sft_on(model: Decoder, settings: &Settings, scratch: &Path, listener: &Listener) -> Result<Trained, TrainError> {
    sft::train(model, Examples::all(&sequences(30)), settings, BUCKETS, scratch, listener)
}

const BUCKETS: SftSettings = SftSettings { bucketing: BUCKETING };

fn kto_settings() -> KtoSettings {
    let constants = KtoConstants { beta: 0.1, desirable: 1.0, undesirable: 1.0 };
    KtoSettings { loss: KtoLoss::Kto, constants, max_length: 64, shuffle: false }
}

fn kto(settings: &Settings) -> Result<Trained, TrainError> {
    kto::train(decoder(), Examples::all(&rows(20)), settings, &kto_settings(), nowhere(), &Listener::default())
}

#[test]
fn sft_learns_what_it_is_shown() {
    let trained = sft(&Settings { epochs: 8.0, ..settings() }).unwrap();
    let (first, last) = (trained.log.first().unwrap(), trained.log.last().unwrap());
    assert!((first.loss - 20_f64.ln()).abs() < 0.2, "an untrained model guesses: {}", first.loss);
    assert!(last.loss < 0.3 * first.loss, "{} after {}", last.loss, first.loss);
    assert_eq!((trained.log.len(), last.step, last.epoch), (64, 64, 8.0));
    assert_eq!((first.learning_rate, last.kl), (0.0, None));
}

#[test]
fn accumulated_batches_are_one_large_batch() {
    let large = sft(&Settings { batch_size: 30, ..settings() }).unwrap();
    let small = sft(&Settings { batch_size: 5, accumulation: 6, ..settings() }).unwrap();
    assert_eq!((large.log.len(), small.log.len()), (1, 1));
    assert!((large.log[0].loss - small.log[0].loss).abs() < 1e-6);
    assert!((large.log[0].grad_norm - small.log[0].grad_norm).abs() < 1e-5);
    assert_eq!(large.log[0].scored_tokens, small.log[0].scored_tokens);
}

/// Whether a log tells of as many tokens as these sequences have, so often each.
fn tells_of(log: &[TrainLog], sequences: &[Sequence], times: &[u64]) {
    let tokens = |of: fn(&Sequence) -> usize| -> u64 {
        sequences.iter().zip(times).map(|(one, times)| of(one) as u64 * times).sum()
    };
    assert_eq!(log.iter().map(|row| row.tokens).sum::<u64>(), tokens(|one| one.ids.len()));
    assert_eq!(log.iter().map(|row| row.scored_tokens).sum::<u64>(), tokens(Sequence::scored_tokens));
    assert_eq!(times.len(), sequences.len());
}

#[test]
fn what_is_said_to_be_trained_on_is() {
    for (max_steps, batch_size, accumulation) in [(1, 4, 1), (2, 4, 2), (5, 4, 2), (11, 3, 1), (16, 7, 3)] {
        let settings = Settings { max_steps: Some(max_steps), batch_size, accumulation, ..settings() };
        tells_of(
            &sft(&settings).unwrap().log,
            &sequences(30),
            &sft::times(&sequences(30), &settings, BUCKETS, max_steps),
        );
        let kto_settings = KtoSettings { shuffle: true, ..kto_settings() };
        let trained =
            kto::train(decoder(), Examples::all(&rows(20)), &settings, &kto_settings, nowhere(), &Listener::default());
        let all: Vec<Sequence> = rows(20).into_iter().map(|row| row.sequence).collect();
        tells_of(&trained.unwrap().log, &all, &kto::times(&rows(20), &settings, &kto_settings, max_steps));
    }
    assert!(sft::times(&[], &settings(), BUCKETS, 3).is_empty());
    assert!(kto::times(&[], &settings(), &kto_settings(), 3).is_empty());
}

#[test]
fn the_same_training_gives_the_same_bits() {
    let settings = Settings { epochs: 2.0, ..settings() };
    assert_eq!(bits(&sft(&settings).unwrap()), bits(&sft(&settings).unwrap()));
    let other = Settings { seed: 8, ..settings.clone() };
    assert_ne!(bits(&sft(&settings).unwrap()), bits(&sft(&other).unwrap()));
}

#[test]
fn two_trainings_at_once_do_not_meet() {
    let settings = Settings { epochs: 2.0, ..settings() };
    let alone = (bits(&sft(&settings).unwrap()), bits(&kto(&settings).unwrap()));
    let together = std::thread::scope(|scope| {
        let left = scope.spawn(|| bits(&sft(&settings).unwrap()));
        let right = scope.spawn(|| bits(&kto(&settings).unwrap()));
        (left.join().unwrap(), right.join().unwrap())
    });
    assert_eq!(alone, together);
}

/// Stops a training twice, the second time beyond the last periodic checkpoint, and lets it end.
fn interrupted(
    settings: &Settings,
    train: impl Fn(&Settings, &Path, &Listener) -> Result<Trained, TrainError>,
) -> Trained {
    let scratch = tempfile::tempdir().unwrap();
    let settings = Settings { checkpoint_every: 2, ..settings.clone() };
    for stop_after in [3, 6] {
        let listener = Listener { stop_after: Some(stop_after), ..Listener::default() };
        match train(&settings, scratch.path(), &listener) {
            Err(TrainError::Stopped(step)) => assert_eq!(step, stop_after),
            other => panic!("not stopped: {other:?}"),
        }
    }
    let listener = Listener::default();
    let trained = train(&settings, scratch.path(), &listener).unwrap();
    assert_eq!(listener.heard.borrow()[0].step, 7, "it begins where it was stopped");
    trained
}

#[test]
fn an_interrupted_sft_ends_with_the_same_bits_and_the_same_log() {
    let settings = Settings { epochs: 1.5, ..settings() };
    let whole = sft(&settings).unwrap();
    let pieces = interrupted(&settings, |settings, scratch, listener| sft_on(decoder(), settings, scratch, listener));
    assert!(bits(&whole) == bits(&pieces));
    assert_eq!(whole.log, pieces.log);
}

#[test]
fn an_interrupted_kto_ends_with_the_same_bits_and_the_same_log() {
    let settings = Settings { epochs: 2.0, ..settings() };
    let whole = kto(&settings).unwrap();
    let pieces = interrupted(&settings, |settings, scratch, listener| {
        kto::train(decoder(), Examples::all(&rows(20)), settings, &kto_settings(), scratch, listener)
    });
    assert!(bits(&whole) == bits(&pieces));
    assert_eq!(whole.log, pieces.log);
}

#[test]
fn what_the_base_says_is_not_computed_again() {
    let scratch = tempfile::tempdir().unwrap();
    let train = |rows: &[KtoRow], listener: &Listener| {
        kto::train(decoder(), Examples::all(rows), &settings(), &kto_settings(), scratch.path(), listener)
    };
    let listener = Listener { stop_after: Some(0), ..Listener::default() };
    assert!(matches!(train(&rows(150), &listener).unwrap_err(), TrainError::Stopped(0)));
    assert_eq!(listener.prepared.get(), 256, "stopped after the first chunk of 300");
    let listener = Listener { stop_after: Some(1), ..Listener::default() };
    assert!(matches!(train(&rows(150), &listener).unwrap_err(), TrainError::Stopped(1)));
    assert_eq!(listener.prepared.get(), 300);
    let error = train(&rows(20), &Listener::default()).unwrap_err().to_string();
    assert!(error.ends_with("does not fit this training: it holds 256 numbers for 40 sequences"), "{error}");
}

#[test]
fn a_half_written_checkpoint_is_none_and_a_foreign_one_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::create_dir(scratch.path().join("step-00000004.tmp")).unwrap();
    let settings = Settings { checkpoint_every: 3, ..settings() };
    let train = |model| sft_on(model, &settings, scratch.path(), &Listener::default());
    assert_eq!(train(decoder()).unwrap().log[0].step, 1);
    let config = ModelConfig { intermediate_size: 8, ..decoder().config().clone() };
    let other = Decoder::init(&config, 3, &Device::flex()).unwrap();
    let error = train(other).unwrap_err().to_string();
    assert!(error.contains("does not fit this training: parameter 7 has 384 numbers"), "{error}");
}

#[test]
fn kto_parts_the_desirable_from_the_undesirable() {
    let trained = kto(&Settings { epochs: 12.0, learning_rate: 5e-3, ..settings() }).unwrap();
    let (first, last) = (trained.log.first().unwrap(), trained.log.last().unwrap());
    // Before the first update policy and reference are one model: KL 0, every row's loss a half.
    assert!((first.loss - 0.5).abs() < 1e-5 && first.kl.unwrap() < 1e-4, "{first:?}");
    assert!(first.rewards_margin.unwrap().abs() < 1e-5);
    assert!(last.rewards_margin.unwrap() > 0.5 && last.loss < 0.45, "{last:?}");
    assert!(last.logps_chosen.unwrap() > last.logps_rejected.unwrap());
}

#[test]
fn kto_accumulation_is_the_mean_over_batches() {
    let one = kto(&Settings { batch_size: 10, ..settings() }).unwrap();
    let two = kto(&Settings { batch_size: 10, accumulation: 2, ..settings() }).unwrap();
    // The first step of a warm-up has rate 0: both batches were measured with the base's weights.
    let mean = |field: fn(&TrainLog) -> f64| (field(&one.log[0]) + field(&one.log[1])) / 2.0;
    assert!((two.log[0].loss - mean(|row| row.loss)).abs() < 1e-6);
    assert!((two.log[0].kl.unwrap() - mean(|row| row.kl.unwrap())).abs() < 1e-6);
    assert_eq!(two.log.len(), 1);
}

#[test]
fn the_unpaired_anchored_loss_estimates_no_kl() {
    let kto_settings = KtoSettings { loss: KtoLoss::ApoZeroUnpaired, ..kto_settings() };
    let trained =
        kto::train(decoder(), Examples::all(&rows(8)), &settings(), &kto_settings, nowhere(), &Listener::default())
            .unwrap();
    assert!(trained.log.iter().all(|row| row.kl.is_none() && row.rewards_chosen.is_some()));
}

#[test]
fn a_loss_that_is_no_number_stops_with_the_dialogues() {
    let error =
        sft(&Settings { learning_rate: 1e30, warmup: Warmup::Steps(0), max_grad_norm: 0.0, ..settings() }).unwrap_err();
    let TrainError::NotFinite { step, rows, .. } = &error else { panic!("{error}") };
    assert!(*step > 1 && rows.len() == 4, "{error}");
    let row = &rows[3];
    assert_eq!(row.dialogue, format!("d{}", row.place));
    assert!(error.to_string().ends_with(&format!(", {} (dialogue `d{}`)", row.place, row.place)), "{error}");
}

#[test]
fn weights_that_are_no_numbers_are_neither_kept_nor_given_back() {
    let wild = |checkpoint_every| Settings {
        max_steps: Some(1),
        learning_rate: 1e38,
        warmup: Warmup::Steps(0),
        checkpoint_every,
        ..settings()
    };
    for every in [0, 1] {
        let scratch = tempfile::tempdir().unwrap();
        let (path, watch) = (scratch.path(), Listener::default());
        let error =
            sft::train(decoder(), Examples::all(&sequences(8)), &wild(every), BUCKETS, path, &watch).unwrap_err();
        let TrainError::NotFinite { step: 1, what: "weights after the update", rows, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(rows.len(), 4);
        assert!(crate::train::checkpoint::load(path).unwrap().is_none());
    }
}

#[test]
fn a_row_may_be_just_as_long_as_the_model_takes() {
    let train = |length: usize| {
        let config = ModelConfig { max_position_embeddings: 50, ..decoder().config().clone() };
        let model = Decoder::init(&config, 3, &Device::flex()).unwrap();
        let ids = (0..length).map(|place| (place % 20) as u32).collect();
        let example = Sequence { dialogue: "long".to_owned(), ids, scored: vec![true; length] };
        sft::train(model, Examples::all(&[example]), &settings(), BUCKETS, nowhere(), &Listener::default())
    };
    assert_eq!(train(50).unwrap().log[0].scored_tokens, 49);
    let error = train(51).unwrap_err().to_string();
    assert_eq!(error, "dialogue `long` has 51 tokens, but the model takes sequences of at most 50");
}

#[test]
fn nothing_to_learn_is_an_error() {
    let blank = |mut sequence: Sequence| {
        sequence.scored.fill(false);
        sequence
    };
    let examples: Vec<Sequence> = sequences(3).into_iter().map(blank).collect();
    let error = sft::train(decoder(), Examples::all(&examples), &settings(), BUCKETS, nowhere(), &Listener::default())
        .unwrap_err();
    assert_eq!(error.to_string(), "there are no examples to train on that have a scored token");
}

/// The chosen sides count upwards, the rejected ones downwards.
fn pairs(count: usize) -> Vec<PairRow> {
    let row = |index: usize| {
        let [chosen, rejected] = [0, 1].map(|side| rows(index / 2 * 2 + 2)[index / 2 * 2 + side].sequence.clone());
        PairRow {
            sides: [chosen, Sequence { ids: [&rows(2)[0].sequence.ids[..4], &rejected.ids[4..]].concat(), ..rejected }],
        }
    };
    (0..count).map(row).collect()
}

fn pair_settings(loss: PairLoss) -> PairSettings {
    PairSettings { loss, constants: PairConstants { beta: 0.1, label_smoothing: 0.0, alpha: 0.01 } }
}

fn dpo(settings: &Settings, loss: PairLoss, scratch: &Path, listener: &Listener) -> Result<Trained, TrainError> {
    dpo::train(decoder(), Examples::all(&pairs(20)), settings, pair_settings(loss), scratch, listener)
}

#[test]
fn dpo_parts_the_chosen_from_the_rejected() {
    let settings = Settings { epochs: 8.0, learning_rate: 5e-3, ..settings() };
    let losses = [PairLoss::Dpo, PairLoss::Spin, PairLoss::Selm].map(|loss| {
        let log = dpo(&settings, loss, nowhere(), &Listener::default()).unwrap().log;
        let (first, last) = (&log[0], log.last().unwrap());
        assert!((first.loss - 2_f64.ln()).abs() < 1e-5 && first.kl.is_none(), "{first:?}");
        assert!(last.rewards_margin.unwrap() > 0.5 && last.loss < 0.5, "{last:?}");
        assert_eq!(last.rewards_accuracy, Some(1.0));
        last.loss
    });
    assert!(losses[0] == losses[1] && losses[0] != losses[2], "{losses:?}");
}

#[test]
fn an_interrupted_dpo_ends_with_the_same_bits_and_the_same_log() {
    let settings = Settings { epochs: 2.0, ..settings() };
    let whole = dpo(&settings, PairLoss::Dpo, nowhere(), &Listener::default()).unwrap();
    let train =
        |settings: &Settings, scratch: &Path, listener: &Listener| dpo(settings, PairLoss::Dpo, scratch, listener);
    let pieces = interrupted(&settings, train);
    assert!(bits(&whole) == bits(&pieces));
    assert_eq!(whole.log, pieces.log);
}

#[test]
fn interrupted_adapters_end_with_the_same_bits_and_the_base_as_it_was() {
    let settings = Settings { epochs: 2.0, ..settings() };
    let base = adapted(decoder(), 4, 0.0);
    let train = |settings: &Settings, scratch: &Path, listener: &Listener| {
        kto::train(base.clone(), Examples::all(&rows(20)), settings, &kto_settings(), scratch, listener)
    };
    let whole = train(&settings, nowhere(), &Listener::default()).unwrap();
    let pieces = interrupted(&settings, train);
    assert!(bits(&whole) == bits(&pieces));
    assert_eq!(whole.log, pieces.log);
    // The reference is the model without its adapters, from which these ones begin at a distance.
    assert!(whole.log[0].rewards_margin.unwrap().abs() > 1e-4, "{:?}", whole.log[0]);
    let kept = bits(&Trained { model: whole.model.without_adapters(), ..whole });
    assert!(kept == bits(&Trained { model: decoder(), log: Vec::new(), kept: 0 }));
}

#[test]
fn what_the_processor_cannot_do_is_said() {
    let learner = LearnerSettings { precision: Precision::Bf16, ..settings().learner };
    let error = sft(&Settings { learner, ..settings() }).unwrap_err().to_string();
    assert_eq!(error, "the processor trains in 32 bits only; set `precision: f32`");
}
