//! Pipelines changed at random: whatever stands in a file, loading it ends in a pipeline or in messages, never in a panic.
//!
//! `THRESH_MUTATIONS` asks for another number than 100,000; `make fuzz` for a million.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

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

const SWEEP: &str = r#"
name: s
extends: _base.yaml
set: {corpus.dialogues: 20}
sweep: {corpus.seed: [1, 2], corpus.noise: [0.1, 2e-1]}
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
    "sweep: ",
    "params.seed: [1, 2]",
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
    for text in [MATRIX, SWEEP, crate::matrix::PIPELINE, crate::matrix::SWEPT] {
        texts.extend(std::iter::repeat_n(text.as_bytes().to_vec(), 20));
    }
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

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.'
}

/// The longest stretches of a text that hold only such bytes.
fn parts(text: &[u8], inside: impl Fn(u8) -> bool) -> Vec<std::ops::Range<usize>> {
    let mut parts = Vec::new();
    let mut start = None;
    for at in 0..=text.len() {
        match (text.get(at).is_some_and(|byte| inside(*byte)), start) {
            (true, None) => start = Some(at),
            (false, Some(begin)) => {
                parts.push(begin..at);
                start = None;
            }
            _ => {}
        }
    }
    parts
}

fn one_of<T: Clone>(rng: &mut ChaCha8Rng, all: &[T]) -> Option<T> {
    if all.is_empty() { None } else { Some(all[rng.random_range(0..all.len())].clone()) }
}

/// One text made of others.
fn mutated(rng: &mut ChaCha8Rng, originals: &[Vec<u8>]) -> Vec<u8> {
    let mut text = originals[rng.random_range(0..originals.len())].clone();
    for _ in 0..[1, 1, 1, 2, 3, 6][rng.random_range(0..6)] {
        match rng.random_range(0..12) {
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
            6 | 7 => {
                let lines = parts(&text, |byte| byte != b'\n');
                let Some(line) = one_of(rng, &lines) else { continue };
                let copied = [&text[line.clone()], b"\n"].concat();
                let at = if rng.random_bool(0.5) { line.start..line.end } else { line.start..line.start };
                text.splice(at, copied);
            }
            8 => {
                let lines = parts(&text, |byte| byte != b'\n');
                let Some(line) = one_of(rng, &lines) else { continue };
                text.drain(line);
            }
            _ => {
                let other = if rng.random_bool(0.5) { &text } else { &originals[rng.random_range(0..originals.len())] };
                let (ours, theirs) = (parts(&text, is_word), parts(other, is_word));
                let (Some(one), Some(two)) = (one_of(rng, &ours), one_of(rng, &theirs)) else { continue };
                let two = other[two].to_vec();
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

/// Loads a text as the command line would, without the disk: whether there is a pipeline, `None` where it panicked.
fn loads(text: &[u8], set: Option<&str>) -> Option<bool> {
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
        Ok(pipeline) => !pipeline.graph.nodes.is_empty(),
        Err(problems) => {
            assert!(!problems.list.is_empty(), "refused without a word");
            assert!(problems.render(false).contains("error"));
            false
        }
    };
    QUIET.set(true);
    let loaded = catch_unwind(AssertUnwindSafe(load)).ok();
    QUIET.set(false);
    loaded
}

/// Takes away what can be taken away so that it still panics.
fn reduced(mut text: Vec<u8>, set: Option<&str>) -> Vec<u8> {
    let mut size = text.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < text.len() {
            let mut shorter = text.clone();
            shorter.drain(at..(at + size).min(text.len()));
            match loads(&shorter, set) {
                None => text = shorter,
                Some(_) => at += size,
            }
        }
        size /= 2;
    }
    text
}

#[test]
fn no_text_makes_it_panic() {
    let count = std::env::var("THRESH_MUTATIONS").map_or(100_000, |count| count.parse().unwrap());
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
    let loaded = AtomicU64::new(0);
    (0u64..count).into_par_iter().for_each(|number| {
        let mut rng = ChaCha8Rng::seed_from_u64(number);
        let text = mutated(&mut rng, &originals);
        let set = sets[rng.random_range(0..sets.len())];
        match loads(&text, set) {
            None => found.lock().unwrap().push((text, set)),
            Some(true) => _ = loaded.fetch_add(1, Ordering::Relaxed),
            Some(false) => {}
        }
    });
    let found = found.into_inner().unwrap();
    let smallest =
        found.iter().take(20).map(|(text, set)| (reduced(text.clone(), *set), *set)).min_by_key(|(text, _)| text.len());
    if let Some((text, set)) = smallest {
        let shown = String::from_utf8_lossy(&text).into_owned();
        panic!("{} of {count} panic; the smallest, with --set {set:?}:\n{shown}\n{shown:?}", found.len());
    }
    // Changes that nothing survives would only try the YAML parser.
    let share = loaded.into_inner() as f64 / count as f64;
    assert!((0.05..0.9).contains(&share), "{share} of the texts are pipelines");
}
