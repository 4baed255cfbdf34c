use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Sample {
    name: String,
    reward: f64,
    seed: u64,
    reason: Option<String>,
}

fn sample(number: u64) -> Sample {
    let reason = (number.is_multiple_of(3)).then(|| format!("a \"reason\"\nwith lines {number}"));
    Sample { name: format!("ü{number}"), reward: 1.0 / (number as f64 + 3.0), seed: u64::MAX - number, reason }
}

fn key(number: u64) -> Key {
    Key::of(&number).unwrap()
}

fn journal(path: &Path) -> Journal<Sample> {
    Journal::open(path, false, Arc::new(|_| {}))
}

/// A journal of so many samples, and its bytes.
fn written(path: &Path, count: u64) -> Vec<u8> {
    let mut journal = journal(path);
    for number in 0..count {
        assert!(journal.keep(key(number), &sample(number)));
    }
    std::fs::read(path).unwrap()
}

/// Which samples are there; every one that is must be what was written.
fn found(path: &Path, count: u64) -> Vec<u64> {
    let mut journal = journal(path);
    let whole = |number: &u64| {
        let row = journal.read(&key(*number));
        assert!(row.is_none() || row == Some(sample(*number)));
        row.is_some()
    };
    (0..count).filter(whole).collect()
}

#[test]
fn rows_come_back_at_once_and_later_and_the_later_of_two_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows").join("scope");
    let mut first = journal(&path);
    assert!(!first.has(&key(1)) && first.read(&key(1)).is_none());
    assert!(first.keep(key(1), &sample(7)) && first.keep(key(1), &sample(1)));
    assert_eq!(first.read(&key(1)), Some(sample(1)));
    assert_eq!(journal(&path).read(&key(1)), Some(sample(1)));
    let mut anew = Journal::<Sample>::open(&path, true, Arc::new(|_| {}));
    assert!(!anew.has(&key(1)));
    assert!(anew.keep(key(1), &sample(2)));
    assert_eq!(anew.read(&key(1)), Some(sample(2)));
    assert_eq!(journal(&path).read(&key(1)), Some(sample(2)));
}

#[test]
fn a_journal_torn_at_any_byte_loses_that_row_alone_and_can_be_written_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scope");
    let bytes = written(&path, 4);
    let ends: Vec<usize> = (1..=4).map(|count| written(&folder.path().join(format!("{count}")), count).len()).collect();
    for cut in 0..=bytes.len() {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        // The last newline of a row tells nothing that its checksum does not.
        let whole = ends.iter().filter(|&&end| end <= cut + 1).count() as u64;
        assert_eq!(found(&path, 4), (0..whole).collect::<Vec<_>>(), "cut at {cut}");
        assert!(journal(&path).keep(key(9), &sample(9)));
        assert_eq!(found(&path, 10), (0..whole).chain([9]).collect::<Vec<_>>(), "cut at {cut}");
    }
}

#[test]
fn a_journal_with_any_byte_flipped_loses_one_row_or_two_neighbours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scope");
    let bytes = written(&path, 4);
    for place in 0..bytes.len() {
        for flip in [1, 0x20, 0x80] {
            let mut damaged = bytes.clone();
            damaged[place] ^= flip;
            std::fs::write(&path, &damaged).unwrap();
            // Two newlines stand between rows, so that one of them may go.
            assert!(found(&path, 4).len() >= 3, "byte {place} flipped by {flip}");
        }
    }
}

#[test]
fn what_changes_under_an_open_journal_is_absent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scope");
    let bytes = written(&path, 2);
    let mut open = journal(&path);
    std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    assert!(open.has(&key(1)));
    assert_eq!((open.read(&key(0)), open.read(&key(1))), (Some(sample(0)), None));
    assert!(!open.has(&key(1)));
}

#[test]
fn two_writers_share_a_journal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scope");
    std::thread::scope(|threads| {
        for writer in 0..4_u64 {
            let path = &path;
            threads.spawn(move || {
                let mut journal = journal(path);
                for number in (0..400).filter(|number| number % 4 == writer) {
                    assert!(journal.keep(key(number), &sample(number)));
                    assert_eq!(journal.read(&key(number)), Some(sample(number)));
                }
            });
        }
    });
    assert_eq!(found(&path, 400).len(), 400);
}

#[test]
fn a_journal_that_cannot_be_written_warns_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file").join("scope");
    std::fs::write(folder.path().join("file"), "").unwrap();
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let heard = warnings.clone();
    let mut journal = Journal::<Sample>::open(&path, false, Arc::new(move |notice| heard.lock().unwrap().push(notice)));
    assert!(!journal.keep(key(1), &sample(1)) && !journal.keep(key(2), &sample(2)));
    assert!(journal.read(&key(1)).is_none());
    let warnings = warnings.lock().unwrap();
    assert!(matches!(&warnings[..], [Notice::Warning(text)] if text.contains("starts over")), "{warnings:?}");
}

#[test]
fn a_scope_leaves_out_whole_groups_of_fields() {
    let fields = |pairs: &[(&str, &str)]| -> Fields {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let one = fields(&[("kind", "a"), ("with.tasks.limit", "20"), ("in.tasks", "x"), ("with.tasksmore", "1")]);
    let two = fields(&[("kind", "a"), ("with.tasks.skip", "3"), ("in.tasks", "y"), ("with.tasksmore", "1")]);
    let beside = ["with.tasks", "in.tasks"];
    assert_eq!(scope(&one, &beside), scope(&two, &beside));
    let other = fields(&[("kind", "a"), ("with.tasksmore", "2")]);
    assert_ne!(scope(&one, &beside), scope(&other, &beside));
    assert_ne!(scope(&one, &[]), scope(&one, &beside));
}

proptest! {
    #[test]
    fn any_row_comes_back_exactly(
        name in any::<String>(), reward in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO,
        seed: u64, reason in any::<Option<String>>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scope");
        let row = Sample { name, reward, seed, reason };
        let id = Key::of(&row).unwrap();
        journal(&path).keep(id, &row);
        let back = journal(&path).read(&id).unwrap();
        prop_assert_eq!(back.reward.to_bits(), row.reward.to_bits());
        prop_assert_eq!(back, row);
    }
}
