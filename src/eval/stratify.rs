//! A small sample that looks like the whole.

use std::collections::BTreeMap;

use crate::seed::derive;

/// The positions of `size` of these, ascending: each stratum gets its share of the whole, rounded so that the sizes add up
/// (largest remainder; of equal ones the stratum first by name). Which of a stratum are taken depends on their names alone, and
/// on no order of names. All where there are no more than `size`.
///
/// Each item is a name, which no other has, and its stratum.
pub fn stratified<N: AsRef<str>, S: AsRef<str>>(items: &[(N, S)], size: usize) -> Vec<usize> {
    if items.len() <= size {
        return (0..items.len()).collect();
    }
    let mut strata: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, (_, stratum)) in items.iter().enumerate() {
        strata.entry(stratum.as_ref()).or_default().push(place);
    }
    let mut shares: Vec<usize> = strata.values().map(|members| members.len() * size / items.len()).collect();
    let mut by_remainder: Vec<usize> = (0..shares.len()).collect();
    let remainders: Vec<usize> = strata.values().map(|members| members.len() * size % items.len()).collect();
    by_remainder.sort_by_key(|stratum| std::cmp::Reverse(remainders[*stratum]));
    let missing = size - shares.iter().sum::<usize>();
    for stratum in by_remainder.into_iter().take(missing) {
        shares[stratum] += 1;
    }
    let drawn = strata.into_values().zip(shares).flat_map(|(mut members, share)| {
        members.sort_by_cached_key(|place| derive(0, &["stratified", items[*place].0.as_ref()]));
        members.truncate(share);
        members
    });
    let mut drawn: Vec<usize> = drawn.collect();
    drawn.sort_unstable();
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn items(strata: &[u8]) -> Vec<(String, String)> {
        strata.iter().enumerate().map(|(place, stratum)| (format!("d{place}"), format!("s{stratum}"))).collect()
    }

    proptest! {
        #[test]
        fn every_stratum_has_its_share(strata in proptest::collection::vec(0..6u8, 1..200), size in 1..200usize) {
            let items = items(&strata);
            let drawn = stratified(&items, size);
            prop_assert_eq!(drawn.len(), size.min(items.len()));
            prop_assert!(drawn.is_sorted_by(|before, after| before < after));
            for stratum in 0..6u8 {
                let of = |places: &mut dyn Iterator<Item = usize>| places.filter(|place| strata[*place] == stratum).count();
                let (all, some) = (of(&mut (0..items.len())), of(&mut drawn.iter().copied()));
                let share = all as f64 * drawn.len() as f64 / items.len() as f64;
                prop_assert!((some as f64 - share).abs() < 1.0, "{some} of {all}, share {share}");
            }
        }

        #[test]
        fn the_order_of_names_does_not_show(strata in proptest::collection::vec(0..4u8, 1..60), size in 1..60usize) {
            let items = items(&strata);
            let backwards: Vec<_> = items.iter().rev().cloned().collect();
            let mut names: Vec<&str> = stratified(&items, size).into_iter().map(|place| &*items[place].0).collect();
            let mut others: Vec<&str> = stratified(&backwards, size).into_iter().map(|place| &*backwards[place].0).collect();
            names.sort_unstable();
            others.sort_unstable();
            prop_assert_eq!(names, others);
        }
    }
}
