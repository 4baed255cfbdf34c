//! Commands run for real.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::dialogue::task::WorldItem;
use crate::stages::bench::Bench;
use crate::table::{self, Row};

fn stage(parameters: serde_json::Value) -> CommandRun {
    serde_json::from_value(parameters).unwrap()
}

fn error(bench: &Bench, parameters: serde_json::Value) -> String {
    format!("{:#}", bench.run(&stage(parameters), &[]).unwrap_err())
}

#[test]
fn files_go_in_and_come_out() {
    let bench = Bench::new();
    let input = bench.write("it's in/a b.txt", "hello");
    let folder = bench.write("more/x", "world");
    let copy = stage(json!({
        "command": "cat {in.first} \"$THRESH_INPUT_THE_REST\"/x > {out.both}; mkdir -p deep/er; echo -n $KEY > deep/er/k; \
                    echo 1 > stray",
        "env": {"KEY": "a value"},
        "outputs": {"both": {"path": "both.txt"}, "tree": {"path": "deep", "type": "notes/v1"}},
    }));
    assert_eq!(copy.check(), []);
    bench.run(&copy, &[("first", &input), ("the-rest", folder.parent().unwrap())]).unwrap();
    assert_eq!(std::fs::read_to_string(bench.out("both/both.txt")).unwrap(), "helloworld");
    assert_eq!(std::fs::read_to_string(bench.out("tree/er/k")).unwrap(), "a value");
    assert_eq!(std::fs::read_dir(bench.out("")).unwrap().count(), 2);
    assert_eq!(copy.outputs()[0].holds, Holds::Anything);
    assert_eq!(copy.outputs()[1].holds, Holds::Folder("notes/v1".to_owned()));
}

#[test]
fn a_collected_input_is_all_of_its_paths() {
    let bench = Bench::new();
    let (one, two) = (bench.write("a b", "1"), bench.write("c", "2"));
    let inputs = [("x[n=1]", one.as_path()), ("x[n=2]", two.as_path())];
    let read = |command: serde_json::Value| {
        bench.run(&stage(json!({"command": command, "outputs": {"o": {"path": "o"}}})), &inputs).unwrap();
        std::fs::read_to_string(bench.out("o/o")).unwrap()
    };
    assert_eq!(read(json!("cat {in.x} > {out.o}; cat {in.x[n=2]} >> {out.o}")), "122");
    let words = json!(["sh", "-c", "(echo $#; cat \"$@\") > \"$THRESH_OUTPUT_O\"", "sh", "{in.x}", "{in.x[n=1]}"]);
    assert_eq!(read(words), "3\n121");
    let lines = read(json!("printf %s \"$THRESH_INPUT_X\" > {out.o}"));
    assert_eq!(lines, format!("{}\n{}", one.display(), two.display()));
}

#[test]
fn words_are_not_split_or_expanded() {
    let bench = Bench::new();
    let words =
        ["sh", "-c", "printf '%s|' \"$@\" > \"$THRESH_OUTPUT_OUT\"", "x", "a  b", "$HOME", "{project}/*", "{p}"];
    bench.run(&stage(json!({"command": words, "outputs": {"out": {"path": "o"}}})), &[]).unwrap();
    let project = bench.project().display().to_string();
    assert_eq!(std::fs::read_to_string(bench.out("out/o")).unwrap(), format!("a  b|$HOME|{project}/*|{{p}}|"));
}

#[test]
fn the_environment_is_clean() {
    let bench = Bench::new();
    let list = stage(json!({"command": ["sh", "-c", "env > vars; pwd > place; ls -A > files"],
        "outputs": {"vars": {"path": "vars"}, "place": {"path": "place"}, "files": {"path": "files"}}}));
    bench.run(&list, &[]).unwrap();
    let vars = std::fs::read_to_string(bench.out("vars/vars")).unwrap();
    let allowed = ["PATH", "HOME", "LANG", "PYTHONDONTWRITEBYTECODE", "PWD", "OLDPWD", "SHLVL", "_"];
    assert!(std::env::vars_os().any(|(name, _)| name.to_str().is_none_or(|name| !allowed.contains(&name))));
    for name in vars.lines().map(|line| line.split('=').next().unwrap()) {
        assert!(allowed.contains(&name) || name.starts_with("THRESH_OUTPUT_"), "{name}");
    }
    assert!(std::fs::read_to_string(bench.out("place/place")).unwrap().trim().ends_with("scratch"));
    assert_eq!(std::fs::read_to_string(bench.out("files/files")).unwrap(), "files\nplace\nvars\n");
}

#[test]
fn a_failure_shows_its_last_words() {
    let bench = Bench::new();
    let out = json!({"o": {"path": "o"}});
    let script = "for i in $(seq 50); do echo line $i >&2; done; exit 3";
    let error_3 = error(&bench, json!({"command": script, "outputs": out}));
    assert!(
        error_3.starts_with("the command failed: exit code 3; it ended with these lines (all are in `"),
        "{error_3}"
    );
    assert!(error_3.ends_with("\n  line 49\n  line 50") && !error_3.contains("line 30\n"), "{error_3}");
    let killed = error(&bench, json!({"command": "echo on stdout; kill -KILL $$", "outputs": out}));
    assert!(killed.contains("killed by SIGKILL") && killed.ends_with("on stdout"), "{killed}");
    let silent = error(&bench, json!({"command": ["false"], "outputs": out}));
    assert_eq!(silent, "the command failed: exit code 1; it printed nothing");
    let absent = error(&bench, json!({"command": ["no-such-program"], "outputs": out}));
    assert_eq!(absent, "cannot start `no-such-program`: No such file or directory (os error 2)");
    let unknown = error(&bench, json!({"command": ["cat", "{in.x}"], "outputs": out}));
    assert_eq!(unknown, "`{in.x}` names no input; known: there is no input");
}

