//! The authors' own trees: counts and training files as the reference's scripts give them.
//!
//! The package with the trees is no part of this repository. These tests run where `THRESH_MULTIWOZ` names its folder.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use thresh::compat::Rules;
use thresh::config::yaml_node;
use thresh::fs;
use thresh::josh::extraction::Trees;
use thresh::josh::forest::{Forest, Point};
use thresh::josh::import;
use thresh::josh::kto_data::KtoData;
use thresh::josh::node::NodeRow;
use thresh::josh::pair_data::PairData;
use thresh::josh::paths::{Harvests, PathError};
use thresh::josh::tree::Outcome;
use thresh::josh::turns::Good;

use crate::project::Project;

fn package(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("THRESH_MULTIWOZ").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("{test} is skipped: THRESH_MULTIWOZ does not name the folder of the reference's package");
    }
    folder
}

/// The archive's name in the package.
const ARCHIVE: &str = "data/llama3-josh-toolwoz-for-KTO.zip";

fn trees(package: &Path) -> (Vec<NodeRow>, Harvests) {
    let zip = fs::open(package.join(ARCHIVE)).unwrap();
    let rows = import::archive(zip).unwrap().flat_map(Result::unwrap).collect::<Vec<_>>();
    let harvests = Harvests::read(rows.clone().into_iter().map(Ok::<_, PathError>)).unwrap();
    (rows, harvests)
}

/// The reference's system prompt, from its own files.
fn system_prompt(package: &Path) -> String {
    let prompts = yaml_node(&fs::read_to_string(package.join("prompts/prompts.yaml")).unwrap()).unwrap();
    let react = prompts.get("react_prompt").and_then(|prompt| prompt.text()).unwrap();
    let tools: Value = serde_json::from_slice(&fs::read(package.join("data/tools.json")).unwrap()).unwrap();
    react.replace("{example_filled}", &serde_json::to_string_pretty(&tools).unwrap())
}

fn sha256(text: &[u8]) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn authors_trees_have_the_published_counts() {
    let Some(package) = package("authors_trees_have_the_published_counts") else { return };
    let (rows, harvests) = trees(&package);
    let harvests = harvests.trees;
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

/// The whole way: the archive in a folder, the package's prompt in a file, a pipeline, and the export.
const PIPELINE: &str = "
name: authors
stages:
  files:
    kind: command.run
    with:
      command: [cp, \"PACKAGE\", \"{out.files}\"]
      outputs: {files: {path: llama3-josh-toolwoz-for-KTO.zip, type: files/v1}}
  trees: {kind: josh.import, in: {files: files.files}}
  sft: {kind: data.sft, in: {trees: trees.trees}, with: {compat: paper, system_prompt: prompt.txt}}
  kto: {kind: data.kto, in: {trees: trees.trees}, with: {compat: paper, system_prompt: prompt.txt}}
  pairs: {kind: data.pairs, in: {trees: trees.trees}}
  newer: {kind: data.sft, in: {trees: trees.trees}, with: {compat: repo-head}}
";

#[test]
fn authors_files_come_out_of_a_pipeline_to_the_byte() {
    let Some(package) = package("authors_files_come_out_of_a_pipeline_to_the_byte") else { return };
    let project = Project::new();
    project.write("prompt.txt", &system_prompt(&package));
    let archive = std::path::absolute(package.join(ARCHIVE)).unwrap();
    project.write("p.yaml", &PIPELINE.replace("PACKAGE", archive.to_str().unwrap()));
    project.run(&["p.yaml"]);
    project.ok(&["export", "p.yaml", "--to", "out", "--format", "trl"]);
    let file = |name: &str| fs::read(project.path().join("out").join(name)).unwrap();
    let rows = |name: &str| file(name).split(|byte| *byte == b'\n').count();
    let exported = fs::list(project.path().join("out")).unwrap();
    assert_eq!(exported.len(), 4, "nothing but examples is exported: {exported:?}");
    assert_eq!((rows("sft.examples.jsonl"), rows("kto.examples.jsonl")), (420, 3_283 + 911));
    assert_eq!(sha256(&file("sft.examples.jsonl")), "998976c87b3011fd9298812c882e9edba4c17367f6fe34d47eea855b89333e42");
    assert_eq!(sha256(&file("kto.examples.jsonl")), "91409dee099b763b2b915feb9a25ef48189925a319d5d98eab1a71d43636926c");
    let refused = project.thresh(&["export", "p.yaml", "trees", "--to", "out", "--format", "trl"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("`trees.trees` holds no training examples"), "{}", refused.stderr);
}

#[test]
fn authors_trees_give_our_labels_no_turn_both_ways() {
    let Some(package) = package("authors_trees_give_our_labels_no_turn_both_ways") else { return };
    let (_, harvests) = trees(&package);
    for (trees, good) in
        [(Trees::Complete, Good::Golden), (Trees::Complete, Good::Successful), (Trees::Rewarded, Good::Golden)]
    {
        let data = KtoData::of(&harvests, &Rules::default(), trees, good);
        let turns = |desirable: bool| {
            let turns = data.turns.iter().filter(move |turn| turn.desirable == desirable);
            turns.map(|turn| turn.turn).collect::<std::collections::HashSet<Point>>()
        };
        let (liked, disliked) = (turns(true), turns(false));
        let (liked_count, disliked_count) = (liked.len(), disliked.len());
        eprintln!("{trees:?} {good:?}: {liked_count} + {disliked_count}, {} left out", data.contradictions);
        assert!(liked.is_disjoint(&disliked));
        assert!(!liked.is_empty() && !disliked.is_empty());
    }
}

#[test]
fn authors_trees_give_pairs_on_one_prompt() {
    let Some(package) = package("authors_trees_give_pairs_on_one_prompt") else { return };
    let (_, Harvests { forest, trees }) = trees(&package);
    let harvests = Harvests { forest, trees };
    let data = PairData::of(&harvests, Trees::Complete, None);
    eprintln!("{} pairs, {} turns unpaired", data.pairs.len(), data.unpaired);
    let before = |point| Forest::before(&harvests.forest, point);
    assert!(data.pairs.iter().all(|pair| before(pair.chosen) == before(pair.rejected) && pair.chosen != pair.rejected));
    assert!(data.pairs.len() > 300);
}
