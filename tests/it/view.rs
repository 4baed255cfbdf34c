//! Looking at dialogues: `thresh view`; and the project to begin with: `thresh init`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::project::{Project, Ran};

const TOWN: &str = "name: town
stages:
  corpus: {kind: multiwoz.synthesize, with: {dialogues: 300, domains: [restaurant, hotel], max_domains: 2, failing: 0.2, seed: 3}}
  toolwoz: {kind: toolwoz.convert, in: {corpus: corpus.corpus}}
  calm:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule}, tasks: {split: train, limit: 40}, seed: 4}
  noisy:
    kind: dialogue.simulate
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule, noise: 0.3}, tasks: {split: train, limit: 40}, seed: 4}
  harvest:
    kind: josh.harvest
    in: {tasks: toolwoz.tasks, world: toolwoz.world}
    with: {agent: {kind: rule, noise: 0.4}, tasks: {split: train, limit: 8}, beam: 4, seed: 4}
  sft_data: {kind: data.sft, in: {trees: harvest.trees}, with: {trees: rewarded}}
  kto_data: {kind: data.kto, in: {trees: harvest.trees}, with: {trees: rewarded}}
  pairs: {kind: data.pairs, in: {trees: harvest.trees}, with: {trees: rewarded}}
";

fn town() -> Project {
    let project = Project::new();
    project.write("town.yaml", TOWN);
    let event = project.run(&["town.yaml"]);
    assert_eq!(event["failed"], 0, "{event}");
    project
}

