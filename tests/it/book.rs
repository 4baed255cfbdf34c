//! The book in `docs/`: every command in it is run, every file in it is checked, every link leads somewhere.
//!
//! What a fenced block is stands behind its language:
//!
//! | block | what happens |
//! |---|---|
//! | `sh` | is run in the page's project, with the real binaries on the path; `exit=2`: and fails with that code; `in=town`: in that folder |
//! | `sh,norun=WHY` | is only read: its `thresh` lines must be ones that `thresh` takes |
//! | `text,output` | is what the block before printed to stdout (`text,stderr` to stderr), but for times, sizes and names of runs; a line `…` stands for any lines |
//! | `yaml,file=NAME`, also `toml` and others | is written into the project; a pipeline is checked |
//! | `yaml`, `toml` | a pipeline is checked, so are single stages, and settings |
//! | `rust,source=PATH`, also others | is word for word that file of the tree |
//!
//! `THRESH_BLESS=1 cargo test --test it book` writes what was printed into blocks of output that hold no `…`.

mod blocks;
mod links;
mod page;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use blocks::Block;
use page::Page;

fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every page of the book that people write.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![tree().join("docs/src")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The page that a page goes on from, in the same project: named in a remark at its beginning, `<!-- after quickstart.md -->`.
fn before(page: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(page).unwrap();
    let name = text.strip_prefix("<!-- after ")?.split(" -->").next()?;
    Some(page.with_file_name(name))
}

/// The pages, those that share a project together and in order.
fn projects() -> Vec<Vec<PathBuf>> {
    let (later, mut projects): (Vec<_>, Vec<_>) = pages().into_iter().partition(|page| before(page).is_some());
    let mut projects: Vec<Vec<PathBuf>> = projects.drain(..).map(|page| vec![page]).collect();
    for page in later {
        let before = before(&page);
        let project = projects.iter_mut().find(|project| project.last() == before.as_ref());
        project.unwrap_or_else(|| panic!("{} goes on from no page", page.display())).push(page);
    }
    projects
}

#[test]
fn every_command_and_every_file_of_the_book_works() {
    let pages = Mutex::new(projects());
    let (wrong, skipped) = (Mutex::new(Vec::new()), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(paths) = pages.lock().unwrap().pop() else { return };
                    let page = Page::walk(&paths);
                    wrong.lock().unwrap().extend(page.wrong);
                    for reason in page.skipped {
                        *skipped.lock().unwrap().entry(reason).or_insert(0) += 1;
                    }
                }
            });
        }
    });
    let skipped = skipped.into_inner().unwrap();
    for (reason, count) in &skipped {
        eprintln!("{count} blocks of commands are not run: {reason}");
    }
    let known =
        ["needs a GPU", "needs a key", "needs a network", "needs the Python package trl", "runs until it is stopped"];
    let unknown: Vec<&String> = skipped.keys().filter(|reason| !known.contains(&reason.as_str())).collect();
    assert!(unknown.is_empty(), "no reason not to run a command: {unknown:?}; expected one of {known:?}");
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_command_and_every_file_of_the_readme_is_right() {
    let page = Page::read_only(&tree().join("README.md"));
    assert!(page.wrong.is_empty(), "{}", page.wrong.join("\n\n"));
}

#[test]
fn the_summary_covers_all_pages_and_all_links_lead_somewhere() {
    let wrong = links::wrong(&tree().join("docs/src"), &pages());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn blocks_are_read_with_their_marks() {
    let text = "a\n```sh,norun=needs a key\nls\n```\nb\n````yaml,file=p.yaml\n```\n````\n";
    let blocks = Block::all(text);
    assert_eq!(blocks.len(), 2);
    assert_eq!((blocks[0].language.as_str(), blocks[0].mark("norun")), ("sh", Some("needs a key")));
    assert_eq!((blocks[0].text.as_str(), blocks[0].line), ("ls\n", 2));
    assert_eq!((blocks[1].mark("file"), blocks[1].text.as_str()), (Some("p.yaml"), "```\n"));
    assert!(blocks[1].mark("norun").is_none());
}

#[test]
fn outputs_are_compared_without_what_changes() {
    let same = |shown: &str, printed: &str| blocks::matches(shown, printed);
    let runs = "20261123-200052-829095-desk  2026-11-23T20:00:52Z  12 computed  12.4 s";
    assert!(same(runs, "20270101-000000-000001-desk 2027-01-01T00:00:00Z 12 computed 3 s"));
    assert!(!same(runs, "20270101-000000-000001-desk 2027-01-01T00:00:00Z 11 computed 3 s"));
    assert!(same("a\n…\nd", "a\nb\nc\nd") && same("a\n…", "a\nb") && same("…\nb", "a\nb"));
    assert!(!same("a\n…\ne", "a\nb\nc\nd") && !same("a", "a\nb") && !same("a\nb", "a"));
}
