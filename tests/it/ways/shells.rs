//! Completions in real shells, and manual pages in real readers. Where one is not installed, its part says so and passes.

use std::process::{Command, Stdio};

use crate::project::Project;

fn project() -> Project {
    let project = Project::new();
    project.write("thresh.toml", "jobs = 2\n[profiles.big]\njobs = 4\n[endpoints.small]\nurl = \"http://x/v1\"\n");
    project.write("pipelines/p.yaml", super::PIPELINE);
    project.run(&["pipelines/p.yaml"]);
    project
}

/// The names that the last of some words may become.
fn names(project: &Project, words: &[&str]) -> Vec<String> {
    let text = project.ok(&[&["__complete", "--"], words].concat());
    text.lines().map(str::to_owned).collect()
}

#[test]
fn names_of_what_there_is_are_offered() {
    let project = project();
    let run: serde_json::Value = serde_json::from_str(&project.ok(&["runs", "--json"])).unwrap();
    let run = run["run"].as_str().unwrap();
    for (words, expected) in [
        (vec!["run", ""], vec!["pipelines/p.yaml"]),
        (vec!["why", "pipelines/p.yaml", ""], vec!["first", "second"]),
        (vec!["run", "pipelines/p.yaml", "--upto", "se"], vec!["second"]),
        (vec!["path", "pipelines/p.yaml", ""], vec!["first.number", "second.number"]),
        (vec!["export", "pipelines/p.yaml", "--to", "x", "first.number", "s"], vec!["second.number"]),
        (vec!["log", ""], vec!["latest", "p", run]),
        (vec!["log", "latest", "f"], vec!["first"]),
        (vec!["pin", "20"], vec![run]),
        (vec!["runs", ""], vec!["p"]),
        (vec!["show", "f"], vec!["first.number"]),
        (vec!["show", "latest.s"], vec!["latest.second.number"]),
        (vec!["kinds", "josh.h"], vec!["josh.harvest"]),
        (vec!["run", "--profile", ""], vec!["big"]),
        (vec!["doctor", "--endpoint", ""], vec!["small"]),
        (vec!["rn"], vec![]),
        (vec!["run", "--fo"], vec![]),
        (vec!["why", "nowhere.yaml", ""], vec![]),
    ] {
        let found = names(&project, &words);
        assert!(expected.iter().all(|name| found.contains(&(*name).to_owned())), "{words:?}: {found:?}");
        assert_eq!(found.len(), expected.len(), "{words:?}: {found:?}");
    }
    let elsewhere = Project::new();
    let root = project.path().to_str().unwrap();
    assert_eq!(names(&elsewhere, &["--project", root, "runs", ""]), ["p"]);
    assert!(names(&elsewhere, &["log", ""]).is_empty());
    assert!(!elsewhere.path().join(".thresh").exists(), "who completes makes no store");
}

/// Runs a script in a shell with the binary's folder first on the path; `None` where the shell is not there.
fn shell(project: &Project, name: &str, arguments: &[&str], script: &str) -> Option<String> {
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_thresh"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(name);
    command.args(arguments).arg(script).current_dir(project.path()).env("PATH", path).stdin(Stdio::null());
    command.env("HOME", project.path());
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("not tried: there is no `{name}` here");
            return None;
        }
        output => output.unwrap(),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    Some(text)
}

#[test]
fn bash_completes_commands_options_and_names() {
    let project = project();
    let script = r#"
source <(thresh completions bash)
try() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _thresh_names thresh "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
    echo "${COMPREPLY[@]}"
}
try thresh comple
try thresh why pipelines/p.yaml s
try thresh run pipelines/p.yaml --keep-g
try thresh run pipelines/p.yaml --only ''
"#;
    if let Some(text) = shell(&project, "bash", &["--norc", "-c"], script) {
        assert_eq!(text, "completions\nsecond\n--keep-going\nfirst second\n");
    }
}

#[test]
fn fish_completes_commands_options_and_names() {
    let project = project();
    let script = "thresh completions fish | source
complete -C 'thresh comple'
complete -C 'thresh why pipelines/p.yaml s'
complete -C 'thresh run pipelines/p.yaml --keep-g'
complete -C 'thresh run pipelines/p.yaml --only '";
    if let Some(text) = shell(&project, "fish", &["--no-config", "-c"], script) {
        let words: Vec<&str> = text.lines().map(|line| line.split('\t').next().unwrap()).collect();
        assert_eq!(words, ["completions", "second", "--keep-going", "first", "second"], "{text}");
    }
}

