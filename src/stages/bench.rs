//! A project with nothing but folders, to run a single stage in: for the stages' own tests.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::engine::stage::{Context, Input, NoSettings, Notice, Stage};

/// Runs stages one at a time; the output folder is empty before each.
pub(super) struct Bench {
    folder: TempDir,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) notices: Arc<Mutex<Vec<Notice>>>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, stop: Arc::default(), notices: Arc::default() }
    }

    pub(super) fn project(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    pub(super) fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }

    /// A path below the output folder.
    pub(super) fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join("out").join(name)
    }

    /// Writes a file of the project.
    pub(super) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.project().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Puts an output of the last run aside, where the next one leaves it alone.
    pub(super) fn aside(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join("aside").join(name);
        crate::fs::create_dir_all(path.parent().unwrap()).unwrap();
        crate::fs::rename(self.out(name), &path).unwrap();
        path
    }

    pub(super) fn run(&self, stage: &impl Stage, inputs: &[(&str, &Path)]) -> anyhow::Result<()> {
        self.run_with(inputs, |context| stage.run(context))
    }

    /// Runs a part of a stage.
    pub(super) fn run_with(
        &self,
        inputs: &[(&str, &Path)],
        run: impl FnOnce(&Context) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let out = self.folder.path().join("out");
        crate::fs::remove_dir_all(&out)?;
        for folder in [out.clone(), self.scratch(), self.project()] {
            crate::fs::create_dir_all(folder)?;
        }
        let notices = self.notices.clone();
        let input = |(name, path): &(&str, &Path)| Input { name: (*name).to_owned(), path: (*path).to_owned() };
        run(&Context {
            stop: self.stop.clone(),
            notify: Arc::new(move |notice| notices.lock().unwrap().push(notice)),
            ..Context::below(self.folder.path(), inputs.iter().map(input).collect(), Arc::new(NoSettings))
        })
    }
}
