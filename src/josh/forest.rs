//! Many dialogues that share their beginnings: every message stands once, however many dialogues begin with it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::chat::Message;

/// A point in a dialogue, right behind a message; it stands for all that was said up to there. Within one [`Forest`] equal
/// beginnings have equal points, whatever dialogue they come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point(u32);

impl Point {
    /// Where nothing was said yet.
    pub const START: Self = Self(0);
}

/// What was said in many dialogues. Its room is that of their different messages.
#[derive(Debug, Default, PartialEq)]
pub struct Forest {
    /// What leads to each point but the start.
    links: Vec<Link>,
    known: HashMap<(Point, Arc<Message>), Point>,
}

#[derive(Debug, PartialEq)]
struct Link {
    before: Point,
    message: Arc<Message>,
    length: u32,
}

impl Forest {
    /// The point behind a message that is said at another point.
    ///
    /// # Panics
    /// When there are more than four billion different points.
    pub fn after(&mut self, before: Point, message: Message) -> Point {
        let next = u32::try_from(self.links.len() + 1).expect("fewer than four billion points");
        let message = Arc::new(message);
        let point = *self.known.entry((before, message.clone())).or_insert(Point(next));
        if point.0 == next {
            let length = self.length(before) as u32 + 1;
            self.links.push(Link { before, message, length });
        }
        point
    }

    /// How many messages lead to a point.
    pub fn length(&self, point: Point) -> usize {
        self.link(point).map_or(0, |link| link.length as usize)
    }

    /// The message that leads to a point; none leads to the start.
    pub fn message(&self, point: Point) -> Option<&Message> {
        self.link(point).map(|link| &*link.message)
    }

    /// Where the message that leads to a point was said; the start lies before itself.
    pub fn before(&self, point: Point) -> Point {
        self.link(point).map_or(Point::START, |link| link.before)
    }

    /// From a point back to the start, which is not among them.
    pub fn backwards(&self, end: Point) -> impl Iterator<Item = Point> {
        std::iter::successors(Some(end), |&point| Some(self.before(point))).take_while(|&point| point != Point::START)
    }

    /// The points on the way to a point, the start not among them, the point itself the last.
    pub fn path(&self, end: Point) -> Vec<Point> {
        let mut path: Vec<Point> = self.backwards(end).collect();
        path.reverse();
        path
    }

    /// The messages that lead to a point, in order.
    pub fn messages(&self, end: Point) -> impl DoubleEndedIterator<Item = &Message> {
        self.path(end).into_iter().filter_map(|point| self.message(point))
    }

    /// The messages between two points, of which the first lies on the way to the second.
    pub fn between(&self, start: Point, end: Point) -> Vec<Message> {
        let back = self.backwards(end).take_while(|&point| point != start);
        let mut messages: Vec<Message> = back.filter_map(|point| self.message(point).cloned()).collect();
        messages.reverse();
        messages
    }

    /// How many different points there are beside the start.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    fn link(&self, point: Point) -> Option<&Link> {
        self.links.get((point.0 as usize).checked_sub(1)?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grow(forest: &mut Forest, texts: &[u8]) -> Point {
        texts.iter().fold(Point::START, |point, text| forest.after(point, Message::user(text.to_string())))
    }

    #[test]
    fn beginnings_are_shared() {
        let mut forest = Forest::default();
        let (long, short) = (grow(&mut forest, &[1, 2, 3]), grow(&mut forest, &[1, 2]));
        assert_eq!((forest.len(), forest.before(long), forest.length(long)), (3, short, 3));
        assert_eq!((forest.message(Point::START), forest.before(Point::START)), (None, Point::START));
        assert_eq!(forest.path(long).last(), Some(&long));
        assert_eq!((forest.between(short, long).len(), forest.between(Point::START, long).len()), (1, 3));
        assert!(forest.between(long, long).is_empty());
        assert!(forest.path(Point::START).is_empty() && Forest::default().is_empty());
    }

    proptest! {
        #[test]
        fn points_are_equal_where_dialogues_are(dialogues in proptest::collection::vec(proptest::collection::vec(0_u8..3, 0..6), 0..20)) {
            let mut forest = Forest::default();
            let ends: Vec<Point> = dialogues.iter().map(|texts| grow(&mut forest, texts)).collect();
            for (one, first) in ends.iter().zip(&dialogues) {
                let texts: Vec<String> = forest.messages(*one).map(|message| message.content.clone()).collect();
                prop_assert_eq!(texts, first.iter().map(ToString::to_string).collect::<Vec<_>>());
                for (other, second) in ends.iter().zip(&dialogues) {
                    prop_assert_eq!(one == other, first == second);
                }
            }
        }
    }
}
