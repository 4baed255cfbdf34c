//! Trees to preference pairs: of each turn of the golden path that turn, and a failed sibling's.

use std::collections::{HashMap, HashSet};

use super::extraction::Trees;
use super::forest::Point;
use super::frame::Frame;
use super::paths::Harvests;
use super::turns::{Good, judge};
use crate::examples::PairExample;

/// Two turns on the same prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The tree's place among the harvests.
    pub tree: usize,
    /// The turn that led to rewards.
    pub chosen: Point,
    /// The turn with which a failed path left it.
    pub rejected: Point,
}

/// What trees gave, and what was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PairData {
    /// The pairs in the order of the trees, then of the chosen turns, then of the rejected ones.
    pub pairs: Vec<Pair>,
    /// Pairs whose rejected turn led to rewards in another dialogue: none is kept.
    pub contradictions: usize,
    /// Good turns without a failed sibling.
    pub unpaired: usize,
    /// Pairs beyond the most of one prompt.
    pub beyond: usize,
}

impl PairData {
    /// Pairs every turn of the golden paths with each of its failed siblings, at most `most` for one prompt of one dialogue.
    ///
    /// A sibling is a turn with which a failed path leaves all that succeeded, as in [`judge`]; so the two sides are never the
    /// same.
    pub fn of(harvests: &Harvests, trees: Trees, most: Option<usize>) -> Self {
        let (mut data, mut pairs, mut liked) = (Self::default(), Vec::new(), HashSet::new());
        for (tree, harvest) in harvests.trees.iter().enumerate().filter(|(_, harvest)| trees.take(harvest.outcome)) {
            let judged = judge(&harvests.forest, harvest, Good::Golden);
            let mut siblings: HashMap<Point, Vec<Point>> = HashMap::new();
            for turn in judged.bad {
                siblings.entry(harvests.forest.before(turn)).or_default().push(turn);
            }
            liked.extend(judged.good.iter().copied());
            for chosen in judged.good {
                let rejected = siblings.get(&harvests.forest.before(chosen)).map_or(&[][..], Vec::as_slice);
                data.unpaired += usize::from(rejected.is_empty());
                pairs.extend(rejected.iter().map(|&rejected| Pair { tree, chosen, rejected }));
            }
        }
        let mut counts: HashMap<(usize, Point), usize> = HashMap::new();
        for pair in pairs {
            if liked.contains(&pair.rejected) {
                data.contradictions += 1;
                continue;
            }
            let count = counts.entry((pair.tree, pair.chosen)).or_default();
            *count += 1;
            if most.is_none_or(|most| *count <= most) {
                data.pairs.push(pair);
            } else {
                data.beyond += 1;
            }
        }
        data
    }

    /// The examples, each prompt after the system message where there is one.
    pub fn examples<'d>(&'d self, harvests: &'d Harvests, frame: &'d Frame) -> impl Iterator<Item = PairExample> + 'd {
        let calling = harvests.calling();
        self.pairs.iter().map(move |&Pair { tree, chosen, rejected }| {
            let forest = &harvests.forest;
            PairExample {
                dialogue: harvests.trees[tree].dialogue.clone(),
                prompt: frame.chat(forest.messages(forest.before(chosen))),
                chosen: forest.message(chosen).cloned().into_iter().collect(),
                rejected: forest.message(rejected).cloned().into_iter().collect(),
                tools: frame.tools_where(calling[tree]),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::josh::short::harvests;
    use crate::josh::tree::Outcome;

    fn spell(trees: &[(&str, Outcome, &[&str])], which: Trees, most: Option<usize>) -> (Vec<String>, [usize; 3]) {
        let harvests = harvests(trees);
        let data = PairData::of(&harvests, which, most);
        let spell = |example: PairExample| {
            let prompt: Vec<_> = example.prompt.iter().map(|message| message.content.as_str()).collect();
            format!("{} > {} not {}", prompt.join(" "), example.chosen[0].content, example.rejected[0].content)
        };
        let pairs = data.examples(&harvests, &Frame::default()).map(spell).collect();
        (pairs, [data.contradictions, data.unpaired, data.beyond])
    }

    #[test]
    fn a_golden_turn_meets_each_failed_sibling_once() {
        let paths = ["G:u a", "S:u b", "F:u c", "F:u d", "F:u c u2 x", "F:u Error:no", "G:u a u1 e", "F:u a u3 f"];
        let trees = [("A", Outcome::Complete, &paths[..])];
        let (pairs, counts) = spell(&trees, Trees::Complete, None);
        assert_eq!((pairs, counts), (vec!["u > a not c".to_owned(), "u > a not d".to_owned()], [0, 1, 0]));
        assert_eq!(spell(&trees, Trees::Complete, Some(1)), (vec!["u > a not c".to_owned()], [0, 1, 1]));
        assert!(spell(&[("A", Outcome::Partial, &paths[..])], Trees::Complete, None).0.is_empty());
        assert!(spell(&[("A", Outcome::Broken, &paths[..])], Trees::Rewarded, None).0.is_empty());
    }

    #[test]
    fn pairs_that_contradict_each_other_are_dropped() {
        let trees = [
            ("A", Outcome::Complete, &["G:u a", "F:u b", "F:u c"][..]),
            ("B", Outcome::Complete, &["G:u b", "F:u a", "F:u c"]),
        ];
        let pairs = vec!["u > a not c".to_owned(), "u > b not c".to_owned()];
        assert_eq!(spell(&trees, Trees::Complete, Some(1)), (pairs, [2, 0, 0]));
        let trees = [("A", Outcome::Complete, &["G:u a", "F:u b"][..]), ("B", Outcome::Complete, &["G:u b"])];
        assert_eq!(spell(&trees, Trees::Complete, None), (vec![], [1, 1, 0]));
    }

    proptest::proptest! {
        #[test]
        fn no_pair_has_equal_sides_or_a_reverse(
            trees in proptest::collection::vec(proptest::collection::vec("[GSF]:u [ab] u [abc]( u [ab])?", 1..8), 1..4),
        ) {
            let spelt: Vec<Vec<&str>> = trees.iter().map(|tree| tree.iter().map(String::as_str).collect()).collect();
            let trees: Vec<_> = spelt.iter().map(|records| ("A", Outcome::Complete, &records[..])).collect();
            let harvests = harvests(&trees);
            let data = PairData::of(&harvests, Trees::Complete, None);
            let said: HashSet<(Point, Point)> = data.pairs.iter().map(|pair| (pair.chosen, pair.rejected)).collect();
            for pair in &data.pairs {
                proptest::prop_assert_ne!(pair.chosen, pair.rejected);
                proptest::prop_assert_eq!(harvests.forest.before(pair.chosen), harvests.forest.before(pair.rejected));
                proptest::prop_assert!(!said.contains(&(pair.rejected, pair.chosen)));
            }
        }
    }
}
