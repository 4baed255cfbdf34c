//! How fast a stage goes on, and how long it will take.

use std::collections::HashMap;
use std::time::Instant;

use super::duration;

/// The least seconds after which a rate says anything.
const SOON: f64 = 0.5;

/// The pace of every running stage.
#[derive(Default)]
pub struct Paces {
    began: HashMap<usize, (Instant, u64)>,
}

/// How fast a stage goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Units a second since the stage's first word.
    pub rate: f64,
    /// Seconds that are left at that rate.
    pub left: f64,
}

impl Paces {
    /// Takes note of a stage's progress, and says its pace where there is one to tell. What was done before the first word,
    /// such as rows taken from a journal, counts for nothing.
    pub fn progress(&mut self, stage: usize, done: u64, total: u64) -> Option<Pace> {
        let (began, first) = *self.began.entry(stage).or_insert_with(|| (Instant::now(), done));
        pace(began.elapsed().as_secs_f64(), done.checked_sub(first)?, total.saturating_sub(done))
    }

    /// Forgets a stage that has ended.
    pub fn forget(&mut self, stage: usize) {
        self.began.remove(&stage);
    }
}

fn pace(seconds: f64, done: u64, left: u64) -> Option<Pace> {
    let rate = done as f64 / seconds;
    (seconds >= SOON && done > 0).then(|| Pace { rate, left: left as f64 / rate })
}

impl Pace {
    /// As a remark: `14.2/s, 23.0 s left`.
    pub fn words(&self) -> String {
        let rate = if self.rate >= 100.0 { format!("{:.0}/s", self.rate) } else { format!("{:.1}/s", self.rate) };
        format!("{rate}, {} left", duration(self.left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_needs_time_and_progress() {
        assert_eq!(pace(0.1, 50, 50), None);
        assert_eq!(pace(10.0, 0, 50), None);
        let steady = pace(10.0, 20, 50).unwrap();
        assert_eq!(steady, Pace { rate: 2.0, left: 25.0 });
        assert_eq!(steady.words(), "2.0/s, 25.0 s left");
    }

    #[test]
    fn what_was_there_before_counts_for_nothing() {
        let mut paces = Paces::default();
        assert_eq!(paces.progress(3, 100, 120), None);
        std::thread::sleep(std::time::Duration::from_millis(600));
        let pace = paces.progress(3, 110, 120).unwrap();
        assert!(pace.rate > 1.0 && pace.rate < 17.0, "{pace:?}");
    }
}
