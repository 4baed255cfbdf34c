//! What the store knows of the stages of runs: their results, and what it took to compute them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::bail;

use crate::engine::history::{Outcome, RunRecord, StageRecord};
use crate::engine::store::{Artifact, Found, Manifest, Store, StoreError};
use crate::table::{self, Row};

/// Records and results, each manifest read once.
pub struct Library<'a> {
    store: &'a Store,
    runs: HashMap<&'a str, &'a RunRecord>,
    manifests: RefCell<HashMap<String, Option<Rc<Manifest>>>>,
}

impl<'a> Library<'a> {
    /// Of a store and the records of its runs.
    pub fn new(store: &'a Store, records: &'a [RunRecord]) -> Self {
        let runs = records.iter().map(|record| (record.run.as_str(), record)).collect();
        Self { store, runs, manifests: RefCell::default() }
    }

    /// The result of a stage; `None` where it has none, or it was removed since or is damaged.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn result(&self, stage: &StageRecord) -> Result<Option<Rc<Manifest>>, StoreError> {
        let Some(fingerprint) = &stage.fingerprint else { return Ok(None) };
        if let Some(known) = self.manifests.borrow().get(fingerprint) {
            return Ok(known.clone());
        }
        let found = match self.store.find(fingerprint)? {
            Found::Whole(manifest) => Some(Rc::from(manifest)),
            Found::Damaged(_) | Found::Absent => None,
        };
        self.manifests.borrow_mut().insert(fingerprint.clone(), found.clone());
        Ok(found)
    }

    /// The record of a stage in the run that computed its result: that has the figures, the time and the memory. `None` where
    /// that run's record is gone.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn computation(&self, stage: &'a StageRecord) -> Result<Option<&'a StageRecord>, StoreError> {
        if stage.outcome == Outcome::Computed {
            return Ok(Some(stage));
        }
        let Some(manifest) = self.result(stage)? else { return Ok(None) };
        let computed = |one: &&StageRecord| one.outcome == Outcome::Computed && one.fingerprint == stage.fingerprint;
        Ok(self.runs.get(manifest.run.as_str()).and_then(|run| run.stages.iter().find(computed)))
    }

    /// Where an artifact lies, its bytes found to be those that were written.
    ///
    /// # Errors
    /// When they are not: the result is thrown away then, so that the next run computes it again.
    pub fn intact(&self, manifest: &Manifest, artifact: &Artifact) -> anyhow::Result<PathBuf> {
        let Some(what) = self.store.damage(&manifest.fingerprint, artifact)? else {
            return Ok(self.store.path(&manifest.fingerprint, artifact));
        };
        match self.store.discard_damaged(&manifest.fingerprint) {
            Ok(()) => bail!("{what}; the result is discarded, `thresh run` computes it again"),
            Err(why) => bail!("{what}, and it cannot be thrown away: {why}"),
        }
    }

    /// The rows of a result's output of this type; `None` where it has none.
    ///
    /// # Errors
    /// When they cannot be read, or are not what was written.
    pub fn rows<T: Row>(&self, manifest: &Manifest) -> anyhow::Result<Option<Vec<T>>> {
        match manifest.outputs.values().find(|artifact| artifact.holds == T::TYPE) {
            Some(artifact) => Ok(Some(table::read(&self.intact(manifest, artifact)?)?)),
            None => Ok(None),
        }
    }
}
