//! Requests among others: what each gets, who comes when, and what is encoded.

use std::collections::{BTreeMap, HashSet};

use burn::tensor::{Device, Int, Tensor, TensorData};
use proptest::prelude::*;

use super::*;
use crate::model::config::tests::tiny;
use crate::model::executor::host::HostExecutor;
use crate::model::executor::host::tests::models;
use crate::model::{Decoder, ModelConfig};

const WARM: Draw = Draw { temperature: 1.0, top_k: None, top_p: 0.95, min_p: 0.0, repetition_penalty: 1.0 };

/// A request ends at this token.
const END: u32 = 5;

/// What requests got, and the order in which they ended.
#[derive(Default)]
struct Got {
    tokens: BTreeMap<Ticket, Vec<Drawn>>,
    ends: Vec<(Ticket, bool)>,
    endless: bool,
}

impl Sink for Got {
    fn token(&mut self, ticket: Ticket, drawn: Drawn) -> bool {
        self.tokens.entry(ticket).or_default().push(drawn);
        drawn.id == END && !self.endless
    }

    fn end(&mut self, ticket: Ticket, cut_off: bool) {
        self.ends.push((ticket, cut_off));
    }
}

impl Got {
    fn ids(&self, ticket: Ticket) -> Vec<u32> {
        self.tokens.get(&ticket).into_iter().flatten().map(|drawn| drawn.id).collect()
    }
}

fn decoder() -> Decoder {
    // A small tied head gives nearly equal logits; one of its own makes choices clear.
    let config = ModelConfig { tie_word_embeddings: false, max_position_embeddings: 128, ..tiny() };
    Decoder::init(&config, 4, &Device::flex()).unwrap()
}

/// A scheduler with so many pages above the least, so many places, and so many new tokens a step.
fn scheduler(decoder: &Decoder, pages: usize, rows: usize, tokens: usize) -> Scheduler {
    let least = HostExecutor::new(decoder, 0).unwrap().layout().pages;
    let page = 2 * decoder.architecture().features() * decoder.architecture().layers.len() * PAGE * 4;
    let executor = HostExecutor::new(decoder, (least + pages) * page).unwrap().within(rows, tokens);
    assert_eq!(executor.layout().pages, least + pages);
    Scheduler::new(Box::new(executor))
}

fn request(ids: Vec<u32>, max_new: usize, draw: Draw, seed: u64) -> Request {
    Request { ids, max_new, draw, seed, logprobs: true, guide: None }
}

fn prompt(seed: u32, length: u32) -> Vec<u32> {
    (0..length).map(|index| (index * index + 7 * seed + index * seed) % 19 + 1).collect()
}

fn run(scheduler: &mut Scheduler, requests: impl IntoIterator<Item = Request>, endless: bool) -> Got {
    let mut got = Got { endless, ..Got::default() };
    for request in requests {
        scheduler.submit(request);
    }
    scheduler.run(&mut got).unwrap();
    got
}

/// What the whole sequence's forward pass says, token by token.
fn slowly(decoder: &Decoder, ids: &[u32], count: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = ids.to_vec();
    let start = ids.len();
    for _ in 0..count {
        let tokens: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, [1, ids.len()]), &Device::flex());
        let logits: Vec<f32> = decoder.forward(tokens).try_into_vec_as().unwrap();
        let logits = &logits[logits.len() - decoder.architecture().vocab..];
        ids.push(Sampler::new(Draw::default(), 0, false, &[]).next(logits, None).id);
    }
    ids.split_off(start)
}

