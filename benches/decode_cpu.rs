//! Times decoding on the processor: for `decode_cpu.py`, which runs transformers beside it.
//!
//! usage: decode_cpu CONFIG.json PROMPT NEW FOLDER
//!
//! CONFIG.json is a model's configuration; its random weights are written to FOLDER/model.safetensors. Every line on standard
//! input is a number of sequences and asks for one round: each sequence's prompt of PROMPT tokens is encoded and continued by
//! NEW of the likeliest tokens, nothing being remembered of earlier rounds. The answer is a JSON object with wall and CPU
//! seconds and the tokens.

use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde_json::json;
use thresh::model::executor;
use thresh::model::sample::{Draw, Drawn};
use thresh::model::scheduler::{Request, Scheduler, Sink, Ticket};
use thresh::model::{Decoder, ModelConfig, weights};

/// Token `place` of the prompt of sequence `row` in a round: both sides compute it.
fn token(round: usize, row: usize, place: usize, vocab: usize) -> u32 {
    ((round * 104_729 + row * 7919 + place * place * 31 + place * 17) % vocab) as u32
}

fn cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process knows itself");
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}

/// The tokens of every sequence, in their order.
struct Tokens {
    first: Ticket,
    ids: Vec<Vec<u32>>,
}

impl Sink for Tokens {
    fn token(&mut self, ticket: Ticket, drawn: Drawn) -> bool {
        self.ids[(ticket - self.first) as usize].push(drawn.id);
        false
    }

    fn end(&mut self, _: Ticket, _: bool) {}
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [config, prompt, new, folder] = &arguments[..] else {
        // `cargo test --benches` runs this without arguments.
        return eprintln!("usage: decode_cpu CONFIG.json PROMPT NEW FOLDER");
    };
    let number = |text: &String| text.parse::<usize>().expect("sizes are numbers");
    let (prompt, new) = (number(prompt), number(new));
    let text = std::fs::read_to_string(config).expect("the configuration is a file");
    let config = ModelConfig::parse(&text).expect("the configuration is a model's");
    let model = Decoder::init(&config, 1, &Device::flex()).expect("the configuration fits together");
    weights::save(&model, &Path::new(folder).join("model.safetensors")).expect("the folder can be written");
    let vocab = model.architecture().vocab;
    let mut scheduler = Scheduler::new(executor::of(&model, 1 << 30).expect("the processor takes it"));
    let mut first = 0;
    for (round, line) in std::io::stdin().lock().lines().enumerate() {
        let rows: usize = line.expect("standard input is text").trim().parse().expect("a number of sequences");
        let (start, before) = (Instant::now(), cpu());
        for row in 0..rows {
            let ids = (0..prompt).map(|place| token(round, row, place, vocab)).collect();
            scheduler.submit(Request {
                ids,
                max_new: new,
                draw: Draw::default(),
                seed: 0,
                logprobs: false,
                guide: None,
            });
        }
        let mut tokens = Tokens { first, ids: vec![Vec::new(); rows] };
        scheduler.run(&mut tokens).expect("the processor answers");
        first += rows as Ticket;
        let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu() - before);
        println!("{}", json!({"wall": wall, "cpu": cpu, "tokens": tokens.ids}));
    }
}
