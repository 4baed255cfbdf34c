//! What an attempt took: CPU seconds and memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};

use crate::child::Usage;

/// The stages that compute in this process, counted.
#[derive(Default)]
pub struct Crowd {
    running: AtomicUsize,
    started: AtomicUsize,
}

/// A stopwatch for one attempt, on the thread that makes it.
pub struct Meter {
    crowd: Arc<Crowd>,
    alone: bool,
    started: usize,
    process: f64,
    thread: f64,
}

impl Meter {
    /// Starts.
    pub fn start(crowd: &Arc<Crowd>) -> Self {
        let alone = crowd.running.fetch_add(1, Ordering::SeqCst) == 0;
        let started = crowd.started.fetch_add(1, Ordering::SeqCst) + 1;
        if alone {
            forget_peak();
        }
        Self { crowd: crowd.clone(), alone, started, process: process_seconds(), thread: thread_seconds() }
    }

    /// What the attempt took, and whether others ran beside it. `programs` is what those took that it ran: where there were
    /// any, they and the thread are counted, else the whole process.
    pub fn read(&self, programs: Usage) -> (Usage, bool) {
        if programs != Usage::default() {
            let cpu_seconds = programs.cpu_seconds + thread_seconds() - self.thread;
            return (Usage { cpu_seconds, ..programs }, false);
        }
        let shared = !self.alone || self.crowd.started.load(Ordering::SeqCst) != self.started;
        (Usage { cpu_seconds: process_seconds() - self.process, peak_memory: peak() }, shared)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.crowd.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// CPU seconds of this process so far; 0 where the system does not say.
fn process_seconds() -> f64 {
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| {
        [usage.user_time(), usage.system_time()]
            .iter()
            .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
            .sum()
    })
}

/// CPU seconds of this thread so far; 0 where the system does not say.
fn thread_seconds() -> f64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(0.0, |time| time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9)
}

/// The largest resident set of this process since [`forget_peak`], in bytes; 0 where the system does not say.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Sets the largest resident set back to the present one. Where that is not allowed, peaks are those since the start.
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_and_company_is_told() {
        let crowd = Arc::new(Crowd::default());
        let meter = Meter::start(&crowd);
        let mut sum = 0_u64;
        while process_seconds() - meter.process < 0.02 {
            sum = std::hint::black_box(sum.wrapping_mul(31) + 7);
        }
        let (usage, _) = meter.read(Usage::default());
        assert!(usage.cpu_seconds >= 0.02 && usage.peak_memory > 1 << 20, "{usage:?}");
        let other = Meter::start(&crowd);
        assert!(other.read(Usage::default()).1 && meter.read(Usage::default()).1);
        let program = Usage { cpu_seconds: 100.0, peak_memory: 5 };
        let (usage, shared) = meter.read(program);
        assert!(usage.cpu_seconds >= 100.0 && usage.peak_memory == 5 && !shared);
    }
}
