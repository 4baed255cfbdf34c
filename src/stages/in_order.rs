//! What comes of tasks, taken as it comes and written in the tasks' order, with little of it held in between.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;

use super::by_task::{FromTask, Sums};
use super::selection::Tasks;
use crate::dialogue::task::Task;
use crate::engine::port::Port;
use crate::engine::rows::{Journal, Key, Tally};
use crate::engine::stage::Context;
use crate::llm::record::CallRow;
use crate::table::{Aside, Place, TableWriter};

/// Results that are held while one before them is missing. Further ones are read from the journal when their turn comes.
const HELD: usize = 64;

/// Results that are written at once: in between, dialogues go on.
const AT_ONCE: usize = 64;

/// The results of one stage over tasks, which are known by their numbers in the tasks' order.
pub(super) struct InOrder<'c, T: FromTask> {
    context: &'c Context,
    tasks: Aside<Task>,
    places: Vec<Place>,
    journal: Journal<T>,
    writer: TableWriter<T::Row>,
    /// Where calls of served models are written, if there are such models.
    calls: Option<TableWriter<CallRow>>,
    /// All numbers below were begun, or found in the journal.
    begun: usize,
    running: BTreeSet<usize>,
    held: BTreeMap<usize, T>,
    /// The first that is not written.
    next: usize,
    /// The next one was in the journal, and is no longer.
    lost: bool,
    /// The first in the order of the tasks is the one to tell.
    failed: Option<(usize, anyhow::Error)>,
    tally: Tally,
    known: u64,
    /// The sum of the scores of what was computed here and is not broken.
    said: f64,
    /// The sums over what was written and is not broken.
    sums: Sums,
    /// Why the first broken one is.
    reason: Option<String>,
}

impl<'c, T: FromTask> InOrder<'c, T> {
    /// Opens the tables: the stage's own, and that of the calls of served models where there are such models.
    pub(super) fn new(
        context: &'c Context,
        (port, calls): (&Port<T::Row>, Option<&Port<CallRow>>),
        tasks: Tasks,
        journal: Journal<T>,
    ) -> anyhow::Result<Self> {
        let (tasks, places) = tasks.nameless();
        let mut known = 0;
        if !journal.is_empty() {
            for place in &places {
                known += u64::from(journal.has(&Key::of_json(&tasks.json(*place)?)));
            }
        }
        context.progress(known, places.len() as u64, T::NAMES[1], "");
        Ok(Self {
            context,
            tally: Tally { rows: places.len() as u64, ..Tally::default() },
            tasks,
            places,
            journal,
            writer: context.writer(port)?,
            calls: calls.map(|port| context.writer(port)).transpose()?,
            begun: 0,
            running: BTreeSet::new(),
            held: BTreeMap::new(),
            next: 0,
            lost: false,
            failed: None,
            known,
            said: 0.0,
            sums: Sums::default(),
            reason: None,
        })
    }

    /// The task of a number, where it is to be played. The numbers come one after the other; later on, lost ones again.
    pub(super) fn begin(&mut self, number: usize) -> Option<(Key, Task)> {
        self.begun = self.begun.max(number + 1);
        // All before one that failed have begun: no other can be the one to tell, and calls cost money.
        if self.failed.is_some() || self.context.check_stop().is_err() {
            return None;
        }
        let begun = self.tasks.json(self.places[number]).map_err(anyhow::Error::from).and_then(|json| {
            let key = Key::of_json(&json);
            Ok(if self.journal.has(&key) { None } else { Some((key, serde_json::from_slice(&json)?)) })
        });
        match begun {
            Ok(task) => {
                self.running.extend(task.as_ref().map(|_| number));
                task
            }
            Err(error) => {
                self.fail(number, error);
                None
            }
        }
    }

