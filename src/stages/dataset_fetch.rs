//! `dataset.fetch`: the files of a data set from outside, byte for byte as its manifest lists them.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::anyhow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::dataset::{FetchError, Manifest, Watch, fetch};
use crate::engine::port::{Folder, PortSpec};
use crate::engine::stage::{Context, Problem, Stage, Stopped};

/// The data set's files, at the places that the manifest gives them.
pub const FILES: Folder = Folder::new("files", "files/v1");

/// How many bytes pass between two words on progress.
const STEP: u64 = 1 << 20;

/// Gets a data set's files from the first of its manifest's sources that has them all.
///
/// The manifest lists every wanted file with size and SHA-256, so the result does not depend on which source answers: a local
/// archive or folder, a server, or a package index through pip. A download that broke off is gone on with. Without a network
/// put the archive where the manifest's `path` source says.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatasetFetch {
    /// The manifest, relative to the project: a TOML file with `name`, `licence`, `origin`, `description`, a list `[[source]]`
    /// (each with `path`, or `url`, or `pypi` and `version`) and a list `[[file]]` (each with `path`, `to`, `sha256`, `bytes`).
    pub manifest: PathBuf,
}

impl Stage for DatasetFetch {
    const KIND: &'static str = "dataset.fetch";
    const VERSION: u32 = 1;
    const EXAMPLE: &'static str = "\
woz:
  kind: dataset.fetch
  with: {manifest: datasets/toolwoz.toml}
";

    fn inputs(&self) -> Vec<PortSpec> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![FILES.one()]
    }

    fn check(&self) -> Vec<Problem> {
        let empty = self.manifest.as_os_str().is_empty();
        empty.then(|| Problem::new("manifest", "must name a file")).into_iter().collect()
    }

    /// The files that the manifest lists. Where they come from, and what it says about them, decides nothing.
    fn also_depends_on(&self, project: &Path) -> anyhow::Result<Vec<(String, String)>> {
        let manifest = Manifest::read(&project.join(&self.manifest))?;
        let file = |file: &crate::dataset::Listed| (format!("file `{}`", file.to), format!("sha256 {}", file.sha256));
        Ok(manifest.files.iter().map(file).collect())
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let manifest = Manifest::read(&context.project.join(&self.manifest))?;
        let out = context.folder(&FILES)?;
        let watch = Told { context, told: Cell::new(0) };
        match fetch(&manifest, &context.project, context.scratch()?, &out, &watch) {
            Ok(_) => Ok(()),
            Err(FetchError::Stopped { .. }) => Err(anyhow!(Stopped)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Passes progress on, not too often.
struct Told<'a> {
    context: &'a Context,
    told: Cell<u64>,
}

impl Watch for Told<'_> {
    fn bytes(&self, what: &str, done: u64, total: Option<u64>) {
        if done.abs_diff(self.told.get()) >= STEP || Some(done) == total {
            self.told.set(done);
            self.context.progress(done, total.unwrap_or(0), "bytes", what);
        }
    }

    fn stopped(&self) -> bool {
        self.context.stop.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::bench::Bench;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(description: &str, to: &str) -> String {
        format!(
            "name = 'n'\nlicence = 'MIT'\norigin = 'o'\ndescription = '{description}'\nsource = [{{path = 'raw'}}]\n\
             [[file]]\npath = 'a'\nto = '{to}'\nsha256 = '{EMPTY}'\nbytes = 0\n"
        )
    }

    #[test]
    fn files_arrive_at_their_port() {
        let bench = Bench::new();
        bench.write("set.toml", manifest("d", "x/a.json"));
        bench.write("raw/a", "");
        let stage = DatasetFetch { manifest: "set.toml".into() };
        bench.run(&stage, &[]).unwrap();
        assert_eq!(std::fs::read(bench.out("files/x/a.json")).unwrap(), b"");
        bench.write("raw/a", "more");
        let error = bench.run(&stage, &[]).unwrap_err().to_string();
        assert!(error.ends_with("path `raw`: `a` has more than 0 bytes, expected 0"), "{error}");
    }

    #[test]
    fn the_listed_files_decide_and_not_the_prose() {
        let bench = Bench::new();
        let stage = DatasetFetch { manifest: "set.toml".into() };
        let parts = |text: String| {
            bench.write("set.toml", text);
            stage.also_depends_on(&bench.project()).unwrap()
        };
        let first = parts(manifest("one", "a"));
        assert_eq!(first, [("file `a`".to_owned(), format!("sha256 {EMPTY}"))]);
        assert_eq!(first, parts(manifest("two", "a")));
        assert_ne!(first, parts(manifest("one", "b")));
        assert!(stage.also_depends_on(Path::new("/nowhere")).unwrap_err().to_string().contains("cannot read"));
    }
}
