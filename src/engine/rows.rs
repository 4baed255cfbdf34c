//! Journals of finished rows, so that rows are the unit of work and not whole results.
//!
//! A stage over independent rows writes each row down as soon as it is finished, under a key of what the row depends on. A run
//! that was killed, that takes more rows than the last one, or in which a few inputs changed, finds the others there.
//!
//! There is one file for each scope: the fields of the stage's fingerprint without those that only decide which rows there are.
//! It is append-only and never repaired: a line holds a checksum, the row's key and the row as JSON, and one that is torn or
//! damaged counts as absent. Every line begins and ends with a newline, so that a torn one spoils none written after it, also
//! when two processes share the file.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};

use super::context::{Context, Notice, Notify};
use super::fingerprint::{Fields, fingerprint};

/// What a row depends on within its scope, as a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of content: equal content has equal keys.
    ///
    /// # Errors
    /// When the content cannot be written as JSON.
    pub fn of(content: &impl Serialize) -> serde_json::Result<Self> {
        Ok(Self::of_json(&serde_json::to_vec(content)?))
    }

    /// The key of content that is written as JSON already, as [`Key::of`] writes it.
    pub fn of_json(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }

    /// What a journal remembers of a key: two keys with the same are the same, once in 2^64 times excepted.
    fn short(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        u64::from_le_bytes(first)
    }
}

/// The name of a scope's journal: a hash over the fields but those named in `beside`, each of which stands for itself and for
/// all fields below it (`with.tasks` for `with.tasks.limit`).
pub fn scope(fields: &Fields, beside: &[&str]) -> String {
    let below = |name: &str, group: &&str| {
        name.strip_prefix(*group).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let kept = fields.iter().filter(|(name, _)| !beside.iter().any(|group| below(name, group)));
    fingerprint(&kept.map(|(name, value)| (name.clone(), value.clone())).collect())
}

/// The finished rows of a scope.
///
/// Nothing that goes wrong with a journal is an error: a row that cannot be read is absent, and of rows that cannot be written
/// the user is told once.
pub struct Journal<T> {
    path: PathBuf,
    file: Option<File>,
    /// Why nothing can be written, where that is so.
    unwritable: Option<String>,
    warned: bool,
    /// By [`Key::short`]: 24 bytes a row. A line tells its whole key, so one in the place of another counts as absent.
    places: HashMap<u64, Place>,
    notify: Notify,
    rows: PhantomData<fn() -> T>,
}

/// Where a line lies, without its newlines.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u64,
    length: u32,
}

impl<T: Serialize + DeserializeOwned> Journal<T> {
    /// Opens a journal and looks through its lines; only their places are kept. With `anew` what stands there is passed over.
    pub fn open(path: &Path, anew: bool, notify: Notify) -> Self {
        let (file, unwritable) = match open(path) {
            Ok(file) => (Some(file), None),
            Err(error) => (File::open(path).ok(), Some(error.to_string())),
        };
        let places = file.as_ref().filter(|_| !anew).map(places).unwrap_or_default();
        Self { path: path.to_owned(), file, unwritable, warned: false, places, notify, rows: PhantomData }
    }

    /// Whether no row is there.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether a row is there.
    pub fn has(&self, key: &Key) -> bool {
        self.places.contains_key(&key.short())
    }

    /// Reads a row. One that turns out to be unreadable is absent from then on.
    pub fn read(&mut self, key: &Key) -> Option<T> {
        let place = *self.places.get(&key.short())?;
        let row = self.row(key, place);
        if row.is_none() {
            self.places.remove(&key.short());
        }
        row
    }

    fn row(&self, key: &Key, place: Place) -> Option<T> {
        let mut line = vec![0; place.length as usize];
        self.file.as_ref()?.read_exact_at(&mut line, place.start).ok()?;
        let (found, json) = parse(&line)?;
        serde_json::from_slice(json).ok().filter(|_| found == *key)
    }

    /// Writes a row down; whether it can be read back.
    pub fn keep(&mut self, key: Key, row: &T) -> bool {
        let written = match &self.unwritable {
            Some(_) => None,
            None => self.append(key, row).map_err(|error| self.unwritable = Some(error.to_string())).ok(),
        };
        if let (Some(why), false) = (&self.unwritable, self.warned) {
            self.warned = true;
            let path = crate::fs::short(&self.path);
            let path = path.display();
            (self.notify)(Notice::Warning(format!(
                "finished rows cannot be written to `{path}`, a run that is interrupted starts over: {why}"
            )));
        }
        written.map(|place| self.places.insert(key.short(), place)).is_some()
    }

