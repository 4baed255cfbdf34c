//! What the search asks of the rules: one question per quirk (reference, sections 2.9 and 2.10).

use super::forest::{Forest, Point};
use super::tree::Node;
use crate::chat::Role;
use crate::compat::{Compat, Quirk, Rules};
use crate::seed;

/// The quirks that a search asks about.
pub const SEARCH: &[Quirk] =
    &[Quirk::Q16, Quirk::Q17, Quirk::Q18, Quirk::Q19, Quirk::Q20, Quirk::Q21, Quirk::Q22, Quirk::Q23];

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

    /// Whether running out of tries is also noted on leaves that did finish in the last round (Q17). In the published trees no
    /// note stands behind an answer.
    pub fn notes_finished_leaves(&self) -> bool {
        matches!(self.mode(Quirk::Q17), Compat::RepoHead | Compat::Pypi014)
    }

    /// Whether a round of the search is one reply of the agent, and earns only where it does not speak. Later the agent asks
    /// for its replies itself, and a round is a whole turn.
    pub fn one_reply_a_round(&self) -> bool {
        self.compat() == Compat::Paper
    }

    /// The most agent turns on any path, where nothing else is asked for.
    pub fn outer_limit(&self) -> usize {
        if self.compat() == Compat::Paper { 10 } else { 15 }
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

    /// Whether the goals that any leaf of a step reached are deleted, although only the first of these leaves survives (Q22).
    pub fn deletes_goals_of_all(&self) -> bool {
        self.mode(Quirk::Q22) == Compat::Paper
    }

    /// Whether later rounds of the surviving leaf's turn still earn goals. The reference keeps what the leaf did there and
    /// forgets the goals that it reached.
    pub fn credits_later_rounds(&self) -> bool {
        self.compat() == Compat::Fixed
    }

    /// Whether the agent may answer a last message, and whether the first user message can end the dialogue (Q23).
    pub fn answers_last_message(&self) -> bool {
        self.mends(Quirk::Q23)
    }

    /// Whether a dialogue that its user ended is over only when the next step begins (section 2.10).
    pub fn ends_at_next_step(&self) -> bool {
        self.mode(Quirk::Q23) == Compat::Paper
    }

    /// How far a node's dialogue is recorded as an example; `None` where nothing is (Q19).
    ///
    /// Ours ends every example with the agent's last message, and records none where the agent has said nothing. The reference
    /// cuts trailing user messages, what tools returned among them, but a list of nothing else keeps its first. In the
    /// published trees the customer's words alone are cut, and not those that end a dialogue; so a root without an answer is
    /// empty.
    pub fn recorded(&self, forest: &Forest, node: &Node) -> Option<Point> {
        let role = |point: &Point| forest.message(*point).map(|message| message.role);
        let mut back = forest.backwards(node.end);
        match self.mode(Quirk::Q19) {
            Compat::Fixed => back.find(|point| role(point) == Some(Role::Assistant)),
            Compat::Paper if node.ending => Some(node.end),
            Compat::Paper => Some(node.answered),
            Compat::RepoHead | Compat::Pypi014 => {
                let mut first = Point::START;
                let last = back.inspect(|&point| first = point).find(|point| role(point) != Some(Role::User));
                Some(last.unwrap_or(first))
            }
        }
    }

    /// Whether the same messages with the same marks are recorded again: of the 16,794 published records 1,081 are.
    pub fn records_repeats(&self) -> bool {
        self.compat() == Compat::Paper
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Message;

    /// How many messages are recorded of a node with such messages, of which the first so many are answered.
    fn length(compat: Compat, messages: &[Message], answered: usize, ending: bool) -> Option<usize> {
        let mut forest = Forest::default();
        let points: Vec<Point> = messages
            .iter()
            .scan(Point::START, |point, message| {
                *point = forest.after(*point, message.clone());
                Some(*point)
            })
            .collect();
        let at = |length: usize| length.checked_sub(1).map_or(Point::START, |last| points[last]);
        let node = Node { end: at(messages.len()), answered: at(answered), ending, ..Node::default() };
        Rules::of(compat).recorded(&forest, &node).map(|end| forest.length(end))
    }

    #[test]
    fn a_recorded_example_ends_where_each_rule_says() {
        let (user, agent) = (Message::user("u"), Message::assistant("a"));
        let chat = [user.clone(), agent, Message::user("APIRETURN"), user.clone()];
        for compat in [Compat::RepoHead, Compat::Pypi014, Compat::Fixed] {
            assert_eq!(length(compat, &chat, 3, true), Some(2));
        }
        assert_eq!(length(Compat::Paper, &chat, 3, false), Some(3), "the customer's words alone are cut");
        assert_eq!(length(Compat::Paper, &chat, 3, true), Some(4), "but not those that end the dialogue");
        let unanswered = [user.clone(), user.clone(), user];
        assert_eq!(length(Compat::RepoHead, &unanswered, 0, false), Some(1));
        assert_eq!(length(Compat::RepoHead, &[], 0, false), Some(0));
        assert_eq!(length(Compat::Fixed, &unanswered, 0, false), None);
        assert_eq!(length(Compat::Paper, &unanswered, 0, false), Some(0));
    }

    #[test]
    fn only_our_seeds_differ_from_step_to_step() {
        let place = Place { who: "agent", dialogue: "MUL0003.json", node: 1, step: 0, round: 0 };
        let sibling = Place { node: 2, ..place };
        let seed = |compat: Compat, place| Rules::of(compat).seed(42, place);
        assert_eq!(seed(Compat::RepoHead, place), seed(Compat::RepoHead, sibling));
        assert_ne!(seed(Compat::Fixed, place), seed(Compat::Fixed, sibling));
        assert_eq!(seed(Compat::Fixed, place), seed(Compat::Fixed, place));
    }
}
