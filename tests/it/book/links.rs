//! Links between pages, and whether the summary has them all.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::Regex;

/// What is wrong with the links of these pages below a folder.
pub fn wrong(root: &Path, pages: &[PathBuf]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut listed = BTreeSet::new();
    for page in pages {
        let name = page.strip_prefix(root).unwrap();
        for link in links(&std::fs::read_to_string(page).unwrap()) {
            if link.contains("://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let Ok(target) = target.canonicalize() else {
                wrong.push(format!("{}: `{link}` leads nowhere", name.display()));
                continue;
            };
            if name == Path::new("SUMMARY.md") {
                listed.insert(target.clone());
            }
            if !heading.is_empty() && !headings(&std::fs::read_to_string(&target).unwrap()).contains(heading) {
                wrong.push(format!("{}: `{link}` leads to a heading that is not there", name.display()));
            }
        }
    }
    for page in pages.iter().filter(|page| page.file_name().unwrap() != "SUMMARY.md") {
        if !listed.contains(&page.canonicalize().unwrap()) {
            wrong.push(format!("SUMMARY.md lacks `{}`", page.strip_prefix(root).unwrap().display()));
        }
    }
    wrong
}

/// The text without fenced blocks.
fn prose(page: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in page.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

fn links(page: &str) -> Vec<String> {
    let pattern = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    pattern.captures_iter(&prose(page)).map(|found| found[1].to_owned()).collect()
}

/// The headings of a page as links name them.
fn headings(page: &str) -> BTreeSet<String> {
    let prose = prose(page);
    let titles = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |one: &char| one.is_alphanumeric() || matches!(one, ' ' | '-' | '_');
    titles.map(|title| title.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}
