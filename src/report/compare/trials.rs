//! What a comparison reads of scores, as one table that outlives the store.

use super::arms::{self, NoScoreTable, Party, Target};
use super::library::Library;
use super::tables::{self, Scored, Table};
use super::{Options, stages};
use crate::eval::trial::TrialRow;

/// The scores that a comparison of these reads: by arm in the order in which they were named, then by seed, then by dialogue.
/// Beside them what a reader has to know, in sentences.
///
/// # Errors
/// When the arms have no score table, or several, or one that a table of trials cannot hold; when results cannot be read.
pub fn trials(
    library: &Library,
    targets: &[Target],
    options: &Options,
) -> anyhow::Result<(Vec<TrialRow>, Vec<String>)> {
    let mut notes = Vec::new();
    let sides = targets.iter().map(|target| arms::side(library, target)).collect::<anyhow::Result<Vec<_>>>()?;
    let parties = arms::parties(library, sides, options, arms::Fewest::One, &mut notes)?;
    let matched = stages::matched(options, &parties);
    let table = only(&parties, tables::tables(library, options, &parties, &matched, &mut notes)?)?;
    if table.apart {
        return Err(NoScoreTable::new(format!(
            "`{}`: replicates played other tasks each, so that dialogues of one name are not the same: a table of \
             trials cannot tell them apart; `--no-pool` makes each replicate an arm of its own",
            table.name
        ))
        .into());
    }
    let mut rows = Vec::new();
    for (party, replicates) in parties.iter().zip(table.arms) {
        rows.extend(self::rows(&party.arm.name, replicates));
    }
    Ok((rows, notes))
}

/// The rows of an arm.
pub(super) fn rows(arm: &str, mut replicates: Vec<Scored>) -> Vec<TrialRow> {
    replicates.sort_by_cached_key(|one| order(one.seed.as_deref()));
    let mut rows = Vec::new();
    for Scored { seed, scores, .. } in replicates {
        rows.extend(scores.into_values().map(|score| TrialRow::new(arm, seed.as_deref(), score)));
    }
    rows
}

/// The only score table that all arms have.
fn only(parties: &[Party], tables: Vec<Table>) -> Result<Table, NoScoreTable> {
    let names: Vec<&String> = parties.iter().map(|party| &party.arm.name).collect();
    let count = tables.len();
    let known: Vec<String> = tables.iter().map(|table| format!("`{}.{}`", names[0], table.name)).collect();
    let mut tables = tables.into_iter();
    match (tables.next(), count) {
        (Some(table), 1) => match table.arms.iter().position(Vec::is_empty) {
            Some(lone) => Err(NoScoreTable::new(format!("`{}` has no scores in `{}`", names[lone], table.name))),
            None => Ok(table),
        },
        (None, _) => Err(NoScoreTable::new(format!("`{}` has no score table", names[0]))),
        _ => Err(NoScoreTable::new(format!(
            "`{}` has several score tables; name one for each arm: {}",
            names[0],
            known.join(", ")
        ))),
    }
}

/// Seeds that are numbers in the order of numbers, before others.
fn order(seed: Option<&str>) -> (bool, bool, u64, String) {
    let number = seed.and_then(|seed| seed.parse().ok());
    (seed.is_some(), number.is_none(), number.unwrap_or_default(), seed.unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_in_the_order_of_numbers() {
        let mut seeds = [Some("b"), Some("10"), None, Some("2"), Some("1, 3"), Some("a")];
        seeds.sort_by_cached_key(|seed| order(*seed));
        assert_eq!(seeds, [None, Some("2"), Some("10"), Some("1, 3"), Some("a"), Some("b")]);
    }
}
