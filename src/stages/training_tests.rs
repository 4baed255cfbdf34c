//! The training stages as the engine runs them: files in, files out.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::train_dpo::TrainDpo;
use super::train_kto::TrainKto;
use super::train_sft::TrainSft;
use crate::chat::Message;
use crate::engine::stage::{Context, Input, NoSettings, Notice, Stage, Stopped};
use crate::examples::{KtoExample, PairExample, SftExample};
use crate::model::bundle::tests::untrained;
use crate::model::peft::PeftAdapter;
use crate::model::{Bundle, Decoder};
use crate::table;
use crate::train::TrainLog;
use crate::train::rows::{Fate, TrainRow};

/// A folder with a base model, examples of both kinds, and what the stages said.
struct Bench {
    folder: tempfile::TempDir,
    said: Arc<Mutex<Vec<Notice>>>,
    /// The file behind input `eval_examples`, where it is connected.
    held_out: Option<&'static str>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        untrained().save(&folder.path().join("base")).unwrap();
        let texts = ["hotel", "a cheap one", "train", "italian food in the centre, a very long wish indeed it is"];
        let prompt = |index: usize| vec![Message::system("Help."), Message::user(texts[index % 3])];
        let completion = |index: usize| Message::assistant(texts[index % 3 + usize::from(index == 5)]);
        let dialogue = |index: usize| format!("d{index}");
        let sft = (0..6).map(|index| SftExample {
            dialogue: dialogue(index),
            messages: [prompt(index), vec![completion(index)]].concat(),
            tools: None,
        });
        table::write(&folder.path().join("sft.parquet"), sft).unwrap();
        let kto = (0..6).map(|index| KtoExample {
            dialogue: dialogue(index),
            prompt: prompt(index),
            completion: vec![completion(index)],
            label: index % 3 == 0,
            tools: None,
        });
        table::write(&folder.path().join("kto.parquet"), kto).unwrap();
        let pairs = (0..6).map(|index| PairExample {
            dialogue: dialogue(index),
            prompt: prompt(index),
            chosen: vec![completion(index)],
            rejected: vec![completion((index + 1) % 3)],
            tools: None,
        });
        table::write(&folder.path().join("pairs.parquet"), pairs).unwrap();
        Self { folder, said: Arc::default(), held_out: None }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn run<S: Stage>(&self, examples: &str, out: &str, parameters: Value, stop_at: Option<u64>) -> anyhow::Result<()> {
        let stage: S = serde_json::from_value(parameters).unwrap();
        assert_eq!(stage.check(), []);
        let (said, stop) = (self.said.clone(), Arc::new(AtomicBool::new(false)));
        let raise = stop.clone();
        let input = |name: &str, file: &str| Input { name: name.to_owned(), path: self.path().join(file) };
        let mut inputs = vec![input("base", "base"), input("examples", examples)];
        inputs.extend(self.held_out.map(|file| input("eval_examples", file)));
        crate::fs::create_dir_all(self.path().join(out)).unwrap();
        stage.run(&Context {
            out: self.path().join(out),
            stop,
            notify: Arc::new(move |notice| {
                if matches!(&notice, Notice::Progress { done, .. } if Some(*done) == stop_at) {
                    raise.store(true, Ordering::Relaxed);
                }
                said.lock().unwrap().push(notice);
            }),
            ..Context::below(self.path(), inputs, Arc::new(NoSettings))
        })
    }

    fn log(&self, out: &str) -> Vec<TrainLog> {
        table::read(&self.path().join(out).join("log.parquet")).unwrap()
    }

    fn rows(&self, out: &str) -> Vec<TrainRow> {
        table::read(&self.path().join(out).join("rows.parquet")).unwrap()
    }

    /// The last figure of this name.
    fn figure(&self, name: &str) -> Option<f64> {
        let said = self.said.lock().unwrap();
        said.iter().rev().find_map(|notice| match notice {
            Notice::Figure { name: found, value } if found == name => Some(*value),
            _ => None,
        })
    }

    fn weights(&self, out: &str) -> Vec<u8> {
        std::fs::read(self.path().join(out).join("model/model.safetensors")).unwrap()
    }

