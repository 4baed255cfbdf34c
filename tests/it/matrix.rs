//! Matrices and sweeps: which instances there are, what each reads, and what is computed when a value is added.

use std::collections::BTreeMap;

use crate::project::{Project, counts, ran};

/// `train` has a matrix, `eval` follows it, `report` collects.
pub const PIPELINE: &str = r#"
name: m
params: {seed: 1}
stages:
  data:
    kind: command.run
    with: {command: "echo data > {out.d}; echo data >> {project}/ran", outputs: {d: {path: d}}}
  train:
    kind: command.run
    matrix: {lr: [1e-4, 3e-4], seed: [1, 2]}
    in: {data: data.d}
    with:
      command: ["sh", "-c", "echo $LR $SEED > $THRESH_OUTPUT_M; echo train $LR $SEED >> {project}/ran"]
      env: {LR: "lr-${matrix.lr}", SEED: "seed-${matrix.seed}"}
      outputs: {m: {path: m}}
  eval:
    kind: command.run
    in: {model: train.m}
    each: [lr, seed]
    with: {command: "echo eval of $(cat {in.model}/m) > {out.s}; echo eval >> {project}/ran", outputs: {s: {path: s}}}
  report:
    kind: command.run
    in: {scores: eval.s}
    with: {command: "for i in {in.scores}; do cat $i/s; done > {out.r}; printf %s \"$THRESH_INPUT_SCORES\" | grep -c '' >> {out.r}", outputs: {r: {path: r}}}
  by_seed:
    kind: command.run
    in: {scores: eval.s}
    each: [seed]
    with:
      command: ["sh", "-c", "for i in \"$@\"; do cat $i/s; done > {out.r}", "sh", "{in.scores}"]
      outputs: {r: {path: r}}
  one:
    kind: command.run
    in: {model: "train[seed=2,lr=3e-4].m"}
    with: {command: "cat {in.model}/m > {out.r}", outputs: {r: {path: r}}}
"#;

/// What each stage reads, as `thresh graph` tells it.
fn graph(project: &Project, arguments: &[&str]) -> BTreeMap<String, String> {
    let text = project.ok(&[&["graph"], arguments].concat());
    let line = |line: &str| {
        let (name, rest) = line.split_once(' ').unwrap();
        (name.to_owned(), rest.split_once("<- ").map(|(_, from)| from.to_owned()).unwrap_or_default())
    };
    text.lines().map(line).collect()
}

fn text(project: &Project, arguments: &[&str], output: &str, file: &str) -> String {
    let path = project.ok(&[&["path"], arguments, &[output]].concat());
    std::fs::read_to_string(std::path::Path::new(path.trim()).join(file)).unwrap()
}

#[test]
fn a_matrix_is_followed_collected_and_picked_from() {
    let project = Project::new();
    project.write("p.yaml", PIPELINE);
    let graph = graph(&project, &["p.yaml"]);
    let of = |stage: &str| graph.keys().filter(|name| name.starts_with(stage)).cloned().collect::<Vec<_>>();
    let four = ["[lr=1e-4,seed=1]", "[lr=1e-4,seed=2]", "[lr=3e-4,seed=1]", "[lr=3e-4,seed=2]"];
    assert_eq!(of("train"), four.map(|values| format!("train{values}")));
    for values in four {
        assert_eq!(graph[&format!("train{values}")], "data.d");
        assert_eq!(graph[&format!("eval{values}")], format!("train{values}.m"));
    }
    assert_eq!(of("by_seed"), ["by_seed[seed=1]", "by_seed[seed=2]"]);
    assert_eq!(graph["by_seed[seed=2]"], "eval[lr=1e-4,seed=2].s, eval[lr=3e-4,seed=2].s");
    assert_eq!(graph["one"], "train[lr=3e-4,seed=2].m");

    let event = project.run(&["p.yaml"]);
    assert_eq!(counts(&event), (1 + 4 + 4 + 1 + 2 + 1, 0, 0), "{event}");
    let line = |lr: &str, seed: u8| format!("eval of lr-{lr} seed-{seed}\n");
    let all = [line("0.0001", 1), line("0.0001", 2), line("0.0003", 1), line("0.0003", 2)].concat();
    assert_eq!(text(&project, &["p.yaml"], "report.r", "r"), format!("{all}4\n"));
    let second = text(&project, &["p.yaml"], "by_seed[seed=2].r", "r");
    assert_eq!(second, [line("0.0001", 2), line("0.0003", 2)].concat());
    assert_eq!(text(&project, &["p.yaml"], "one.r", "r"), "lr-0.0003 seed-2\n");
}

