//! `thresh report`: one self-contained page about runs.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::reference::run_of;
use super::{Common, Outcome, records, runs, say};
use crate::engine::history::RunRecord;
use crate::fs;
use crate::report::{self, page};

#[derive(Args)]
pub(super) struct ReportArgs {
    /// Runs by name or the beginning of one, in the page's order; `latest` is the newest, `latest~1` the one before.
    #[arg(default_value = "latest", value_name = "RUN")]
    runs: Vec<String>,
    /// The file to write; `-` is stdout.
    #[arg(long, short, default_value = "report.html", value_name = "FILE")]
    output: PathBuf,
    /// How many dialogues and trees the page holds: `all`, `none`, or a number. Of more than that all of some tasks are taken,
    /// chosen by the hashes of their names, and the page says so.
    #[arg(long, default_value = "10000", value_name = "all|none|N", value_parser = dialogues)]
    dialogues: Dialogues,
}

/// The most dialogues and trees on a page; `None` for all.
#[derive(Clone, Copy)]
struct Dialogues(Option<usize>);

fn dialogues(text: &str) -> Result<Dialogues, String> {
    match text {
        "none" => Ok(Dialogues(Some(0))),
        "all" => Ok(Dialogues(None)),
        number => number
            .parse()
            .map(|number| Dialogues(Some(number)))
            .map_err(|_| "expected `all`, `none` or a number".to_owned()),
    }
}

pub(super) fn run(args: &ReportArgs, common: &Common) -> Outcome {
    let store = runs::store()?;
    let records = records(&store)?;
    let mut chosen: Vec<&RunRecord> = Vec::new();
    for name in &args.runs {
        let run = run_of(&records, name)?;
        // A run that is named twice stands on the page once.
        if chosen.iter().all(|one| one.run != run.run) {
            chosen.push(run);
        }
    }
    let page = page::page(&store, &records, &chosen, args.dialogues.0)?;
    if args.output == Path::new("-") {
        return Ok(std::io::stdout().lock().write_all(page.as_bytes())?);
    }
    fs::write_whole(&args.output, page.as_bytes())?;
    if common.json {
        let runs: Vec<&str> = chosen.iter().map(|run| run.run.as_str()).collect();
        return Ok(say(json!({"file": args.output, "bytes": page.len(), "runs": runs}).to_string())?);
    }
    report::note(format!("{}: {}", args.output.display(), super::gc::size(page.len() as u64)));
    Ok(())
}