    fn warnings(&self) -> Vec<String> {
        let warning = |notice: &Notice| match notice {
            Notice::Warning(text) => Some(text.clone()),
            _ => None,
        };
        self.said.lock().unwrap().iter().filter_map(warning).collect()
    }
}

#[test]
fn sft_writes_a_bundle_and_a_log() {
    let bench = Bench::new();
    let parameters = json!({"epochs": 4.0, "batch_size": 2, "max_length": 60, "too_long": "drop"});
    bench.run::<TrainSft>("sft.parquet", "out", parameters, None).unwrap();
    let model = Bundle::load(&bench.path().join("out/model"), &burn::tensor::Device::flex()).unwrap();
    assert_eq!(model.decoder.config(), untrained().decoder.config());
    let log = bench.log("out");
    assert_eq!(log.len(), 12);
    assert!(log[11].loss < log[0].loss && log[0].kl.is_none(), "{log:?}");
    assert!(bench.said.lock().unwrap().iter().any(|notice| matches!(notice, Notice::Figure { .. })));
}

#[test]
fn a_stopped_kto_goes_on_to_the_same_files() {
    let bench = Bench::new();
    let parameters = json!({"epochs": 2.0, "batch_size": 2, "learning_rate": 1e-3});
    bench.run::<TrainKto>("kto.parquet", "whole", parameters.clone(), None).unwrap();
    std::fs::remove_dir_all(bench.path().join("scratch")).unwrap();
    let error = bench.run::<TrainKto>("kto.parquet", "pieces", parameters.clone(), Some(2)).unwrap_err();
    assert!(error.is::<Stopped>(), "{error}");
    bench.run::<TrainKto>("kto.parquet", "pieces", parameters, None).unwrap();
    assert_eq!(bench.weights("whole"), bench.weights("pieces"));
    assert_eq!(bench.log("whole"), bench.log("pieces"));
    assert_ne!(bench.weights("whole"), std::fs::read(bench.path().join("base/model.safetensors")).unwrap());
}

#[test]
fn every_example_says_what_became_of_it() {
    let bench = Bench::new();
    let tokens = |text: &str| untrained().tokenizer.encode(text).unwrap().len();
    let limit = tokens("Help.") + 2 * tokens("a cheap one") + 6;
    // Of six examples the last is not read and the fourth, `d3`, is as `d0`; one step sees two of the five.
    let parameters = json!({"batch_size": 2, "max_steps": 1, "limit": 5, "max_length": limit});
    bench.run::<TrainKto>("kto.parquet", "out", parameters, None).unwrap();
    let rows = bench.rows("out");
    let fates: Vec<_> = rows.iter().map(|row| (row.dialogue.as_str(), row.label, row.times, row.fate)).collect();
    let waiting = |name: &'static str, label| (name, Some(label), 0, Fate::NotReached);
    assert_eq!(
        fates,
        [
            ("d0", Some(true), 1, Fate::Trained),
            ("d1", Some(false), 1, Fate::Trained),
            waiting("d2", false),
            waiting("d3", true),
            waiting("d4", false),
            ("d5", Some(false), 0, Fate::BeyondLimit),
        ]
    );
    let prompt = tokens("Help.") + tokens("hotel") + 5;
    let (all, trained) = ((prompt + tokens("hotel") + 1) as u64, tokens("hotel") as u64 + 1);
    assert_eq!((rows[0].tokens, rows[0].trained_tokens), (Some(all), trained));
    assert_eq!((rows[5].tokens, rows[5].trained_tokens), (None, 0));
    let log = bench.log("out");
    assert_eq!(log[0].tokens, rows.iter().filter(|row| row.times > 0).filter_map(|row| row.tokens).sum::<u64>());
    let figure = |name: &str| bench.figure(name);
    assert_eq!((figure("examples.trained"), figure("examples.not_reached")), (Some(2.0), Some(3.0)));
    assert_eq!((figure("tokens"), figure("examples.too_long")), (Some(log[0].tokens as f64), None));
    assert_eq!((figure("desirable_weight"), figure("undesirable_weight")), (Some(1.5), Some(1.0)));
    assert_eq!(figure("weight_ratio"), Some(1.0));

    bench
        .run::<TrainSft>("sft.parquet", "out", json!({"epochs": 2, "max_length": limit, "too_long": "drop"}), None)
        .unwrap();
    let rows = bench.rows("out");
    assert!(rows[..5].iter().all(|row| (row.times, row.fate, row.label) == (2, Fate::Trained, None)), "{rows:?}");
    assert_eq!((rows[5].fate, rows[5].trained_tokens, rows[5].times), (Fate::TooLong, 0, 0));
    assert!(rows[5].tokens > Some(limit as u64));
}

