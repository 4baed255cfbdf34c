//! What all commands have in common: JSON, quiet, pipes, paths, exit codes, help.

mod everywhere;
mod shells;

use crate::project::{Project, Ran};

/// The commands that end by themselves, with arguments that work in [`everywhere::project`]; `NEW` is a path that is not there.
const COMMANDS: &[(&str, &[&str])] = &[
    ("init", &["NEW"]),
    ("check", &["p.yaml"]),
    ("graph", &["p.yaml"]),
    ("kinds", &[]),
    ("kinds", &["eval.toolwoz"]),
    ("doctor", &["--offline"]),
    ("plan", &["p.yaml"]),
    ("run", &["p.yaml"]),
    ("why", &["p.yaml", "--set", "params.noise=0.7"]),
    ("why", &["p.yaml", "scores"]),
    ("runs", &[]),
    ("tag", &["latest", "good"]),
    ("note", &["latest", "as expected"]),
    ("log", &[]),
    ("log", &["latest", "said"]),
    ("show", &["scores.scores"]),
    ("view", &["episodes.episodes"]),
    ("sql", &["select run, stage from stages"]),
    ("path", &["p.yaml", "scores.scores"]),
    ("compare", &["latest~1", "latest"]),
    ("report", &["latest", "-o", "NEW"]),
    ("export", &["p.yaml", "--to", "NEW"]),
    ("model inspect", &["model"]),
    ("model logits", &["model", "--tokens", "1,5"]),
    ("model convert", &["model", "NEW"]),
    ("chat", &["model", "--max-tokens", "3"]),
    ("gc", &["--dry-run"]),
    ("pin", &["latest"]),
    ("completions", &["bash"]),
    ("man", &["run"]),
    ("man", &["--out", "NEW"]),
    ("schema", &[]),
    ("schema", &["--out", "NEW"]),
];

/// The binary's answer in a folder below the project.
fn within(project: &Project, folder: &str, arguments: &[&str]) -> Ran {
    let folder = project.path().join(folder);
    std::fs::create_dir_all(&folder).unwrap();
    let output = project.command(arguments).current_dir(folder).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

const PIPELINE: &str = "name: p
stages:
  first: {kind: command.run, with: {command: 'echo 1 > {out.number}', outputs: {number: {path: n.txt}}}}
  second: {kind: command.run, in: {n: first.number}, with: {command: 'cat {in.n}/n.txt > {out.number}', outputs: {number: {path: n.txt}}}}
";

#[test]
fn a_project_is_the_same_from_any_folder_of_it() {
    let project = Project::new();
    project.write("pipelines/p.yaml", PIPELINE);
    let root = project.path().to_str().unwrap().to_owned();
    assert_eq!(within(&project, "deep/down", &["run", "pipelines/p.yaml"]).code, Some(0));
    let path = project.ok(&["path", "pipelines/p.yaml", "second.number"]);
    for (folder, name) in [("pipelines", "p.yaml"), ("deep", "../pipelines/p.yaml"), ("deep", "pipelines/p.yaml")] {
        let ran = within(&project, folder, &["path", name, "second.number"]);
        assert_eq!((ran.code, &ran.stdout), (Some(0), &path), "{folder} {name}: {}", ran.stderr);
        let ran = within(&project, folder, &["--quiet", "run", name]);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{folder} {name}");
    }
    let elsewhere = Project::new();
    let ran = elsewhere.thresh(&["path", "--project", &root, "pipelines/p.yaml", "second.number"]);
    assert_eq!((ran.code, &ran.stdout), (Some(0), &path), "{}", ran.stderr);
    let runs = project.ok(&["runs", "--json"]);
    assert_eq!(runs.lines().count(), 4);
    for line in runs.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["file"], "pipelines/p.yaml", "a run's file is said from the project's folder");
    }
    assert_eq!(elsewhere.ok(&["runs", "--json", "--project", &root]), runs);
    assert_eq!(within(&project, "pipelines", &["runs", "--json"]).stdout, runs);
    let ran = elsewhere.thresh(&["runs", "--project", "nowhere"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("cannot go to the project `nowhere`"), "{}", ran.stderr);
}

#[test]
fn messages_show_paths_from_where_one_is() {
    let project = Project::new();
    project.write("pipelines/p.yaml", PIPELINE);
    project.run(&["pipelines/p.yaml"]);
    let name = project.ok(&["runs", "--json"]);
    let run: serde_json::Value = serde_json::from_str(&name).unwrap();
    let record = format!(".thresh/runs/{}.json", run["run"].as_str().unwrap());
    project.write(&record, "{}");
    let ran = project.thresh(&["runs"]);
    assert!(ran.stderr.contains(&format!("the record `{record}` is damaged")), "{}", ran.stderr);
    let ran = within(&project, "pipelines", &["runs"]);
    assert!(ran.stderr.contains(&format!("the record `../{record}` is damaged")), "{}", ran.stderr);
    let wrong = PIPELINE.replace("first.number", "frist.number");
    project.write("pipelines/wrong.yaml", &wrong);
    let ran = within(&project, "deep", &["check", "pipelines/wrong.yaml"]);
    assert!(ran.stderr.contains("--> ../pipelines/wrong.yaml:4:"), "{}", ran.stderr);
}

