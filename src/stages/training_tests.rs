//! The training stages as the engine runs them: files in, files out.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::train_kto::TrainKto;
use super::train_sft::TrainSft;
use crate::chat::Message;
use crate::engine::stage::{Context, Input, NoSettings, Notice, Stage, Stopped};
use crate::examples::{KtoExample, SftExample};
use crate::model::Bundle;
use crate::model::bundle::tests::untrained;
use crate::table;
use crate::train::TrainLog;
use crate::train::rows::{Fate, TrainRow};

/// A folder with a base model, examples of both kinds, and what the stages said.
struct Bench {
    folder: tempfile::TempDir,
    said: Arc<Mutex<Vec<Notice>>>,
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
        Self { folder, said: Arc::default() }
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
            ..Context::below(
                self.path(),
                vec![input("base", "base"), input("examples", examples)],
                Arc::new(NoSettings),
            )
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