#[test]
fn many_at_once_are_the_forward_pass_step_by_step() {
    for (name, decoder) in models() {
        let mut scheduler = scheduler(&decoder, 0, 3, 20);
        for round in 0..2 {
            let asked: Vec<(Vec<u32>, usize)> =
                (0..5).map(|seed| (prompt(seed, 3 + 9 * (seed % 5)), 4 + 5 * seed as usize)).collect();
            let requests = asked.iter().map(|(ids, max_new)| request(ids.clone(), *max_new, Draw::default(), 0));
            let got = run(&mut scheduler, requests, true);
            for (ticket, (ids, max_new)) in (round * 5..).zip(&asked) {
                assert_eq!(got.ids(ticket), slowly(&decoder, ids, *max_new), "{name}");
            }
            assert!(got.ends.iter().all(|(_, cut_off)| *cut_off) && got.ends.len() == 5);
        }
        assert!(scheduler.counters().reused > 0);
    }
}

#[test]
fn whoever_ends_leaves_the_place_to_the_first_that_waits() {
    let decoder = decoder();
    let mut scheduler = scheduler(&decoder, 40, 2, 512);
    let lengths = [3, 9, 2, 2, 1];
    let mut got = Got { endless: true, ..Got::default() };
    for (seed, max_new) in lengths.into_iter().enumerate() {
        scheduler.submit(request(prompt(seed as u32, 10), max_new, WARM, 0));
    }
    let mut running = Vec::new();
    while !scheduler.is_idle() {
        let before: Vec<usize> = (0..5).map(|ticket| got.ids(ticket).len()).collect();
        scheduler.step(&mut got).unwrap();
        running.push((0..5).filter(|&ticket| got.ids(ticket).len() > before[ticket as usize]).collect::<Vec<_>>());
    }
    let expected: [&[u64]; 9] = [&[0, 1], &[0, 1], &[0, 1], &[1, 2], &[1, 2], &[1, 3], &[1, 3], &[1, 4], &[1]];
    assert_eq!(running, expected);
    assert_eq!(scheduler.counters(), Counters { prompt: 50, reused: 0, generated: 17, steps: 9 });
}

#[test]
fn the_context_and_the_most_tokens_cut_off_and_an_end_does_not() {
    let decoder = decoder();
    let mut scheduler = scheduler(&decoder, 0, 64, 512);
    let asked = [(120, 30), (128, 30), (20, 0), (20, 30)];
    let requests = asked.map(|(length, max_new)| request(prompt(1, length), max_new, WARM, 3));
    let got = run(&mut scheduler, requests, false);
    let whole = run(&mut scheduler, [request(prompt(1, 20), 30, WARM, 3)], true).ids(4);
    let end = whole.iter().position(|id| *id == END).unwrap();
    assert_eq!(got.ids(3), whole[..=end]);
    assert!(got.ends.contains(&(3, false)) && got.ends.contains(&(1, true)) && got.ends.contains(&(2, true)));
    assert!(got.ids(1).is_empty() && got.ids(2).is_empty());
    assert!(got.ids(0).len() == 8 || got.ids(0).last() == Some(&END));
}

#[test]
fn what_requests_have_in_common_is_encoded_once() {
    let decoder = decoder();
    for (rows, tokens) in [(64, 512), (3, 30)] {
        let mut scheduler = scheduler(&decoder, 200, rows, tokens);
        let system = prompt(1, 41);
        let mut distinct: HashSet<Vec<u32>> = HashSet::new();
        for round in 0..2 {
            let prompts: Vec<Vec<u32>> =
                (0..12).map(|which| [&system[..], &prompt(which % 4 + 2, 20 + which % 4 * 9)].concat()).collect();
            for ids in &prompts {
                distinct.extend(
                    ids.as_chunks::<PAGE>().0.iter().enumerate().map(|(at, _)| ids[..(at + 1) * PAGE].to_vec()),
                );
            }
            let requests: Vec<Request> = prompts.iter().map(|ids| request(ids.clone(), 4, WARM, 7)).collect();
            run(&mut scheduler, requests, true);
            let Counters { prompt, reused, .. } = scheduler.counters();
            let whole: usize = prompts.iter().map(Vec::len).sum();
            // Beyond whole pages, at most a page of each request.
            let rest: usize = prompts.iter().map(|ids| (ids.len() - 1) % PAGE + 1).sum::<usize>() * (round + 1);
            assert_eq!(prompt as usize, whole * (round + 1));
            assert!((prompt - reused) as usize <= distinct.len() * PAGE + rest, "{prompt} {reused} {}", distinct.len());
            assert!(scheduler.pages.is_idle());
        }
    }
}

