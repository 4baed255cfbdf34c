//! Many requests at once: who runs, what is computed next, and what is drawn.
//!
//! A request that ends leaves its place to the next one that waits, before the next step. Requests are let in in the order in
//! which they came; where the first that waits finds no room, the others wait too. So what happens depends on the requests
//! alone, and what a request gets depends on the request alone.

use std::collections::{BTreeSet, VecDeque};

use super::executor::{Answer, Executor, ExecutorError, Layout, PAGE, Row, Want};
use super::pages::{Held, Pages};
use super::sample::{Draw, Drawn, Sampler};

/// One request for a continuation.
pub struct Request {
    /// The tokens to continue; at least one.
    pub ids: Vec<u32>,
    /// The most tokens to generate.
    pub max_new: usize,
    /// How tokens are drawn.
    pub draw: Draw,
    /// The seed of this request's random numbers.
    pub seed: u64,
    /// Whether the log-probabilities of the drawn tokens are wanted.
    pub logprobs: bool,
    /// What the tokens must follow, where they are not free.
    pub guide: Option<Box<dyn Guide>>,
}

/// What says which tokens may come next.
pub trait Guide: Send {
    /// The tokens that may come next: bit `id % 64` of word `id / 64`. At least one.
    fn allowed(&mut self) -> &[u64];

    /// Goes on behind a token.
    fn follow(&mut self, id: u32);
}

/// The number of a request: they are counted from 0.
pub type Ticket = u64;

/// Who is told what requests bring.
pub trait Sink {
    /// A request's next token; whether the continuation is complete with it.
    fn token(&mut self, ticket: Ticket, drawn: Drawn) -> bool;

    /// A request has ended, because its continuation is complete or else because it was cut off by the most tokens that it
    /// may have or by the context.
    fn end(&mut self, ticket: Ticket, cut_off: bool);
}

/// Counters of what was computed and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tokens of prompts.
    pub prompt: u64,
    /// Those of them whose keys and values were known.
    pub reused: u64,
    /// Tokens generated.
    pub generated: u64,
    /// Calls of the device, each over all that runs.
    pub steps: u64,
}

/// The requests of one model.
pub struct Scheduler {
    executor: Box<dyn Executor>,
    layout: Layout,
    pages: Pages,
    waiting: VecDeque<(Ticket, Request)>,
    running: Vec<Running>, // in the order in which they were let in
    slots: BTreeSet<usize>,
    tickets: Ticket,
    counters: Counters,
}

struct Running {
    ticket: Ticket,
    slot: usize,
    ids: Vec<u32>,
    /// How many tokens the prompt has, and how many there may be in the end.
    prompt: usize,
    most: usize,
    /// How many tokens have their keys and values.
    past: usize,
    /// How many of them another one computed, or computes.
    shared: usize,
    held: Held,
    sampler: Sampler,
    guide: Option<Box<dyn Guide>>,
    over: bool,
    /// Whether nobody wants it any more.
    cancelled: bool,
}

/// What a step computes of one running request.
struct Share {
    index: usize,
    tokens: std::ops::Range<usize>,
    uniforms: Vec<f32>,
}

impl Scheduler {
    /// No requests as yet.
    pub fn new(executor: Box<dyn Executor>) -> Self {
        let layout = executor.layout();
        Self {
            executor,
            layout,
            pages: Pages::new(layout.pages),
            waiting: VecDeque::new(),
            running: Vec::new(),
            slots: (0..layout.rows).collect(),
            tickets: 0,
            counters: Counters::default(),
        }
    }

    /// At most so many requests at once.
    #[must_use]
    pub fn at_most(mut self, rows: usize) -> Self {
        self.layout.rows = self.layout.rows.min(rows.max(1));
        self.slots = (0..self.layout.rows).collect();
        self
    }

    /// What the device offers.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// What was computed so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether nothing runs and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Queues a request. A prompt that fills the context gets an empty continuation that is cut off.
    ///
    /// # Panics
    /// When the prompt is empty.
    pub fn submit(&mut self, request: Request) -> Ticket {
        assert!(!request.ids.is_empty(), "a prompt has at least one token");
        let ticket = self.tickets;
        self.tickets += 1;
        self.waiting.push_back((ticket, request));
        ticket
    }

    /// Gives up a request; its end is not told.
    pub fn cancel(&mut self, ticket: Ticket) {
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
        for running in self.running.iter_mut().filter(|running| running.ticket == ticket) {
            running.cancelled = true;
        }
    }

    /// Lets requests in, and computes the next tokens of all that run.
    ///
    /// # Errors
    /// When the device fails: all requests are gone then.
    pub fn step(&mut self, sink: &mut dyn Sink) -> Result<(), ExecutorError> {
        self.leave();
        self.admit(sink);
        let shares = self.shares();
        if shares.is_empty() {
            return Ok(());
        }
        let answers = self.executor.run(&rows(&self.running, &shares)).inspect_err(|_| {
            self.running.clear();
            self.waiting.clear();
            self.slots = (0..self.layout.rows).collect();
            self.pages.forget();
        })?;
        self.counters.steps += 1;
        for (share, answer) in shares.iter().zip(answers) {
            self.take(share, answer, sink);
        }
        self.leave();
        Ok(())
    }

    /// Runs until nothing is left.
    ///
    /// # Errors
    /// As [`Scheduler::step`].
    pub fn run(&mut self, sink: &mut dyn Sink) -> Result<(), ExecutorError> {
        while !self.is_idle() {
            self.step(sink)?;
        }
        Ok(())
    }

