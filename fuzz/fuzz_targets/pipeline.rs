//! Any text as a pipeline: loading it ends in a pipeline or in messages.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use thresh::config::load_through;
use thresh::fs::PathError;

fuzz_target!(|text: &str| {
    // A first line of the form `# thresh check FILE --set PATH=VALUE` is the command line, as in tests/bad.
    let first = text.lines().next().unwrap_or_default();
    let set = first.strip_prefix("# thresh check FILE --set ").map(str::to_owned);
    let sets: Vec<String> = set.into_iter().collect();
    let open = |path: &Path| match path.to_str() {
        Some("p.yaml") => Ok(text.to_owned()),
        Some("_base.yaml") => Ok("name: base\nstages:\n  corpus:\n    kind: multiwoz.synthesize\n".to_owned()),
        _ => Err(PathError { action: "read", path: path.to_owned(), source: std::io::ErrorKind::NotFound.into() }),
    };
    if let Err(problems) = load_through(Path::new("p.yaml"), &sets, &open) {
        assert!(!problems.list.is_empty());
        problems.render(false);
    }
});