/// A zsh of its own behind a terminal, in which keys are pressed; it prints between marks what was completed.
const ZSH: &str = r#"
zmodload zsh/zpty
mkdir -p functions && thresh completions zsh > functions/_thresh
zpty inner 'TERM=dumb zsh -f -i'
zpty -w inner $'PS1= PS2= RPS1=; unsetopt zle_bracketed_paste 2>/dev/null; fpath=($PWD/functions $fpath); autoload -U compinit; compinit -u -D
stty -echo; LISTMAX=0; say() { print -r -- "<<$BUFFER>>"; BUFFER=; zle redisplay }; zle -N say; bindkey "^X" say; bindkey "^I" complete-word; print READY'
zpty -r -m inner line '*READY*' || exit 1
for keys in 'thresh comple' 'thresh why pipelines/p.yaml s' 'thresh run pipelines/p.yaml --keep-g' 'thresh run pipelines/p.yaml --only f'; do
    zpty -w -n inner "$keys"$'\t'$'\x18'
    zpty -r -m inner line '*>>*' || exit 1
    print -r -- ${${line##*<<}%%>>*}
done
zpty -d inner
"#;

#[test]
fn zsh_completes_commands_options_and_names() {
    let project = project();
    if let Some(text) = shell(&project, "zsh", &["-f", "-c"], ZSH) {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let expected = [
            "thresh completions",
            "thresh why pipelines/p.yaml second",
            "thresh run pipelines/p.yaml --keep-going",
            "thresh run pipelines/p.yaml --only first",
        ];
        assert_eq!(lines, expected, "{text}");
    }
}

#[test]
fn scripts_for_all_shells_are_made_of_the_same_commands() {
    let project = Project::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = project.ok(&["completions", shell]);
        for (name, _) in thresh::cli::commands(&thresh::cli::command()) {
            assert!(script.contains(name.rsplit(' ').next().unwrap()), "{shell} does not know `{name}`");
        }
    }
    let ran = project.thresh(&["completions", "tcsh"]);
    assert_eq!(
        (ran.code, ran.stderr.contains("possible values: bash, elvish, fish, powershell, zsh")),
        (Some(2), true)
    );
}

#[test]
fn every_command_has_a_manual_page_that_readers_take() {
    let project = Project::new();
    project.ok(&["man", "--out", "man1"]);
    let folder = project.path().join("man1");
    let mut names = vec!["thresh".to_owned()];
    let root = thresh::cli::command();
    names.extend(thresh::cli::commands(&root).iter().map(|(name, _)| format!("thresh-{}", name.replace(' ', "-"))));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), names.len());
    for name in &names {
        let text = std::fs::read_to_string(folder.join(format!("{name}.1"))).unwrap();
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "ENVIRONMENT", "FILES", "SEE ALSO"] {
            assert!(
                text.contains(&format!("\n.SH {section}\n")) || text.contains(&format!("\n.SH \"{section}\"\n")),
                "{name}: {section}\n{text}"
            );
        }
        let group = name == "thresh-model";
        assert!(
            group || text.contains("EXIT STATUS") && (name == "thresh" || text.contains("\n.SH EXAMPLES\n")),
            "{name}\n{text}"
        );
    }
    assert_eq!(
        project.ok(&["man", "model", "inspect"]),
        std::fs::read_to_string(folder.join("thresh-model-inspect.1")).unwrap()
    );
    let ran = project.thresh(&["man", "rnu"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("there is no page of `thresh rnu`; did you mean `thresh run`?"), "{}", ran.stderr);
    // What mandoc calls a warning or worse; that a page has no date is wanted: the same program writes the same page.
    if let Some(text) = shell(
        &project,
        "sh",
        &["-c"],
        "command -v mandoc > /dev/null || exit 0; mandoc -Tlint -Wwarning man1/*.1 || true",
    ) {
        let said: Vec<&str> = text.lines().filter(|line| !line.contains("missing date")).collect();
        assert!(said.is_empty(), "{}", said.join("\n"));
    }
}