    fn admit(&mut self, sink: &mut dyn Sink) {
        while let Some((ticket, request)) = self.waiting.front() {
            let most = request.ids.len().saturating_add(request.max_new).min(self.layout.context);
            if most <= request.ids.len() {
                sink.end(*ticket, true);
                self.waiting.pop_front();
                continue;
            }
            let Some(&slot) = self.slots.first() else { break };
            // What the last token would bring is never asked for, so that it needs no place.
            let Some((held, past)) = self.pages.begin(&request.ids, most - 1) else { break };
            let Some((ticket, request)) = self.waiting.pop_front() else { break };
            self.slots.remove(&slot);
            self.counters.prompt += request.ids.len() as u64;
            self.counters.reused += past as u64;
            let sampler = Sampler::new(request.draw, request.seed, request.logprobs, &request.ids);
            self.running.push(Running {
                ticket,
                slot,
                prompt: request.ids.len(),
                ids: request.ids,
                most,
                past,
                shared: past,
                held,
                sampler,
                guide: request.guide,
                over: false,
                cancelled: false,
            });
        }
    }

    /// What the next call computes: one token of whatever is beyond its prompt, and of prompts as much as fits.
    fn shares(&mut self) -> Vec<Share> {
        let decoding = self.running.iter().filter(|running| running.past + 1 == running.ids.len()).count();
        let alone = decoding == self.running.len();
        let mut left = self.layout.tokens.saturating_sub(decoding).max(1);
        let mut shares = Vec::new();
        let mut filling: BTreeSet<u32> = BTreeSet::new();
        for (index, running) in self.running.iter_mut().enumerate() {
            let new = running.ids.len() - running.past;
            // What another one fills in an earlier call is there, in this call is soon; in a later one it has to be waited for.
            let ready = || self.pages.is_filled(&running.held, running.shared, |page| filling.contains(&page));
            let count = match new {
                1 => 1,
                _ if left == 0 => continue,
                _ => new.min(left),
            };
            if !ready() {
                continue;
            }
            left -= if new == 1 { 0 } else { count };
            let tokens = running.past..running.past + count;
            filling.extend(&running.held.pages[tokens.start / PAGE..tokens.end / PAGE]);
            let uniforms = running.uniforms(count == new, alone, self.layout.ahead, &*self.executor);
            self.pages.extend(&mut running.held, tokens.end + uniforms.len().saturating_sub(1));
            shares.push(Share { index, tokens, uniforms });
        }
        shares
    }

    /// Takes in the answer to one share.
    fn take(&mut self, share: &Share, answer: Answer, sink: &mut dyn Sink) {
        let running = &mut self.running[share.index];
        running.past = share.tokens.end;
        let drawn = match answer {
            Answer::Nothing => Vec::new(),
            Answer::Logits(_) if running.cancelled => Vec::new(),
            Answer::Logits(logits) => vec![running.draw(&logits)],
            Answer::Tokens(drawn) => drawn,
        };
        let fed = drawn.len().saturating_sub(1);
        for drawn in drawn {
            self.counters.generated += 1;
            running.ids.push(drawn.id);
            if running.cancelled || running.over {
                continue;
            }
            let complete = sink.token(running.ticket, drawn);
            running.over = complete || running.ids.len() >= running.most;
            if running.over {
                sink.end(running.ticket, !complete);
            }
        }
        running.past += fed;
        self.pages.fill(&mut running.held, &running.ids, running.past);
    }

    /// Takes out what is over. What nobody wants any more stays until its prompt is encoded: others may wait for its pages.
    fn leave(&mut self) {
        let gone = |running: &mut Running| running.over || running.cancelled && running.past >= running.prompt;
        for running in self.running.extract_if(.., gone) {
            self.slots.insert(running.slot);
            self.pages.release(running.held);
        }
    }
}

fn rows<'a>(running: &'a [Running], shares: &'a [Share]) -> Vec<Row<'a>> {
    let row = |share: &'a Share| {
        let running = &running[share.index];
        Row {
            slot: running.slot,
            pages: &running.held.pages,
            past: share.tokens.start,
            tokens: &running.ids[share.tokens.clone()],
            want: match share.uniforms.as_slice() {
                _ if share.tokens.end < running.ids.len() => Want::Nothing,
                [] => Want::Logits,
                uniforms => Want::Tokens {
                    draw: *running.sampler.draw(),
                    uniforms,
                    seed: running.sampler.seed(),
                    logprobs: running.sampler.logprobs(),
                },
            },
        }
    };
    shares.iter().map(row).collect()
}

impl Running {
    /// The random numbers of the tokens that the device is to draw; none where the host draws.
    fn uniforms(&mut self, ends: bool, alone: bool, ahead: usize, executor: &dyn Executor) -> Vec<f32> {
        if !ends || self.guide.is_some() || !executor.draws(self.sampler.draw()) {
            return Vec::new();
        }
        // Far ahead only where nobody waits for the call to end.
        let count = if alone { ahead.clamp(1, self.most - self.ids.len()) } else { 1 };
        (0..count).map(|_| self.sampler.uniform()).collect()
    }

    fn draw(&mut self, logits: &[f32]) -> Drawn {
        let drawn = self.sampler.next(logits, self.guide.as_mut().map(|guide| guide.allowed()));
        if let Some(guide) = &mut self.guide {
            guide.follow(drawn.id);
        }
        drawn
    }
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
