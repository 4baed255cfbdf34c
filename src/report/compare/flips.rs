//! Dialogues that ended otherwise, and why.

use std::collections::BTreeMap;

use super::tables::{EpisodePart, Key, Scored, Table};
use super::{Change, Ending, Flip, Flips};
use crate::eval::mean;
use crate::eval::score::EpisodeOutcome;

/// The flips of every arm against the first.
pub(super) fn flips(table: &Table) -> Vec<Flips> {
    let Some((base, others)) = table.arms.split_first() else { return Vec::new() };
    let of = |(place, arm): (usize, &Vec<Scored>)| {
        let mut dialogues: Vec<Flip> = keys(arm).into_iter().filter_map(|key| flip(table, arm, key)).collect();
        dialogues.sort_by(|a, b| (a.change, &a.dialogue, &a.seed).cmp(&(b.change, &b.dialogue, &b.seed)));
        let count = |change: Change| dialogues.iter().filter(|flip| flip.change == change).count() as u64;
        Flips {
            table: table.name.clone(),
            arm: place + 1,
            gained: count(Change::Gained),
            lost: count(Change::Lost),
            broken: count(Change::Broken),
            mended: count(Change::Mended),
            dialogues,
        }
    };
    others.iter().enumerate().filter(|(_, arm)| !arm.is_empty() && !base.is_empty()).map(of).collect()
}

fn keys(arm: &[Scored]) -> Vec<&Key> {
    let mut keys: Vec<&Key> = arm.iter().flat_map(|one| one.scores.keys()).collect();
    keys.sort();
    keys.dedup();
    keys
}

/// How a dialogue changed; `None` where it did not, or one of them does not have it.
fn flip(table: &Table, arm: &[Scored], key: &Key) -> Option<Flip> {
    let base = table.arms.first()?;
    let (before, after) = (ending(base, key)?, ending(arm, key)?);
    let change = change(&before, &after)?;
    let (was, is) = (reach(base, key), reach(arm, key));
    let (mut reached, mut missed) = (Vec::new(), Vec::new());
    for goal in was.keys().chain(is.keys().filter(|goal| !was.contains_key(*goal))) {
        let share = |found: &BTreeMap<(u32, String), f64>| found.get(goal).copied();
        // Of a goal that one side does not know nothing can be said.
        let (Some(was), Some(is)) = (share(&was), share(&is)) else { continue };
        if is > was {
            reached.push(goal.1.clone());
        } else if is < was {
            missed.push(goal.1.clone());
        }
    }
    let played = |one: &&Scored| table.apart && one.scores.contains_key(key);
    let seed = arm.iter().find(played).and_then(|one| one.seed.clone());
    Some(Flip { dialogue: key.1.clone(), seed, change, before, after, reached, missed })
}

fn change(before: &Ending, after: &Ending) -> Option<Change> {
    let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
    let broken = |ending: &Ending| share(ending.broken, ending.broken + ending.successes + ending.failures);
    let success = |ending: &Ending| share(ending.successes, ending.successes + ending.failures);
    let (was, is) = (broken(before)?, broken(after)?);
    if is != was {
        return Some(if is > was { Change::Broken } else { Change::Mended });
    }
    let (was, is) = (success(before)?, success(after)?);
    (is != was).then_some(if is > was { Change::Gained } else { Change::Lost })
}

fn ending(arm: &[Scored], key: &Key) -> Option<Ending> {
    let mut ending = Ending::default();
    let mut rewards = Vec::new();
    for one in arm {
        let Some(score) = one.scores.get(key) else { continue };
        match score.outcome {
            EpisodeOutcome::Success => ending.successes += 1,
            EpisodeOutcome::Failure => ending.failures += 1,
            EpisodeOutcome::Broken => ending.broken += 1,
        }
        rewards.extend(score.reward);
        let Some(episode) = one.episodes.as_ref().and_then(|episodes| episodes.get(key)) else { continue };
        let broken = score.outcome == EpisodeOutcome::Broken;
        let cut_off = !broken && !episode.ended;
        ending.cut_off = Some(ending.cut_off.unwrap_or_default() + u64::from(cut_off));
        if let Some(reason) = episode.reason.as_ref().filter(|reason| broken && !ending.reasons.contains(reason)) {
            ending.reasons.push(reason.clone());
        }
    }
    ending.reward = mean(&rewards);
    (ending.successes + ending.failures + ending.broken > 0).then_some(ending)
}

/// In which share of the replicates that are not broken each goal was reached; goals by their place and tool.
fn reach(arm: &[Scored], key: &Key) -> BTreeMap<(u32, String), f64> {
    let whole = |one: &&Scored| one.scores.get(key).is_some_and(|score| score.outcome != EpisodeOutcome::Broken);
    let episodes: Vec<&EpisodePart> =
        arm.iter().filter(whole).filter_map(|one| one.episodes.as_ref()?.get(key)).collect();
    let mut shares = BTreeMap::new();
    for episode in &episodes {
        for (place, goal) in (0..).zip(&episode.goals) {
            let hit = f64::from(u8::from(episode.goals_hit.contains(&place)));
            *shares.entry((place, goal.clone())).or_default() += hit / episodes.len() as f64;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_broken_is_neither_lost_nor_gained() {
        let ending = |successes, failures, broken| Ending { successes, failures, broken, ..Ending::default() };
        for (before, after, expected) in [
            (ending(1, 0, 0), ending(0, 1, 0), Some(Change::Lost)),
            (ending(0, 1, 0), ending(1, 0, 0), Some(Change::Gained)),
            (ending(1, 0, 0), ending(0, 0, 1), Some(Change::Broken)),
            (ending(0, 1, 0), ending(0, 0, 1), Some(Change::Broken)),
            (ending(0, 0, 1), ending(0, 1, 0), Some(Change::Mended)),
            (ending(0, 0, 1), ending(0, 0, 1), None),
            (ending(1, 0, 0), ending(1, 0, 0), None),
            // With replicates shares count: two of three against one of two.
            (ending(2, 1, 0), ending(1, 1, 0), Some(Change::Lost)),
            (ending(1, 1, 0), ending(2, 2, 0), None),
            (ending(2, 0, 1), ending(1, 0, 2), Some(Change::Broken)),
        ] {
            assert_eq!(change(&before, &after), expected, "{before:?} {after:?}");
        }
    }
}
