//! `thresh compare`: what differs between runs, or between arms of one run.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};

use super::reference::{Named, named_all};
use super::{Common, Failure, Outcome, records, runs};
use crate::report::compare::condition::Condition;
use crate::report::compare::files::{self, FileArm, compare_files, merged};
use crate::report::compare::library::Library;
use crate::report::compare::lines::{ComparisonLine, lines};
use crate::report::compare::text::{LISTED, Style, render, verdict};
use crate::report::compare::{Comparison, NoScoreTable, Options, Target, compare, gate, trials};
use crate::report::tell;
use crate::table::Row;
use crate::{fs, table};

#[derive(Args)]
pub(super) struct CompareArgs {
    /// What is compared; the first is the baseline. Runs (`latest`, `josh~1`, a tag, the beginning of a name) are compared in all
    /// that they have. `RUN.stage` is a score table, or what leads to a single one; `RUN.comparison.arm` what a comparison calls
    /// an arm. The bare name of a matrix stands for all of its stages, and `TAG~*` or `PIPELINE~*` for all runs: what differs in
    /// seeds only becomes one arm. `FILE.parquet` is what `--format scores` wrote, with all its arms, and `FILE.parquet:ARM` one of
    /// them; no store is needed for these. `NAME=` before any of them calls that arm so.
    #[arg(num_args = 1.., required = true, value_name = "[NAME=]RUN[.STAGE]|FILE")]
    arms: Vec<String>,
    /// How to write it.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Write to this file and not to stdout.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show what does not differ, too.
    #[arg(long)]
    all: bool,
    /// List all dialogues that flipped.
    #[arg(long)]
    flips: bool,
    /// Make every run and every stage an arm of its own, also where they differ in seeds only.
    #[arg(long)]
    no_pool: bool,
    /// Compare each replicate with the baseline's of the same seed: where an arm's training goes on from the baseline of its
    /// seed, chance that both share is then no difference.
    #[arg(long)]
    pair_seeds: bool,
    /// Another parameter or axis of a matrix that makes replicates as `seed` does; several times: several.
    #[arg(long, value_name = "NAME")]
    replicates: Vec<String>,
    /// End with exit code 1 where this holds of any arm in any score table: `success < -0.02`, `reward < 0 and p < 0.05`,
    /// `kto_scores.broken > 1%`, `seconds > 600`. A metric stands for the arm's value less the baseline's; behind `and`, `p`,
    /// `low`, `high`, `value` and `baseline` say more of it. A metric that is not known is an error (exit code 2).
    #[arg(long, value_name = "CONDITION")]
    fail_if: Vec<String>,
}

/// How a comparison is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables for the terminal.
    Table,
    /// One JSON object.
    Json,
    /// One table with a row for each value.
    Csv,
    /// Markdown.
    Md,
    /// The same table as Parquet.
    Parquet,
    /// The scores that were compared, a row for each arm, seed and dialogue, as Parquet: `thresh compare FILE.parquet` reads it.
    Scores,
}

pub(super) fn run(args: &CompareArgs, common: &Common) -> Outcome {
    let conditions = args.fail_if.iter().map(|text| Condition::parse(text)).collect::<Result<Vec<_>, _>>();
    let conditions = conditions.map_err(|error| Failure::Wrong(anyhow!("--fail-if: {error}")))?;
    let format = if common.json { Format::Json } else { args.format };
    if matches!(format, Format::Parquet | Format::Scores) && args.out.is_none() && io::stdout().is_terminal() {
        return Err(Failure::Wrong(anyhow!("Parquet is nothing for a terminal; add `--out FILE`")));
    }
    if format == Format::Scores && !conditions.is_empty() {
        return Err(Failure::Wrong(anyhow!(
            "`--fail-if` judges a comparison, and `--format scores` makes none: write the scores first, then compare"
        )));
    }
    let options = Options {
        all: args.all,
        pool: !args.no_pool,
        replicates: args.replicates.clone(),
        pair_seeds: args.pair_seeds,
    };
    if let Some(arms) = filed(&args.arms)? {
        if format == Format::Scores {
            return put(&parquet(merged(arms, &options))?, args);
        }
        let found = compare_files(arms, &options).map_err(|error| Failure::Wrong(error.into()))?;
        return finish(found, &conditions, format, args);
    }
    let store = runs::store()?;
    let records = records(&store)?;
    let mut targets = Vec::new();
    for text in &args.arms {
        let (given, reference) = called(text);
        let found = named_all(&records, reference).map_err(|why| no_file(reference).unwrap_or(why))?;
        targets.extend(found.into_iter().map(|named| target(given, reference, named)));
    }
    if targets.iter().any(|target| target.stage.is_some()) && targets.iter().any(|target| target.stage.is_none()) {
        return Err(Failure::Wrong(anyhow!("compare runs with runs, or stages with stages")));
    }
    let library = Library::new(&store, &records);
    if format == Format::Scores {
        let (rows, notes) = trials(&library, &targets, &options).map_err(failure)?;
        notes.iter().for_each(|note| tell(format!("note: {note}")));
        return put(&parquet(rows)?, args);
    }
    if targets.len() < 2 {
        return Err(Failure::Wrong(anyhow!("there is nothing to compare: name two runs, or two stages of a run")));
    }
    finish(compare(&library, &targets, &options).map_err(failure)?, &conditions, format, args)
}

