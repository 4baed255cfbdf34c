//! `josh.import`: trees that others recorded become rows.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::engine::port::{Folder, Port, PortSpec};
use crate::engine::stage::{Context, Problem, Stage};
use crate::fs;
use crate::josh::import::archive;
use crate::josh::node::NodeRow;

const FILES: Folder = Folder::new("files", "files/v1");
const TREES: Port<NodeRow> = Port::new("trees");

/// Reads the trees that the paper's authors published: a zip archive with one record a dialogue, `…_DIALOGUE.json`.
///
/// The rows are like those of `josh.harvest`, as far as the records tell: goals, rewards of partly solved tasks and seeds are
/// not in them. Dialogues come in the order of their names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoshImport {
    /// The archive's file name; it may lie in any subfolder.
    #[serde(default = "published")]
    pub archive: String,
}

fn published() -> String {
    "llama3-josh-toolwoz-for-KTO.zip".to_owned()
}

impl Stage for JoshImport {
    const KIND: &'static str = "josh.import";
    const VERSION: u32 = 2;
    const EXAMPLE: &'static str = "\
trees:
  kind: josh.import
  in: {files: woz.files}
  with: {archive: llama3-josh-toolwoz-for-KTO.zip}
";

    fn inputs(&self) -> Vec<PortSpec> {
        vec![FILES.one()]
    }

    fn outputs(&self) -> Vec<PortSpec> {
        vec![TREES.one()]
    }

    fn check(&self) -> Vec<Problem> {
        let named = !self.archive.is_empty() && !self.archive.contains('/');
        if named { Vec::new() } else { vec![Problem::new("archive", "must be a file name, without folders")] }
    }

    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let path = self.find(context.input(FILES.name)?)?;
        let at = || format!("cannot read `{}`", path.display());
        let trees = archive(fs::open(&path)?).with_context(at)?;
        let (total, mut nodes) = (trees.len() as u64, context.writer(&TREES)?);
        for (done, tree) in (1..).zip(trees) {
            context.check_stop()?;
            for row in tree.with_context(at)? {
                nodes.push(row)?;
            }
            context.progress(done, total, "trees", "");
        }
        nodes.finish()?;
        Ok(())
    }
}

impl JoshImport {
    /// The one file of this name in the folder or below.
    fn find(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let (mut found, mut waiting) = (Vec::new(), vec![folder.to_owned()]);
        while let Some(folder) = waiting.pop() {
            for path in fs::list(&folder)? {
                if path.is_dir() {
                    waiting.push(path);
                } else if path.file_name().is_some_and(|name| name == self.archive.as_str()) {
                    found.push(path);
                }
            }
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => bail!("there is no `{}` in `{}`", self.archive, folder.display()),
            count => bail!("there are {count} files `{}` in `{}`", self.archive, folder.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::josh::tree::Outcome;
    use crate::stages::bench::Bench;
    use crate::table;

    fn zipped(files: &[(&str, &str)]) -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, text) in files {
            zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    const TREE: &str = r#"{"internal_messages": [], "100_percent_reached": true, "training_paths": [
        [[], true, true], [[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}], true, true]]}"#;
    const EMPTY: &str = r#"{"internal_messages": [], "100_percent_reached": false, "training_paths": []}"#;

    fn import(files: &[(&str, &str)]) -> anyhow::Result<Vec<NodeRow>> {
        let bench = Bench::new();
        let archive = bench.write("files/data/trees.zip", zipped(files));
        let stage = JoshImport { archive: "trees.zip".to_owned() };
        bench.run(&stage, &[("files", archive.parent().unwrap().parent().unwrap())])?;
        Ok(table::read(&bench.out("trees.parquet"))?)
    }

    #[test]
    fn trees_come_in_the_order_of_their_dialogues() {
        let rows = import(&[("r/sim_MUL2.json", EMPTY), ("r/", ""), ("r/sim_MUL1.json", TREE)]).unwrap();
        let seen: Vec<_> = rows.iter().map(|row| (row.dialogue.as_str(), row.outcome, row.order, row.parent)).collect();
        assert_eq!(
            seen,
            [
                ("MUL1.json", Outcome::Complete, Some(0), None),
                ("MUL1.json", Outcome::Complete, Some(1), Some(0)),
                ("MUL2.json", Outcome::Empty, None, None),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |files: &[(&str, &str)]| format!("{:#}", import(files).unwrap_err());
        assert!(error(&[("sim_MUL1.json", "{}")]).contains("`sim_MUL1.json` is not a recorded tree: missing field"));
        assert!(error(&[("MUL1.json", TREE)]).contains("`MUL1.json` is not named `…_DIALOGUE.json`"));
        assert!(error(&[("a/sim_MUL1.json", TREE), ("b/sim_MUL1.json", TREE)]).contains("`MUL1` stands twice"));
        let bench = Bench::new();
        let file = bench.write("files/trees.zip", "no zip");
        let stage = |archive: &str| JoshImport { archive: archive.to_owned() };
        let run = |name| format!("{:#}", bench.run(&stage(name), &[("files", file.parent().unwrap())]).unwrap_err());
        assert!(run("trees.zip").contains("the archive is damaged"), "{}", run("trees.zip"));
        assert!(run("other.zip").contains("there is no `other.zip` in"));
        assert_eq!(stage("a/b.zip").check().len(), 1);
    }
}
