//! The authors' own trees: counts and training files as the reference's scripts give them.
//!
//! The package with the trees is no part of this repository. These tests run where `THRESH_MULTIWOZ` names its folder.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use thresh::chat::Message;
use thresh::config::yaml_node;
use thresh::fs;
use thresh::josh::import;
use thresh::josh::kto_data::kto_data;
use thresh::josh::node::NodeRow;
use thresh::josh::paths::{Harvest, PathError, harvests};
use thresh::josh::sft_data::{Recipe, Trees, sft_example};
use thresh::josh::tree::Outcome;

fn package(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("THRESH_MULTIWOZ").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("{test} is skipped: THRESH_MULTIWOZ does not name the folder of the reference's package");
    }
    folder
}

fn trees(package: &Path) -> (Vec<NodeRow>, Vec<Harvest>) {
    let zip = package.join("data/llama3-josh-toolwoz-for-KTO.zip");
    let rows = import::archive(fs::open(zip).unwrap()).unwrap().flat_map(Result::unwrap).collect::<Vec<_>>();
    let harvests = harvests(rows.clone().into_iter().map(Ok::<_, PathError>)).collect::<Result<_, _>>().unwrap();
    (rows, harvests)
}

/// The reference's system prompt, from its own files.
fn system(package: &Path) -> Message {
    let prompts = yaml_node(&fs::read_to_string(package.join("prompts/prompts.yaml")).unwrap()).unwrap();
    let react = prompts.get("react_prompt").and_then(|prompt| prompt.text()).unwrap();
    let tools: Value = serde_json::from_slice(&fs::read(package.join("data/tools.json")).unwrap()).unwrap();
    let tools = serde_json::to_string_pretty(&tools).unwrap();
    Message::system(react.replace("{example_filled}", &tools))
}

/// JSON as Python's `json.dumps` spells it.
fn python(value: &Value, out: &mut String) {
    match value {
        Value::Array(values) => {
            out.push('[');
            for (place, value) in values.iter().enumerate() {
                out.push_str(if place == 0 { "" } else { ", " });
                python(value, out);
            }
            out.push(']');
        }
        Value::Object(entries) => {
            out.push('{');
            for (place, (key, value)) in entries.iter().enumerate() {
                out.push_str(if place == 0 { "" } else { ", " });
                python(&json!(key), out);
                out.push_str(": ");
                python(value, out);
            }
            out.push('}');
        }
        other => {
            for unit in other.to_string().encode_utf16() {
                match char::from_u32(unit.into()) {
                    Some('\u{7f}') => out.push('\u{7f}'),
                    Some(plain) if plain.is_ascii() => out.push(plain),
                    _ => out.push_str(&format!("\\u{unit:04x}")),
                }
            }
        }
    }
}

fn sha256(lines: impl Iterator<Item = Value>) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(if text.is_empty() { "" } else { "\n" });
        python(&line, &mut text);
    }
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn authors_trees_have_the_published_counts() {
    let Some(package) = package("authors_trees_have_the_published_counts") else { return };
    let (rows, harvests) = trees(&package);
    assert_eq!(harvests.len(), 926);
    assert_eq!(harvests.iter().filter(|harvest| harvest.outcome == Outcome::Complete).count(), 631);
    let labels = |success: bool, golden: bool| {
        let records = harvests.iter().flat_map(|harvest| &harvest.records);
        records.filter(|record| (record.success, record.golden) == (success, golden)).count()
    };
    assert_eq!((labels(true, true), labels(true, false), labels(false, false)), (5_597, 3_074, 8_123));
    assert_eq!(rows.iter().filter(|row| row.order.is_some()).count(), 16_794);
    assert!(rows.is_sorted_by(|before, after| before.dialogue <= after.dialogue));
}

#[test]
fn authors_sft_file_comes_out_to_the_byte() {
    let Some(package) = package("authors_sft_file_comes_out_to_the_byte") else { return };
    let (system, (_, harvests)) = (system(&package), trees(&package));
    let examples: Vec<_> =
        harvests.iter().filter_map(|harvest| sft_example(harvest, Trees::Complete, Some(&system))).collect();
    assert_eq!(examples.len(), 420);
    let lines = examples.iter().map(|example| json!({"messages": example.messages}));
    assert_eq!(sha256(lines), "998976c87b3011fd9298812c882e9edba4c17367f6fe34d47eea855b89333e42");
}

#[test]
fn authors_kto_file_comes_out_to_the_byte() {
    let Some(package) = package("authors_kto_file_comes_out_to_the_byte") else { return };
    let (system, (_, harvests)) = (system(&package), trees(&package));
    let data = kto_data(&harvests, Recipe::Paper, Trees::Complete, Some(&system));
    let desirable = data.examples.iter().filter(|example| example.label).count();
    assert_eq!((desirable, data.examples.len() - desirable), (3_283, 911));
    let lines = data
        .examples
        .iter()
        .map(|example| json!({"prompt": example.prompt, "completion": example.completion, "label": example.label}));
    assert_eq!(sha256(lines), "91409dee099b763b2b915feb9a25ef48189925a319d5d98eab1a71d43636926c");
}

#[test]
fn authors_trees_give_our_recipe_no_turn_labelled_both_ways() {
    let Some(package) = package("authors_trees_give_our_recipe_no_turn_labelled_both_ways") else { return };
    let (_, harvests) = trees(&package);
    for trees in [Trees::Complete, Trees::Rewarded] {
        let data = kto_data(&harvests, Recipe::Fixed, trees, None);
        let turns = |label: bool| {
            let examples = data.examples.iter().filter(move |example| example.label == label);
            examples.map(|example| (&example.prompt, &example.completion)).collect::<std::collections::HashSet<_>>()
        };
        let (good, bad) = (turns(true), turns(false));
        eprintln!(
            "{trees:?}: {} desirable turns, {} undesirable, {} left out",
            good.len(),
            bad.len(),
            data.contradictions
        );
        assert!(good.is_disjoint(&bad));
        assert!(!good.is_empty() && !bad.is_empty());
    }
}
