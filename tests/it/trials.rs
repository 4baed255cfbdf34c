//! Scores of an experiment as one table, `thresh compare --format scores`, and comparisons that read such tables.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thresh::dialogue::episode::Outcome;
use thresh::eval::TrialRow;
use thresh::table::{self, Row};

use crate::project::Project;

/// Two arms of a rule-based agent with two seeds each, and a summary that is no score table.
const TOWN: &str = r#"
name: town
stages:
  corpus: {kind: multiwoz.synthesize, with: {dialogues: 60, domains: [restaurant], max_domains: 1, seed: 3}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  play:
    kind: dialogue.simulate
    matrix: {noise: [0.1, 0.6], seed: [2, 10]}
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule, noise: "${matrix.noise}"}, tasks: {split: train, limit: 15}, seed: "${matrix.seed}"}
  scores: {kind: eval.toolwoz, in: {episodes: play.episodes, tasks: toolwoz.tasks, world: toolwoz.world}}
  again: {kind: eval.toolwoz, in: {episodes: play.episodes}, with: {seed: 9}}
"#;

const ARMS: [&str; 2] = ["quiet=town.scores[noise=0.1]", "loud=scores[noise=0.6]"];

fn town() -> Project {
    let project = Project::new();
    project.write("town.yaml", TOWN);
    project.run(&["town.yaml"]);
    project
}

fn write(project: &Project, arms: &[&str], file: &str) {
    project.ok(&[&["compare"], arms, &["--format", "scores", "--out", file]].concat());
}

fn rows(project: &Project, file: &str) -> Vec<TrialRow> {
    table::read(&project.path().join(file)).unwrap()
}

#[test]
fn the_scores_of_an_experiment_are_one_table() {
    let project = town();
    write(&project, &ARMS, "a.parquet");
    write(&project, &ARMS, "b.parquet");
    let bytes = |file: &str| std::fs::read(project.path().join(file)).unwrap();
    assert_eq!(bytes("a.parquet"), bytes("b.parquet"));
    let found = rows(&project, "a.parquet");
    assert_eq!(found.len(), 60);
    let place = |row: &TrialRow| (row.arm.clone(), row.seed.clone().unwrap());
    let mut places: Vec<(String, String)> = found.iter().map(place).collect();
    places.dedup();
    let owned = |arm: &str, seed: &str| (arm.to_owned(), seed.to_owned());
    assert_eq!(places, [owned("quiet", "2"), owned("quiet", "10"), owned("loud", "2"), owned("loud", "10")]);
    let sorted = found.chunk_by(|a, b| place(a) == place(b)).all(|some| some.is_sorted_by_key(|row| &row.dialogue));
    assert!(sorted, "{found:?}");
    let seed: Vec<TrialRow> = found.into_iter().filter(|row| place(row) == owned("loud", "10")).collect();
    let scores: Vec<thresh::eval::ScoreRow> =
        table::read(&project.result("town.yaml", "scores[noise=0.6,seed=10].scores")).unwrap();
    assert!(seed.iter().all(|row| scores.contains(&row.clone().score())) && seed.len() == scores.len());
    // One arm alone, with all of its seeds; and names as the comparison gives them.
    write(&project, &["town.scores[noise=0.1]"], "one.parquet");
    let one = rows(&project, "one.parquet");
    assert!(one.len() == 30 && one.iter().all(|row| row.arm == "town.scores[noise=0.1]" && row.seed.is_some()));
    // What is called otherwise is another arm, whatever it differs in.
    write(&project, &["a=scores[noise=0.1,seed=2]", "b=scores[noise=0.1,seed=10]"], "apart.parquet");
    let apart = rows(&project, "apart.parquet");
    assert!(apart.iter().all(|row| row.seed.is_none()) && apart[0].arm == "a" && apart[29].arm == "b");
}

#[test]
fn what_is_no_single_table_is_not_written() {
    let project = town();
    for (arguments, said) in [
        (&["town"][..], "`town` has several score tables; name one for each arm: `town.scores[noise=0.1]`, "),
        (&["a=town.toolwoz"], "`a` is no score table; run `"),
        (&["town.scores", "--fail-if", "success < 0"], "`--fail-if` judges a comparison"),
        (&["=town.scores"], "`=town"),
    ] {
        let ran = project.thresh(&[&["compare", "--format", "scores", "-o", "x.parquet"], arguments].concat());
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{arguments:?}: {}", ran.stderr);
        assert!(!project.path().join("x.parquet").exists());
    }
}

