//! `thresh compare`, `thresh runs`, `thresh tag` and `thresh note`.

use serde_json::Value;
use thresh::chat::Message;
use thresh::dialogue::episode::{EpisodeRow, Outcome};
use thresh::report::compare::lines::ComparisonLine;
use thresh::table;

use crate::project::Project;

/// Scores of two arms whose episodes are files of the project, as an experiment would leave them.
const ARMS: &str = r#"
name: arms
stages:
  base:
    kind: command.run
    with: &copy
      command: "cp {project}/base.parquet {out.episodes}"
      files: [base.parquet]
      outputs: {episodes: {path: e.parquet, type: dialogue.episode/v2}}
  kto:
    kind: command.run
    with:
      command: "cp {project}/kto.parquet {out.episodes}"
      files: [kto.parquet]
      outputs: {episodes: {path: e.parquet, type: dialogue.episode/v2}}
  base_scores: {kind: eval.toolwoz, in: {episodes: base.episodes}}
  kto_scores: {kind: eval.toolwoz, in: {episodes: kto.episodes}}
  comparison: {kind: eval.compare, in: {base: base_scores.scores, kto: kto_scores.scores}, with: {baseline: base}}
"#;

/// An episode with two goals, of which these were reached; broken with a reason.
fn episode(dialogue: String, hit: &[u32], broken: Option<&str>) -> EpisodeRow {
    let success = hit.len() == 2 && broken.is_none();
    EpisodeRow {
        dialogue,
        split: "test".to_owned(),
        reward: hit.len() as f64 / 2.0,
        success,
        outcome: match (broken, success) {
            (Some(_), _) => Outcome::Broken,
            (None, true) => Outcome::Success,
            (None, false) => Outcome::Failure,
        },
        reason: broken.map(str::to_owned),
        ended: success,
        messages: vec![Message::user("hello"), Message::assistant("bye")],
        internal: Vec::new(),
        calls: Vec::new(),
        goals: vec!["search_hotel".to_owned(), "book_hotel".to_owned()],
        goals_hit: hit.to_vec(),
        agent_prompt_tokens: 10,
        agent_completion_tokens: 3 + hit.len() as u64,
        user_prompt_tokens: 0,
        user_completion_tokens: 0,
    }
}

fn episodes(project: &Project, name: &str, of: impl Fn(u32) -> EpisodeRow) {
    table::write(&project.path().join(name), (0..30).map(of)).unwrap();
}

fn named(number: u32) -> String {
    format!("d{number:02}")
}

/// The baseline succeeds in the first fifteen of thirty; `kto` gains five, loses one, breaks another.
fn arms() -> Project {
    let project = Project::new();
    project.write("arms.yaml", ARMS);
    episodes(&project, "base.parquet", |number| episode(named(number), if number < 15 { &[0, 1] } else { &[0] }, None));
    episodes(&project, "kto.parquet", |number| match number {
        3 => episode(named(number), &[0], None),
        4 => episode(named(number), &[0], Some("no reply within 20 s")),
        number => episode(named(number), if number < 20 { &[0, 1] } else { &[0] }, None),
    });
    project.run(&["arms.yaml"]);
    project
}

fn json(project: &Project, arguments: &[&str]) -> Value {
    serde_json::from_str(&project.ok(&[&["compare", "--json"], arguments].concat())).unwrap()
}

fn metric<'a>(found: &'a Value, name: &str) -> &'a Value {
    let metrics = found["metrics"].as_array().unwrap();
    metrics.iter().find(|metric| metric["name"] == name).unwrap_or_else(|| panic!("no {name}: {found}"))
}

