//! What each format makes of an artifact.

use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use super::{Format, Item};
use crate::cli::Failure;
use crate::fs;
use crate::report::{events, table};
use crate::stages::trl;

/// Writes an artifact into a folder; where to, and how many bytes. `None` of what the format does not write.
pub fn write(item: &Item, folder: &Path, format: Format) -> Result<Option<(PathBuf, u64)>, Failure> {
    let Item { from, name, .. } = item;
    match format {
        Format::Trl | Format::Tensorboard if from.is_dir() => Ok(None),
        _ if from.is_dir() => {
            let to = folder.join(plain(name));
            fs::remove_dir_all(&to)?;
            let bytes = copy_folder(from, &to)?;
            Ok(Some((to, bytes)))
        }
        Format::Parquet => file(folder, name, "parquet", |aside| Ok(Some(fs::copy(from, aside)?))),
        Format::Jsonl => file(folder, name, "jsonl", |aside| Ok(Some(text(from, aside, table::Form::Jsonl)?))),
        Format::Csv => file(folder, name, "csv", |aside| Ok(Some(text(from, aside, table::Form::Csv)?))),
        Format::Trl => file(folder, name, "jsonl", |aside| made(aside, |out| trl::write(from, out))),
        Format::Tensorboard => {
            // TensorBoard calls a folder's path below the one that it is given a run, and lays runs over each other.
            let stage = name.strip_suffix(".log").unwrap_or(name);
            let group = folder.join(plain(&item.group));
            let folder = group.join(plain(stage));
            fs::create_dir_all(&folder)?;
            let aside = folder.join(".events.tmp");
            let Some(bytes) = made(&aside, |out| events::write(from, out))? else {
                // Not even an empty folder is left, which would be an empty run.
                let _ = std::fs::remove_dir(&folder).and_then(|()| std::fs::remove_dir(&group));
                return Ok(None);
            };
            let to = folder.join(events::FILE);
            fs::rename(&aside, &to)?;
            Ok(Some((to, bytes)))
        }
    }
}

/// A name as that of a file: those of a matrix over paths hold slashes.
fn plain(name: &str) -> String {
    name.replace('/', "_")
}

/// Writes a file aside and puts it in its place.
fn file(
    folder: &Path,
    name: &str,
    ending: &str,
    write: impl FnOnce(&Path) -> Result<Option<u64>, Failure>,
) -> Result<Option<(PathBuf, u64)>, Failure> {
    let aside = folder.join(format!(".{}.tmp", plain(name)));
    let Some(bytes) = write(&aside)? else { return Ok(None) };
    let to = folder.join(format!("{}.{ending}", plain(name)));
    fs::rename(&aside, &to)?;
    Ok(Some((to, bytes)))
}

/// Writes what is made of a table, where something is.
fn made(
    aside: &Path,
    write: impl FnOnce(&mut fs::Hashed) -> anyhow::Result<Option<u64>>,
) -> Result<Option<u64>, Failure> {
    let mut file = fs::Hashed::create(aside)?;
    let Some(bytes) = write(&mut file)? else {
        fs::remove_file(aside)?;
        return Ok(None);
    };
    file.finish()?;
    Ok(Some(bytes))
}

/// Writes a table as text, a few rows at a time; how many bytes.
fn text(from: &Path, to: &Path, form: table::Form) -> Result<u64, Failure> {
    let mut file = BufWriter::new(fs::Hashed::create(to)?);
    table::write(&table::Table::open(from)?, form, None, &mut file)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(file.finish()?.bytes)
}

fn copy_folder(from: &Path, to: &Path) -> Result<u64, Failure> {
    fs::create_dir_all(to)?;
    let mut bytes = 0;
    for path in fs::list(from)? {
        let target = to.join(path.file_name().unwrap_or_default());
        bytes += if path.is_dir() { copy_folder(&path, &target)? } else { fs::copy(&path, &target)? };
    }
    Ok(bytes)
}
