//! One page: its blocks, one after the other, in a project of its own.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use regex::{Captures, Regex};

use thresh::config::{Settings, yaml_node};
use thresh::stages;
use thresh::value::Node;

use super::blocks::{self, Block};
use super::tree;
use crate::project::{Project, Ran};

/// What a page came to.
#[derive(Default)]
pub struct Page {
    /// What is wrong, each with its place.
    pub wrong: Vec<String>,
    /// Why blocks of commands were not run.
    pub skipped: Vec<String>,
}

/// The folder of `desk`: `thresh` with the kinds of the tutorial's crate. `cargo test` builds it with everything else; it cannot
/// be built from here, since cargo holds its folder while tests run.
static DESK: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_BIN_EXE_thresh")).parent().unwrap().join("examples");
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let sources = std::fs::read_dir(tree().join("docs/examples/desk/src")).unwrap();
    let newest = sources.filter_map(|entry| changed(&entry.unwrap().path())).max();
    assert!(changed(&folder.join("desk")) >= newest, "the tutorial's crate is not built: `cargo build --example desk`");
    folder
});

/// The ports that pages listen at. Each is another one in every walk: a second walk may go on beside this one.
static PORTS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b1847\d\b").unwrap());

struct Walk<'a> {
    name: String,
    /// The ports as pages write them, and those that they became.
    ports: BTreeMap<String, String>,
    project: Project,
    last: Option<Ran>,
    page: &'a mut Page,
    blessed: Vec<(std::ops::Range<usize>, String)>,
}

impl Page {
    /// Runs and checks all of these pages, one after the other in one project.
    pub fn walk(paths: &[PathBuf]) -> Self {
        let mut page = Self::default();
        let mut walk = Walk::new(String::new(), &mut page);
        for path in paths {
            let text = std::fs::read_to_string(path).unwrap();
            walk.name = path.strip_prefix(tree()).unwrap().display().to_string();
            for block in Block::all(&text) {
                walk.block(&block);
            }
            let mut blessed = text.clone();
            for (range, printed) in walk.blessed.drain(..).rev() {
                blessed.replace_range(range, &printed);
            }
            if blessed != text {
                std::fs::write(path, blessed).unwrap();
            }
        }
        page
    }

    /// Checks a page that has no marks: commands are read, not run.
    pub fn read_only(path: &Path) -> Self {
        let mut page = Self::default();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut walk = Walk::new(name, &mut page);
        for block in Block::all(&std::fs::read_to_string(path).unwrap()) {
            match block.language.as_str() {
                "sh" => walk.commands(&block),
                "yaml" => walk.yaml(&block),
                "toml" => walk.settings(&block),
                _ => {}
            }
        }
        page
    }
}

impl<'a> Walk<'a> {
    fn new(name: String, page: &'a mut Page) -> Self {
        Self { name, ports: BTreeMap::new(), project: Project::new(), last: None, page, blessed: Vec::new() }
    }

    /// A text of the page with ports that are free now.
    fn with_ports(&mut self, text: &str) -> String {
        let replace = |found: &Captures| self.ports.entry(found[0].to_owned()).or_insert_with(free_port).clone();
        PORTS.replace_all(text, replace).into_owned()
    }

    /// What was printed, with the project's folder and the ports as the page has them.
    fn printed(&self, bytes: Vec<u8>) -> String {
        let text = String::from_utf8(bytes).unwrap();
        let text = text.replace(self.project.path().to_str().unwrap(), "/home/you/project");
        self.ports.iter().fold(text, |text, (written, free)| text.replace(&format!(":{free}"), &format!(":{written}")))
    }

    fn wrong(&mut self, block: &Block, what: impl AsRef<str>) {
        self.page.wrong.push(format!("{}:{}: {}", self.name, block.line, what.as_ref()));
    }

    fn block(&mut self, block: &Block) {
        if let Some(mark) = block.unknown() {
            return self.wrong(block, format!("unknown mark `{mark}`"));
        }
        if let Some(path) = block.mark("source") {
            return self.source(block, path);
        }
        if let Some(file) = block.mark("file") {
            let text = self.with_ports(&block.text);
            self.project.write(file, &text);
        }
        match block.language.as_str() {
            "sh" if block.mark("file").is_some() => {}
            "sh" => match block.mark("norun") {
                Some(reason) => {
                    self.page.skipped.push(reason.to_owned());
                    self.commands(block);
                }
                None => self.run(block),
            },
            "yaml" => self.yaml(block),
            "toml" => self.settings(block),
            "text" => self.output(block),
            "json" | "mermaid" | "sql" => {}
            "python" | "rust" if block.mark("file").is_none() => {
                self.wrong(block, "code that nobody runs; show a file of the tree with `source=`");
            }
            _ if block.mark("file").is_some() => {}
            language => self.wrong(block, format!("a block of the unknown language `{language}`")),
        }
    }

    /// A block that shows a file of the tree.
    fn source(&mut self, block: &Block, path: &str) {
        let file = std::fs::read_to_string(tree().join(path)).unwrap_or_default();
        if file == block.text {
            return;
        }
        match std::env::var_os("THRESH_BLESS") {
            Some(_) => self.blessed.push((block.range.clone(), file)),
            None => self.wrong(block, format!("is not what {path} holds")),
        }
    }

