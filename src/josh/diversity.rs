//! How often branching was in vain: siblings whose agents said the same.

use std::collections::HashSet;

use super::forest::Point;
use super::tree::Tree;

/// The siblings of a tree, or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Siblings {
    /// Branches beyond the first of each branching whose agent had its turn: what branching adds to a dialogue without it.
    pub further: u64,
    /// Those of them whose agent said and did word for word what an earlier sibling's did.
    pub identical: u64,
}

impl Siblings {
    /// The siblings of a tree.
    pub fn of(tree: &Tree) -> Self {
        let mut siblings = Self::default();
        for node in &tree.nodes {
            let turns = node.children.iter().filter_map(|&child| tree.nodes[child].first_answer);
            let (mut seen, mut count) = (HashSet::<Point>::new(), 0);
            for turn in turns {
                count += 1;
                siblings.identical += u64::from(!seen.insert(turn));
            }
            siblings.further += u64::saturating_sub(count, 1);
        }
        siblings
    }

    /// The share of the further siblings that are identical; `None` where there are none.
    pub fn share(self) -> Option<f64> {
        (self.further > 0).then(|| self.identical as f64 / self.further as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Chat, Message};

    #[test]
    fn a_sibling_is_identical_when_its_turn_is() {
        let mut tree = Tree::new(1);
        let say = |tree: &mut Tree, node: usize, texts: &[&str]| {
            let said: Vec<Message> = tree.dialogue(node);
            let chat: Chat = said.into_iter().chain(texts.iter().map(|text| Message::assistant(*text))).collect();
            tree.answer(node, &chat);
            tree.turn_ends(node);
        };
        assert_eq!(Siblings::of(&tree).share(), None);
        tree.branch(0, 4);
        for (node, texts) in [(1, &["a", "b"][..]), (2, &["a"]), (3, &["a", "b"])] {
            say(&mut tree, node, texts);
        }
        // The fourth broke before it said a word, and what comes after the first turn is no matter of branching.
        tree.turn_ends(4);
        say(&mut tree, 2, &["b"]);
        assert_eq!(Siblings::of(&tree), Siblings { further: 2, identical: 1 });
        assert_eq!(Siblings::of(&tree).share(), Some(0.5));
    }
}