#[test]
fn what_is_left_out_is_said() {
    let bench = Bench::new();
    let run = |parameters: Value| bench.run::<TrainKto>("kto.parquet", "out", parameters, None);
    let tokens = |text: &str| untrained().tokenizer.encode(text).unwrap().len();
    // As long as the longest row but one: only row 5 has the long completion.
    let limit = tokens("Help.") + 2 * tokens("a cheap one") + 6;
    let error = run(json!({"batch_size": 3, "max_length": limit})).unwrap_err().to_string();
    assert!(error.starts_with("dialogue `d5` has "), "{error}");
    assert!(error.ends_with("raise `max_length`, or leave them out with `too_long: drop`"), "{error}");
    assert!(bench.warnings().is_empty());
    let given = json!({"batch_size": 3, "max_length": limit, "too_long": "drop", "desirable_weight": 1, "undesirable_weight": 1.0});
    run(given).unwrap();
    assert_eq!(
        bench.warnings()[..2],
        [
            format!("1 of 6 examples are left out: longer than `max_length`, {limit} tokens"),
            "desirable rows weigh 0.67 times as much as undesirable ones; 1 to 1.33 is advised, and a weight \
             of `auto` gives 1"
                .to_owned()
        ]
    );
    let error = run(json!({"max_length": 5000})).unwrap_err().to_string();
    assert!(error.starts_with("`max_length` is 5000, but the base model takes sequences of at most "), "{error}");
}

#[test]
fn wrong_parameters_are_all_named() {
    let names = |problems: Vec<crate::engine::stage::Problem>| -> Vec<String> {
        problems.into_iter().map(|problem| problem.field).collect()
    };
    let sft: TrainSft = serde_json::from_value(
        json!({"epochs": 0.0, "batch_size": 0, "warmup_ratio": 1.5, "learning_rate": -1.0, "limit": 0, "weight_decay": -0.1}),
    )
    .unwrap();
    assert_eq!(names(sft.check()), ["batch_size", "limit", "epochs", "learning_rate", "weight_decay", "warmup_ratio"]);
    let kto: TrainKto = serde_json::from_value(
        json!({"batch_size": 1, "beta": 0.0, "desirable_weight": "auto", "undesirable_weight": -1.0}),
    )
    .unwrap();
    assert_eq!(names(kto.check()), ["batch_size", "beta", "undesirable_weight"]);
    assert!(serde_json::from_value::<TrainSft>(json!({"epoch": 1.0})).is_err());
}

fn decoder(folder: &Path) -> Decoder {
    Bundle::load(folder, &burn::tensor::Device::flex()).unwrap().decoder
}

#[test]
fn adapters_are_worked_into_the_model_and_stand_beside_it() {
    let bench = Bench::new();
    let parameters = |merge: bool| json!({"batch_size": 2, "merge": merge, "lora": {"rank": 2, "dropout": 0.1, "target_modules": ["q_proj", "up_proj"]}});
    bench.run::<TrainSft>("sft.parquet", "out", parameters(true), None).unwrap();
    let (base, model) = (decoder(&bench.path().join("base")), decoder(&bench.path().join("out/model")));
    assert!(model.lora().is_none());
    let adapted = PeftAdapter::open(&bench.path().join("out/adapter")).unwrap().attach(&base).unwrap();
    assert_eq!(adapted.lora().unwrap().alpha, 4.0);
    let bytes = |decoder: Decoder| {
        let folder = tempfile::tempdir().unwrap();
        Bundle { decoder, ..untrained() }.save(folder.path()).unwrap();
        std::fs::read(folder.path().join("model.safetensors")).unwrap()
    };
    assert!(bytes(adapted.merged()) == bench.weights("out"), "the model is the base with the adapters worked in");
    assert!(bytes(adapted.without_adapters()) != bench.weights("out"));

    bench.run::<TrainSft>("sft.parquet", "apart", parameters(false), None).unwrap();
    assert!(!bench.path().join("apart/model").exists());
    let read = |out: &str| std::fs::read(bench.path().join(out).join("adapter/adapter_model.safetensors")).unwrap();
    assert!(read("out") == read("apart"));
}

