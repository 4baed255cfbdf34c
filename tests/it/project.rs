//! A project in a temporary folder, and the binary run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A project that goes away with the test.
pub struct Project {
    folder: tempfile::TempDir,
}

/// What a run of the binary came to.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Project {
    /// An empty project.
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// An empty project on a disk in memory, where there is one with room: for tests that write a lot, again and again.
    pub fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        let roomy = thresh::fs::room(memory).is_some_and(|room| room > 1 << 29);
        if roomy { Self::below(memory) } else { Self::new() }
    }

    fn below(folder: &Path) -> Self {
        let project = Self { folder: tempfile::tempdir_in(folder).unwrap() };
        project.write("thresh.toml", "jobs = 2\n");
        project
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The binary with arguments, ready to start in the project's folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thresh"));
        command.args(arguments).current_dir(self.path()).env("NO_COLOR", "1");
        command
    }

    /// Runs the binary to its end.
    pub fn thresh(&self, arguments: &[&str]) -> Ran {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        Ran {
            code: status.code(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Runs the binary and expects it to succeed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.thresh(arguments);
        assert_eq!(ran.code, Some(0), "thresh {arguments:?}\n{}\n{}", ran.stdout, ran.stderr);
        ran.stdout
    }

    /// Runs a pipeline and returns the last JSON line.
    pub fn run(&self, arguments: &[&str]) -> serde_json::Value {
        let mut all = vec!["run", "--json"];
        all.extend(arguments);
        let ran = self.thresh(&all);
        let last = ran.stdout.lines().last().unwrap_or_else(|| panic!("no output: {}", ran.stderr));
        let event: serde_json::Value = serde_json::from_str(last).unwrap();
        assert_eq!(event["event"], "run_finished", "{}\n{}", ran.stdout, ran.stderr);
        event
    }

    /// Where a result lies.
    pub fn result(&self, pipeline: &str, output: &str) -> PathBuf {
        PathBuf::from(self.ok(&["path", pipeline, output]).trim())
    }
}

/// The marks that stages left in the file `ran` since it was last asked for, in the order of their names: stages that may run
/// side by side leave theirs in any order.
pub fn ran(project: &Project) -> Vec<String> {
    let path = project.path().join("ran");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let _ = std::fs::remove_file(path);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// The stages that a run computed, found fresh, and saw fail.
pub fn counts(event: &serde_json::Value) -> (u64, u64, u64) {
    let number = |key: &str| event[key].as_u64().unwrap();
    (number("computed"), number("fresh"), number("failed"))
}

/// Waits until something is so; whether it was within so many seconds.
pub fn within(seconds: u64, mut done: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while !done() {
        if begin.elapsed() > Duration::from_secs(seconds) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}