#[test]
fn who_is_given_up_leaves_others_what_they_wait_for() {
    let decoder = decoder();
    let alone = run(&mut scheduler(&decoder, 0, 4, 512), [request(prompt(1, 70), 6, WARM, 1)], true).ids(0);
    // Few tokens a step: the second waits for what the first is still encoding.
    let mut scheduler = scheduler(&decoder, 20, 4, 10);
    let mut got = Got { endless: true, ..Got::default() };
    let first = scheduler.submit(request(prompt(1, 70), 6, WARM, 0));
    let second = scheduler.submit(request(prompt(1, 70), 6, WARM, 1));
    let third = scheduler.submit(request(prompt(2, 7), 50, WARM, 1));
    scheduler.step(&mut got).unwrap();
    scheduler.cancel(first);
    scheduler.cancel(third);
    scheduler.run(&mut got).unwrap();
    assert_eq!(got.ids(second), alone);
    assert!(got.ids(first).is_empty() && got.ends == [(second, true)]);
    assert!(scheduler.pages.is_idle());
}

/// Allows even tokens and odd ones in turn.
struct InTurn(bool, [u64; 1]);

impl Guide for InTurn {
    fn allowed(&mut self) -> &[u64] {
        self.1 = [if self.0 { 0xaaaa_aaaa_aaaa_aaaa } else { 0x5555_5555_5555_5555 }];
        &self.1
    }

    fn follow(&mut self, id: u32) {
        assert_eq!(id % 2 == 1, self.0);
        self.0 = !self.0;
    }
}

#[test]
fn a_guided_request_follows_its_guide_among_free_ones() {
    let decoder = decoder();
    let mut scheduler = scheduler(&decoder, 20, 8, 512);
    let guide = || -> Option<Box<dyn Guide>> { Some(Box::new(InTurn(false, [0]))) };
    let requests = (0..6).map(|seed| Request {
        guide: if seed % 2 == 0 { guide() } else { None },
        ..request(prompt(1, 20), 30, WARM, seed)
    });
    let got = run(&mut scheduler, requests, true);
    let in_turn = |ticket| got.ids(ticket).iter().enumerate().all(|(at, id)| id % 2 == at as u32 % 2);
    assert!([0, 2, 4].into_iter().all(in_turn) && ![1, 3, 5].into_iter().any(in_turn));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn a_request_gets_the_same_in_any_company(
        asked in prop::collection::vec((0u32..6, 1u32..60, 1usize..30, 0u64..4, 0usize..4), 1..60),
        (pages, rows, tokens) in (prop::sample::select(vec![0usize, 5, 300]), 1usize..20, prop::sample::select(vec![1usize, 17, 512])),
    ) {
        let draws = [
            WARM,
            Draw { min_p: 0.2, top_k: Some(9), ..WARM },
            Draw { repetition_penalty: 1.7, temperature: 0.4, ..WARM },
            Draw::default(),
        ];
        let decoder = decoder();
        let one = |(which, length, max_new, seed, draw): (u32, u32, usize, u64, usize)| {
            request(prompt(which, length), max_new, draws[draw], seed)
        };
        let together = run(&mut scheduler(&decoder, pages, rows, tokens), asked.iter().copied().map(one), false);
        prop_assert_eq!(together.ends.len(), asked.len());
        for (ticket, asked) in asked.into_iter().enumerate().take(8) {
            let alone = run(&mut scheduler(&decoder, 0, 64, 512), [one(asked)], false);
            prop_assert_eq!(&alone.tokens[&0], &together.tokens[&(ticket as Ticket)]);
            let end = |got: &Got, ticket| got.ends.iter().find(|(ended, _)| *ended == ticket).unwrap().1;
            prop_assert_eq!(end(&alone, 0), end(&together, ticket as Ticket));
        }
    }
}