#[test]
fn another_value_computes_only_the_new_instances() {
    let project = Project::new();
    project.write("p.yaml", PIPELINE);
    project.run(&["p.yaml"]);
    ran(&project);
    project.write("p.yaml", &PIPELINE.replace("seed: [1, 2]}", "seed: [1, 2], include: [{lr: 1e-3, seed: 1}]}"));
    let event = project.run(&["p.yaml"]);
    assert_eq!(ran(&project), ["eval", "train lr-0.001 seed-1"]);
    // What collects them reads one more: `report`, and `by_seed[seed=1]`.
    assert_eq!(counts(&event), (4, 11, 0), "{event}");
    project.write("p.yaml", &PIPELINE.replace("seed: [1, 2]}", "seed: [1, 2], exclude: [{lr: 1e-4, seed: 2}]}"));
    let three = graph(&project, &["p.yaml"]);
    assert_eq!(three.keys().filter(|name| name.starts_with("eval[")).count(), 3);
    assert!(!three.contains_key("eval[lr=1e-4,seed=2]"));
    project.run(&["p.yaml"]);
    assert!(ran(&project).is_empty(), "every instance that is left was computed before");
}

#[test]
fn ports_that_take_one_fan_out_and_inputs_join_on_what_they_share() {
    let project = Project::new();
    project.write(
        "p.yaml",
        r#"
name: p
stages:
  corpus:
    kind: multiwoz.synthesize
    matrix: {seed: [1, 2]}
    with: {dialogues: 20, seed: "${matrix.seed}"}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  episodes:
    kind: dialogue.simulate
    matrix: {noise: [0.0, 0.5]}
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule, noise: "${matrix.noise}"}, seed: "${matrix.seed}"}
  scores:
    kind: eval.toolwoz
    in: {episodes: episodes.episodes, tasks: toolwoz.tasks, world: toolwoz.world}
  all: {kind: eval.compare, in: {agent: scores.scores}, with: {baseline: "agent[seed=1,noise=0.0]"}}
  each:
    kind: eval.compare
    each: [seed]
    in: {agent: scores.scores}
    with: {baseline: "agent[noise=0.0]"}
"#,
    );
    let graph = graph(&project, &["p.yaml"]);
    assert_eq!(graph["toolwoz[seed=2]"], "corpus[seed=2].corpus");
    assert_eq!(graph["episodes[seed=2,noise=0.5]"], "toolwoz[seed=2].tasks, toolwoz[seed=2].world");
    assert_eq!(
        graph["scores[seed=2,noise=0.5]"],
        "episodes[seed=2,noise=0.5].episodes, toolwoz[seed=2].tasks, toolwoz[seed=2].world"
    );
    assert_eq!(graph.keys().filter(|name| name.starts_with("scores[")).count(), 4);
    assert_eq!(graph["all"].matches("scores[").count(), 4);
    assert_eq!(graph["each[seed=1]"], "scores[seed=1,noise=0.0].scores, scores[seed=1,noise=0.5].scores");
    assert_eq!(graph.len(), 2 + 2 + 4 + 4 + 1 + 2);
    // A bare name means every instance, values in brackets those that have them.
    let event = project.run(&["p.yaml", "--upto", "corpus"]);
    assert_eq!(counts(&event), (2, 0, 0), "{event}");
    let event = project.run(&["p.yaml", "--upto", "corpus", "--force", "corpus[seed=1]"]);
    assert_eq!(counts(&event), (1, 1, 0), "{event}");
    // Only the instance that is asked for, and what it needs.
    let event = project.run(&["p.yaml", "--upto", "toolwoz[seed=2]"]);
    assert_eq!(counts(&event), (1, 1, 0), "{event}");
}

/// `a` and `b` use the pipeline's parameter, `c` has one of its own.
pub const SWEPT: &str = r#"
name: s
params: {seed: 1}
stages:
  a:
    kind: command.run
    with: {command: ["sh", "-c", "echo $S > $THRESH_OUTPUT_X; echo a $S >> {project}/ran"], env: {S: "s${params.seed}"}, outputs: {x: {path: x}}}
  b:
    kind: command.run
    in: {a: a.x}
    with: {command: ["sh", "-c", "cat {in.a}/x > $THRESH_OUTPUT_X; echo b $S $T >> {project}/ran"], env: {S: "s${params.seed}", T: t1}, outputs: {x: {path: x}}}
  c:
    kind: command.run
    in: {b: b.x}
    with: {command: "cat {in.b} >/dev/null 2>&1; for i in {in.b}; do cat $i/x; done > {out.x}", outputs: {x: {path: x}}}
