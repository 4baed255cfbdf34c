//! `eval.instructions`: the built-in suite, through the binary.

use thresh::eval::instructions::{AbilityRow, AnswerRow, tasks};
use thresh::table;

use crate::project::Project;

const PIPELINE: &str = "name: p
stages:
  corpus: {kind: multiwoz.synthesize, with: {dialogues: 20, seed: 1}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  demonstrations:
    kind: demonstrations.build
    in: {corpus: corpus.corpus, tasks: toolwoz.tasks, world: toolwoz.world}
    with: {tasks: {limit: 3}}
  blank:
    kind: model.init
    in: {examples: demonstrations.examples}
    with: {layers: 1, heads: 1, kv_heads: 1, hidden_size: 8, intermediate_size: 16, vocab_size: 300, context: 1024, seed: 1}
  abilities:
    kind: eval.instructions
    in: {model: blank.model}
    with: {max_tokens: 4, samples: 200}
";

#[test]
fn the_suite_gives_the_same_bytes_again_and_its_figures_are_kept() {
    let tables = || {
        let project = Project::new();
        project.write("p.yaml", PIPELINE);
        assert_eq!(project.run(&["p.yaml"])["failed"].as_u64(), Some(0));
        let paths = ["abilities.answers", "abilities.abilities"].map(|port| project.result("p.yaml", port));
        (project, paths)
    };
    let (project, paths) = tables();
    let (_again, other) = tables();
    for (path, other) in paths.iter().zip(&other) {
        assert_eq!(std::fs::read(path).unwrap(), std::fs::read(other).unwrap());
    }
    let answers: Vec<AnswerRow> = table::read(&paths[0]).unwrap();
    let names: Vec<String> = answers.iter().map(|answer| answer.task.clone()).collect();
    assert_eq!(names, tasks().into_iter().map(|task| task.name).collect::<Vec<_>>());
    let rows: Vec<AbilityRow> = table::read(&paths[1]).unwrap();
    let right = answers.iter().filter(|answer| answer.holds).count();
    assert_eq!((rows[0].category.as_str(), rows[0].tasks), ("all", answers.len() as u64));
    assert_eq!(rows[0].holds, right as f64 / answers.len() as f64);
    assert_eq!(project.run(&["p.yaml"])["computed"].as_u64(), Some(0));
}

#[test]
fn an_unknown_category_is_refused_before_anything_runs() {
    let project = Project::new();
    project.write("p.yaml", &PIPELINE.replace("{max_tokens: 4,", "{categories: [sum, capitol],"));
    let ran = project.thresh(&["check", "p.yaml"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("unknown value `capitol`"), "{}", ran.stderr);
    assert!(ran.stderr.contains("did you mean `capital`?"), "{}", ran.stderr);
}
