//! `thresh sql`: SQL over the tables of any runs.

use std::io::{self, BufWriter, IsTerminal, Read, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};

use super::{Common, Failure, Outcome, records, reference, runs};
use crate::config::diagnostic::nearest;
use crate::engine::history::RunRecord;
use crate::engine::store::Store;
use crate::fs;
use crate::report::sql::{self, History, Query, Reference, VIRTUAL};
use crate::report::table::{self, Form, Screen, Table};

/// Rows that are shown where nobody says how many.
const ROWS: usize = 40;

#[derive(Args)]
pub(super) struct SqlArgs {
    /// The query; `-` or nothing to read it from stdin.
    ///
    /// Tables are `stage.port` of the newest run that has it, `RUN.stage.port` as in `latest~1.base.scores`, Parquet files in single
    /// quotes as in 'scores.parquet', and what was run: `runs`, `stages`, `figures` and `artifacts`. Behind `from` and `join`
    /// names stand as they are; elsewhere, what is no name of SQL takes double quotes or an alias. Items of lists become rows
    /// by `cross join unnest(messages) as message`, then `message.role`.
    query: Option<String>,
    /// What the answer becomes; by default a table, in a file what its name ends in.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The file to write to.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How many rows; by default all, and 40 in a table that is shown.
    #[arg(long, value_name = "N")]
    rows: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines that fit the terminal.
    Table,
    /// Comma-separated values; nested cells as JSON.
    Csv,
    /// One array of objects.
    Json,
    /// One JSON object a row.
    Jsonl,
    /// A table of Markdown.
    #[value(name = "md")]
    Markdown,
    /// Parquet.
    Parquet,
}

pub(super) fn run(args: &SqlArgs, common: &Common) -> Outcome {
    // SAFETY: the process has just begun; the first threads are those that answer the query.
    unsafe { sql::repeatable() };
    let format = format(args, common)?;
    let query = Query::parse(&text(args)?).map_err(Failure::Wrong)?;
    let store = runs::store()?;
    let records = records(&store)?;
    let history = History::of(&records)?;
    let files = query
        .tables()
        .iter()
        .map(|table| file(table, &store, &records, &history).map_err(|why| placed(why, &query, table)));
    let plan = query.plan(&files.collect::<Result<Vec<_>, _>>()?).map_err(Failure::Wrong)?;
    let answer = plan.answer(args.rows.filter(|_| format == Format::Parquet))?;
    let Some(path) = &args.output else { return Ok(write(answer, format, args.rows, &mut io::stdout().lock())?) };
    fs::write_in_parts(path, |part| -> Outcome { Ok(write(answer, format, args.rows, &mut Parts(part))?) })
}

/// A file that is written in parts.
struct Parts<'a>(&'a mut dyn FnMut(&[u8]) -> Result<(), fs::PathError>);

impl Write for Parts<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.0)(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The format that is asked for, by an option or the file's name.
fn format(args: &SqlArgs, common: &Common) -> Result<Format, Failure> {
    if let Some(format) = args.format {
        if format == Format::Parquet && args.output.is_none() && io::stdout().is_terminal() {
            return Err(Failure::Wrong(anyhow!("Parquet is nothing to read: write it to a file with `-o FILE`")));
        }
        return Ok(format);
    }
    if common.json {
        return Ok(Format::Jsonl);
    }
    let Some(path) = &args.output else { return Ok(Format::Table) };
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match ending {
        "txt" => Ok(Format::Table),
        ending => Format::from_str(ending, true).map_err(|_| {
            Failure::Wrong(anyhow!(
                "`{}` says no format: end it in `.csv`, `.json`, `.jsonl`, `.md`, `.parquet` or `.txt`, or add `--format`",
                path.display()
            ))
        }),
    }
}

fn text(args: &SqlArgs) -> Result<String, Failure> {
    match args.query.as_deref() {
        Some(text) if text != "-" => Ok(text.to_owned()),
        None if io::stdin().is_terminal() => {
            Err(Failure::Wrong(anyhow!("expected a query, such as `thresh sql \"select * from runs\"`")))
        }
        _ => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).context("the query on stdin is no text")?;
            Ok(text)
        }
    }
}

/// The Parquet file of a table.
fn file(table: &Reference, store: &Store, records: &[RunRecord], history: &History) -> Result<PathBuf, Failure> {
    let name = table.name.as_str();
    if table.literal && (Path::new(name).exists() || name.ends_with(".parquet")) {
        fs::open(name).map_err(|error| Failure::Wrong(error.into()))?;
        return Ok(name.into());
    }
    if let Some(name) = VIRTUAL.iter().find(|known| known.eq_ignore_ascii_case(name)) {
        return history.table(name, store, |stage| reference::result(store, stage));
    }
    let (path, artifact) = reference::output(store, records, name).map_err(|why| match why {
        Failure::Wrong(error) if Path::new(name).is_file() => {
            Failure::Wrong(anyhow!("{error}; for the file write '{name}', in single quotes"))
        }
        Failure::Wrong(error) => match nearest(name, known(store, records).iter().map(String::as_str)) {
            Some(near) if !error.to_string().contains("did you mean") => {
                Failure::Wrong(anyhow!("there is no table `{name}`; did you mean `{near}`?"))
            }
            _ => Failure::Wrong(error),
        },
        other => other,
    })?;
    if path.is_dir() {
        return Err(Failure::Wrong(anyhow!(
            "`{name}` holds `{}`, a folder and no table; `thresh show {name}` lists it",
            artifact.holds
        )));
    }
    Ok(path)
}

/// The names of tables that there are.
fn known(store: &Store, records: &[RunRecord]) -> Vec<String> {
    let mut names: Vec<String> = VIRTUAL.iter().map(|&name| name.to_owned()).collect();
    for stage in records.iter().flat_map(|run| &run.stages) {
        if let Ok(Some(manifest)) = reference::result(store, stage) {
            names.extend(manifest.outputs.keys().map(|port| format!("{}.{port}", stage.name)));
        }
    }
    names
}

fn placed(why: Failure, query: &Query, table: &Reference) -> Failure {
    match why {
        Failure::Wrong(error) => Failure::Wrong(anyhow!("{error}{}", query.place(table))),
        other => other,
    }
}

/// Writes an answer, of which parquet is there already.
fn write(mut answer: std::fs::File, format: Format, rows: Option<usize>, out: &mut dyn Write) -> anyhow::Result<()> {
    let form = match format {
        Format::Parquet => {
            answer.rewind()?;
            io::copy(&mut answer, out)?;
            return Ok(out.flush()?);
        }
        Format::Table => {
            let answer = Table::of(answer, "the answer")?;
            writeln!(out, "{}", table::first_rows(&answer, Some(rows.unwrap_or(ROWS)), &Screen::of_stdout())?)?;
            return Ok(());
        }
        Format::Csv => Form::Csv,
        Format::Json => Form::Json,
        Format::Jsonl => Form::Jsonl,
        Format::Markdown => Form::Markdown,
    };
    let mut out = BufWriter::new(out);
    table::write(&Table::of(answer, "the answer")?, form, rows, &mut out)?;
    Ok(out.flush()?)
}
