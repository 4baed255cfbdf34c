//! Documentation and schemas come from the code and are current.

use std::collections::BTreeSet;
use std::path::Path;

use crate::project::Project;
use thresh::stages::{KINDS, ROWS};

#[test]
fn every_kind_is_documented_and_its_example_is_right() {
    let project = Project::new();
    let listed = project.ok(&["kinds"]);
    let names: BTreeSet<&str> = KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(names.len(), KINDS.len(), "a kind stands in the list twice");
    for kind in KINDS {
        let file = format!("stages/{}.rs", kind.name.replace('.', "_"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(&file);
        assert!(source.is_file(), "{} should be in {file}", kind.name);
        let node = thresh::config::yaml_node(kind.example).unwrap();
        let (_, stage) = node.entries().first().unwrap_or_else(|| panic!("{}: no example", kind.name));
        assert_eq!(stage.get("kind").and_then(|kind| kind.text()), Some(kind.name));
        let empty = thresh::config::yaml_node("{}").unwrap();
        let parsed = (kind.parse)(stage.get("with").unwrap_or(&empty)).unwrap_or_else(|e| panic!("{}: {e}", kind.name));
        assert!(parsed.check().is_empty(), "{}: {:?}", kind.name, parsed.check());
        let inputs = parsed.inputs();
        for (input, _) in stage.get("in").map(|node| node.entries()).unwrap_or_default() {
            let takes = |port: &thresh::engine::port::PortSpec| {
                port.name == input.text || port.arity == thresh::engine::port::Arity::Many
            };
            assert!(inputs.iter().any(takes), "{}: its example has no input `{}`", kind.name, input.text);
        }
        assert!(!parsed.outputs().is_empty(), "{}", kind.name);
        assert!(listed.contains(kind.name));
        let page = project.ok(&["kinds", kind.name]);
        assert!(page.contains("Outputs") && page.contains("Example"), "{page}");
        let schema = (kind.schema)();
        let properties = schema.get("properties").and_then(|properties| properties.as_object());
        for (name, property) in properties.into_iter().flatten() {
            let text = property.get("description").and_then(|text| text.as_str()).unwrap_or_default();
            let refers = property.get("$ref").is_some() || property.get("allOf").is_some();
            assert!(!text.is_empty() || refers, "{}: parameter `{name}` says nothing of itself", kind.name);
        }
    }
}

#[test]
fn every_row_type_is_a_table_and_the_schemas_in_the_tree_are_current() {
    let project = Project::new();
    project.ok(&["schema", "--out", "made"]);
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let made = project.path().join("made");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let mut names = vec!["pipeline.schema.json".to_owned()];
    names.extend(ROWS.iter().map(|row| format!("rows/{}.json", row.name.replace('/', "."))));
    for name in &names {
        assert!(read(&made.join(name)) == read(&tree.join(name)), "schemas/{name} is not current: `make schemas`");
    }
    let count = std::fs::read_dir(tree.join("rows")).unwrap().count();
    assert_eq!(count, ROWS.len(), "schemas/rows holds files of row types that are no more");
}

#[test]
fn the_reference_of_the_book_is_current() {
    let project = Project::new();
    project.ok(&["schema", "--reference", "made"]);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/reference");
    let names = |folder: &Path| -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let made = project.path().join("made");
    assert_eq!(names(&made), names(&kept), "docs/src/reference holds other pages than those that are written");
    for name in names(&made) {
        let read = |folder: &Path| std::fs::read_to_string(folder.join(&name)).unwrap();
        assert!(read(&made) == read(&kept), "docs/src/reference/{name} is not current: `make schemas`");
    }
}
