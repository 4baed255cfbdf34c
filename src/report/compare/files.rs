//! Arms whose scores are in files: tables of trials as `--format scores` writes them. Nothing but these files is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::tables::{Key, Scored, Table};
use super::{Arm, Comparison, Options, Replicate, figures, told, trials};
use crate::eval::trial::TrialRow;
use crate::table::{self, TableError};

/// Why a file of trials cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there, no Parquet, damaged, or a table of something else.
    #[error(transparent)]
    Table(#[from] TableError),
    /// It lacks columns.
    #[error("`{}` is no table of scores: it has no {}; `thresh compare … --format scores -o FILE` writes one", path.display(), quoted(lacking))]
    Columns { path: PathBuf, lacking: Vec<String> },
    /// It has no rows.
    #[error("`{}` has no rows", path.display())]
    Empty { path: PathBuf },
    /// A row says two things that exclude each other.
    #[error("`{}`, dialogue `{dialogue}` of arm `{arm}`: {why}", path.display())]
    Row { path: PathBuf, arm: String, dialogue: String, why: &'static str },
    /// A dialogue has two scores.
    #[error("`{}` has dialogue `{dialogue}` of arm `{arm}`{} twice", path.display(), seed.as_ref().map(|seed| format!(", seed `{seed}`,")).unwrap_or_default())]
    Twice { path: PathBuf, arm: String, seed: Option<String>, dialogue: String },
    /// It has no arm of this name.
    #[error("`{}` has no arm `{arm}`; it has {}", path.display(), quoted(known))]
    Unknown { path: PathBuf, arm: String, known: Vec<String> },
    /// One name was given to several arms.
    #[error("`{}` has the arms {}: `{name}` can be the name of one, as in `{name}={}:{}`", path.display(), quoted(known), path.display(), known[0])]
    Several { path: PathBuf, name: String, known: Vec<String> },
    /// Seeds cannot be paired.
    #[error(transparent)]
    Seeds(#[from] super::NoScoreTable),
    /// There is a single arm.
    #[error(
        "there is nothing to compare: `{name}` is the only arm; name another file, or compare its seeds with `--no-pool`"
    )]
    Single { name: String },
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// An arm of a file of trials.
#[derive(Clone, Debug)]
pub struct FileArm {
    /// How it is called: by the name that was given, else as the file calls it.
    name: String,
    given: bool,
    path: PathBuf,
    /// How the file calls it.
    own: String,
    replicates: Vec<Scored>,
}

/// The arms of a file in the order in which they first appear, each with its seeds in that order; only one of them where its
/// name is `arm`. That one may be called otherwise: `name`.
///
/// # Errors
/// When the file is no table of trials, a row or a dialogue is wrong, or there is no such arm.
pub fn arms(path: &Path, arm: Option<&str>, name: Option<&str>) -> Result<Vec<FileArm>, FileError> {
    let own = || path.to_owned();
    let lacking = table::lacking::<TrialRow>(path)?;
    if !lacking.is_empty() {
        return Err(FileError::Columns { path: own(), lacking });
    }
    let mut arms: Vec<FileArm> = Vec::new();
    for row in table::read::<TrialRow>(path)? {
        if let Some(why) = row.mistake() {
            return Err(FileError::Row { path: own(), arm: row.arm, dialogue: row.dialogue, why });
        }
        add(&mut arms, path, row)?;
    }
    let known: Vec<String> = arms.iter().map(|one| one.own.clone()).collect();
    if let Some(arm) = arm {
        arms.retain(|one| one.own == arm);
    }
    match (arms.as_mut_slice(), arm, name) {
        ([], None, _) => return Err(FileError::Empty { path: own() }),
        ([], Some(arm), _) => return Err(FileError::Unknown { path: own(), arm: arm.to_owned(), known }),
        ([one], _, Some(name)) => (one.name, one.given) = (name.to_owned(), true),
        (_, _, Some(name)) => return Err(FileError::Several { path: own(), name: name.to_owned(), known }),
        _ => (),
    }
    Ok(arms)
}

/// Puts a row where it belongs.
fn add(arms: &mut Vec<FileArm>, path: &Path, row: TrialRow) -> Result<(), FileError> {
    let place = arms.iter().position(|one| one.own == row.arm).unwrap_or_else(|| {
        let (name, path) = (row.arm.clone(), path.to_owned());
        arms.push(FileArm { own: name.clone(), name, given: false, path, replicates: Vec::new() });
        arms.len() - 1
    });
    let replicates = &mut arms[place].replicates;
    let seed = replicates.iter().position(|one| one.seed == row.seed).unwrap_or_else(|| {
        replicates.push(Scored { seed: row.seed.clone(), ..Scored::default() });
        replicates.len() - 1
    });
    let (arm, seed_of) = (row.arm.clone(), row.seed.clone());
    let key: Key = (0, row.dialogue.clone());
    match replicates[seed].scores.insert(key, row.score()) {
        None => Ok(()),
        Some(twice) => Err(FileError::Twice { path: path.to_owned(), arm, seed: seed_of, dialogue: twice.dialogue }),
    }
}

/// Compares arms of files; the first is the baseline. There are no parameters and no costs: files do not have them.
///
/// # Errors
/// When there is nothing to compare.
pub fn compare_files(arms: Vec<FileArm>, options: &Options) -> Result<Comparison, FileError> {
    let arms = settled(arms, options);
    if let [only] = arms.as_slice() {
        return Err(FileError::Single { name: only.name.clone() });
    }
    let table = Table {
        name: "scores".to_owned(),
        arms: arms.iter().map(|arm| arm.replicates.clone()).collect(),
        apart: false,
    };
    let arms: Vec<Arm> = arms.into_iter().map(FileArm::arm).collect();
    let mut notes = Vec::new();
    let (metrics, flips) = told(std::slice::from_ref(&table), &arms, options, &mut notes)?;
    Ok(Comparison { arms, metrics, flips, figures: figures::of_scores(&table), notes, ..Comparison::default() })
}

/// Arms of files as one table, in the order in which they were named.
pub fn merged(arms: Vec<FileArm>, options: &Options) -> Vec<TrialRow> {
    let arms = settled(arms, options);
    arms.into_iter().flat_map(|arm| trials::rows(&arm.name, arm.replicates)).collect()
}

impl FileArm {
    fn arm(self) -> Arm {
        let file = format!("{}:{}", self.path.display(), self.own);
        let replicate =
            |one: Scored| Replicate { run: None, stage: None, port: None, file: Some(file.clone()), seed: one.seed };
        Arm { name: self.name, replicates: self.replicates.into_iter().map(replicate).collect() }
    }

    /// Each seed as an arm of its own.
    fn apart(self) -> Vec<Self> {
        if self.replicates.len() < 2 {
            return vec![self];
        }
        let alone = |one: &Scored| {
            let seed = one.seed.as_deref().map(|seed| format!("[seed={seed}]")).unwrap_or_default();
            Self { name: format!("{}{seed}", self.name), replicates: vec![one.clone()], ..self.clone() }
        };
        self.replicates.iter().map(alone).collect()
    }
}

/// The arms as they are compared, no two of one name: where files call theirs alike, the files' names stand before it.
fn settled(arms: Vec<FileArm>, options: &Options) -> Vec<FileArm> {
    let mut arms: Vec<FileArm> = if options.pool { arms } else { arms.into_iter().flat_map(FileArm::apart).collect() };
    let mut files: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    for arm in &arms {
        files.entry(arm.name.clone()).or_default().insert(arm.path.clone());
    }
    for arm in arms.iter_mut().filter(|arm| !arm.given && files[&arm.name].len() > 1) {
        let stem = arm.path.file_stem().unwrap_or_default().to_string_lossy();
        arm.name = format!("{stem}:{}", arm.name);
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for arm in &mut arms {
        let count = seen.entry(arm.name.clone()).or_default();
        *count += 1;
        if *count > 1 {
            arm.name = format!("{} #{count}", arm.name);
        }
    }
    arms
}
