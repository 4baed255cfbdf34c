//! Scores of an experiment as one table, `thresh compare --format scores`, and comparisons that read such tables.

use thresh::eval::TrialRow;
use thresh::table;

use crate::project::Project;

/// Two arms of a rule-based agent with two seeds each, and a summary that is no score table.
const TOWN: &str = r#"
name: town
stages:
  corpus: {kind: multiwoz.synthesize, with: {dialogues: 60, domains: [restaurant], max_domains: 1, seed: 3}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  play:
    kind: dialogue.simulate
    matrix: {noise: [0.1, 0.6], seed: [10, 2]}
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule, noise: "${matrix.noise}"}, tasks: {split: train, limit: 15}, seed: "${matrix.seed}"}
  scores: {kind: eval.toolwoz, in: {episodes: play.episodes}}
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