/// Judges a comparison and writes it.
fn finish(mut found: Comparison, conditions: &[Condition], format: Format, args: &CompareArgs) -> Outcome {
    for condition in conditions {
        let verdict = gate::judge(&found, condition);
        found.gates.push(verdict.map_err(|error| Failure::Wrong(anyhow!("--fail-if: {error}")))?);
    }
    let found = if args.all { found } else { found.differing() };
    write(&found, format, args)?;
    let failed: Vec<_> = found.gates.iter().filter(|verdict| verdict.failed).collect();
    failed.iter().for_each(|failed| tell(verdict(failed)));
    if failed.is_empty() { Ok(()) } else { Err(Failure::Said(1)) }
}

/// `NAME=REFERENCE` as name and reference. Matrices have `=` in their names, too, but behind a bracket.
fn called(text: &str) -> (Option<&str>, &str) {
    match text.split_once('=') {
        Some((name, rest)) if !name.is_empty() && !rest.is_empty() && !name.contains(['[', '.']) => (Some(name), rest),
        _ => (None, text),
    }
}

/// `FILE.parquet` as it is, and `FILE.parquet:ARM` as file and arm, whether there is such a file or not.
fn file_of(text: &str) -> Option<(&Path, Option<&str>)> {
    match text.split_once(".parquet:") {
        Some((stem, arm)) => Some((Path::new(&text[..stem.len() + ".parquet".len()]), Some(arm))),
        None => text.ends_with(".parquet").then(|| (Path::new(text), None)),
    }
}

/// The file that an argument names, the arm in it, and the name that it is given.
fn file(text: &str) -> Option<(&Path, Option<&str>, Option<&str>)> {
    // A file may have a `=` in its name, too.
    let there = |text| file_of(text).filter(|(path, _)| path.is_file());
    if let Some((path, arm)) = there(text) {
        return Some((path, arm, None));
    }
    let (name, rest) = called(text);
    there(rest).map(|(path, arm)| (path, arm, name))
}

/// The arms of files where all arguments are such; `None` where none is.
fn filed(texts: &[String]) -> Result<Option<Vec<FileArm>>, Failure> {
    let files: Vec<_> = texts.iter().filter_map(|text| file(text)).collect();
    if files.is_empty() {
        return Ok(None);
    }
    if let Some(other) = texts.iter().find(|text| file(text).is_none()) {
        return Err(no_file(called(other).1).unwrap_or_else(|| {
            Failure::Wrong(anyhow!(
                "`{other}` is no file of scores, others are: write its scores first, `thresh compare {other} --format scores -o \
                 FILE.parquet`, and compare the files"
            ))
        }));
    }
    let mut arms = Vec::new();
    for (path, arm, name) in files {
        arms.extend(files::arms(path, arm, name).map_err(|error| Failure::Wrong(error.into()))?);
    }
    Ok(Some(arms))
}

/// What is wrong with a word that looks like a file and is none.
fn no_file(text: &str) -> Option<Failure> {
    let (path, _) = file_of(text)?;
    (!path.is_file()).then(|| Failure::Wrong(anyhow!("there is no file `{}`", path.display())))
}

fn target<'a>(given: Option<&str>, reference: &str, named: Named<'a>) -> Target<'a> {
    let (name, given) = (given.unwrap_or(reference).to_owned(), given.is_some());
    Target { name, given, run: named.run, stage: named.stage, port: named.port }
}

/// What is wrong with what was named is a mistake of who named it.
fn failure(error: anyhow::Error) -> Failure {
    match error.is::<NoScoreTable>() {
        true => Failure::Wrong(error),
        false => Failure::Failed(error),
    }
}

fn write(found: &Comparison, format: Format, args: &CompareArgs) -> Outcome {
    let listed = if args.flips { usize::MAX } else { LISTED };
    let mut bytes = match format {
        Format::Table => render(found, Style::Terminal, listed).into_bytes(),
        Format::Md => render(found, Style::Markdown, listed).into_bytes(),
        Format::Json => serde_json::to_vec(found)?,
        Format::Csv => csv(&lines(found))?,
        Format::Parquet => parquet(lines(found))?,
        Format::Scores => return Err(Failure::Failed(anyhow!("scores are written as they are, and not compared"))),
    };
    if matches!(format, Format::Table | Format::Md | Format::Json) {
        bytes.push(b'\n');
    }
    put(&bytes, args)
}

fn put(bytes: &[u8], args: &CompareArgs) -> Outcome {
    match &args.out {
        Some(path) => Ok(fs::write_whole(path, bytes)?),
        None => Ok(io::stdout().lock().write_all(bytes)?),
    }
}

fn csv(lines: &[ComparisonLine]) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for line in lines {
        writer.serialize(line)?;
    }
    writer.into_inner().context("the table cannot be written")
}

fn parquet<T: Row>(rows: Vec<T>) -> anyhow::Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let path: &Path = &folder.path().join("comparison.parquet");
    table::write(path, rows)?;
    Ok(fs::read(path)?)
}