"#;

#[test]
fn a_sweep_reuses_what_single_values_computed() {
    let project = Project::new();
    project.write("p.yaml", SWEPT);
    project.run(&["p.yaml", "--set", "params.seed=2"]);
    assert_eq!(ran(&project), ["a s2", "b s2 t1"]);
    let swept = ["p.yaml", "--set", "params.seed=2,3"];
    // `b` uses the parameter too, so it joins: each reads its own `a`.
    let graph = graph(&project, &swept);
    assert_eq!(graph["b[seed=3]"], "a[seed=3].x");
    assert_eq!(graph["c"], "b[seed=2].x, b[seed=3].x");
    let event = project.run(&swept);
    assert_eq!(ran(&project), ["a s3", "b s3 t1"]);
    assert_eq!(counts(&event), (3, 2, 0), "{event}");
    assert_eq!(text(&project, &swept, "c.x", "x"), "s2\ns3\n");
    // And back: a single value is a result that is there.
    project.run(&["p.yaml", "--set", "params.seed=3"]);
    assert!(ran(&project).is_empty());
}

#[test]
fn sweeps_of_a_stage_and_of_the_pipeline_multiply() {
    let project = Project::new();
    project.write("p.yaml", SWEPT);
    let swept = ["p.yaml", "--set", "b.env.T=t1,t2,\"t,3\"", "--set", "params.seed=1,2"];
    let names: Vec<String> = graph(&project, &swept).into_keys().collect();
    let b: Vec<&String> = names.iter().filter(|name| name.starts_with("b[")).collect();
    let mut expected = Vec::new();
    for t in ["\"t,3\"", "t1", "t2"] {
        for seed in [1, 2] {
            expected.push(format!("b[T={t},seed={seed}]"));
        }
    }
    assert_eq!(b, expected.iter().collect::<Vec<_>>());
    assert_eq!(names.iter().filter(|name| name.starts_with("a[")).count(), 2);
    let event = project.run(&swept);
    assert_eq!(counts(&event), (2 + 6 + 1, 0, 0), "{event}");
    assert_eq!(ran(&project).len(), 8);
    // A text with commas in quotes is one value.
    project.run(&["p.yaml", "--set", "b.env.T='t1,t2'"]);
    assert_eq!(ran(&project), ["b s1 t1,t2"]);
    // The same last name twice: each axis bears its whole path.
    let both = graph(&project, &["p.yaml", "--set", "a.env.S=x,y", "--set", "b.env.S=z,w"]);
    assert!(both.contains_key("a[a.env.S=x]") && both.contains_key("b[b.env.S=w]"), "{both:?}");
    assert_eq!(both["b[b.env.S=w]"], "a[a.env.S=x].x, a[a.env.S=y].x");
}

#[test]
fn a_file_sweeps_as_the_command_line_does() {
    let project = Project::new();
    project.write("p.yaml", SWEPT);
    let sets = ["p.yaml", "--set", "b.env.T=t1,t2,\"t,3\"", "--set", "params.seed=1,2e0"];
    let sweep = "sweep: {b.env.T: [t1, t2, \"t,3\"], params.seed: [1, 2e0]}\n";
    project.write("over.yaml", &format!("name: over\nextends: p.yaml\n{sweep}"));
    project.write("alone.yaml", &format!("{SWEPT}{sweep}"));
    let from_sets = graph(&project, &sets);
    assert!(from_sets.contains_key("b[T=t1,seed=2e0]"), "{from_sets:?}");
    let event = project.run(&sets);
    assert_eq!(counts(&event), (2 + 6 + 1, 0, 0), "{event}");
    assert_eq!(ran(&project).len(), 8);
    for file in ["over.yaml", "alone.yaml"] {
        assert_eq!(graph(&project, &[file]), from_sets, "{file}");
        let plan = project.ok(&["plan", file]);
        assert_eq!(plan.lines().filter(|line| line.contains(" fresh ")).count(), 9, "{plan}");
        assert_eq!(plan.lines().count(), 9, "{plan}");
    }
    // `c` read its six inputs under the same names, so that nothing is left for either file to compute.
    assert_eq!(counts(&project.run(&["over.yaml"])), (0, 9, 0));
    assert!(ran(&project).is_empty());
}

