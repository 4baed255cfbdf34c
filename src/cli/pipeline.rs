//! Which file is meant by the name of a pipeline on the command line.

use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::Failure;
use crate::config::Project;
use crate::config::diagnostic::nearest;
use crate::fs;

/// The file of this path from the current folder, else from the folder of the project that this is in.
pub(super) fn find(path: &Path) -> Result<PathBuf, Failure> {
    if path.is_absolute() || path.exists() {
        return Ok(path.to_owned());
    }
    let here = std::env::current_dir()?;
    let root = Project::root_above(&here).unwrap_or(&here);
    let there = root.join(path);
    if there.exists() {
        return Ok(fs::short(there));
    }
    let hint = match meant(path, &known(&here, root)) {
        Some(near) => format!("did you mean `{}`?", near.display()),
        None => "expected the path of a YAML file, from here or from the project's folder".to_owned(),
    };
    Err(Failure::Wrong(anyhow!("there is no pipeline `{}`; {hint}", path.display())))
}

/// The pipelines that one is likely to mean: those of the current folder, of the project's and of its folder `pipelines`.
pub(super) fn known(here: &Path, root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in [here, root, &root.join("pipelines")] {
        let yaml = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
        found.extend(fs::list(folder).unwrap_or_default().into_iter().filter(yaml).map(fs::short));
    }
    found.sort();
    found.dedup();
    found
}

/// The known file whose path, or whose name without ending, is nearest to what was given.
fn meant(given: &Path, known: &[PathBuf]) -> Option<PathBuf> {
    let whole = |path: &PathBuf| path.to_string_lossy().into_owned();
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    for name in [&whole as &dyn Fn(&PathBuf) -> String, &|path| stem(path)] {
        let names: Vec<String> = known.iter().map(name).collect();
        if let Some(near) = nearest(&name(&given.to_owned()), names.iter().map(String::as_str)) {
            return names.iter().position(|name| name == near).map(|at| known[at].clone());
        }
    }
    None
}
