//! Stages that do the same for every task, one independently of the other: many at once, each finished one journalled, all
//! handed on in the order of the tasks.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::casting::Casting;
use super::in_order::InOrder;
use super::selection::Tasks;
use super::served::CALLS;
use crate::dialogue::task::Task;
use crate::engine::port::Port;
use crate::engine::stage::{Context, Stopped};
use crate::llm::drive::drive_here;
use crate::llm::record::{self, CallRow};
use crate::table::Row;

/// The fields of the fingerprint that only decide which tasks there are: what a task comes to depends on the task alone.
pub(super) const BESIDE: &[&str] = &["with.tasks", "in.tasks"];

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

    /// The calls of served models that were made for it, taken out.
    fn calls(&mut self) -> Vec<CallRow> {
        Vec::new()
    }

    /// Further numbers of it that are summed up over all that is not broken.
    fn counts(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Its part of the table.
    fn rows(self) -> impl IntoIterator<Item = Self::Row>;
}

/// What came of a task together with the calls of served models that were made for it.
#[derive(Serialize, Deserialize)]
struct Played<T> {
    result: T,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    calls: Vec<CallRow>,
}

impl<T: FromTask> FromTask for Played<T> {
    type Row = T::Row;

    const NAMES: [&'static str; 2] = T::NAMES;

    fn broken(&self) -> Option<&str> {
        self.result.broken()
    }

    fn score(&self) -> f64 {
        self.result.score()
    }

    fn so_far(score: f64, count: u64) -> String {
        T::so_far(score, count)
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.result.counts()
    }

    fn calls(&mut self) -> Vec<CallRow> {
        std::mem::take(&mut self.calls)
    }

    fn rows(self) -> impl IntoIterator<Item = Self::Row> {
        self.result.rows()
    }
}

/// What everything in a table comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// The sum of the scores of what is not broken.
    pub score: f64,
    /// The sums of [`FromTask::counts`].
    pub counts: BTreeMap<&'static str, u64>,
}

/// Plays every task, at most `width` at once, and writes what comes of them as the table of `port`, in the order of the tasks.
/// Those that are journalled are not played again. Where there are served models, their calls become the table `calls`.
/// Returns the sums over those that are not broken.
///
/// Tasks are read when their turn comes, and what comes of one is written as soon as all before it are: memory is that of
/// what is being played and of a few results, however many tasks there are. Recorded calls and source dialogues that players
/// read are held besides.
///
/// # Errors
/// When the run is being stopped, `play` fails, or every task is broken.
pub fn by_task<T: FromTask, F: Future<Output = anyhow::Result<T>>>(
    context: &Context,
    port: &Port<T::Row>,
    width: usize,
    casting: &Casting<'_>,
    tasks: Tasks,
    play: impl Fn(Task) -> F,
) -> anyhow::Result<Sums> {
    let count = tasks.count();
    let calls = casting.served.any().then_some(&CALLS);
    let order = RefCell::new(InOrder::<Played<T>>::new(context, (port, calls), tasks, context.journal(BESIDE))?);
    let compute = |numbers: &mut dyn Iterator<Item = usize>| {
        let jobs = numbers.filter_map(|number| {
            let (key, task) = order.borrow_mut().begin(number)?;
            let dialogue = task.dialogue.clone();
            let played = play(task);
            Some(async move {
                let (result, calls) = record::dialogue(&dialogue, played).await;
                (number, key, result.map(|result| Played { result, calls }))
            })
        });
        let on_done = |_, (number, key, result)| order.borrow_mut().end(number, key, result);
        drive_here(&casting.driven(), width, jobs, on_done, &context.stop).map_err(|_| Stopped)
    };
    let rest = || order.borrow_mut().rest();
    let play_all = || {
        compute(&mut (0..count))?;
        while let Some(lost) = rest()? {
            compute(&mut lost.into_iter())?;
        }
        anyhow::Ok(())
    };
    let played = play_all();
    // Also where the run was stopped or failed: the calls were paid for.
    casting.record(context);
    played?;
    order.into_inner().finish()
}

#[cfg(test)]
#[path = "by_task_tests.rs"]
mod tests;
