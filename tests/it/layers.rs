//! Who may import whom: the table of ARCHITECTURE.md, read off the sources.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const BASE: &[&str] = &["chat", "child", "compat", "examples", "fs", "net", "seed", "table", "value"];
const DOMAIN: &[&str] = &["dataset", "dialogue", "eval", "josh", "llm", "model", "train"];

/// Where a heavy crate may be used: prefixes of paths below `src/`.
const OWNERS: &[(&str, &[&str])] = &[
    ("burn", &["model", "train"]),
    ("polars", &["report"]),
    ("petgraph", &["engine/graph.rs"]),
    ("hyper", &["serve"]),
    ("reqwest", &["dataset", "llm/http", "net"]),
    ("clap", &["cli"]),
    ("indicatif", &["report"]),
    ("serde_yaml", &["config"]),
    ("thresh_kernels", &["model", "train"]),
    ("tokenizers", &["model"]),
    ("cudarc", &["model/cuda"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn allowed(module: &str) -> BTreeSet<&'static str> {
    let lists: &[&[&str]] = match module {
        "main" | "lib" => return BTreeSet::from(["cli", "server"]),
        "cli" => &[&["report", "config", "stages", "engine", "eval", "llm", "model", "serve"], BASE],
        "serve" => &[&["model"], BASE],
        "report" => &[&["engine", "dialogue", "eval", "josh", "train"], BASE],
        "config" => &[&["stages", "engine"], BASE],
        "stages" => &[&["engine"], DOMAIN, BASE],
        "engine" => &[BASE],
        module if DOMAIN.contains(&module) => &[DOMAIN, BASE],
        module if BASE.contains(&module) => &[BASE],
        other => panic!("module `{other}` has no layer: give it one here and in ARCHITECTURE.md"),
    };
    lists.iter().flat_map(|list| list.iter().copied()).collect()
}

#[test]
fn imports_only_point_downwards() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    assert!(files.len() > 60);
    let mut wrong = Vec::new();
    for file in files {
        let place = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        // What tests import says nothing about the layers.
        if place.ends_with("tests.rs") || place.ends_with("golden.rs") || place == "stages/bench.rs" {
            continue;
        }
        let module = place.split(['/', '.']).next().unwrap().to_owned();
        let mut may = allowed(&module);
        may.insert(Box::leak(module.into_boxed_str()));
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for (at, _) in line.match_indices("crate::") {
                let target = line[at + 7..].split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                if target.starts_with(|c: char| c.is_lowercase()) && !may.contains(target) {
                    wrong.push(format!("{place}: {}", line.trim()));
                }
            }
            for (heavy, owners) in OWNERS {
                let used = line.contains(&format!("use {heavy}::")) || line.contains(&format!(" {heavy}::"));
                if used && !owners.iter().any(|owner| place.starts_with(owner)) {
                    wrong.push(format!("{place} uses {heavy}: {}", line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
