//! What `RESULTS.md` says: its tables are what `thresh` makes of the committed scores, without a GPU and without a store.

use std::path::Path;
use std::process::Command;

fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The cells of a line of a Markdown table.
fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// The command lines of `RESULTS.md` that begin so, each with the table rows behind it up to the next command.
fn commands(text: &str, begin: &str) -> Vec<(String, Vec<Vec<String>>)> {
    let mut found: Vec<(String, Vec<Vec<String>>)> = Vec::new();
    let mut taking = false;
    for line in text.lines() {
        if line.starts_with("thresh ") {
            taking = line.starts_with(begin);
            if taking {
                found.push((line.to_owned(), Vec::new()));
            }
        } else if line.starts_with('#') {
            taking = false;
        } else if taking && line.starts_with('|') && !line.contains("---") {
            found.last_mut().unwrap().1.push(cells(line));
        }
    }
    found
}

/// What a command prints as Markdown, run in the tree without a store.
fn printed(command: &str) -> Vec<Vec<String>> {
    let script = command.replacen("thresh", env!("CARGO_BIN_EXE_thresh"), 1);
    let script = if script.contains("--format") { script } else { format!("{script} --format md") };
    let output = Command::new("sh").args(["-c", &script]).current_dir(tree()).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().filter(|line| line.starts_with('|')).map(cells).collect()
}

#[test]
fn the_tables_of_the_results_are_what_the_committed_scores_give() {
    let text = std::fs::read_to_string(tree().join("RESULTS.md")).unwrap();
    let mut shown = 0;
    for begin in ["thresh compare datasets/results/", "thresh sql "] {
        for (command, rows) in commands(&text, begin) {
            let printed = printed(&command);
            assert!(rows.len() > 1, "{command} shows no table");
            for row in rows {
                assert!(printed.contains(&row), "{command} does not print {row:?}");
                shown += 1;
            }
        }
    }
    assert!(shown > 40, "{shown} rows were looked at");
}

#[test]
fn seeds_are_paired_only_where_both_sides_have_them() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thresh"));
        let output = command.args(["compare", "--pair-seeds"]).args(arguments).current_dir(tree()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let scratch = "datasets/results/scratch.parquet";
    let (base, other) = (format!("{scratch}:base"), "datasets/results/authors.parquet:authors-sft");
    let (code, error) = run(&[&base, other]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("`authors-sft` has ``, `base` has `20, 21, 22`"), "{error}");
    assert_eq!(run(&[&base, &format!("{scratch}:josh-kto")]).0, Some(0));
}

#[test]
fn every_file_of_results_is_shown_and_small() {
    let text = std::fs::read_to_string(tree().join("RESULTS.md")).unwrap();
    for entry in std::fs::read_dir(tree().join("datasets/results")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert!(text.contains(&format!("datasets/results/{name}")), "RESULTS.md does not show `{name}`");
        assert!(entry.metadata().unwrap().len() < 64 << 10, "`{name}` is large");
    }
}
