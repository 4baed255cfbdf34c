//! What a command has written, checked and put where stages find it.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};

use super::Output;
use crate::{fs, table};

/// Moves an output from the working folder to the stage's outputs.
///
/// # Errors
/// When it is not there, is or holds a link (whose target no one keeps), or is no table of the declared type.
pub(super) fn take(name: &str, output: &Output, work: &Path, out: &Path) -> anyhow::Result<()> {
    let from = work.join(&output.path);
    if from.symlink_metadata().is_err() {
        bail!("the command ended well but did not write `{}`, its output `{name}`", output.path);
    }
    let mut part = work.to_owned();
    for component in Path::new(&output.path).components() {
        part.push(component);
        ensure!(
            !part.is_symlink(),
            "output `{name}`: `{}` is a link or lies behind one; write the files themselves",
            output.path
        );
    }
    only_files(name, &from)?;
    if output.is_table() {
        check_table(name, output, &from)?;
        fs::rename(&from, out.join(format!("{name}.parquet")))?;
        return Ok(());
    }
    if from.is_dir() {
        fs::rename(&from, out.join(name))?;
        return Ok(());
    }
    let folder = out.join(name);
    fs::create_dir_all(&folder)?;
    let file = from.file_name().with_context(|| format!("output `{name}`: `{}` names no file", output.path))?;
    fs::rename(&from, folder.join(file))?;
    Ok(())
}

/// Links lead out of the result, and pipes and sockets have no content.
fn only_files(name: &str, path: &Path) -> anyhow::Result<()> {
    let kind = path.symlink_metadata().with_context(|| format!("output `{name}`: cannot read `{}`", path.display()))?;
    if kind.is_dir() {
        return fs::list(path)?.iter().try_for_each(|inner| only_files(name, inner));
    }
    ensure!(kind.is_file(), "output `{name}` holds `{}`, which is neither a file nor a folder", path.display());
    Ok(())
}

fn check_table(name: &str, output: &Output, path: &Path) -> anyhow::Result<()> {
    ensure!(path.is_file(), "output `{name}`: `{}` is a folder, expected a Parquet file", output.path);
    let found = table::read_type(path).with_context(|| format!("output `{name}`"))?;
    if let (Some(found), Some(declared)) = (found, &output.holds) {
        ensure!(found == *declared, "output `{name}` holds `{found}` rows, declared is `{declared}`");
    }
    Ok(())
}
