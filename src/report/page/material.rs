//! What sections read: the runs, their results, and the tables among these by row type.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use crate::engine::history::{RunRecord, StageRecord};
use crate::engine::store::{Artifact, Found as Looked, Manifest, Store, StoreError};

/// The runs that a page is about, and the results that are left of them.
pub struct Material<'a> {
    /// The store that they are in.
    pub store: &'a Store,
    /// The records of all runs of the store.
    pub records: &'a [RunRecord],
    /// How many dialogues and trees are in the page at most; `None` is all.
    pub dialogues: Option<usize>,
    /// The runs in the page's order.
    pub runs: Vec<&'a RunRecord>,
    /// By run: the results of its stages by their names.
    results: Vec<HashMap<&'a str, Manifest>>,
    /// Whether an artifact's bytes are those that were written, by fingerprint and path.
    checked: RefCell<HashMap<(String, PathBuf), bool>>,
    /// What a reader has to know about the page as a whole.
    notices: RefCell<BTreeSet<String>>,
}

/// An output of a stage of a run, its bytes found to be those that were written.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<'a> {
    /// The run, as a position in [`Material::runs`].
    pub run: usize,
    /// The stage.
    pub stage: &'a StageRecord,
    /// The output's name.
    pub port: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Its content's digest: equal where two runs share a result.
    pub digest: String,
}

impl<'a> Material<'a> {
    /// Looks up what results there are.
    pub fn new(
        store: &'a Store,
        records: &'a [RunRecord],
        runs: &[&'a RunRecord],
        dialogues: Option<usize>,
    ) -> Result<Self, StoreError> {
        let (mut results, mut notices) = (Vec::new(), BTreeSet::new());
        for run in runs {
            let mut of_run = HashMap::new();
            for stage in &run.stages {
                let Some(fingerprint) = &stage.fingerprint else { continue };
                match store.find(fingerprint)? {
                    Looked::Whole(manifest) => _ = of_run.insert(stage.name.as_str(), *manifest),
                    Looked::Damaged(_) => _ = notices.insert(damaged(&run.run, &stage.name)),
                    Looked::Absent => {
                        let text =
                            format!("The result of {} in run {} is no longer in the store.", stage.name, run.run);
                        notices.insert(text);
                    }
                }
            }
            results.push(of_run);
        }
        let (checked, notices) = (RefCell::default(), RefCell::new(notices));
        Ok(Self { store, records, dialogues, runs: runs.to_vec(), results, checked, notices })
    }

    /// The letter by which the page names a run: A, B, … Z, AA, AB …
    pub fn letter(run: usize) -> String {
        let last = char::from(b'A' + (run % 26) as u8);
        if run < 26 { last.to_string() } else { format!("{}{last}", Self::letter(run / 26 - 1)) }
    }

    /// The result of a stage of a run, where it is left.
    pub fn result(&self, run: usize, stage: &str) -> Option<&Manifest> {
        self.results.get(run)?.get(stage)
    }

    /// All outputs of a type (`eval.score/v1`) of all runs: by run, then in the order of the stages. Damaged ones are left out,
    /// and the page says so.
    pub fn outputs(&self, holds: &str) -> Result<Vec<Found<'a>>, StoreError> {
        let mut found = Vec::new();
        for (run, record) in self.runs.iter().enumerate() {
            for stage in &record.stages {
                let Some(manifest) = self.result(run, &stage.name) else { continue };
                for (port, artifact) in manifest.outputs.iter().filter(|(_, artifact)| artifact.holds == holds) {
                    found.extend(self.check(run, stage, port, manifest, artifact)?);
                }
            }
        }
        Ok(found)
    }

    /// The output that a stage of a run reads through one of its inputs, where it is left.
    pub fn input(&self, run: usize, stage: &StageRecord, input: &str) -> Result<Option<Found<'a>>, StoreError> {
        let (Some(record), Some(from)) = (self.runs.get(run), stage.inputs.get(input)) else { return Ok(None) };
        // Names of a matrix hold dots, those of ports do not.
        let Some((name, port)) = from.rsplit_once('.') else { return Ok(None) };
        let (Some(stage), Some(manifest)) = (record.stage(name), self.result(run, name)) else { return Ok(None) };
        match manifest.outputs.get(port) {
            Some(artifact) => self.check(run, stage, port, manifest, artifact),
            None => Ok(None),
        }
    }

    fn check(
        &self,
        run: usize,
        stage: &'a StageRecord,
        port: &str,
        manifest: &Manifest,
        artifact: &Artifact,
    ) -> Result<Option<Found<'a>>, StoreError> {
        let key = (manifest.fingerprint.clone(), artifact.path.clone());
        let known = self.checked.borrow().get(&key).copied();
        let whole = match known {
            Some(whole) => whole,
            None => self.store.damage(&manifest.fingerprint, artifact)?.is_none(),
        };
        self.checked.borrow_mut().insert(key, whole);
        if !whole {
            self.note(damaged(&self.runs[run].run, &stage.name));
            return Ok(None);
        }
        let path = self.store.path(&manifest.fingerprint, artifact);
        Ok(Some(Found { run, stage, port: port.to_owned(), path, digest: artifact.digest.clone() }))
    }

    /// Says something at the top of the page, once.
    pub fn note(&self, text: String) {
        self.notices.borrow_mut().insert(text);
    }

    /// What was said, in the order of the texts.
    pub fn notices(&self) -> Vec<String> {
        self.notices.borrow().iter().cloned().collect()
    }
}

fn damaged(run: &str, stage: &str) -> String {
    format!("The result of {stage} in run {run} is damaged and left out; thresh run computes it again.")
}
