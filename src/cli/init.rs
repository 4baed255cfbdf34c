//! `thresh init`: a starter project, commented.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use super::{Common, Failure, Outcome, say, schema};
use crate::fs;
use crate::report::note;

#[derive(Args)]
pub(super) struct InitArgs {
    /// The project's folder, which is made where it is missing.
    #[arg(default_value = ".")]
    folder: PathBuf,
}

/// A file of the project.
struct File {
    name: &'static str,
    text: String,
    /// Whether one that is there already may stay as it is; otherwise nothing is written at all.
    optional: bool,
}

fn files() -> Vec<File> {
    let ours = |name, text: &str| File { name, text: text.to_owned(), optional: false };
    let shared = |name, text: &str| File { name, text: text.to_owned(), optional: true };
    vec![
        ours("thresh.toml", include_str!("init/thresh.toml")),
        ours("pipeline.yaml", include_str!("init/pipeline.yaml")),
        // The first line of the pipeline names it: editors complete and check by it, without the network.
        ours("schemas/pipeline.schema.json", &schema::pipeline_text()),
        shared(".gitignore", include_str!("init/gitignore")),
        shared("README.md", include_str!("init/README.md")),
    ]
}

pub(super) fn run(args: &InitArgs, common: &Common) -> Outcome {
    let folder = &args.folder;
    let files = files();
    let (there, missing): (Vec<&File>, Vec<&File>) =
        files.iter().partition(|file| folder.join(file.name).symlink_metadata().is_ok());
    let in_the_way: Vec<String> =
        there.iter().filter(|file| !file.optional).map(|file| format!("`{}`", path(folder, file.name))).collect();
    if !in_the_way.is_empty() {
        return Err(Failure::Wrong(anyhow!(
            "{} would be overwritten; nothing was written, choose another folder: `thresh init DIR`",
            in_the_way.join(" and ")
        )));
    }
    for file in &missing {
        let to = folder.join(file.name);
        fs::create_dir_all(to.parent().unwrap_or(folder))?;
        fs::write_whole(&to, file.text.as_bytes())?;
    }
    let names = |files: &[&File]| files.iter().map(|file| path(folder, file.name)).collect::<Vec<_>>();
    if common.json {
        say(json!({"written": names(&missing), "kept": names(&there)}).to_string())?;
    } else {
        names(&missing).iter().try_for_each(say)?;
    }
    for name in names(&there) {
        note(format!("`{name}` is there already and stays as it is; `.thresh` should be ignored by git"));
    }
    tell_next(folder);
    Ok(())
}

fn path(folder: &Path, name: &str) -> String {
    if folder == Path::new(".") { name.to_owned() } else { folder.join(name).display().to_string() }
}

fn tell_next(folder: &Path) {
    note("\nnext:");
    if folder != Path::new(".") {
        note(format!("  cd {}", folder.display()));
    }
    for (command, what) in [
        ("thresh run pipeline.yaml", "less than a minute on a processor"),
        ("thresh view harvest.trees", "the dialogues as trees, and where rewards fell"),
        ("thresh view base_episodes josh_episodes", "what self-training changed"),
        (
            "thresh run pipeline.yaml --set params.seed=21",
            "again, with other chance; then `thresh compare latest~1 latest`",
        ),
    ] {
        note(format!("  {command:<47} # {what}"));
    }
}
