//! Broken pipelines and the whole message that each must give. `THRESH_BLESS=1` writes the messages anew, to be read in the diff.

use std::path::Path;
use std::process::Command;

/// The first line of a file may say with what arguments it is checked.
const ARGUMENTS: &str = "# thresh check FILE ";

#[test]
fn every_broken_pipeline_gives_its_whole_message() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let bless = std::env::var_os("THRESH_BLESS").is_some();
    let names = |suffix: &str| {
        let mut names: Vec<String> = std::fs::read_dir(&folder)
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(suffix).map(str::to_owned))
            .filter(|name| !name.starts_with('_'))
            .collect();
        names.sort();
        names
    };
    let broken = names(".yaml");
    assert!(broken.len() >= 75, "broken pipelines are gone: {broken:?}");
    let mut wrong = Vec::new();
    for name in &broken {
        let file = format!("{name}.yaml");
        let text = std::fs::read_to_string(folder.join(&file)).unwrap_or_default();
        let arguments = text.lines().next().and_then(|line| line.strip_prefix(ARGUMENTS)).unwrap_or_default();
        let output = Command::new(env!("CARGO_BIN_EXE_thresh"))
            .args(["check", &file])
            .args(arguments.split_whitespace())
            .current_dir(&folder)
            .env("NO_COLOR", "1")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        let path = folder.join(format!("{name}.stderr"));
        if bless {
            std::fs::write(&path, &said).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if said != expected {
            wrong.push(format!("{name}: expected\n{expected}\nfound\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(broken, names(".stderr"), "messages without a pipeline");
}
