//! What a server bears: calls under way at once, calls and tokens a minute, and what they may cost.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Queue, Notify, Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// One minute, over which rates are given.
const MINUTE: f64 = 60.0;

/// The longest that rates keep a call waiting: a day, so that tiny rates stay within what clocks can count.
const LONGEST: f64 = 86_400.0;

/// What a server bears.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// The most calls under way at once.
    pub in_flight: usize,
    /// Calls that may begin in any minute.
    pub requests_per_minute: Option<f64>,
    /// Tokens of the calls that may begin in any minute.
    pub tokens_per_minute: Option<f64>,
    /// What all calls together may cost, in the currency of the prices.
    pub budget: Option<f64>,
}

/// What tokens cost, for a million of each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prices {
    /// Tokens of requests.
    pub prompt: f64,
    /// Tokens of replies.
    pub completion: f64,
    /// Tokens of requests that the server had in its cache.
    pub cached: f64,
}

impl Prices {
    /// What a call costs; `cached` of the tokens of its request were in the cache.
    pub fn cost(&self, prompt: u64, cached: u64, completion: u64) -> f64 {
        let fresh = prompt.saturating_sub(cached) as f64 * self.prompt;
        (fresh + prompt.min(cached) as f64 * self.cached + completion as f64 * self.completion) / 1e6
    }
}

/// The gate to one server, which all callers of a run share.
///
/// Calls pass in the order in which they came. Rates are kept by spacing calls evenly, so that no minute has more than it may
/// and no server sees bursts. The clock is tokio's.
#[derive(Debug)]
pub struct Gate {
    limits: Limits,
    slots: Semaphore,
    /// Who is first in it may pass; the others stand behind in their order.
    queue: Queue<()>,
    pace: Mutex<Pace>,
    /// Rings when the one who is first may have to wait less long than it thought.
    eased: Notify,
}

/// When the next call may begin, and what was spent so far.
#[derive(Debug, Default)]
struct Pace {
    request: Option<Instant>,
    tokens: Option<Instant>,
    closed: Option<Instant>,
    spent: f64,
}

/// The budget is used up: no more calls are made.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("the budget of {budget} is used up ({spent:.4} spent)")]
pub struct OverBudget {
    /// What might be spent.
    pub budget: f64,
    /// What was spent.
    pub spent: f64,
}

/// The right to have one call under way.
#[derive(Debug)]
pub struct Pass<'g> {
    gate: &'g Gate,
    tokens: u64,
    _slot: SemaphorePermit<'g>,
}

impl Gate {
    /// A gate with these limits. One with `in_flight` 0 never opens.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            slots: Semaphore::new(limits.in_flight.min(Semaphore::MAX_PERMITS)),
            queue: Queue::new(()),
            pace: Mutex::default(),
            eased: Notify::new(),
        }
    }

    /// What this gate keeps to.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// What was spent so far.
    pub fn spent(&self) -> f64 {
        self.pace().spent
    }

    /// Waits for the turn of a call that will take about so many tokens.
    ///
    /// # Errors
    /// When the budget is used up. Calls that are under way then are not counted, so that a budget may be exceeded by those.
    pub async fn enter(&self, tokens: u64) -> Result<Pass<'_>, OverBudget> {
        let first = self.queue.lock().await;
        let slot = self.slots.acquire().await.expect("nobody closes the gate");
        loop {
            let eased = self.eased.notified();
            if let (spent, Some(budget)) = (self.spent(), self.limits.budget)
                && spent >= budget
            {
                return Err(OverBudget { budget, spent });
            }
            let Some(until) = self.begin(tokens, Instant::now()) else { break };
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = eased => {}
            }
        }
        drop(first);
        Ok(Pass { gate: self, tokens, _slot: slot })
    }

    /// Counts a call where it may begin now; otherwise when to ask again.
    fn begin(&self, tokens: u64, now: Instant) -> Option<Instant> {
        let mut pace = self.pace();
        let until = [pace.request, pace.tokens, pace.closed].into_iter().flatten().max();
        if until.is_some_and(|until| until > now) {
            return until;
        }
        pace.request = self.limits.requests_per_minute.map(|rate| now + spacing(1.0, rate));
        pace.tokens = self.limits.tokens_per_minute.map(|rate| now + spacing(tokens as f64, rate));
        None
    }

    /// Lets nobody begin for so long: the server has asked for it.
    pub fn close_for(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut pace = self.pace();
        pace.closed = Some(pace.closed.map_or(until, |closed| closed.max(until)));
    }

    /// Counts what a call has cost.
    pub fn spend(&self, cost: f64) {
        self.pace().spent += cost;
    }

    fn correct(&self, estimated: u64, actual: u64, now: Instant) {
        let Some(rate) = self.limits.tokens_per_minute else { return };
        let mut pace = self.pace();
        let Some(at) = pace.tokens else { return };
        let (estimated, actual) = (spacing(estimated as f64, rate), spacing(actual as f64, rate));
        pace.tokens = Some(match actual.checked_sub(estimated) {
            Some(more) => at.max(now) + more,
            None => at.checked_sub(estimated - actual).unwrap_or(at),
        });
    }

    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// Says how many tokens the call has taken in truth: the next one waits for those and not for the estimate.
    pub fn took(&self, tokens: u64) {
        self.gate.correct(self.tokens, tokens, Instant::now());
        self.gate.eased.notify_one();
    }
}