fn json(project: &Project, arguments: &[&str]) -> Value {
    serde_json::from_str(&project.ok(&[&["compare", "--json"], arguments].concat())).unwrap()
}

/// What is said of scores alone: episodes are not in the file.
fn of_scores(found: &Value) -> (Vec<&Value>, Vec<[&Value; 4]>, Vec<[&Value; 3]>) {
    let list = |name: &str| found[name].as_array().unwrap();
    let scored = |one: &&Value| ["reward", "success", "broken"].iter().any(|name| one["name"] == *name);
    let flips = list("flips").iter().map(|one| [&one["gained"], &one["lost"], &one["broken"], &one["mended"]]);
    let summary = |one: &&Value| one["source"] == "summary";
    let figures = list("figures").iter().filter(summary).map(|one| [&one["name"], &one["values"], &one["spreads"]]);
    (list("metrics").iter().filter(scored).collect(), flips.collect(), figures.collect())
}

#[test]
fn a_file_says_what_the_runs_say_and_needs_no_store() {
    let project = town();
    write(&project, &ARMS, "town.parquet");
    let clone = Project::new();
    std::fs::copy(project.path().join("town.parquet"), clone.path().join("town.parquet")).unwrap();
    for more in [&[][..], &["--all"]] {
        let runs = json(&project, &[&ARMS, more].concat());
        let file = json(&clone, &[&["town.parquet"], more].concat());
        let (metrics, flips, figures) = of_scores(&runs);
        assert!(metrics.len() > 1 && metrics[0]["values"][0]["replicates"].as_array().unwrap().len() == 2);
        assert!(!flips.is_empty() && !figures.is_empty(), "{runs}");
        assert_eq!(of_scores(&file), (metrics, flips, figures));
    }
    let file = json(&clone, &["town.parquet"]);
    assert_eq!(file["arms"][1]["name"], "loud");
    let replicate =
        serde_json::json!({"run": null, "stage": null, "port": null, "file": "town.parquet:loud", "seed": "10"});
    assert_eq!(file["arms"][1]["replicates"][1], replicate);
    assert!(!clone.path().join(".thresh").exists(), "nothing is made where nothing is stored");
    // Single arms, the baseline chosen, under other names; and every seed for itself.
    let turned = json(&clone, &["town.parquet:loud", "town.parquet:quiet"]);
    let success = |found: &Value| {
        found["metrics"].as_array().unwrap().iter().find(|one| one["name"] == "success").unwrap()["differences"][1]["mean"].as_f64().unwrap()
    };
    assert_eq!(success(&turned), -success(&file));
    let named = json(&clone, &["a=town.parquet:quiet", "b=town.parquet:loud"]);
    assert_eq!((&named["arms"][0]["name"], &named["arms"][1]["name"]), (&"a".into(), &"b".into()));
    let apart = json(&clone, &["town.parquet", "--no-pool"]);
    let names: Vec<&Value> = apart["arms"].as_array().unwrap().iter().map(|arm| &arm["name"]).collect();
    assert_eq!(names, ["quiet[seed=2]", "quiet[seed=10]", "loud[seed=2]", "loud[seed=10]"]);
    // Files may be put together; the same arms of two files are told apart.
    std::fs::copy(clone.path().join("town.parquet"), clone.path().join("old.parquet")).unwrap();
    let both = json(&clone, &["old.parquet:quiet", "town.parquet:quiet"]);
    assert_eq!((&both["arms"][0]["name"], &both["arms"][1]["name"]), (&"old:quiet".into(), &"town:quiet".into()));
    assert_eq!(both["notes"], serde_json::json!(["`scores`: the same scores"]));
    write(&clone, &["town.parquet:quiet", "town.parquet:loud"], "again.parquet");
    assert_eq!(rows(&clone, "again.parquet"), rows(&clone, "town.parquet"));
    // The other formats, the gate, and SQL.
    let text = clone.ok(&["compare", "town.parquet"]);
    assert!(text.contains("town.parquet:loud") && text.contains("of_ceiling"), "{text}");
    assert!(!text.contains("parameter"), "{text}");
    assert!(clone.ok(&["compare", "town.parquet", "--format", "md"]).contains("### metrics"));
    assert!(clone.ok(&["compare", "town.parquet", "--format", "csv"]).contains("metric,scores,success,loud"));
    let gate = |condition: &str| clone.thresh(&["compare", "town.parquet", "--fail-if", condition]).code;
    assert_eq!((gate("success < 1"), gate("success < -1"), gate("seconds > 1")), (Some(1), Some(0), Some(2)));
    let counted =
        clone.ok(&["sql", "select arm, seed, count(*) as n from 'town.parquet' group by arm, seed", "--json"]);
    assert!(counted.lines().count() == 4 && counted.lines().all(|line| line.ends_with("\"n\":15}")), "{counted}");
}

