//! What goes wrong for real: killed processes, full and read-only disks, many processes at once, damaged files. All of it with
//! `tests/twin.yaml`, whose stages are small and real.

mod damage;
mod disk;
mod kills;
mod namespace;
mod readonly;
mod together;
mod victims;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;

use crate::project::{Project, within};

const TWIN: &str = include_str!("../twin.yaml");

fn twin() -> Project {
    let project = Project::in_memory();
    project.write("twin.yaml", TWIN);
    project
}

/// The digests of all files of a store's results, by fingerprint and path: counted here, and not by what is tested.
type Artifacts = BTreeMap<String, BTreeMap<PathBuf, String>>;

fn store(project: &Project) -> PathBuf {
    project.path().join(".thresh")
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn json(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The newest run's record.
fn record(project: &Project) -> Value {
    let text = project.ok(&["runs", "--json"]);
    serde_json::from_str(text.lines().next().expect("a run")).unwrap()
}

/// What the newest run came to. Each result must be whole: its files those that its manifest names, with their digests.
fn artifacts(project: &Project) -> Artifacts {
    let record = record(project);
    let mut artifacts = Artifacts::new();
    for stage in record["stages"].as_array().unwrap() {
        let fingerprint = stage["fingerprint"].as_str().unwrap_or_else(|| panic!("no result: {stage}"));
        let folder = store(project).join("results").join(&fingerprint[..2]).join(fingerprint);
        let manifest = json(&folder.join("manifest.json"));
        let mut named = BTreeMap::new();
        for output in manifest["outputs"].as_object().unwrap().values() {
            for file in output["files"].as_array().unwrap() {
                named
                    .insert(PathBuf::from(file["path"].as_str().unwrap()), file["digest"].as_str().unwrap().to_owned());
            }
        }
        let digest = |path: &PathBuf| {
            let bytes = std::fs::read(path).unwrap();
            (path.strip_prefix(&folder).unwrap().to_owned(), blake3::hash(&bytes).to_hex().to_string())
        };
        let mut there: BTreeMap<PathBuf, String> = files(&folder).iter().map(digest).collect();
        there.remove(Path::new("manifest.json"));
        assert_eq!(there, named, "{} in {}", stage["name"], folder.display());
        artifacts.insert(format!("{} {fingerprint}", stage["name"]), there);
    }
    artifacts
}

/// What an uninterrupted run with a seed comes to, in a project of its own.
fn clean(seed: u32) -> &'static Artifacts {
    static CLEAN: LazyLock<[Artifacts; 3]> = LazyLock::new(|| {
        [20, 21, 22].map(|seed| {
            let project = twin();
            project.ok(&["run", "-q", "twin.yaml", "--set", &format!("params.seed={seed}")]);
            artifacts(&project)
        })
    });
    &CLEAN[seed as usize - 20]
}

/// The processes that work below a folder, with their command lines.
fn processes(below: &Path) -> Vec<(i32, String)> {
    let below = below.canonicalize().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A dead process has no folder any more.
        if std::fs::read_link(entry.path().join("cwd")).is_ok_and(|folder| folder.starts_with(&below)) {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()));
        }
    }
    found
}

/// What is being computed, or was left by who was killed.
fn work(project: &Project) -> Vec<PathBuf> {
    files_and_folders(&store(project).join("work"))
}

fn files_and_folders(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

/// Nothing of a project runs any more, and nothing is left of what ran.
fn nothing_is_left(project: &Project) {
    assert!(within(10, || processes(project.path()).is_empty()), "{:?}", processes(project.path()));
    assert_eq!(work(project), Vec::<PathBuf>::new());
}

/// The twin keeps the shape of the quickstart: each of its stages is there, with the same inputs from the same outputs.
#[test]
fn the_twin_has_the_quickstarts_shape() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shape = |file: &str| {
        let graph = thresh::config::load(&root.join(file), &[]).unwrap_or_else(|error| panic!("{error}")).graph;
        let edge = |edge: &thresh::engine::graph::Edge| {
            (edge.input.clone(), graph.nodes[edge.from].name.clone(), edge.output.clone())
        };
        let stages: BTreeMap<String, Vec<_>> =
            graph.nodes.iter().map(|node| (node.name.clone(), node.inputs.iter().map(edge).collect())).collect();
        stages
    };
    let mut twin = shape("tests/twin.yaml");
    twin.retain(|name, _| !name.starts_with("rows_"));
    assert_eq!(twin, shape("pipelines/quickstart.yaml"));
}
