//! `thresh gc` and `thresh pin`: room in the store.

use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use serde_json::{Value, json};

use super::reference::run_of;
use super::{Common, Failure, Outcome, records, runs, say, say_json};
use crate::config::seconds;
use crate::engine::gc::{Garbage, GcError, Rule, What, collect, pin};
use crate::report::note;

#[derive(Args)]
pub(super) struct GcArgs {
    /// Let runs go that began longer ago, and what interrupted computations of that age left: `90 min`, `36 h`, `30 d`.
    #[arg(long, value_name = "TIME")]
    older_than: Option<String>,
    /// Let runs go beyond so many newest of each pipeline. With --older-than, only those that are old as well.
    #[arg(long, value_name = "RUNS")]
    keep: Option<usize>,
    /// Say what would go, and remove nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
pub(super) struct PinArgs {
    /// The run, by name or the beginning of one; `latest` is the newest, `latest~1` the one before.
    run: String,
    /// Take the pin away.
    #[arg(long)]
    remove: bool,
}

pub(super) fn run(args: &GcArgs, common: &Common) -> Outcome {
    let store = runs::store()?;
    let older_than = args.older_than.as_deref().map(time).transpose()?;
    let garbage = collect(&store, Rule { older_than, keep: args.keep }, args.dry_run)?;
    if common.json {
        let item = |item: &Garbage| json!({"what": name(item.what), "name": item.name, "bytes": item.bytes});
        let bytes: u64 = garbage.iter().map(|item| item.bytes).sum();
        let items: Value = garbage.iter().map(item).collect();
        return say_json(&json!({"removed": !args.dry_run, "bytes": bytes, "items": items}));
    }
    for item in &garbage {
        say(format!("{:10}  {:>10}  {}", name(item.what), size(item.bytes), item.name))?;
    }
    let verb = if args.dry_run { "would be freed" } else { "freed" };
    let sum = |what: Option<What>| {
        let items = garbage.iter().filter(|item| what.is_none_or(|what| item.what == what));
        items.fold((0, 0), |(count, bytes), item: &Garbage| (count + 1, bytes + item.bytes))
    };
    let mut parts = Vec::new();
    for what in [What::Run, What::Result, What::Journal, What::Unfinished] {
        let (count, bytes) = sum(Some(what));
        if count > 0 {
            parts.push(format!("{count} {} ({})", if count == 1 { name(what) } else { names(what) }, size(bytes)));
        }
    }
    let parts = if parts.is_empty() { "nothing to remove".to_owned() } else { parts.join(", ") };
    say(format!("{} {verb}: {parts}", size(sum(None).1)))?;
    Ok(())
}

pub(super) fn run_pin(args: &PinArgs, common: &Common) -> Outcome {
    let store = runs::store()?;
    let records = records(&store)?;
    let run = &run_of(&records, &args.run)?.run;
    match pin(&store, run, !args.remove) {
        Err(error @ GcError::NoRun(_)) => return Err(Failure::Wrong(error.into())),
        other => other?,
    }
    if common.json {
        return say_json(&json!({"run": run, "pinned": !args.remove}));
    }
    let what = if args.remove { "may be removed by `thresh gc`" } else { "is kept" };
    note(format!("run `{run}` {what}"));
    Ok(())
}

fn name(what: What) -> &'static str {
    match what {
        What::Run => "run",
        What::Result => "result",
        What::Journal => "journal",
        What::Unfinished => "unfinished",
    }
}

fn names(what: What) -> &'static str {
    match what {
        What::Run => "runs",
        What::Result => "results",
        What::Journal => "journals",
        What::Unfinished => "unfinished",
    }
}

/// A number of bytes as people read it.
pub(super) fn size(bytes: u64) -> String {
    let mut number = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if number < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{number:.1} {unit}") };
        }
        number /= 1024.0;
    }
    format!("{number:.1} TiB")
}

/// A duration from the command line: `90 min`, `36 h`, `30 d`.
pub(super) fn time(text: &str) -> Result<Duration, Failure> {
    let units = [("s", 1.0), ("min", 60.0), ("h", 3600.0), ("d", 86_400.0)];
    let time = seconds(text, &units).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.ok_or_else(|| Failure::Wrong(anyhow!("`{text}` is no time; write `90 min`, `36 h` or `30 d`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_as_people_write_them() {
        assert_eq!([size(0), size(1023), size(1536), size(5 << 30)], ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
        assert_eq!(time("30d").unwrap(), Duration::from_secs(30 * 86_400));
        assert_eq!(time("1.5 h").unwrap(), Duration::from_secs(5400));
        for wrong in ["", "d", "3", "3 weeks", "-1 d", "1e9 d"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