/// Columns as another program may write them: without reachable.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Other {
    arm: String,
    seed: Option<String>,
    dialogue: String,
    reward: f64,
}

impl Row for Other {
    const TYPE: &'static str = "test.other/v1";
}

#[test]
fn wrong_files_are_told() {
    let project = Project::new();
    let write = |name: &str, rows: Vec<TrialRow>| table::write(&project.path().join(name), rows).unwrap();
    let row = |arm: &str, dialogue: &str| TrialRow {
        arm: arm.to_owned(),
        seed: Some("1".to_owned()),
        dialogue: dialogue.to_owned(),
        reward: Some(1.0),
        success: Some(true),
        outcome: Outcome::Success,
        reachable: None,
    };
    write("good.parquet", vec![row("base", "a"), row("kto", "a")]);
    write("single.parquet", vec![row("base", "a")]);
    write("twice.parquet", vec![row("base", "a"), row("kto", "a"), row("base", "a")]);
    write("empty.parquet", Vec::new());
    write("odd.parquet", vec![row("base", "a"), TrialRow { reward: None, ..row("kto", "b") }]);
    let other = Other { arm: "base".to_owned(), seed: None, dialogue: "a".to_owned(), reward: 1.0 };
    table::write(&project.path().join("other.parquet"), vec![other]).unwrap();
    project.write("text.parquet", "no table");
    let foreign = "select arm, seed, dialogue, reward, success from 'good.parquet'";
    project.ok(&["sql", foreign, "-o", "foreign.parquet"]);
    for (arguments, said) in [
        (&["none.parquet"][..], "there is no file `none.parquet`"),
        (&["good.parquet", "none.parquet:base"], "there is no file `none.parquet`"),
        (&["good.parquet:bass"], "`good.parquet` has no arm `bass`; it has `base`, `kto`"),
        (
            &["x=good.parquet"],
            "`good.parquet` has the arms `base`, `kto`: `x` can be the name of one, as in `x=good.parquet:base`",
        ),
        (&["good.parquet:base"], "there is nothing to compare: `base` is the only arm"),
        (&["single.parquet"], "there is nothing to compare: `base` is the only arm"),
        (&["twice.parquet"], "`twice.parquet` has dialogue `a` of arm `base`, seed `1`, twice"),
        (&["empty.parquet"], "`empty.parquet` has no rows"),
        (&["odd.parquet"], "`odd.parquet`, dialogue `b` of arm `kto`: reward and success are null where"),
        (&["other.parquet"], "holds `test.other/v1` rows, expected `eval.trial/v1`"),
        (&["foreign.parquet"], "`foreign.parquet` is no table of scores: it has no `outcome`, `reachable`;"),
        (&["text.parquet"], "`text.parquet` is damaged or not Parquet"),
        (&["good.parquet", "town.scores"], "`town.scores` is no file of scores, others are: write its scores first"),
    ] {
        let ran = project.thresh(&[&["compare"], arguments].concat());
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn a_table_of_an_experiment_is_small() {
    let project = Project::new();
    let row = |number: u32| {
        let (arm, seed, dialogue) = (number / 2415, number / 805 % 3, number % 805);
        let chance = mixed(number);
        let success = chance.is_multiple_of(3);
        TrialRow {
            arm: format!("josh-{arm}"),
            seed: Some(seed.to_string()),
            dialogue: format!("MUL{:04}.json", mixed(dialogue) % 10_000 / 805 * 805 + dialogue),
            reward: Some(if success { 1.0 } else { f64::from(chance % 7) / 7.0 }),
            success: Some(success),
            outcome: if success { Outcome::Success } else { Outcome::Failure },
            reachable: Some(1.0),
        }
    };
    let written = table::write(&project.path().join("x.parquet"), (0..9 * 805).map(row)).unwrap();
    assert!(written.bytes < 60_000, "{} bytes", written.bytes);
}

/// A number without a pattern.
fn mixed(number: u32) -> u32 {
    let spread = number.wrapping_add(1).wrapping_mul(0x9E37_79B9);
    (spread ^ (spread >> 15)).wrapping_mul(0x85EB_CA6B) >> 8
}