#[test]
fn outputs_must_be_there_and_be_files() {
    let bench = Bench::new();
    let run = |script: &str, path: &str| error(&bench, json!({"command": script, "outputs": {"o": {"path": path}}}));
    assert_eq!(run("true", "a/b.txt"), "the command ended well but did not write `a/b.txt`, its output `o`");
    assert!(run("ln -s /etc/passwd o", "o").contains("`o` is a link or lies behind one"));
    assert!(run("ln -s /etc o", "o/passwd").contains("is a link or lies behind one"));
    assert!(run("mkdir o; ln -s /etc/passwd o/x", "o").ends_with("which is neither a file nor a folder"));
    assert!(run("mkfifo o", "o").ends_with("which is neither a file nor a folder"));
    assert!(run("echo x > o.parquet", "o.parquet").contains("is damaged or not Parquet"));
    assert!(run("mkdir o.parquet", "o.parquet").ends_with("is a folder, expected a Parquet file"));
}

#[test]
fn a_declared_row_type_is_checked() {
    let bench = Bench::new();
    let input = bench.write("w.parquet", "");
    table::write(&input, Vec::<WorldItem>::new()).unwrap();
    let copy = |declared: &str| {
        let outputs = json!({"o": {"path": "w.parquet", "type": declared}});
        stage(json!({"command": ["cp", "{in.w}", "{out.o}"], "outputs": outputs}))
    };
    let fine = copy(WorldItem::TYPE);
    assert_eq!(fine.outputs()[0].holds, Holds::Table(WorldItem::TYPE.to_owned()));
    bench.run(&fine, &[("w", &input)]).unwrap();
    assert_eq!(std::fs::read(bench.out("o.parquet")).unwrap(), std::fs::read(&input).unwrap());
    let error = bench.run(&copy("eval.score/v1"), &[("w", &input)]).unwrap_err().to_string();
    assert_eq!(error, format!("output `o` holds `{}` rows, declared is `eval.score/v1`", WorldItem::TYPE));
}

#[test]
fn a_stop_ends_it() {
    let bench = Bench::new();
    let sleeping = stage(json!({"command": "echo up > up; sleep 300", "outputs": {"o": {"path": "o"}}}));
    let (stop, up) = (bench.stop.clone(), bench.scratch().join("up"));
    let begin = Instant::now();
    let result = Mutex::new(None);
    std::thread::scope(|scope| {
        scope.spawn(|| *result.lock().unwrap() = Some(bench.run(&sleeping, &[])));
        while !up.exists() && begin.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(result.into_inner().unwrap().unwrap().unwrap_err().is::<Stopped>());
    assert!(begin.elapsed() < Duration::from_secs(60));
}

#[test]
fn the_content_of_named_files_counts() {
    let bench = Bench::new();
    bench.write("scripts/a.py", "1");
    bench.write("scripts/deep/b.py", "2");
    let with_files = stage(json!({"command": "true", "outputs": {"o": {"path": "o"}}, "files": ["scripts"]}));
    let parts = || with_files.also_depends_on(&bench.project()).unwrap();
    let before = parts();
    assert_eq!(
        before.iter().map(|part| part.0.as_str()).collect::<Vec<_>>(),
        ["file `scripts/a.py`", "file `scripts/deep/b.py`"]
    );
    bench.write("scripts/deep/b.py", "3");
    assert_ne!(before, parts());
    let absent = stage(json!({"command": "true", "outputs": {"o": {"path": "o"}}, "files": ["absent.py"]}));
    assert!(absent.also_depends_on(&bench.project()).unwrap_err().to_string().contains("absent.py"));
}

#[test]
fn wrong_parameters_are_all_named() {
    let problems = |parameters| stage(parameters).check().into_iter().map(|problem| (problem.field, problem.message));
    let found: Vec<_> = problems(json!({
        "command": ["", "{out.nothing}", "${out.shell}"],
        "outputs": {"1": {"path": "../x"}, "a-b": {"path": "d/e"}, "a_b": {"path": "d"}},
        "env": {"A=B": "", "THRESH_X": "", "FINE": ""},
        "files": ["/etc/passwd", "fine.py"],
    }))
    .collect();
    let fields: Vec<_> = found.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "command",
            "outputs.1",
            "outputs.1.path",
            "outputs.a_b",
            "outputs.a_b.path",
            "command",
            "env.A=B",
            "env.THRESH_X",
            "files"
        ]
    );
    assert_eq!(found[5].1, "names `{out.nothing}`, but `outputs` has no `nothing`");
    assert_eq!(problems(json!({"command": " ", "outputs": {}})).count(), 2);
    let wrong = serde_json::from_value::<CommandRun>(json!({"command": 3, "outputs": {}})).unwrap_err();
    assert!(wrong.to_string().contains("expected a list of words, or one text for the shell"), "{wrong}");
}