/// How long so many units take at so many a minute.
fn spacing(units: f64, per_minute: f64) -> Duration {
    Duration::try_from_secs_f64((units * MINUTE / per_minute).clamp(0.0, LONGEST)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use futures_util::future::join_all;

    use super::*;

    fn limits() -> Limits {
        Limits { in_flight: 100, ..Limits::default() }
    }

    /// The seconds from `begin` at which so many calls begin, each asked for as soon as the one before has begun.
    fn starts(gate: &Gate, begin: Instant, count: usize, tokens: u64) -> Vec<f64> {
        let mut now = begin;
        let mut starts = Vec::new();
        for _ in 0..count {
            while let Some(until) = gate.begin(tokens, now) {
                assert!(until > now);
                now = until;
            }
            starts.push((now - begin).as_secs_f64());
        }
        starts
    }

    #[test]
    fn no_minute_has_more_calls_than_it_may() {
        let gate = Gate::new(Limits { requests_per_minute: Some(60.0), ..limits() });
        let at = starts(&gate, Instant::now(), 130, 1);
        for (place, start) in at.iter().enumerate() {
            let within = at[place..].iter().filter(|other| **other < start + 59.999).count();
            assert!(within <= 60, "{within} calls in the minute from {start}");
        }
        assert!((at[129] - 129.0).abs() < 0.01, "{}", at[129]);
    }

    #[test]
    fn tokens_space_calls_and_the_truth_counts() {
        let gate = Gate::new(Limits { tokens_per_minute: Some(6_000.0), ..limits() });
        let begin = Instant::now();
        assert_eq!(starts(&gate, begin, 3, 200), [0.0, 2.0, 4.0]);
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(gate.begin(1_000, at(60)), None);
        // Estimated at ten seconds' worth, in truth three.
        gate.correct(1_000, 300, at(61));
        assert_eq!(gate.begin(100, at(61)), Some(at(63)));
        assert_eq!(gate.begin(100, at(63)), None);
        gate.correct(100, 2_100, at(70));
        assert_eq!(gate.begin(1, at(71)), Some(at(90)), "twenty seconds more, from when it became known");
    }

    #[test]
    fn a_closed_gate_opens_when_the_longest_wait_is_over() {
        let gate = Gate::new(limits());
        let now = Instant::now();
        gate.close_for(Duration::from_secs(7));
        gate.close_for(Duration::from_secs(3));
        let until = gate.begin(1, now).unwrap();
        assert!(until >= now + Duration::from_secs(7));
        assert_eq!(gate.begin(1, until), None);
    }

    #[tokio::test]
    async fn calls_pass_in_their_order_and_no_more_than_there_are_slots() {
        let rate = Some(60_000.0 / 4.0);
        let gate = Gate::new(Limits { in_flight: 2, requests_per_minute: rate, ..limits() });
        let (begun, now, most) = (RefCell::new(Vec::new()), Cell::new(0), Cell::new(0));
        let begin = Instant::now();
        let calls = (0..12).map(|place| {
            let (gate, begun, now, most) = (&gate, &begun, &now, &most);
            async move {
                let _pass = gate.enter(1).await.unwrap();
                begun.borrow_mut().push((place, begin.elapsed()));
                now.set(now.get() + 1);
                most.set(most.get().max(now.get()));
                tokio::time::sleep(Duration::from_millis(20)).await;
                now.set(now.get() - 1);
            }
        });
        join_all(calls).await;
        let begun = begun.into_inner();
        assert!(begun.iter().map(|(place, _)| *place).eq(0..12), "{begun:?}");
        assert!(begun.iter().all(|(place, at)| *at >= Duration::from_millis(4 * place)), "{begun:?}");
        assert_eq!(most.get(), 2);
    }

    #[tokio::test]
    async fn one_that_gives_up_waiting_blocks_nobody() {
        let gate = Gate::new(Limits { requests_per_minute: Some(600.0), ..limits() });
        let begin = Instant::now();
        drop(gate.enter(1).await.unwrap());
        assert!(tokio::time::timeout(Duration::from_millis(10), gate.enter(1)).await.is_err());
        drop(gate.enter(1).await.unwrap());
        assert!(begin.elapsed() >= Duration::from_millis(100));
    }

    #[test]
    fn tokens_have_their_prices() {
        let prices = Prices { prompt: 2.0, completion: 8.0, cached: 0.5 };
        assert_eq!(prices.cost(3_000_000, 1_000_000, 500_000), 8.5);
        assert_eq!(prices.cost(1_000_000, 2_000_000, 0), 0.5, "no more was cached than was read");
    }

    #[tokio::test]
    async fn a_used_up_budget_ends_it() {
        let gate = Gate::new(Limits { budget: Some(1.0), ..limits() });
        drop(gate.enter(1).await.unwrap());
        gate.spend(0.75);
        drop(gate.enter(1).await.unwrap());
        gate.spend(0.5);
        assert_eq!(gate.enter(1).await.unwrap_err(), OverBudget { budget: 1.0, spent: 1.25 });
        assert_eq!(gate.spent(), 1.25);
    }
}
