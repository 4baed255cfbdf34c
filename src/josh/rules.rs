//! What the search asks of the rules: one question per quirk (reference, section 2.9).

use crate::chat::{Message, Role};
use crate::compat::{Compat, Quirk, Rules};
use crate::seed;

/// The quirks that a search asks about.
pub const SEARCH: &[Quirk] = &[Quirk::Q16, Quirk::Q17, Quirk::Q18, Quirk::Q19, Quirk::Q20, Quirk::Q21, Quirk::Q23];

/// The place of one step in a search: what its seed is made of.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// `agent` or `user`.
    pub who: &'static str,
    /// The dialogue.
    pub dialogue: &'a str,
    /// The node that takes the step.
    pub node: usize,
    /// The step of the search.
    pub step: usize,
    /// The round within the step.
    pub round: usize,
}

impl Rules {
    /// The seed of one step. The reference gives every step the run's own seed, so that siblings are often identical (Q16).
    pub fn seed(&self, seed: u64, place: Place) -> u64 {
        if !self.mends(Quirk::Q16) {
            return seed;
        }
        let [node, step, round] = [place.node, place.step, place.round].map(|number| number.to_string());
        seed::derive(seed, &["josh", place.who, place.dialogue, &node, &step, &round])
    }

    /// Whether running out of tries is also noted on leaves that did finish in the last round (Q17).
    pub fn notes_finished_leaves(&self) -> bool {
        !self.mends(Quirk::Q17)
    }

    /// Whether a leaf that hit these goals holds the whole task (Q18: the repository's test misses a turn that hits the last
    /// two goals at once).
    pub fn completes(&self, left: usize, hits: usize) -> bool {
        match self.mode(Quirk::Q18) {
            Compat::Paper | Compat::RepoHead => left == 1,
            Compat::Pypi014 | Compat::Fixed => left == hits,
        }
    }

    /// Whether goals reached before a step raised earn anything (Q20).
    pub fn credits_raised_steps(&self) -> bool {
        !self.mends(Quirk::Q20)
    }

    /// Whether hits are a set (Q21). The reference fails on a goal hit twice in one turn.
    pub fn hits_are_a_set(&self) -> bool {
        self.mends(Quirk::Q21)
    }

    /// Whether later rounds of the surviving leaf's turn still earn goals. The reference keeps what the leaf did there and
    /// forgets the goals that it reached.
    pub fn credits_later_rounds(&self) -> bool {
        matches!(self.compat(), Compat::Fixed)
    }

    /// Whether the agent may answer a last message, and whether the first user message can end the dialogue (Q23).
    pub fn answers_last_message(&self) -> bool {
        self.mends(Quirk::Q23)
    }

    /// How many of a node's messages are recorded as an example, or `None` where nothing is (Q19).
    ///
    /// The reference cuts trailing user messages, but a list of nothing else keeps its first. Ours ends every example with
    /// the agent's last message, and records none where the agent has said nothing.
    pub fn recorded_length(&self, messages: &[Message]) -> Option<usize> {
        if self.mends(Quirk::Q19) {
            return messages.iter().rposition(|message| message.role == Role::Assistant).map(|last| last + 1);
        }
        match messages.iter().rposition(|message| message.role != Role::User) {
            Some(last) => Some(last + 1),
            None => Some(messages.len().min(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_example_ends_where_each_rule_says() {
        let (user, agent) = (Message::user("u"), Message::assistant("a"));
        let chat = [user.clone(), agent, user.clone(), user.clone()];
        for rules in [Rules::of(Compat::RepoHead), Rules::of(Compat::Pypi014), Rules::of(Compat::Fixed)] {
            assert_eq!(rules.recorded_length(&chat), Some(2));
        }
        let unanswered = [user.clone(), user.clone(), user];
        assert_eq!(Rules::of(Compat::RepoHead).recorded_length(&unanswered), Some(1));
        assert_eq!(Rules::of(Compat::RepoHead).recorded_length(&[]), Some(0));
        assert_eq!(Rules::of(Compat::Fixed).recorded_length(&unanswered), None);
    }

    #[test]
    fn only_our_seeds_differ_from_step_to_step() {
        let place = Place { who: "agent", dialogue: "MUL0003.json", node: 1, step: 0, round: 0 };
        let sibling = Place { node: 2, ..place };
        assert_eq!(Rules::of(Compat::RepoHead).seed(42, place), Rules::of(Compat::RepoHead).seed(42, sibling));
        assert_ne!(Rules::of(Compat::Fixed).seed(42, place), Rules::of(Compat::Fixed).seed(42, sibling));
        assert_eq!(Rules::of(Compat::Fixed).seed(42, place), Rules::of(Compat::Fixed).seed(42, place));
    }
}
