//! SmolLM2-135M-Instruct against llama.cpp, with the file that the environment variable `THRESH_SMOLLM2` names: `make test-smollm2`
//! gets it. What llama.cpp does is recorded (`tests/record/smollm2.py`).

use std::path::PathBuf;

use burn::tensor::Device;
use serde::Deserialize;

use super::bundle::Bundle;
use super::chat;
use super::checkpoint::next_logits;
use super::executor;
use super::sample::{Draw, Drawn};
use super::scheduler::{Request, Scheduler, Sink, Ticket};
use crate::chat::Message;

/// Where two tokens are as likely as this, either may be first: sums are added in another order.
const GAP: f32 = 1e-2;

#[derive(Deserialize)]
struct Recorded {
    tokens: Vec<(String, Vec<u32>)>,
    greedy: Vec<Continued>,
}

#[derive(Deserialize)]
struct Continued {
    prompt: String,
    ids: Vec<u32>,
    new: Vec<u32>,
    text: String,
}

fn model() -> Option<(Bundle, Recorded)> {
    let Some(path) = std::env::var_os("THRESH_SMOLLM2") else {
        eprintln!("skipped: `THRESH_SMOLLM2` names no GGUF file of SmolLM2-135M-Instruct; `make test-smollm2` gets it");
        return None;
    };
    let bundle = Bundle::load(&PathBuf::from(path), &Device::flex()).unwrap();
    Some((bundle, serde_json::from_str(include_str!("../../tests/golden/smollm2.json")).unwrap()))
}

struct Collected<'a> {
    bundle: &'a Bundle,
    ids: Vec<u32>,
    over: bool,
}

impl Sink for Collected<'_> {
    fn token(&mut self, _: Ticket, drawn: Drawn) -> bool {
        if self.bundle.tokenizer.is_end(drawn.id) {
            return true;
        }
        self.ids.push(drawn.id);
        false
    }

    fn end(&mut self, _: Ticket, _: bool) {
        self.over = true;
    }
}

#[test]
fn smollm2_reads_and_writes_as_llama_cpp_does() {
    let Some((bundle, recorded)) = model() else { return };
    let tokenizer = &bundle.tokenizer;
    for (text, expected) in &recorded.tokens {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(&ids, expected, "{text:?}");
        assert_eq!(&tokenizer.decode(&ids).unwrap(), text);
    }
    let mut scheduler = Scheduler::new(executor::of(&bundle.decoder, 64 << 20).unwrap());
    for Continued { prompt, ids, new, text } in recorded.greedy {
        assert_eq!(chat::encode_prompt(tokenizer, &[Message::user(&*prompt)], &[]).unwrap(), ids);
        assert_eq!(tokenizer.decode(&new).unwrap(), text);
        let draw = Draw { temperature: 0.0, ..Draw::default() };
        let mut collected = Collected { bundle: &bundle, ids: Vec::new(), over: false };
        scheduler.submit(Request { ids: ids.clone(), max_new: 64, draw, seed: 0, logprobs: false, guide: None });
        while !collected.over {
            scheduler.step(&mut collected).unwrap();
        }
        let mine = collected.ids;
        let Some(at) = (0..mine.len().max(new.len())).find(|&at| mine.get(at) != new.get(at)) else {
            eprintln!("{prompt} the same {} tokens", new.len());
            continue;
        };
        // The logits there explain it, or it is wrong.
        let logits = next_logits(&bundle.decoder, &[&ids[..], &mine[..at]].concat()).unwrap();
        let end =
            *tokenizer.ends().iter().max_by(|a, b| logits[**a as usize].total_cmp(&logits[**b as usize])).unwrap();
        let logit = |ids: &[u32]| logits[ids.get(at).copied().unwrap_or(end) as usize];
        let gap = (logit(&mine) - logit(&new)).abs();
        eprintln!("{prompt} differs at token {at}, where two logits are {gap} apart");
        assert!(gap < GAP, "{prompt} differs at token {at}, where the logits are {gap} apart: {mine:?} for {new:?}");
    }
}
