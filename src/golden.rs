//! The golden files of the tests: recordings of the reference, to which others can add.

use std::path::{Path, PathBuf};

/// The golden files of this repository.
pub fn own_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The folder of golden files: what `THRESH_GOLDEN` names, else the repository's own.
pub fn folder() -> PathBuf {
    std::env::var_os("THRESH_GOLDEN").map_or_else(own_folder, PathBuf::from)
}

/// The texts of all golden files whose names begin and end like this, with their names, in the order of these. A folder that
/// has none of the kind adds nothing, so that the repository's own are read: no test passes because it found no case.
pub fn texts(begin: &str, end: &str) -> Vec<(String, String)> {
    let of = |folder: &Path| -> Vec<(String, String)> {
        let paths = crate::fs::list(folder).unwrap();
        let named = paths.iter().filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path)));
        let mut texts: Vec<(String, String)> = named
            .filter(|(name, _)| name.starts_with(begin) && name.ends_with(end))
            .map(|(name, path)| (name, crate::fs::read_to_string(path).unwrap()))
            .collect();
        texts.sort();
        texts
    };
    let found = of(&folder());
    if found.is_empty() { of(&own_folder()) } else { found }
}

/// The golden files of this kind, read as JSON, with their names.
///
/// # Panics
/// When one cannot be read as such.
pub fn read<T: serde::de::DeserializeOwned>(begin: &str) -> Vec<(String, T)> {
    let parse = |(name, text): (String, String)| {
        let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("golden file `{name}`: {error}"));
        (name, value)
    };
    texts(begin, ".json").into_iter().map(parse).collect()
}
