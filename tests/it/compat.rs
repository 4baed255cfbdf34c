//! The page about modes and quirks is what the code says, and the code asks about what the page says.

use std::collections::BTreeSet;
use std::path::Path;

use thresh::compat::Quirk;
use thresh::compat::document::{Asking, document};
use thresh::compat::quirk::Modes;
use thresh::stages::KINDS;

#[test]
fn the_page_about_compat_is_current() {
    let asking: Vec<Asking> = KINDS.iter().map(|kind| (kind.name, kind.quirks)).collect();
    let page = document(&asking);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compat.md");
    if std::env::var_os("THRESH_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "docs/compat.md is not current: `THRESH_BLESS=1 cargo test --test it compat`");
}

#[test]
fn what_can_be_switched_is_asked_about_and_the_other_way_round() {
    let mut asked = BTreeSet::new();
    for kind in KINDS {
        let quirks: Vec<Quirk> = kind.quirks.iter().copied().flatten().copied().collect();
        assert_eq!(quirks.iter().collect::<BTreeSet<_>>().len(), quirks.len(), "{} names a quirk twice", kind.name);
        let schema = (kind.schema)();
        let has = |name: &str| schema.get("properties").and_then(|properties| properties.get(name)).is_some();
        assert_eq!((has("compat"), has("quirks")), (!quirks.is_empty(), !quirks.is_empty()), "{}", kind.name);
        asked.extend(quirks);
    }
    for quirk in Quirk::ALL {
        let switched = matches!(quirk.entry().modes, Modes::Switched { .. });
        assert_eq!(asked.contains(quirk), switched, "{}", quirk.name());
    }
}

#[test]
fn every_kind_stands_once_in_the_list() {
    assert_eq!(KINDS.iter().map(|kind| kind.name).collect::<BTreeSet<_>>().len(), KINDS.len());
}