    fn run(&mut self, block: &Block) {
        let mut path = vec![Path::new(env!("CARGO_BIN_EXE_thresh")).parent().unwrap().to_owned()];
        if block.text.contains("desk ") {
            path.push(DESK.clone());
        }
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
        let mut shell = Command::new("sh");
        shell
            .args(["-e", "-c", &self.with_ports(&block.text)])
            .current_dir(self.project.path().join(block.mark("in").unwrap_or_default()));
        shell.env("PATH", std::env::join_paths(path).unwrap()).env("NO_COLOR", "1").env("COLUMNS", "110");
        // Whatever a block leaves running ends with it.
        let child = shell.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let group = Pid::from_raw(child.id().cast_signed());
        let output = child.wait_with_output().unwrap();
        let _ = killpg(group, Signal::SIGKILL);
        let (stdout, stderr) = (self.printed(output.stdout), self.printed(output.stderr));
        let ran = Ran { code: output.status.code(), stdout, stderr };
        let expected = block.mark("exit").map_or(0, |code| code.parse().unwrap());
        if ran.code != Some(expected) {
            self.wrong(block, format!("ended with {:?}:\n{}\n{}\n{}", ran.code, block.text, ran.stdout, ran.stderr));
        }
        self.last = Some(ran);
    }

    fn output(&mut self, block: &Block) {
        let stderr = block.mark("stderr").is_some();
        if !stderr && block.mark("output").is_none() {
            return;
        }
        let Some(ran) = &self.last else { return self.wrong(block, "output of nothing") };
        let printed = if stderr { &ran.stderr } else { &ran.stdout };
        if blocks::matches(&block.text, printed) {
            return;
        }
        if std::env::var_os("THRESH_BLESS").is_some() && !block.text.lines().any(|line| line.trim() == "…") {
            let lines: Vec<&str> = printed.trim_matches('\n').lines().map(str::trim_end).collect();
            self.blessed.push((block.range.clone(), format!("{}\n", lines.join("\n"))));
            return;
        }
        let message = format!("shows\n{}\nbut printed was\n{printed}", block.text);
        self.wrong(block, message);
    }

    /// The lines that start with `thresh` must be ones that it takes.
    fn commands(&mut self, block: &Block) {
        for line in block.text.lines() {
            let line = line.split(" #").next().unwrap().trim();
            if !line.starts_with("thresh ") || line.contains("$(") {
                continue;
            }
            if let Err(error) = thresh::cli::command().try_get_matches_from(words(line)) {
                let asks = matches!(error.exit_code(), 0);
                if !asks {
                    self.wrong(block, format!("`{line}`: {error}"));
                }
            }
        }
    }

    /// A pipeline, or some of its stages.
    fn yaml(&mut self, block: &Block) {
        let node = match yaml_node(&block.text) {
            Ok(node) => node,
            Err(error) => return self.wrong(block, error.message),
        };
        if block.mark("wrong").is_some() {
            return;
        }
        if node.get("stages").is_some() || node.get("extends").is_some() {
            let file = block.mark("file").unwrap_or("pipeline-of-the-page.yaml");
            let own = block.text.contains("kind: desk.") || block.text.contains("kind: talk.");
            // What a manifest or a script holds matters to a run, not here.
            let path = self.project.write(file, &block.text);
            let program = if own { DESK.join("desk") } else { env!("CARGO_BIN_EXE_thresh").into() };
            let checked =
                Command::new(program).arg("check").arg(path).current_dir(self.project.path()).output().unwrap();
            if !checked.status.success() {
                self.wrong(block, String::from_utf8_lossy(&checked.stderr));
            }
            return;
        }
        let mut stages: Vec<&Node> = node.entries().iter().map(|(_, stage)| stage).collect();
        stages.retain(|stage| stage.get("kind").is_some());
        for stage in stages {
            let name = stage.get("kind").and_then(|kind| kind.text()).unwrap_or_default();
            let Some(kind) = stages::find(name) else {
                self.wrong(block, format!("unknown kind `{name}`"));
                continue;
            };
            let empty = yaml_node("{}").unwrap();
            let with = stage.get("with").unwrap_or(&empty);
            if block.text.contains("${") {
                continue;
            }
            match (kind.parse)(with) {
                Ok(parsed) if parsed.check().is_empty() => {}
                Ok(parsed) => self.wrong(block, format!("{name}: {:?}", parsed.check())),
                Err(error) => self.wrong(block, format!("{name}: {error}")),
            }
        }
    }

    fn settings(&mut self, block: &Block) {
        if let Err(error) = toml::from_str::<Settings>(&block.text) {
            self.wrong(block, format!("is no thresh.toml: {error}"));
        }
    }
}

/// A port that nobody listens at.
fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// The words of a command line; quotes hold one together.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for one in line.chars() {
        match (one, quote) {
            ('"' | '\'', None) => quote = Some(one),
            (one, Some(open)) if one == open => quote = None,
            (' ', None) => words.push(String::new()),
            (one, _) => words.last_mut().unwrap().push(one),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}