    fn append(&mut self, key: Key, row: &T) -> io::Result<Place> {
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        let mut rest = blake3::Hash::from_bytes(key.0).to_hex().as_bytes().to_vec();
        rest.push(b' ');
        serde_json::to_writer(&mut rest, row)?;
        let mut line = format!("\n{} ", check(&rest)).into_bytes();
        line.append(&mut rest);
        line.push(b'\n');
        // One call: what two processes append does not mix.
        file.write_all(&line)?;
        let length = u32::try_from(line.len() - 2).map_err(io::Error::other)?;
        // Where the system has put it; another process may have written since this one looked last.
        let start = file.stream_position()?.saturating_sub(u64::from(length) + 1);
        Ok(Place { start, length })
    }
}

impl Context {
    /// The journal of the rows of this stage. `beside` names the fields that only decide which rows there are, and how they are
    /// put together: a row depends on all others, and on what its own key says.
    pub fn journal<T: Serialize + DeserializeOwned>(&self, beside: &[&str]) -> Journal<T> {
        self.open_journal(scope(&self.fields, beside))
    }

    /// Another journal of the same scope, for what goes into its rows and is worth keeping before they are finished.
    pub fn journal_of<T: Serialize + DeserializeOwned>(&self, what: &str, beside: &[&str]) -> Journal<T> {
        self.open_journal(format!("{}.{what}", scope(&self.fields, beside)))
    }

    fn open_journal<T: Serialize + DeserializeOwned>(&self, name: String) -> Journal<T> {
        let path = self.rows.join(&name);
        if let Ok(mut journals) = self.journals.lock() {
            journals.insert(name);
        }
        Journal::open(&path, self.anew, self.notify.clone())
    }
}

/// Where the rows of a result came from: the figures of a stage over rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows of the result.
    pub rows: u64,
    /// Those computed in this run, broken ones among them.
    pub computed: u64,
    /// Those that could not be computed: they are tried again whenever the stage runs.
    pub broken: u64,
}

impl Tally {
    /// Records `rows`, `rows.computed`, `rows.journalled` and `rows.broken` as figures, and tells the store what is broken.
    pub fn record(&self, context: &Context) {
        context.figure("rows", self.rows as f64);
        context.figure("rows.computed", self.computed as f64);
        context.figure("rows.journalled", self.rows.saturating_sub(self.computed) as f64);
        context.figure("rows.broken", self.broken as f64);
        context.broken.store(self.broken, std::sync::atomic::Ordering::Relaxed);
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

/// The places of all whole lines; of two with the same key the later one counts.
fn places(file: &File) -> HashMap<u64, Place> {
    let mut places = HashMap::new();
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let (mut start, mut line) = (0, Vec::new());
    if reader.seek(SeekFrom::Start(0)).is_err() {
        return places;
    }
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line) {
            // What comes behind a place that cannot be read is computed again.
            Ok(0) | Err(_) => return places,
            Ok(count) => {
                let whole = line.strip_suffix(b"\n").unwrap_or(&line);
                if let (Some((key, _)), Ok(length)) = (parse(whole), u32::try_from(whole.len())) {
                    places.insert(key.short(), Place { start, length });
                }
                start += count as u64;
            }
        }
    }
}

/// Hexadecimal digits of a checksum: a damaged line passes for whole once in 2^64 times.
const CHECK: usize = 16;

/// Hexadecimal digits of a key.
const KEY: usize = 64;

/// Key and JSON of a line that is as it was written.
fn parse(line: &[u8]) -> Option<(Key, &[u8])> {
    let (found, rest) = line.split_at_checked(CHECK)?;
    let rest = rest.strip_prefix(b" ")?;
    let (key, json) = rest.split_at_checked(KEY)?;
    if found != check(rest).as_bytes() {
        return None;
    }
    let key = blake3::Hash::from_hex(key).ok()?;
    Some((Key(*key.as_bytes()), json.strip_prefix(b" ")?))
}

fn check(rest: &[u8]) -> String {
    blake3::hash(rest).to_hex()[..CHECK].to_owned()
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
