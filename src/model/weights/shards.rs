//! Weights in safetensors files: one file, or several with an index. Tensors are read one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use safetensors::tensor::{Dtype, TensorInfo};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Source, WeightsError};
use crate::fs;
use crate::model::numbers;

/// The file of weights that fit into one.
pub const SINGLE: &str = "model.safetensors";
/// The list of files otherwise.
pub const INDEX: &str = "model.safetensors.index.json";

/// The longest header that the format allows.
const LONGEST_HEADER: u64 = 100_000_000;

/// The names that the decoder has in files, each with what `model.` is spelt there: models that also see have it below another.
const PREFIXES: [&str; 4] = ["model.", "language_model.model.", "model.language_model.", ""];

/// Opened safetensors files.
#[derive(Debug)]
pub struct Shards {
    path: PathBuf,
    files: Vec<(PathBuf, File)>,
    tensors: BTreeMap<String, Place>,
}

/// Where a tensor lies.
#[derive(Debug)]
struct Place {
    file: usize,
    offset: u64,
    bytes: usize,
    dtype: Dtype,
    shape: Vec<usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Opens a file, or the weights of a folder.
    ///
    /// # Errors
    /// When a file is missing, cut off, or says what cannot be.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let mut shards = Self { path: path.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        if !path.is_dir() {
            shards.add(path, None)?;
        } else if path.join(INDEX).is_file() {
            shards.add_all(path)?;
        } else {
            shards.add(&single(path)?, None)?;
        }
        shards.call_by_usual_names();
        Ok(shards)
    }

    /// Adds the files that an index names.
    fn add_all(&mut self, folder: &Path) -> Result<(), WeightsError> {
        let path = folder.join(INDEX);
        let wrong = |reason: String| WeightsError::Index { path: path.display().to_string(), reason };
        let index: Index = serde_json::from_str(&fs::read_to_string(&path)?).map_err(|e| wrong(e.to_string()))?;
        let files: BTreeSet<&String> = index.weight_map.values().collect();
        for file in files {
            let mut parts = Path::new(file).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                return Err(wrong(format!("`{file}` is no file's name")));
            }
            self.add(&folder.join(file), Some((file, &index)))?;
        }
        match index.weight_map.keys().find(|name| !self.tensors.contains_key(*name)) {
            Some(name) => Err(wrong(format!("`{}` has no tensor `{name}`", index.weight_map[name]))),
            None => Ok(()),
        }
    }

    /// Adds a file's tensors, all of them or those that the index puts there.
    fn add(&mut self, path: &Path, only: Option<(&String, &Index)>) -> Result<(), WeightsError> {
        let wrong = |reason: String| WeightsError::Format { path: path.display().to_string(), reason };
        let failed = |source| WeightsError::File(fs::PathError { action: "read", path: path.to_owned(), source });
        let mut file = fs::open(path)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut size = [0; 8];
        if length < 8 {
            return Err(wrong(format!("it has {length} bytes")));
        }
        file.read_exact(&mut size).map_err(failed)?;
        let size = u64::from_le_bytes(size);
        if size > LONGEST_HEADER || size > length - 8 {
            return Err(wrong(format!("it has {length} bytes, its header {size}")));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(failed)?;
        let header: Map<String, Value> = serde_json::from_slice(&header).map_err(|e| wrong(e.to_string()))?;
        for (name, value) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
            if only.is_some_and(|(file, index)| index.weight_map.get(&name) != Some(file)) {
                continue;
            }
            let info = serde_json::from_value(value).map_err(|e| wrong(format!("tensor `{name}`: {e}")))?;
            let place = place(self.files.len(), &info, 8 + size, length)
                .ok_or_else(|| wrong(format!("tensor `{name}` lies outside of it, or is not as large as its shape")))?;
            self.tensors.insert(name, place);
        }
        self.files.push((path.to_owned(), file));
        Ok(())
    }

    /// Gives the decoder's tensors the names that they have in a file with nothing else.
    fn call_by_usual_names(&mut self) {
        let found = PREFIXES.iter().find(|prefix| self.tensors.contains_key(&format!("{prefix}embed_tokens.weight")));
        let Some(prefix) = found.filter(|prefix| **prefix != PREFIXES[0]) else { return };
        let renamed = |name: String| match name.strip_prefix(prefix) {
            _ if name.ends_with("lm_head.weight") => "lm_head.weight".to_owned(),
            Some(rest) => format!("model.{rest}"),
            None => name,
        };
        self.tensors = std::mem::take(&mut self.tensors).into_iter().map(|(name, at)| (renamed(name), at)).collect();
    }

    /// Each number format and how many numbers are in it, the most frequent first.
    pub fn formats(&self) -> Vec<(String, usize)> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for place in self.tensors.values() {
            *counts.entry(format!("{:?}", place.dtype).to_lowercase()).or_default() +=
                place.shape.iter().product::<usize>();
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }
}

/// A tensor's place in a file, `None` where there is no such.
fn place(file: usize, info: &TensorInfo, start: u64, length: u64) -> Option<Place> {
    let (begin, end) = info.data_offsets;
    let bytes = end.checked_sub(begin)?;
    let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |bits, &side| bits.checked_mul(side))?;
    let offset = start.checked_add(begin as u64)?;
    let fits = offset.checked_add(bytes as u64)? <= length && bytes.checked_mul(8)? == bits;
    fits.then(|| Place { file, offset, bytes, dtype: info.dtype, shape: info.shape.clone() })
}

/// The one file of a folder.
fn single(folder: &Path) -> Result<PathBuf, WeightsError> {
    let path = folder.join(SINGLE);
    let pickled = folder.join("pytorch_model.bin").is_file() || folder.join("pytorch_model.bin.index.json").is_file();
    if !path.is_file() && pickled {
        return Err(WeightsError::Pickled(folder.display().to_string()));
    }
    Ok(path)
}

impl Source for Shards {
    fn path(&self) -> String {
        self.path.display().to_string()
    }

    fn names(&self) -> Vec<&str> {
        self.tensors.keys().map(String::as_str).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        Some(self.tensors.get(name)?.shape.clone())
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let missing = || WeightsError::Missing { path: self.path(), name: name.to_owned() };
        let place = self.tensors.get(name).ok_or_else(missing)?;
        let (path, file) = &self.files[place.file];
        let mut bytes = vec![0; place.bytes];
        file.read_exact_at(&mut bytes, place.offset).map_err(|source| fs::PathError {
            action: "read",
            path: path.clone(),
            source,
        })?;
        numbers::decode(place.dtype, &bytes).ok_or_else(|| WeightsError::Dtype {
            path: path.display().to_string(),
            name: name.to_owned(),
            found: format!("{:?}", place.dtype),
        })
    }
}