#[test]
fn arms_of_a_run_are_compared_with_reasons() {
    let project = arms();
    let found = json(&project, &["arms.base_scores", "arms.kto_scores"]);
    let success = metric(&found, "success");
    let difference = &success["differences"][1];
    assert_eq!((difference["matched"].as_u64(), difference["unmatched"].as_u64()), (Some(29), Some(1)));
    assert_eq!(success["values"][1]["broken"], 1);
    assert_eq!(difference["method"], "resampled");
    // The pipeline's own comparison says the same.
    let lines = project.ok(&["show", "arms.comparison.comparison", "--json"]);
    let own: Value =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).find(|row: &Value| row["arm"] == "kto").unwrap();
    assert_eq!(own["success_difference"], difference["mean"]);
    assert_eq!(own["success"], success["values"][1]["mean"]);
    assert_eq!(own["success_low"], success["values"][1]["low"]);
    // Dialogues: broken, lost, gained ones, each with what is known of the reason.
    let flips = &found["flips"][0];
    let count = |name: &str| flips[name].as_u64().unwrap();
    assert_eq!((count("gained"), count("lost"), count("broken"), count("mended")), (5, 1, 1, 0));
    let dialogues = flips["dialogues"].as_array().unwrap();
    assert_eq!(
        (&dialogues[0]["dialogue"], &dialogues[0]["after"]["reasons"][0]),
        (&"d04".into(), &"no reply within 20 s".into())
    );
    assert_eq!((&dialogues[1]["dialogue"], &dialogues[1]["missed"][0]), (&"d03".into(), &"book_hotel".into()));
    assert_eq!((&dialogues[2]["dialogue"], &dialogues[2]["reached"][0]), (&"d15".into(), &"book_hotel".into()));
    assert_eq!(dialogues[0]["missed"].as_array().unwrap().len(), 0, "of a broken dialogue nothing can be said");
    // Parameters of the stages upstream, and nothing that only follows from them.
    let parameters = found["parameters"].as_array().unwrap();
    let fields: Vec<(&str, &str)> =
        parameters.iter().map(|one| (one["stage"].as_str().unwrap(), one["field"].as_str().unwrap())).collect();
    assert!(fields.contains(&("base / kto", "with.command")), "{fields:?}");
    assert!(fields.iter().all(|(stage, _)| *stage == "base / kto"), "{fields:?}");
    // What a comparison calls an arm is a name for it, too, and so is what leads to one score table only.
    let other = json(&project, &["arms.comparison.base", "arms.kto"]);
    assert_eq!((&other["metrics"], &other["flips"][0]["lost"]), (&found["metrics"], &flips["lost"]));
    let text = project.ok(&["compare", "arms.base_scores", "arms.kto_scores"]);
    assert!(text.contains("missed book_hotel; cut off by the limit of messages"), "{text}");
    assert!(text.contains("5 gained, 1 lost, 1 broken"), "{text}");
}

#[test]
fn the_formats_say_the_same() {
    let project = arms();
    let both = ["compare", "arms.base_scores", "arms.kto_scores"];
    let with = |more: &[&str]| project.ok(&[&both[..], more].concat());
    assert_eq!(with(&["--json"]), with(&["--format", "json"]));
    assert_eq!(with(&["--format", "md"]), with(&["--format", "md"]));
    assert!(with(&["--format", "md"]).contains("### metrics\n\n|"), "{}", with(&["--format", "md"]));
    with(&["--format", "parquet", "-o", "c.parquet"]);
    let rows: Vec<ComparisonLine> = table::read(&project.path().join("c.parquet")).unwrap();
    let csv = with(&["--format", "csv"]);
    assert_eq!(csv.lines().count(), rows.len() + 1);
    let row = rows
        .iter()
        .find(|row| row.section == "metric" && row.name == "success" && row.arm.ends_with("kto_scores"))
        .unwrap();
    let found = json(&project, &both[1..]);
    assert_eq!(row.difference, metric(&found, "success")["differences"][1]["mean"].as_f64());
    let lost = rows.iter().find(|row| row.section == "flip" && row.name == "d03").unwrap();
    assert_eq!(
        lost.text.as_deref(),
        Some("lost: success -> failure; missed book_hotel; cut off by the limit of messages")
    );
    // Only what differs, or everything.
    let every = json(&project, &["arms.base_scores", "arms.base_scores", "--all"]);
    assert_eq!(metric(&every, "success")["differences"][1]["mean"], 0.0);
    assert_eq!(every["arms"][1]["name"], "arms.base_scores #2");
    let none = json(&project, &["arms.base_scores", "arms.base_scores"]);
    assert_eq!(none["metrics"], serde_json::json!([]));
    assert_eq!(none["notes"], serde_json::json!(["`base_scores`: the same scores"]));
}

