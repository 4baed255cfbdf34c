//! Parts of a step on several cores at once.
//!
//! Each worker runs its part on one core: the tensor library gains little from a second core on small tensors, so whole
//! parts side by side are faster. Results come back in the order of the parts, whichever was done first, so that sums over
//! them have the same bits on one core and on many.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::tensor::Device;

/// Threads that work on parts of a step, each with a pool of one thread for the tensor library.
pub struct Workers {
    pools: Vec<rayon::ThreadPool>,
}

impl Workers {
    /// One worker for every core, or none (work runs on the caller's thread) on a device that is no processor.
    ///
    /// # Errors
    /// When the system gives no threads.
    pub fn new(device: &Device) -> Result<Self, rayon::ThreadPoolBuildError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::of(if on_cpu(device) { cores } else { 0 })
    }

    /// So many workers.
    pub(super) fn of(count: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        let one = |_| rayon::ThreadPoolBuilder::new().num_threads(1).build();
        Ok(Self { pools: (0..count).map(one).collect::<Result<_, _>>()? })
    }

    /// Does the work on every job and hands the results on in the order of the jobs, each as soon as those before it are in,
    /// so that few wait at any time.
    ///
    /// # Panics
    /// When the work panics.
    pub fn in_order<J: Send, T: Send>(&self, jobs: Vec<J>, work: impl Fn(J) -> T + Sync, take: impl FnMut(T) + Send) {
        if self.pools.is_empty() || jobs.len() < 2 {
            return jobs.into_iter().map(work).for_each(take);
        }
        let queue = Mutex::new(jobs.into_iter().enumerate());
        // A function, so that the lock is free again before the work begins: in `while let` it would be held through the body.
        let next = || locked(&queue).next();
        let outlet = Mutex::new(Outlet { next: 0, waiting: BTreeMap::new(), take });
        std::thread::scope(|scope| {
            for pool in &self.pools {
                scope.spawn(|| {
                    pool.install(|| {
                        while let Some((number, job)) = next() {
                            let result = work(job);
                            locked(&outlet).put(number, result);
                        }
                    });
                });
            }
        });
    }

    /// Does the work on every job; results are in the order of the jobs.
    ///
    /// # Panics
    /// When the work panics.
    pub fn map<J: Send, T: Send>(&self, jobs: Vec<J>, work: impl Fn(J) -> T + Sync) -> Vec<T> {
        let mut results = Vec::with_capacity(jobs.len());
        self.in_order(jobs, work, |result| results.push(result));
        results
    }
}

/// Results on their way out: those that are early wait.
struct Outlet<T, F> {
    next: usize,
    waiting: BTreeMap<usize, T>,
    take: F,
}

impl<T, F: FnMut(T)> Outlet<T, F> {
    fn put(&mut self, number: usize, result: T) {
        self.waiting.insert(number, result);
        while let Some(result) = self.waiting.remove(&self.next) {
            (self.take)(result);
            self.next += 1;
        }
    }
}

/// The lock's content even where another worker panicked: the scope hands that panic on.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tokens (with padding) of one part: small on a processor, where parts run side by side and caches are small; without a
/// limit elsewhere. It follows from the kind of device alone, never from the number of cores.
pub fn part_budget(device: &Device) -> usize {
    if on_cpu(device) { 512 } else { usize::MAX }
}

/// Whether a device is the processor.
pub(super) fn on_cpu(device: &Device) -> bool {
    *device == Device::flex()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_jobs() {
        let work = |job: u64| {
            std::thread::sleep(std::time::Duration::from_millis(20 - job));
            job * job
        };
        let expected: Vec<u64> = (0..12).map(|job| job * job).collect();
        for count in [0, 1, 3] {
            assert_eq!(Workers::of(count).unwrap().map((0..12).collect(), work), expected);
        }
    }

    #[test]
    fn workers_work_at_the_same_time() {
        // Each of two jobs waits for the other: one after the other would never end.
        let barrier = std::sync::Barrier::new(2);
        let met = Workers::of(2).unwrap().map(vec![(), ()], |()| barrier.wait().is_leader());
        assert_eq!(met.iter().filter(|leader| **leader).count(), 1);
    }

    #[test]
    #[should_panic = "a scoped thread panicked"]
    fn a_panic_of_the_work_is_not_swallowed() {
        Workers::of(2).unwrap().map(vec![1, 2, 3], |job| assert_ne!(job, 2));
    }
}