fn rows(project: &Project, arguments: &[&str]) -> Vec<Value> {
    let text = project.ok(&[&["view", "--json"], arguments].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn row(project: &Project, arguments: &[&str]) -> Value {
    let [row] = <[Value; 1]>::try_from(rows(project, arguments)).unwrap();
    row
}

/// What is shown in this many columns, none of its lines any wider.
fn shown(project: &Project, arguments: &[&str], columns: usize) -> String {
    let mut command = project.command(&[&["view"], arguments].concat());
    let output = command.env("COLUMNS", columns.to_string()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let widest = text.lines().max_by_key(|line| line.chars().count()).unwrap();
    assert!(widest.chars().count() <= columns, "{columns} columns: {widest}\n{text}");
    text
}

/// What is said of a command that is wrong.
fn refused(project: &Project, arguments: &[&str]) -> String {
    let Ran { code, stdout, stderr } = project.thresh(&[&["view"], arguments].concat());
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{arguments:?}: {stderr}");
    stderr
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn dialogues_are_listed_found_and_shown() {
    let project = town();
    let all = rows(&project, &["noisy.episodes"]);
    let failed = rows(&project, &["noisy", "--outcome", "failure"]);
    assert!(all.len() == 40 && !failed.is_empty() && failed.len() < 40);
    assert!(failed.iter().all(|row| row["outcome"] == "failure" && row["reward"].as_f64().unwrap() < 1.0));
    let Ran { stdout, stderr, .. } = project.thresh(&["view", "noisy"]);
    assert_eq!(stdout.lines().count(), 41);
    assert!(stderr.starts_with(&format!("40 dialogues: {} success, {} failure\n", 40 - failed.len(), failed.len())));
    let found = rows(&project, &["noisy", "--find", "HOTEL"]);
    let names: BTreeSet<&str> = found.iter().map(|row| text(&row["dialogue"])).collect();
    assert!(!names.is_empty() && names.len() < 40);
    for line in &all {
        let name = text(&line["dialogue"]);
        let talk = row(&project, &["noisy", name]);
        let turns = talk["turns"].to_string().to_lowercase();
        assert_eq!(turns.contains("hotel"), names.contains(name), "{name}");
        // Goals stand with the turn that first reached them, and their arguments come from the tasks upstream.
        for (place, goal) in talk["goals"].as_array().unwrap().iter().enumerate() {
            assert!(!goal["wanted"].as_array().unwrap().is_empty(), "{goal}");
            let turns = talk["turns"].as_array().unwrap();
            let first = turns.iter().find(|turn| turn["goals"].as_array().unwrap().contains(&place.into()));
            assert_eq!(
                (first.map(|turn| &turn["number"]), goal["reached"] == true),
                (goal["turn"].as_u64().is_some().then_some(&goal["turn"]), first.is_some())
            );
        }
    }
    let name = text(&failed[0]["dialogue"]);
    let page = shown(&project, &["noisy", name.strip_suffix(".json").unwrap()], 80);
    for part in ["✗ failure", "\n  1 user   ", "\n  2 agent  ", "→ search_", "← ", "not reached", "~ plan"] {
        assert!(page.contains(part), "{part}\n{page}");
    }
    assert!(shown(&project, &["noisy", name, "--full"], 40).lines().count() > page.lines().count());
}

#[test]
fn colour_adds_nothing_but_colour() {
    let project = town();
    for arguments in [["view", "harvest", "--json"].as_slice(), &["view", "noisy"], &["view", "calm", "noisy"]] {
        let plain = project.ok(arguments);
        let mut command = project.command(arguments);
        let forced = command.env_remove("NO_COLOR").env("CLICOLOR_FORCE", "1").output().unwrap();
        let forced = String::from_utf8(forced.stdout).unwrap();
        assert_eq!(forced.contains('\u{1b}'), !arguments.contains(&"--json"), "{arguments:?}");
        assert_eq!(anstream::adapter::strip_str(&forced).to_string(), plain);
    }
}

#[test]
fn a_tree_is_drawn_and_its_branches_are_dialogues() {
    let project = town();
    let list = rows(&project, &["harvest"]);
    let largest = list.iter().max_by_key(|row| row["nodes"].as_u64()).unwrap();
    let name = text(&largest["dialogue"]);
    let tree = row(&project, &["harvest.trees", name]);
    let nodes = tree["nodes"].as_array().unwrap();
    assert_eq!(Some(nodes.len() as u64), largest["nodes"].as_u64());
    let page = shown(&project, &["harvest", name], 100);
    let drawn: BTreeSet<u64> = page
        .lines()
        .filter_map(|line| {
            line.trim_start_matches(['│', '├', '└', '─', ' ']).split([' ', '★', '+', '-']).next()?.parse().ok()
        })
        .collect();
    assert_eq!(drawn, (0..nodes.len() as u64).collect(), "{page}");
    let hit = nodes.iter().find(|node| node["hits"] != serde_json::json!([])).unwrap();
    assert!(page.contains("✓1") || page.contains("✓2"), "{hit}\n{page}");
    let golden = row(&project, &["harvest", name, "--branch", "golden"]);
    let path: Vec<usize> =
        golden["path"].as_array().unwrap().iter().map(|node| node.as_u64().unwrap() as usize).collect();
    assert!(path.iter().all(|&node| nodes[node]["golden"] == true), "{golden}");
    let numbers: Vec<u64> =
        golden["turns"].as_array().unwrap().iter().map(|turn| turn["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert!(shown(&project, &["harvest", name, "--branch", "golden"], 80).contains("\n  1 user   "));
    assert!(
        shown(&project, &["harvest", name, "--depth", "0"], 80).contains(&format!("… {} nodes below", nodes.len() - 1))
    );
    assert!(refused(&project, &["harvest", name, "--branch", "999"]).contains("there is no node `999`; the tree of"));
}

#[test]
fn two_dialogues_stand_side_by_side() {
    let project = town();
    let outcomes = |table: &str| -> BTreeMap<String, String> {
        let pair = |row: Value| (text(&row["dialogue"]).to_owned(), text(&row["outcome"]).to_owned());
        rows(&project, &[table]).into_iter().map(pair).collect()
    };
    let (calm, noisy) = (outcomes("calm"), outcomes("noisy"));
    let expected: Vec<&String> = calm.keys().filter(|name| calm[*name] != noisy[*name]).collect();
    let flips = rows(&project, &["calm", "noisy"]);
    assert_eq!(flips.iter().map(|flip| text(&flip["dialogue"])).collect::<Vec<_>>(), expected);
    assert_eq!(rows(&project, &["calm", "--flipped", "noisy"]), flips);
    let name = text(&flips[0]["dialogue"]);
    let both = row(&project, &["calm", "noisy", name]);
    assert_eq!(both["b"]["talk"], row(&project, &["noisy", name]));
    let parting = both["parting"].as_u64().unwrap();
    let turn = |side: &str, number: u64| both[side]["talk"]["turns"][number as usize - 1]["steps"].clone();
    assert!((1..parting).all(|number| turn("a", number) == turn("b", number)));
    assert_ne!(turn("a", parting), turn("b", parting));
    let wide = shown(&project, &["calm", "noisy", name], 120);
    let narrow = shown(&project, &["calm", "noisy", name], 80);
    for page in [&wide, &narrow] {
        assert!(page.contains(&format!("──── they part at turn {parting} ─")), "{page}");
    }
    assert!(wide.contains(" │ ") && !wide.contains("\nA│") && narrow.contains("\nA│") && narrow.contains("\nB│"));
    let same = shown(&project, &["calm", "calm", name], 80);
    assert!(same.contains("the two dialogues are the same"), "{same}");
}

#[test]
fn training_examples_are_shown_with_their_labels() {
    let project = town();
    for (table, answers) in [("sft_data", 0), ("kto_data", 1), ("pairs", 2)] {
        let counts = rows(&project, &[table]);
        let name = text(&counts[0]["dialogue"]);
        let examples = rows(&project, &[table, name]);
        assert_eq!(Some(examples.len() as u64), counts[0]["examples"].as_u64());
        assert!(examples.iter().all(|example| example["answers"].as_array().unwrap().len() == answers), "{table}");
        let page = shown(&project, &[table, name], 80);
        assert!(page.contains("example 1\n") && page.contains("desirable") == (answers > 0), "{page}");
    }
}

#[test]
fn what_cannot_be_shown_is_said() {
    let project = town();
    let name = text(&rows(&project, &["calm"])[0]["dialogue"]).to_owned();
    let error = refused(&project, &["calm", &name.replacen("SYN", "SYM", 1)]);
    assert!(error.contains(&format!("in `calm`; did you mean `{name}`?")), "{error}");
    for (arguments, said) in [
        (["calm", "--outcome", "partial"].as_slice(), "expected `success`, `failure`, `broken`"),
        (&["harvest", "--outcome", "success"], "expected `complete`, `partial`, `empty`, `broken`"),
        (
            &["toolwoz.tasks"],
            "`toolwoz.tasks` holds `toolwoz.task/v1` rows, expected episodes, trees or training examples",
        ),
        (&["corpus.corpus"], "`corpus.corpus` is a folder, expected a table"),
        (&["calm", "harvest", &name], "`harvest` holds trees, expected episodes"),
        (&["calm", "--flipped", "kto_data"], "`kto_data` holds training examples, expected episodes"),
        (&["calm.episode"], "stage `calm` has no output `episode`; it has `episodes`"),
    ] {
        let error = refused(&project, arguments);
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
    // A Parquet file that tells of no run has no tasks, unless they are named.
    let file = project.result("town.yaml", "calm.episodes");
    let talk = row(&project, &[file.to_str().unwrap(), &name]);
    assert_eq!((&talk["wish"], &talk["goals"][0]["wanted"]), (&Value::Null, &serde_json::json!([])));
    let told = row(&project, &[file.to_str().unwrap(), &name, "--tasks", "toolwoz.tasks"]);
    assert_eq!(told, row(&project, &["calm", &name]));
    project.write("torn.parquet", "PAR1");
    assert_eq!(project.thresh(&["view", "torn.parquet"]).code, Some(1));
}

/// The starter with few of everything. An agent that hardly learnt anything earns nothing, so rules take its part.
const SMALL: &[&str] = &[
    "corpus.dialogues=160",
    "params.demonstrations=40",
    "params.harvest_tasks=12",
    "params.test_tasks=6",
    "harvest.agent.kind=rule",
    "harvest.agent.noise=0.3",
    "base.max_steps=2",
    "josh.max_steps=2",
];

#[test]
fn a_new_project_runs_at_once() {
    let outer = Project::new();
    std::fs::remove_file(outer.path().join("thresh.toml")).unwrap();
    outer.write("mine/README.md", "mine\n");
    let Ran { code, stdout, stderr } = outer.thresh(&["init", "mine"]);
    assert_eq!(code, Some(0), "{stderr}");
    let written = ["mine/thresh.toml", "mine/pipeline.yaml", "mine/schemas/pipeline.schema.json", "mine/.gitignore"];
    assert_eq!(stdout.lines().collect::<Vec<_>>(), written);
    assert!(stderr.contains("`mine/README.md` is there already") && stderr.contains("\n  cd mine\n"), "{stderr}");
    assert_eq!(std::fs::read_to_string(outer.path().join("mine/README.md")).unwrap(), "mine\n");
    let before = std::fs::read(outer.path().join("mine/pipeline.yaml")).unwrap();
    outer.write("mine/pipeline.yaml", "changed");
    let Ran { code, stdout, stderr } = outer.thresh(&["init", "mine"]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert!(stderr.contains("`mine/thresh.toml` and `mine/pipeline.yaml` and"), "{stderr}");
    assert_eq!(std::fs::read_to_string(outer.path().join("mine/pipeline.yaml")).unwrap(), "changed");
    std::fs::write(outer.path().join("mine/pipeline.yaml"), &before).unwrap();

    // The first line names a schema that is there and that fits this program.
    let pipeline = String::from_utf8(before).unwrap();
    let schema = pipeline.lines().next().unwrap().strip_prefix("# yaml-language-server: $schema=").unwrap();
    let schema = std::fs::read_to_string(outer.path().join("mine").join(schema)).unwrap();
    assert_eq!(schema, outer.ok(&["schema"]));
    let ignored = std::fs::read_to_string(outer.path().join("mine/.gitignore")).unwrap();
    assert!(ignored.lines().any(|line| line == ".thresh"));

    outer.ok(&["check", "mine/pipeline.yaml"]);
    let set: Vec<&str> = SMALL.iter().flat_map(|set| ["--set", *set]).collect();
    let event = outer.run(&[&["mine/pipeline.yaml"], set.as_slice()].concat());
    assert_eq!((event["computed"].as_u64(), event["failed"].as_u64()), (Some(13), Some(0)), "{event}");
    for next in [["view", "harvest.trees"].as_slice(), &["view", "base_episodes", "josh_episodes"]] {
        outer.ok(&[&["--project", "mine"], next].concat());
    }
}

#[test]
fn a_project_is_made_where_one_is() {
    let project = Project::new();
    std::fs::remove_file(project.path().join("thresh.toml")).unwrap();
    let told: Value = serde_json::from_str(&project.ok(&["init", "--json"])).unwrap();
    let written =
        serde_json::json!(["thresh.toml", "pipeline.yaml", "schemas/pipeline.schema.json", ".gitignore", "README.md"]);
    assert_eq!((&told["written"], &told["kept"]), (&written, &serde_json::json!([])));
    project.ok(&["check", "pipeline.yaml"]);
    let Ran { code, stderr, .. } = project.thresh(&["init", "--quiet", "other"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}