    /// Takes what came of a number that was begun.
    pub(super) fn end(&mut self, number: usize, key: Key, result: anyhow::Result<T>) {
        self.running.remove(&number);
        match result {
            Ok(result) => {
                self.tally.computed += 1;
                let broken = result.broken().is_some();
                self.tally.broken += u64::from(broken);
                self.said += if broken { 0.0 } else { result.score() };
                let kept = !broken && self.journal.keep(key, &result);
                if !kept || number == self.next || self.held.len() < HELD {
                    self.held.insert(number, result);
                }
                if let Err(error) = self.hand_on(AT_ONCE) {
                    self.fail(self.next, error);
                }
            }
            Err(error) => self.fail(number, error),
        }
        let Tally { rows, computed, broken } = self.tally;
        let detail = T::so_far(self.said, computed - broken);
        let known = self.known;
        let detail = if known > 0 { format!("{detail}, {known} from the journal") } else { detail };
        self.context.progress((known + computed).min(rows), rows, T::NAMES[1], detail);
    }

    fn fail(&mut self, number: usize, error: anyhow::Error) {
        if self.failed.as_ref().is_none_or(|(first, _)| number < *first) {
            self.failed = Some((number, error));
        }
    }

    /// Writes at most so many of those whose turn it is.
    fn hand_on(&mut self, most: usize) -> anyhow::Result<()> {
        for _ in 0..most {
            let number = self.next;
            if number == self.begun || self.running.contains(&number) || self.lost || self.failed.is_some() {
                break;
            }
            let result = match self.held.remove(&number) {
                Some(result) => Some(result),
                None => self.journal.read(&Key::of_json(&self.tasks.json(self.places[number])?)),
            };
            let Some(mut result) = result else {
                self.lost = true;
                break;
            };
            match result.broken() {
                Some(reason) => self.reason = self.reason.take().or_else(|| Some(reason.to_owned())),
                None => {
                    self.sums.score += result.score();
                    for (name, count) in result.counts() {
                        *self.sums.counts.entry(name).or_default() += count;
                    }
                }
            }
            if let Some(writer) = &mut self.calls {
                result.calls().into_iter().try_for_each(|call| writer.push(call))?;
            }
            for row in result.rows() {
                self.writer.push(row)?;
            }
            self.next += 1;
        }
        Ok(())
    }

    /// Writes what is left when none is running; the numbers of those that the journal lost in the meantime, which are to be
    /// played once more.
    ///
    /// # Errors
    /// When a task came to no result, or a result cannot be written.
    pub(super) fn rest(&mut self) -> anyhow::Result<Option<Vec<usize>>> {
        loop {
            self.context.check_stop()?;
            if let Some((_, error)) = self.failed.take() {
                return Err(error);
            }
            if std::mem::take(&mut self.lost) {
                return self.missing().map(Some);
            }
            if self.next == self.places.len() {
                return Ok(None);
            }
            self.hand_on(AT_ONCE)?;
        }
    }

    fn missing(&self) -> anyhow::Result<Vec<usize>> {
        let mut missing = Vec::new();
        for number in (self.next..self.places.len()).filter(|number| !self.held.contains_key(number)) {
            if !self.journal.has(&Key::of_json(&self.tasks.json(self.places[number])?)) {
                missing.push(number);
            }
        }
        Ok(missing)
    }

    /// Finishes the table; the sums over what is in it.
    ///
    /// # Errors
    /// When every result is broken, or the table cannot be written.
    pub(super) fn finish(self) -> anyhow::Result<Sums> {
        self.tally.record(self.context);
        let Tally { rows, broken, .. } = self.tally;
        let [one, many] = T::NAMES;
        if broken == rows {
            bail!("every {one} is broken: {}", self.reason.as_deref().unwrap_or_default());
        }
        self.writer.finish()?;
        self.calls.map_or(Ok(()), |calls| calls.finish().map(drop))?;
        if broken > 0 {
            self.context.warn(format!("{broken} of {rows} {many} are broken: a model did not answer"));
        }
        Ok(self.sums)
    }
}
