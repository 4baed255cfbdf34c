//! What can be switched is asked about, and the other way round; the page about it is one of the book's (`kinds.rs`).

use std::collections::BTreeSet;

use thresh::compat::Quirk;
use thresh::compat::quirk::Modes;
use thresh::stages::KINDS;

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
