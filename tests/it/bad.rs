//! Broken pipelines and the whole message that each must give. `THRESH_BLESS=1` writes the messages anew, to be read in the diff.

use std::path::Path;
use std::process::Command;

#[test]
fn every_broken_pipeline_gives_its_whole_message() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let bless = std::env::var_os("THRESH_BLESS").is_some();
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".yaml").map(str::to_owned))
        .filter(|name| !name.starts_with('_'))
        .collect();
    names.sort();
    assert!(names.len() >= 15, "the broken pipelines are gone: {names:?}");
    let mut wrong = Vec::new();
    for name in names {
        let file = format!("{name}.yaml");
        let output = Command::new(env!("CARGO_BIN_EXE_thresh"))
            .args(["check", &file])
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
}
