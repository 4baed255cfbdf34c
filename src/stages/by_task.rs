//! Stages that do the same for every task, one independently of the other: many at once, each finished one journalled, all
//! handed on in the order of the tasks.

use std::cell::RefCell;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::casting::Casting;
use super::in_order::InOrder;
use super::selection::Tasks;
use crate::dialogue::task::Task;
use crate::engine::port::Port;
use crate::engine::stage::{Context, Stopped};
use crate::llm::drive::drive_here;
use crate::table::Row;

/// The fields of the fingerprint that only decide which tasks there are: what a task comes to depends on the task alone.
const BESIDE: &[&str] = &["with.tasks", "in.tasks"];

/// What came of one task.
pub trait FromTask: Serialize + DeserializeOwned {
    /// The rows of the stage's table.
    type Row: Row;

    /// What one is called, and what many are.
    const NAMES: [&'static str; 2];

    /// Why it is broken, where it is: then it says nothing, and is computed again whenever the stage runs.
    fn broken(&self) -> Option<&str>;

    /// How well it went, 0 to 1.
    fn score(&self) -> f64;

    /// The scores of so many so far, for who watches.
    fn so_far(score: f64, count: u64) -> String;

    /// Its part of the table.
    fn rows(self) -> impl IntoIterator<Item = Self::Row>;
}

/// Plays every task, at most `width` at once, and writes what comes of them as the table of `port`, in the order of the tasks.
/// Those that are journalled are not played again. Returns the sum of the scores of those that are not broken.
///
/// Tasks are read when their turn comes, and what comes of one is written as soon as all before it are: memory is that of
/// what is being played and of a few results, however many tasks there are.
///
/// # Errors
/// When the run is being stopped, `play` fails, or every task is broken.
pub fn by_task<T: FromTask, F: Future<Output = anyhow::Result<T>>>(
    context: &Context,
    port: &Port<T::Row>,
    width: usize,
    casting: &Casting,
    tasks: Tasks,
    play: impl Fn(Task) -> F,
) -> anyhow::Result<f64> {
    let count = tasks.count();
    let order = RefCell::new(InOrder::<T>::new(context, port, tasks, context.journal(BESIDE))?);
    let compute = |numbers: &mut dyn Iterator<Item = usize>| {
        let jobs = numbers.filter_map(|number| {
            let (key, task) = order.borrow_mut().begin(number)?;
            let played = play(task);
            Some(async move { (number, key, played.await) })
        });
        let on_done = |_, (number, key, result)| order.borrow_mut().end(number, key, result);
        drive_here(&casting.driven(), width, jobs, on_done, &context.stop).map_err(|_| Stopped)
    };
    compute(&mut (0..count))?;
    let rest = || order.borrow_mut().rest();
    while let Some(lost) = rest()? {
        compute(&mut lost.into_iter())?;
    }
    casting.record(context);
    order.into_inner().finish()
}

#[cfg(test)]
#[path = "by_task_tests.rs"]
mod tests;