#[test]
fn the_command_line_and_an_extending_file_replace_what_a_file_sweeps() {
    let project = Project::new();
    project.write("p.yaml", SWEPT);
    project.write("base.yaml", "name: b\nextends: p.yaml\nsweep: {b.env.T: [t1, t2], params.seed: [1, 2]}\n");
    let names = |arguments: &[&str]| graph(&project, arguments).into_keys().collect::<Vec<_>>();
    let four = ["b[T=t1,seed=1]", "b[T=t1,seed=2]", "b[T=t2,seed=1]", "b[T=t2,seed=2]"];
    let all = [&["a[seed=1]", "a[seed=2]"], &four[..], &["c"]].concat();
    assert_eq!(names(&["base.yaml"]), all);
    // Inherited whole, one entry replaced, and one ended: by `set`, or by the parameter given anew.
    let over = |rest: &str| {
        project.write("over.yaml", &format!("name: o\nextends: base.yaml\n{rest}\n"));
        names(&["over.yaml"])
    };
    assert_eq!(over(""), all);
    let seeds = ["a[seed=1]", "a[seed=2]", "b[T=t3,seed=1]", "b[T=t3,seed=2]", "b[T=t4,seed=1]", "b[T=t4,seed=2]", "c"];
    assert_eq!(over("sweep: {b.env.T: [t3, t4]}"), seeds);
    assert_eq!(over("set: {b.env.T: t3}"), ["a[seed=1]", "a[seed=2]", "b[seed=1]", "b[seed=2]", "c"]);
    assert_eq!(over("sweep: {b.env.T: [t3]}"), ["a[seed=1]", "a[seed=2]", "b[seed=1]", "b[seed=2]", "c"]);
    assert_eq!(over("params: {seed: 5}"), ["a", "b[T=t1]", "b[T=t2]", "c"]);
    // The command line the same, over the file that is asked for.
    assert_eq!(names(&["base.yaml", "--set", "b.env.T=t3,t4"]), seeds);
    assert_eq!(names(&["base.yaml", "--set", "params.seed=5"]), ["a", "b[T=t1]", "b[T=t2]", "c"]);
    assert_eq!(names(&["base.yaml", "--set", "params.seed=5", "--set", "b.env={}"]), ["a", "b", "c"]);
    // A value that ended a sweep is the one that the stages use.
    over("set: {params.seed: 7, b.env.T: t7}");
    project.run(&["over.yaml"]);
    assert_eq!(ran(&project), ["a s7", "b s7 t7"]);
}

#[test]
fn each_may_name_a_parameter_that_only_a_sweep_makes_an_axis() {
    let project = Project::new();
    project.write("p.yaml", &SWEPT.replace("in: {b: b.x}", "in: {b: b.x}\n    each: [seed]"));
    assert_eq!(graph(&project, &["p.yaml"])["c"], "b.x");
    let swept = ["p.yaml", "--set", "params.seed=1,2"];
    assert_eq!(graph(&project, &swept)["c[seed=2]"], "b[seed=2].x");
    project.run(&["p.yaml"]);
    ran(&project);
    // What fans out over all that it reads has inputs of the same name as before: its result is there too.
    let event = project.run(&["p.yaml", "--set", "params.seed=1,2"]);
    assert_eq!(counts(&event), (3, 3, 0), "{event}");
}

#[test]
fn a_base_keeps_its_matrix() {
    let project = Project::new();
    project.write("base.yaml", PIPELINE);
    project.write("p.yaml", "name: over\nextends: base.yaml\nset: {eval.env.X: '1'}\n");
    assert_eq!(graph(&project, &["p.yaml"]), graph(&project, &["base.yaml"]));
}

#[test]
fn ten_thousand_stages_load_and_a_name_in_the_middle_is_found() {
    let project = Project::new();
    let stage = |index: usize| {
        let from = if index == 0 { String::new() } else { format!("in: {{x: s{}.x}}, ", index - 1) };
        format!("  s{index}: {{kind: command.run, {from}with: {{command: \"true\", outputs: {{x: {{path: x}}}}}}}}\n")
    };
    let stages: String = (0..10_000).map(stage).collect();
    project.write("p.yaml", &format!("name: long\nstages:\n{stages}"));
    assert!(project.ok(&["check", "p.yaml"]).contains("10000 stages"));
    project.write("p.yaml", &format!("name: long\nstages:\n{}", stages.replace("s5000.x", "s500O.x")));
    let ran = project.thresh(&["check", "p.yaml"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("unknown stage `s500O`"), "{}", ran.stderr);
}