#[test]
fn adapters_apart_need_a_base_that_is_written_somewhere() {
    let bench = Bench::new();
    let lora =
        |rank: usize, merge: bool| json!({"batch_size": 2, "max_steps": 1, "merge": merge, "lora": {"rank": rank}});
    bench.run::<TrainSft>("sft.parquet", "out", lora(2, true), None).unwrap();
    let base = Bundle::load(&bench.path().join("base"), &burn::tensor::Device::flex()).unwrap();
    let adapted = PeftAdapter::open(&bench.path().join("out/adapter")).unwrap().attach(&base.decoder).unwrap();
    std::fs::remove_dir_all(bench.path().join("base")).unwrap();
    Bundle { decoder: adapted, ..base }.save(&bench.path().join("base")).unwrap();
    let error = bench.run::<TrainSft>("sft.parquet", "apart", lora(2, false), None).unwrap_err().to_string();
    assert!(error.contains("`model.merge` before") && error.contains("`merge: true`"), "{error}");
    bench.run::<TrainSft>("sft.parquet", "merged", lora(2, true), None).unwrap();
    let error = bench.run::<TrainSft>("sft.parquet", "high", lora(1 << 40, true), None).unwrap_err().to_string();
    assert!(error.contains("is too high"), "{error}");
}

#[test]
fn whole_dialogues_are_held_out_and_measured() {
    let bench = Bench::new();
    let parameters = json!({"epochs": 3, "batch_size": 2, "learning_rate": 1e-3, "eval_share": 0.34, "eval_every": 1});
    bench.run::<TrainDpo>("pairs.parquet", "out", parameters, None).unwrap();
    let rows = bench.rows("out");
    let held_out: Vec<&TrainRow> = rows.iter().filter(|row| row.fate == Fate::HeldOut).collect();
    assert_eq!((held_out.len(), rows.len()), (2, 6));
    assert!(held_out.iter().all(|row| (row.times, row.trained_tokens) == (0, 0) && row.tokens > Some(0)), "{rows:?}");
    assert!(rows.iter().filter(|row| row.fate == Fate::Trained).all(|row| row.times == 3));
    let log = bench.log("out");
    assert_eq!(log.len(), 6);
    assert!(log.iter().all(|row| row.eval_loss.is_some() && row.rewards_accuracy.is_some() && row.kl.is_none()));
    assert_eq!((bench.figure("eval.examples"), bench.figure("eval.loss")), (Some(2.0), log[5].eval_loss));
    assert_eq!(bench.figure("examples.held_out"), Some(2.0));
}

#[test]
fn examples_of_an_input_of_their_own_are_measured() {
    let bench = Bench { held_out: Some("kto.parquet"), ..Bench::new() };
    let parameters = json!({"epochs": 2, "batch_size": 3, "learning_rate": 1e-2, "patience": 5});
    bench.run::<TrainKto>("kto.parquet", "out", parameters, None).unwrap();
    let log = bench.log("out");
    let measured: Vec<bool> = log.iter().map(|row| row.eval_loss.is_some()).collect();
    assert_eq!(measured, [false, true, false, true], "once an epoch");
    assert!(bench.rows("out").iter().all(|row| row.fate == Fate::Trained && row.times == 2));
    assert_eq!(bench.figure("eval.examples"), Some(6.0));
}

#[test]
fn a_loss_that_is_no_number_names_the_rows_that_were_read() {
    let bench = Bench::new();
    let limit = untrained().tokenizer.encode("hotel").unwrap().len() * 2 + 30;
    let parameters = json!({"batch_size": 6, "epochs": 9, "learning_rate": 1e30, "max_grad_norm": 0, "warmup_steps": 0,
        "max_length": limit, "too_long": "drop"});
    let error = bench.run::<TrainDpo>("pairs.parquet", "out", parameters, None).unwrap_err().to_string();
    let rows = error.split("; its rows are ").nth(1).unwrap_or_else(|| panic!("{error}"));
    for row in rows.split(", ") {
        let (place, dialogue) = row.split_once(" (dialogue `d").unwrap();
        assert_eq!(format!("{place}`)"), dialogue, "{error}");
    }
}