#[test]
fn what_is_unknown_suggests_what_is_meant() {
    let project = Project::new();
    project.write("pipelines/p.yaml", PIPELINE);
    project.write("pipelines/quickstart.yaml", PIPELINE);
    project.run(&["pipelines/p.yaml"]);
    for (arguments, said) in [
        (vec!["rnu"], "a similar subcommand exists: 'run"),
        (vec!["run", "pipelines/p.yaml", "--frce", "first"], "a similar argument exists: '--force'"),
        (vec!["why", "pipelines/p.yaml", "frist"], "unknown stage `frist`; did you mean `first`?"),
        (vec!["run", "pipelines/p.yaml", "--upto", "secnd"], "unknown stage `secnd`; did you mean `second`?"),
        (
            vec!["run", "pipelines/quikstart.yaml"],
            "there is no pipeline `pipelines/quikstart.yaml`; did you mean `pipelines/quickstart.yaml`?",
        ),
        (vec!["check", "quickstart"], "did you mean `pipelines/quickstart.yaml`?"),
        (vec!["check", "x/y/z.yaml"], "there is no pipeline `x/y/z.yaml`; expected the path of a YAML file"),
        (
            vec!["path", "pipelines/p.yaml", "first.numbr"],
            "stage `first` has no output `numbr`; did you mean `number`?",
        ),
        (vec!["log", "lates"], "there is no run `lates`; did you mean `latest`?"),
        (vec!["pin", "lastest"], "there is no run `lastest`; did you mean `latest`?"),
        (vec!["kinds", "command.rum"], "did you mean `command.run`?"),
    ] {
        let ran = project.thresh(&arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(said), "{arguments:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{arguments:?}");
    }
}

#[test]
fn mistakes_of_a_pipeline_are_data_for_editors() {
    let project = Project::new();
    project.write(
        "p.yaml",
        &PIPELINE.replace("{kind: command.run, in: {n: first.number}", "{kind: command.run, in: {n: frist.number}"),
    );
    let ran = project.thresh(&["check", "p.yaml", "--json"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), ""));
    let said: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&said["ok"], &said["file"]), (&false.into(), &"p.yaml".into()));
    let problem = &said["problems"][0];
    assert_eq!(
        (problem["file"].as_str(), problem["line"].as_u64(), problem["column"].as_u64()),
        (Some("p.yaml"), Some(4), Some(39))
    );
    assert!(problem["message"].as_str().unwrap().contains("frist"), "{problem}");
    let ran = project.thresh(&["check", "p.yaml", "--json", "--set", "first.x"]);
    let said: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(said["problems"].as_array().unwrap().iter().any(|problem| problem["file"] == "--set"), "{said}");
}

#[test]
fn help_and_version_say_what_one_needs() {
    let project = Project::new();
    let alone = project.thresh(&[]);
    assert_eq!(alone.code, Some(2));
    let help = project.ok(&["-h"]);
    assert_eq!(alone.stderr, help, "`thresh` alone shows the help");
    let titles = ["Begin:", "Run:", "Look at runs and results:", "Compare and pass on:", "Options:"];
    let places: Vec<usize> = titles.iter().map(|title| help.find(title).unwrap_or_else(|| panic!("{help}"))).collect();
    assert!(places.is_sorted(), "{help}");
    assert!(project.ok(&["--help"]).contains("NO_COLOR"));
    for (name, command) in thresh::cli::commands(&thresh::cli::command()) {
        assert!(help.contains(&format!("\n  {} ", name.split(' ').next().unwrap())), "`{name}` is not in the help");
        let words: Vec<&str> = name.split(' ').chain(["-h"]).collect();
        let own = project.ok(&words);
        let (examples, codes) = (own.contains("\nExamples:\n"), own.contains("\nExit codes:\n  0 "));
        assert!(command.has_subcommands() || examples && codes, "thresh {name} -h\n{own}");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "thresh {name} leaves `{}` unexplained", argument.get_id());
        }
    }
    let version = project.ok(&["--version"]);
    let first = version.lines().next().unwrap();
    assert_eq!(first, format!("thresh {}", env!("CARGO_PKG_VERSION")));
    assert!(version.contains("\ndevices: cpu"), "{version}");
    assert_eq!(project.ok(&["-V"]).trim_end(), first);
}
