//! Which dialogues a page holds where all would make it too large: all of some tasks, so that what belongs together stays.

use std::collections::HashMap;

/// How many dialogues and trees of each task a page holds, where it must not hold more than `limit`.
///
/// Tasks come in the order of their names' hashes, which knows nothing of how they went; the last one may be cut. The same tasks
/// are taken whatever the runs, as far as they have them.
pub(super) fn choose<'n>(names: impl Iterator<Item = &'n str>, limit: usize) -> HashMap<&'n str, usize> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    names.for_each(|name| *counts.entry(name).or_default() += 1);
    let mut tasks: Vec<(&str, usize)> = counts.into_iter().collect();
    tasks.sort_by_cached_key(|(name, _)| (*blake3::hash(name.as_bytes()).as_bytes(), *name));
    let mut left = limit;
    let mut chosen = HashMap::new();
    for (name, count) in tasks {
        let taken = count.min(left);
        if taken == 0 {
            break;
        }
        left -= taken;
        chosen.insert(name, taken);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn just_so_many_and_tasks_whole_but_one(names in prop::collection::vec("[a-e]{1,2}", 0..60), limit in 0usize..80) {
            let chosen = choose(names.iter().map(String::as_str), limit);
            prop_assert_eq!(chosen.values().sum::<usize>(), limit.min(names.len()));
            let count = |name: &str| names.iter().filter(|one| *one == name).count();
            prop_assert!(chosen.iter().filter(|(name, taken)| count(name) != **taken).count() <= 1);
            let mut turned = names.clone();
            turned.reverse();
            prop_assert_eq!(choose(turned.iter().map(String::as_str), limit), chosen);
        }
    }

    #[test]
    fn a_larger_page_holds_what_a_smaller_one_does() {
        let names: Vec<String> = (0..50).flat_map(|task| vec![format!("d{task}"); 3]).collect();
        let choose = |limit| choose(names.iter().map(String::as_str), limit);
        let (few, many) = (choose(30), choose(60));
        assert!(few.len() == 10 && few.keys().all(|name| many.contains_key(name)));
    }
}