#[test]
fn a_gate_fails_where_its_condition_holds() {
    let project = arms();
    let gate = |conditions: &[&str]| {
        let mut arguments = vec!["compare", "arms.kto_scores", "arms.base_scores", "--quiet"];
        conditions.iter().for_each(|condition| arguments.extend(["--fail-if", condition]));
        project.thresh(&arguments)
    };
    let ran = gate(&["success < -0.02"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("failed: success < -0.02: scores of `arms.base_scores`: success -0.1379"),
        "{}",
        ran.stderr
    );
    assert_eq!(gate(&["success < -20%", "reward < -0.2", "broken > 0.5"]).code, Some(0));
    assert_eq!(gate(&["success < -20%", "reward < -0.05"]).code, Some(1));
    assert_eq!(gate(&["success < -0.02 and p < 0.000001"]).code, Some(0));
    assert_eq!(gate(&["success < -0.02 and p < 0.3"]).code, Some(1));
    assert_eq!(gate(&["success < -0.02 and high < 0"]).code, Some(0));
    for (condition, said) in [
        ("sucess < -0.02", "--fail-if: there is no metric `sucess`; there are `"),
        ("seconds > 1e9 and p < 1", "--fail-if: `p` cannot be compared in"),
        ("success", "--fail-if: `success` is no condition; expected a metric"),
    ] {
        let ran = gate(&[condition]);
        assert_eq!(ran.code, Some(2), "{condition}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{condition}: {}", ran.stderr);
    }
    let judged = json(&project, &["arms.base_scores", "arms.kto_scores", "--fail-if", "success < -1"]);
    assert_eq!(
        (&judged["gates"][0]["failed"], &judged["gates"][0]["condition"]),
        (&false.into(), &"success < -1".into())
    );
}

#[test]
fn broken_dialogues_are_in_no_gate_by_accident() {
    let project = arms();
    episodes(&project, "kto.parquet", |number| episode(named(number), &[], Some("no server")));
    project.run(&["arms.yaml"]);
    let ran = project.thresh(&["compare", "arms.base_scores", "arms.kto_scores", "--fail-if", "success < -0.02"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("`success` cannot be compared in `scores` of `arms.kto_scores`"), "{}", ran.stderr);
    let ran = project.thresh(&["compare", "arms.base_scores", "arms.kto_scores", "--fail-if", "broken > 10%"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    // As whole runs: the arm whose scores changed, and the other that did not.
    let found = json(&project, &["arms~1", "arms"]);
    let tables: Vec<&str> =
        found["metrics"].as_array().unwrap().iter().map(|metric| metric["table"].as_str().unwrap()).collect();
    assert!(!tables.is_empty() && tables.iter().all(|table| *table == "kto_scores"), "{tables:?}");
    assert!(found["notes"].to_string().contains("`base_scores`: the same scores"), "{found}");
    // Without its result nothing is known of a stage, and the gate says so.
    let all = project.ok(&["runs", "--json", "--limit", "1"]);
    let record: Value = serde_json::from_str(&all).unwrap();
    let stages = record["stages"].as_array().unwrap();
    let fingerprint =
        stages.iter().find(|stage| stage["name"] == "kto_scores").unwrap()["fingerprint"].as_str().unwrap();
    let folder = project.path().join(".thresh/results").join(&fingerprint[..2]).join(fingerprint);
    std::fs::remove_dir_all(folder).unwrap();
    let ran = project.thresh(&["compare", "arms~1", "arms", "--fail-if", "success < -0.02"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot be compared in `kto_scores` of `arms`"), "{}", ran.stderr);
    let found = json(&project, &["arms~1", "arms"]);
    assert_eq!(found["lone_stages"][0]["arms"], serde_json::json!(["present", "without_result"]));
}

#[test]
fn seeds_of_a_matrix_are_replicates() {
    let project = Project::new();
    for (arm, reached) in [("base", 12), ("kto", 18)] {
        for seed in 1..=3_u32 {
            let name = format!("{arm}-{seed}.parquet");
            episodes(&project, &name, |number| {
                episode(named(number), if (number * 7 + seed) % 30 < reached + seed { &[0, 1] } else { &[0] }, None)
            });
        }
    }
    project.write(
        "seeds.yaml",
        r#"
name: seeds
stages:
  play:
    kind: command.run
    matrix: {arm: [base, kto], seed: [1, 2, 3]}
    with:
      command: "cp {project}/${matrix.arm}-${matrix.seed}.parquet {out.episodes}"
      files: ["${matrix.arm}-${matrix.seed}.parquet"]
      outputs: {episodes: {path: e.parquet, type: dialogue.episode/v2}}
  scores: {kind: eval.toolwoz, in: {episodes: play.episodes}}
"#,
    );
    project.run(&["seeds.yaml"]);
    let found = json(&project, &["scores[arm=base]", "seeds.scores[arm=kto]"]);
    let arms = found["arms"].as_array().unwrap();
    assert_eq!(arms.len(), 2, "{found}");
    let seeds: Vec<&str> =
        arms[1]["replicates"].as_array().unwrap().iter().map(|one| one["seed"].as_str().unwrap()).collect();
    assert_eq!(seeds, ["1", "2", "3"]);
    let success = metric(&found, "success");
    assert_eq!(success["values"][0]["replicates"].as_array().unwrap().len(), 3);
    assert!((success["values"][0]["spread"].as_f64().unwrap() - 1.0 / 30.0).abs() < 1e-9, "{success}");
    let difference = &success["differences"][1];
    assert_eq!((&difference["method"], &difference["matched"]), (&"dialogues_and_seeds".into(), &30.into()));
    assert!((difference["mean"].as_f64().unwrap() - 0.2).abs() < 1e-9);
    let text = project.ok(&["compare", "scores[arm=base]", "scores[arm=kto]"]);
    assert!(text.contains("the chance of dialogues and of seeds") && text.contains("3 success"), "{text}");
    // Each for itself where that is asked for.
    assert_eq!(json(&project, &["scores", "--no-pool"])["arms"].as_array().unwrap().len(), 6);
    assert_eq!(json(&project, &["scores"])["arms"].as_array().unwrap().len(), 2);
}

/// Runs of one pipeline: the seed and the noise are parameters.
const TOWN: &str = r#"
name: town
params: {seed: 1, noise: 0.0}
stages:
  corpus: {kind: multiwoz.synthesize, with: {dialogues: 60, domains: [restaurant], max_domains: 1, seed: 3}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  episodes:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule, noise: "${params.noise}"}, tasks: {split: train, limit: 20}, seed: "${params.seed}"}
  scores: {kind: eval.toolwoz, in: {episodes: episodes.episodes}}
"#;

#[test]
fn runs_that_differ_in_the_seed_are_one_arm() {
    let project = Project::new();
    project.write("town.yaml", TOWN);
    for noise in ["0.0", "0.5"] {
        for seed in ["1", "2"] {
            let (noise, seed) = (format!("params.noise={noise}"), format!("params.seed={seed}"));
            project.run(&["town.yaml", "--set", &noise, "--set", &seed]);
        }
    }
    let found = json(&project, &["town~3", "town~2", "town~1", "town"]);
    let arms = found["arms"].as_array().unwrap();
    assert_eq!((arms.len(), arms[0]["replicates"].as_array().unwrap().len()), (2, 2), "{found}");
    // The noise, where it is set; not the seeds, and no stage that only inherits it.
    let parameters = found["parameters"].as_array().unwrap();
    assert_eq!(parameters.len(), 1, "{parameters:?}");
    assert_eq!((&parameters[0]["stage"], &parameters[0]["field"]), (&"episodes".into(), &"with.agent.noise".into()));
    assert_eq!(metric(&found, "calls")["values"][0]["replicates"].as_array().unwrap().len(), 2);
    // All runs by one name are the same arms, the newest first.
    let all = json(&project, &["town~*"]);
    assert_eq!(all["arms"].as_array().unwrap().len(), 2);
    assert_eq!(json(&project, &["town~*.scores"])["arms"].as_array().unwrap().len(), 2);
    // Nothing but seeds differs: each run for itself, and it is said.
    let same = json(&project, &["town~1", "town"]);
    assert_eq!(same["arms"].as_array().unwrap().len(), 2);
    assert!(same["notes"].to_string().contains("differ in nothing but seeds"), "{same}");
    assert_eq!(same["parameters"][0]["field"], "with.seed");
    // Time and figures are there for what was computed once and found fresh later.
    project.run(&["town.yaml", "--set", "params.noise=0.5"]);
    let fresh = json(&project, &["town~4", "town"]);
    let costs = fresh["costs"].as_array().unwrap();
    assert!(
        costs.iter().all(|cost| cost["arms"]
            .as_array()
            .unwrap()
            .iter()
            .all(|spent| spent["seconds"].as_f64() > Some(0.0))),
        "{costs:?}"
    );
    // Runs can be found by what they were told and what came of it.
    let runs = |arguments: &[&str]| project.ok(&[&["runs"], arguments].concat()).lines().count();
    assert_eq!((runs(&[]), runs(&["--where", "episodes.agent.noise=0.5"])), (5, 3));
    assert_eq!(runs(&["--where", "episodes.agent.noise>0.1", "--where", "episodes.seed!=1"]), 1);
    assert_eq!(runs(&["--where", "scores.success>=1", "--outcome", "done"]), 2);
    assert_eq!(
        (runs(&["--outcome", "failed"]), runs(&["--since", "1 h"]), runs(&["--before", "2020-01-01"])),
        (0, 5, 0)
    );
    let best = project.ok(&["runs", "--sort", "scores.reward", "--limit", "1", "--show", "scores.reward"]);
    assert!(best.contains("params.noise=0.0") && best.contains("scores.reward 1"), "{best}");
    for (arguments, said) in [
        (&["--where", "episodes.seed"][..], "is no condition; expected `stage.parameter=VALUE`"),
        (&["--since", "soon"], "`soon` is no time; write `2 d`"),
        (&["--sort", "scores.sucess"], "no run has `scores.sucess`"),
    ] {
        let ran = project.thresh(&[&["runs"], arguments].concat());
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
}

#[test]
fn what_cannot_be_compared_is_named() {
    let project = arms();
    for (arguments, said) in [
        (&["arms"][..], "there is nothing to compare: name two runs, or two stages of a run"),
        (&["arms", "arms.kto_scores"], "compare runs with runs, or stages with stages"),
        (&["arms", "army"], "there is no run `army`; did you mean `arms`?"),
        (&["arms.base_scores", "arms.kto_score"], "run `2"),
    ] {
        let ran = project.thresh(&[&["compare"], arguments].concat());
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{arguments:?}: {}", ran.stderr);
    }
    let ran = project.thresh(&["compare", "arms.comparison", "arms.kto_scores"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("`arms.comparison` is no score table"), "{}", ran.stderr);
}

#[test]
fn tags_and_notes_stay_beside_the_record() {
    let project = arms();
    project.run(&["arms.yaml"]);
    let record = |project: &Project| {
        let name = project.ok(&["runs"]).lines().nth(1).unwrap().split(' ').next().unwrap().to_owned();
        std::fs::read(project.path().join(".thresh/runs").join(format!("{name}.json"))).unwrap()
    };
    let before = record(&project);
    assert!(project.ok(&["tag", "arms~1", "baseline", "v1"]).ends_with("  #baseline  #v1\n"));
    project.ok(&["note", "baseline", "the one to beat"]);
    assert_eq!(record(&project), before);
    assert!(project.ok(&["note", "v1"]).ends_with("  the one to beat\n"));
    let listed = project.ok(&["runs", "--tag", "v1"]);
    assert!(
        listed.lines().count() == 1 && listed.contains("#baseline  #v1") && listed.contains("the one to beat"),
        "{listed}"
    );
    let line: Value = serde_json::from_str(&project.ok(&["runs", "--json", "--tag", "v1"])).unwrap();
    assert_eq!(
        (&line["tags"][1], &line["note"], &line["pinned"]),
        (&"v1".into(), &"the one to beat".into(), &false.into())
    );
    // A tag is a name of the run wherever one is asked for.
    assert_eq!(
        project.ok(&["compare", "baseline", "latest", "--format", "csv"]).lines().next().unwrap().split(',').next(),
        Some("section")
    );
    project.ok(&["show", "baseline.kto_scores.scores"]);
    project.ok(&["log", "baseline"]);
    // It can be moved and taken away, and must be none of the names that runs have already.
    project.ok(&["tag", "latest", "baseline", "--move"]);
    assert!(!project.ok(&["runs"]).lines().nth(1).unwrap().contains("#baseline"));
    for (arguments, said) in [
        (&["tag", "latest", "a.b"][..], "`a.b` cannot be a tag: a tag is made of letters"),
        (&["tag", "latest", "arms"], "`arms` cannot be a tag: a pipeline is called so"),
        (&["tag", "latest", "v9", "--remove"], "has no tag `v9`"),
        (&["tag", "bassline", "v9"], "did you mean `baseline`?"),
    ] {
        let ran = project.thresh(arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{arguments:?}: {}", ran.stderr);
    }
    // What is damaged is said and left out; the run is as it was.
    let files: Vec<_> =
        std::fs::read_dir(project.path().join(".thresh/runs")).unwrap().map(|one| one.unwrap().path()).collect();
    let labels: Vec<_> =
        files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "labels")).collect();
    assert_eq!(labels.len(), 2);
    std::fs::write(labels[0], "{}").unwrap();
    let ran = project.thresh(&["runs"]);
    assert!(ran.code == Some(0) && ran.stderr.contains("the tags and the note in"), "{}", ran.stderr);
    assert_eq!(ran.stdout.lines().count(), 2);
    // A tag keeps nothing from being collected; it goes with its run.
    project.ok(&["gc", "--keep", "1"]);
    assert_eq!(project.ok(&["runs"]).lines().count(), 1);
    let left = std::fs::read_dir(project.path().join(".thresh/runs")).unwrap();
    let left = left.filter(|one| one.as_ref().unwrap().path().extension().is_some_and(|ending| ending == "labels"));
    assert_eq!(left.count(), 1);
}
