//! Pipelines changed at random: whatever stands in a file, loading it ends in a pipeline or in messages, never in a panic.
//!
//! `THRESH_MUTATIONS=100000` asks for more of them than the few that every run of the tests tries; `make fuzz` does.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use thresh::fs::PathError;

const MATRIX: &str = r#"
name: m
params: {seed: 1, list: [1, 2]}
stages:
  corpus:
    kind: multiwoz.synthesize
    pool: cpu
    retries: 2
    timeout: 30 min
    matrix: {noise: [0.1, 2e-1], seed: "${params.list}", include: [{noise: 0.3, seed: 1}], exclude: [{noise: 0.1, seed: 2}]}
    with: {dialogues: 20, noise: "${matrix.noise}", seed: "${matrix.seed}"}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  one: {kind: toolwoz.convert, in: {corpus: "corpus[noise=2e-1,seed=1].corpus"}}
  list:
    kind: command.run
    each: [seed]
    in: {tasks: toolwoz.tasks, one: one.tasks}
    frozen: true
    with: {command: "ls {in.tasks} > {out.l}; echo ${params.seed}", outputs: {l: {path: l, type: "notes/v1"}}}
"#;

/// Words that mean something in a pipeline.
const TOKENS: &[&str] = &[
    "${params.seed}",
    "${matrix.seed}",
    "${",
    "}",
    "{",
    "[",
    "]",
    ":",
    ",",
    "- ",
    "\n",
    "  ",
    "\t",
    "\"",
    "'",
    "&a ",
    "*a",
    "<<: *a",
    "!!str ",
    "|",
    ">",
    "#",
    "---\n",
    "? ",
    "~",
    "null",
    "true",
    ".inf",
    "-1",
    "0",
    "1e-4",
    "1e400",
    "18446744073709551615",
    "99999999999999999999",
    "0x10",
    "ü",
    "\u{0}",
    "\u{feff}",
    "matrix",
    "include",
    "exclude",
    "each",
    "extends: ",
    "set: ",
    "params",
    "stages",
    "with",
    "in: ",
    "kind",
    "[seed=1]",
    ".",
];

fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every pipeline of the tree, right and wrong.
fn originals() -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in ["pipelines", "tests/bad"] {
        files.extend(std::fs::read_dir(tree().join(folder)).unwrap().map(|entry| entry.unwrap().path()));
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut texts: Vec<Vec<u8>> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    // What uses most of the language stands for many.
    texts.extend(std::iter::repeat_n(MATRIX.as_bytes().to_vec(), 20));
    texts
}

fn place(rng: &mut ChaCha8Rng, text: &[u8]) -> usize {
    rng.random_range(0..=text.len())
}

fn stretch(rng: &mut ChaCha8Rng, text: &[u8]) -> std::ops::Range<usize> {
    let start = place(rng, text);
    let length = rng.random_range(0..=24).min(text.len() - start);
    start..start + length
}

/// The words of a text, as ranges.
fn words(text: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, byte) in text.iter().chain([&b' ']).enumerate() {
        match (byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'.', start) {
            (true, None) => start = Some(at),
            (false, Some(begin)) => {
                words.push(begin..at);
                start = None;
            }
            _ => {}
        }
    }
    words
}

/// One text made of others.
fn mutated(rng: &mut ChaCha8Rng, originals: &[Vec<u8>]) -> Vec<u8> {
    let mut text = originals[rng.random_range(0..originals.len())].clone();
    for _ in 0..rng.random_range(1..=6) {
        match rng.random_range(0..7) {
            0 if !text.is_empty() => {
                let at = rng.random_range(0..text.len());
                text[at] ^= 1 << rng.random_range(0..8);
            }
            1 => drop(text.drain(stretch(rng, &text))),
            2 => {
                let part = text[stretch(rng, &text)].to_vec();
                let at = place(rng, &text);
                text.splice(at..at, part);
            }
            3 => {
                let other = &originals[rng.random_range(0..originals.len())];
                let part = other[stretch(rng, other)].to_vec();
                text.splice(stretch(rng, &text), part);
            }
            4 => {
                let token = TOKENS[rng.random_range(0..TOKENS.len())];
                text.splice(stretch(rng, &text), token.bytes());
            }
            5 => {
                let token = TOKENS[rng.random_range(0..TOKENS.len())];
                let at = place(rng, &text);
                text.splice(at..at, token.bytes());
            }
            _ => {
                let words = words(&text);
                if words.is_empty() {
                    continue;
                }
                let one = words[rng.random_range(0..words.len())].clone();
                let two = text[words[rng.random_range(0..words.len())].clone()].to_vec();
                text.splice(one, two);
            }
        }
    }
    text
}

thread_local! {
    /// Whether a panic of this thread is expected: thousands of backtraces would tell nothing, the smallest text does.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Loads a text as the command line would, without the disk; whether that panics.
fn panics(text: &[u8], set: Option<&str>) -> bool {
    let text = String::from_utf8_lossy(text).into_owned();
    let open = |path: &Path| match path.to_str() {
        Some("p.yaml") => Ok(text.clone()),
        Some("_base.yaml") => Ok("name: base\nstages:\n  corpus:\n    kind: multiwoz.synthesize\n".to_owned()),
        _ => {
            let source = std::io::ErrorKind::NotFound.into();
            Err(PathError { action: "read", path: path.to_owned(), source })
        }
    };
    let sets: Vec<String> = set.map(str::to_owned).into_iter().collect();
    let load = || match thresh::config::load_through(Path::new("p.yaml"), &sets, &open) {
        Ok(pipeline) => pipeline.graph.nodes.len(),
        Err(problems) => problems.render(false).len(),
    };
    QUIET.set(true);
    let panicked = catch_unwind(AssertUnwindSafe(load)).is_err();
    QUIET.set(false);
    panicked
}

/// Takes away what can be taken away so that it still panics.
fn reduced(mut text: Vec<u8>, set: Option<&str>) -> Vec<u8> {
    let mut size = text.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < text.len() {
            let mut shorter = text.clone();
            shorter.drain(at..(at + size).min(text.len()));
            if panics(&shorter, set) { text = shorter } else { at += size }
        }
        size /= 2;
    }
    text
}

#[test]
fn no_text_makes_it_panic() {
    let count = std::env::var("THRESH_MUTATIONS").map_or(2_000, |count| count.parse().unwrap());
    let originals = originals();
    assert!(originals.len() > 90);
    let sets =
        [None, None, Some("params.seed=1,2"), Some("corpus.noise=0.1,0.2"), Some("corpus.seed=\"${params.seed}\",['")];
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !QUIET.get() {
            hook(info);
        }
    }));
    let found: Mutex<Vec<(Vec<u8>, Option<&str>)>> = Mutex::new(Vec::new());
    (0u64..count).into_par_iter().for_each(|number| {
        let mut rng = ChaCha8Rng::seed_from_u64(number);
        let text = mutated(&mut rng, &originals);
        let set = sets[rng.random_range(0..sets.len())];
        if found.lock().unwrap().len() < 20 && panics(&text, set) {
            found.lock().unwrap().push((text, set));
        }
    });
    let found = found.into_inner().unwrap();
    let smallest =
        found.iter().map(|(text, set)| (reduced(text.clone(), *set), *set)).min_by_key(|(text, _)| text.len());
    if let Some((text, set)) = smallest {
        let shown = String::from_utf8_lossy(&text).into_owned();
        panic!("{} of {count} panic; the smallest, with --set {set:?}:\n{shown}\n{shown:?}", found.len());
    }
}
