//! Stages that do the same for every task, one independently of the other: many at once, each finished one journalled, all
//! handed on in the order of the tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::casting::Casting;
use crate::dialogue::task::Task;
use crate::engine::port::Port;
use crate::engine::rows::{Journal, Key, Tally};
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
/// # Errors
/// When the run is being stopped, `play` fails, or every task is broken.
pub fn by_task<T: FromTask, F: Future<Output = anyhow::Result<T>>>(
    context: &Context,
    port: &Port<T::Row>,
    width: usize,
    casting: &Casting,
    tasks: Vec<Task>,
    play: impl Fn(Arc<Task>) -> F,
) -> anyhow::Result<f64> {
    let journal = context.journal(BESIDE);
    let keys = tasks.iter().map(Key::of).collect::<Result<_, _>>()?;
    let tally = Tally { rows: tasks.len() as u64, ..Tally::default() };
    let tasks = tasks.into_iter().map(Arc::new).collect();
    let mut work =
        Work { context, width, casting, tasks, keys, play, journal, held: BTreeMap::new(), tally, said: 0.0 };
    let missing: Vec<usize> = (0..work.tasks.len()).filter(|&place| !work.journal.has(&work.keys[place])).collect();
    work.compute(&missing, false)?;
    casting.record(context);
    let [one, many] = T::NAMES;
    if work.tally.broken == work.tally.rows {
        work.tally.record(context);
        bail!("every {one} is broken: {}", work.held.values().find_map(T::broken).unwrap_or_default());
    }
    let score = work.hand_on(port)?;
    work.tally.record(context);
    let Tally { rows, broken, .. } = work.tally;
    if broken > 0 {
        context.warn(format!("{broken} of {rows} {many} are broken: a model did not answer"));
    }
    Ok(score)
}

struct Work<'c, T, P> {
    context: &'c Context,
    width: usize,
    casting: &'c Casting,
    tasks: Vec<Arc<Task>>,
    keys: Vec<Key>,
    play: P,
    journal: Journal<T>,
    /// What is not in the journal, by the task's place: what is broken, or could not be written there.
    held: BTreeMap<usize, T>,
    tally: Tally,
    /// The sum of the scores of what was computed here and is not broken.
    said: f64,
}

impl<T: FromTask, P: Fn(Arc<Task>) -> F, F: Future<Output = anyhow::Result<T>>> Work<'_, T, P> {
    /// Plays the tasks at the given places; with `hold` what comes of them is held also where it is journalled.
    fn compute(&mut self, places: &[usize], hold: bool) -> anyhow::Result<()> {
        let Self { context, width, casting, tasks, keys, play, journal, held, tally, said } = self;
        let total = tally.rows;
        let known = total - places.len() as u64;
        let mut failed: Option<(usize, anyhow::Error)> = None;
        let mut done = known;
        let jobs = places.iter().map(|&place| play(tasks[place].clone()));
        let on_done = |index: usize, result: anyhow::Result<T>| {
            let place = places[index];
            done += 1;
            match result {
                Ok(result) => {
                    tally.computed += 1;
                    let lost = result.broken().is_some();
                    tally.broken += u64::from(lost);
                    *said += if lost { 0.0 } else { result.score() };
                    if lost || !journal.keep(keys[place], &result) || hold {
                        held.insert(place, result);
                    }
                }
                // The first in the order of the tasks is the one to tell.
                Err(error) if failed.as_ref().is_none_or(|(first, _)| place < *first) => failed = Some((place, error)),
                Err(_) => {}
            }
            let detail = T::so_far(*said, tally.computed - tally.broken);
            let detail = if known > 0 { format!("{detail}, {known} from the journal") } else { detail };
            context.progress(done, total, T::NAMES[1], detail);
        };
        context.progress(known, total, T::NAMES[1], "");
        drive_here(&casting.driven(), *width, jobs, on_done, &context.stop).map_err(|_| Stopped)?;
        failed.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Writes the table; the sum of the scores in it.
    fn hand_on(&mut self, port: &Port<T::Row>) -> anyhow::Result<f64> {
        let mut writer = self.context.writer(port)?;
        let mut score = 0.0;
        for place in 0..self.tasks.len() {
            self.context.check_stop()?;
            let result = self.result(place)?;
            score += if result.broken().is_some() { 0.0 } else { result.score() };
            for row in result.rows() {
                writer.push(row)?;
            }
        }
        writer.finish()?;
        Ok(score)
    }

    /// What came of the task at a place, computed once more where the journal lost it in the meantime.
    fn result(&mut self, place: usize) -> anyhow::Result<T> {
        if let Some(result) = self.held.remove(&place).or_else(|| self.journal.read(&self.keys[place])) {
            return Ok(result);
        }
        self.compute(&[place], true)?;
        self.held.remove(&place).context("a task that was played came to nothing")
    }
}

#[cfg(test)]
#[path = "by_task_tests.rs"]
mod tests;