#[test]
fn a_measurement_that_is_no_number_names_the_rows_that_were_held_out() {
    let bench = Bench::new();
    let parameters = json!({"batch_size": 2, "epochs": 9, "learning_rate": 1e38, "max_grad_norm": 0, "warmup_steps": 0,
        "eval_share": 0.34, "eval_every": 1});
    let error = bench.run::<TrainDpo>("pairs.parquet", "out", parameters, None).unwrap_err().to_string();
    assert!(error.starts_with("the loss over the held-out examples after step 1 is "), "{error}");
    let rows = error.split("; its rows are ").nth(1).unwrap_or_else(|| panic!("{error}"));
    for row in rows.split(", ") {
        let (place, dialogue) = row.split_once(" (dialogue `d").unwrap();
        assert_eq!(format!("{place}`)"), dialogue, "{error}");
    }
}

#[test]
fn what_is_asked_for_and_cannot_be_is_said() {
    let bench = Bench::new();
    let alone = json!({"batch_size": 2, "limit": 1, "eval_share": 0.5, "patience": 1});
    let error = bench.run::<TrainSft>("sft.parquet", "out", alone, None).unwrap_err().to_string();
    assert!(error.starts_with("there is nothing to measure: `eval_share`"), "{error}");
    bench.run::<TrainSft>("sft.parquet", "short", json!({"max_steps": 1}), None).unwrap();
    assert!(bench.warnings().iter().any(|warning| warning.contains("nothing is learnt")), "{:?}", bench.warnings());
    let bench = Bench::new();
    bench.run::<TrainSft>("sft.parquet", "long", json!({"max_steps": 2, "warmup_ratio": 0.5}), None).unwrap();
    assert_eq!(bench.warnings(), Vec::<String>::new());
}

#[test]
fn parameters_that_contradict_each_other_are_named() {
    let problems = |problems: Vec<crate::engine::stage::Problem>| -> Vec<String> {
        problems.into_iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect()
    };
    let dpo = |parameters: Value| serde_json::from_value::<TrainDpo>(parameters).unwrap();
    let found =
        problems(dpo(json!({"loss": "spin", "label_smoothing": 0.1, "merge": false, "eval_share": 1.0})).check());
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("eval_share: ") && found[1].starts_with("merge: "), "{found:?}");
    let found = problems(dpo(json!({"lora": {"rank": 0, "dropout": 0.5}})).check());
    assert_eq!(
        found,
        [
            "lora.rank: is wrong: the rank of an adapter must be at least 1",
            "lora.dropout: must be 0: a loss against a base model compares the two as they are"
        ]
    );
    let tiny = json!({"adam_epsilon": 1e-50, "adam_beta_2": 0.99999999, "learning_rate": 1e39, "max_steps": 9,
        "warmup_steps": 9});
    let fields: Vec<String> = dpo(tiny).check().into_iter().map(|problem| problem.field).collect();
    assert_eq!(fields, ["learning_rate", "adam_epsilon", "adam_beta_2", "warmup_steps"]);
    assert_eq!(dpo(json!({"adam_epsilon": 1e-30, "adam_beta_2": 0.999999, "learning_rate": 1e30})).check(), []);
    assert_eq!(problems(dpo(json!({"alpha": 0.1})).check()), ["alpha: counts with `loss: selm` alone: leave it out"]);
    assert_eq!(dpo(json!({"alpha": 0.1, "loss": "selm"})).check(), []);
    let connected = |parameters, connected: &[&str]| problems(dpo(parameters).check_inputs(connected)).len();
    assert_eq!(connected(json!({"patience": 2}), &["base", "examples"]), 1);
    assert_eq!(connected(json!({"patience": 2}), &["base", "eval_examples"]), 0);
    assert_eq!(connected(json!({"eval_share": 0.1}), &["base", "eval_examples"]), 1);
    assert_eq!(connected(json!({"eval_share": 0.1, "eval_every": 3}), &["base", "examples"]), 0);
}
