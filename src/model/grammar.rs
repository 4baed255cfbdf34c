//! Grammars over bytes, and which tokens of a vocabulary they let come next.
//!
//! A grammar is an expression; what may follow a byte is its derivative by that byte (Brzozowski, 1964). Expressions are kept
//! once each, and derivatives remembered, so that a grammar becomes an automaton as far as texts lead into it.

pub mod calls;
pub mod json;
pub mod vocabulary;

use std::collections::HashMap;

/// The number of an expression.
pub type Expression = u32;

/// The expression that nothing fits.
pub const NEVER: Expression = 0;

/// The expression that only the empty text fits.
pub const EMPTY: Expression = 1;

/// Derivatives that are not known yet.
const UNKNOWN: Expression = u32::MAX;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Node {
    Never,
    Empty,
    /// One byte of a set.
    Byte([u64; 4]),
    Then(Expression, Expression),
    /// Sorted, without doubles.
    Either(Vec<Expression>),
    Many(Expression),
    /// The rest of a JSON object: which members may still come, and whether one has come.
    Members {
        object: usize,
        left: u64,
        begun: bool,
    },
}

#[derive(Debug)]
struct Object {
    members: Vec<Expression>,
    required: u64,
}

/// Expressions that refer to each other.
#[derive(Debug)]
pub struct Grammar {
    nodes: Vec<Node>,
    numbers: HashMap<Node, Expression>,
    empty: Vec<bool>,
    objects: Vec<Object>,
    derivatives: Vec<Option<Box<[Expression; 256]>>>,
}

impl Default for Grammar {
    fn default() -> Self {
        let mut grammar = Self {
            nodes: Vec::new(),
            numbers: HashMap::new(),
            empty: Vec::new(),
            objects: Vec::new(),
            derivatives: Vec::new(),
        };
        grammar.add(Node::Never);
        grammar.add(Node::Empty);
        grammar
    }
}

impl Grammar {
    fn add(&mut self, node: Node) -> Expression {
        if let Some(&known) = self.numbers.get(&node) {
            return known;
        }
        let empty = match &node {
            Node::Never | Node::Byte(_) | Node::Members { .. } => false,
            Node::Empty | Node::Many(_) => true,
            Node::Then(a, b) => self.fits_empty(*a) && self.fits_empty(*b),
            Node::Either(parts) => parts.iter().any(|part| self.fits_empty(*part)),
        };
        let number = self.nodes.len() as Expression;
        self.numbers.insert(node.clone(), number);
        self.nodes.push(node);
        self.empty.push(empty);
        self.derivatives.push(None);
        number
    }

    /// Whether the empty text fits.
    pub fn fits_empty(&self, expression: Expression) -> bool {
        self.empty[expression as usize]
    }

    /// One byte for which `is` holds.
    pub fn byte(&mut self, is: impl Fn(u8) -> bool) -> Expression {
        let mut set = [0_u64; 4];
        for byte in (0..=u8::MAX).filter(|byte| is(*byte)) {
            set[usize::from(byte) / 64] |= 1 << (byte % 64);
        }
        if set == [0; 4] { NEVER } else { self.add(Node::Byte(set)) }
    }

    /// Exactly this text.
    pub fn text(&mut self, text: &str) -> Expression {
        text.bytes().rev().fold(EMPTY, |rest, byte| {
            let first = self.byte(|one| one == byte);
            self.then(first, rest)
        })
    }

    /// One after the other.
    pub fn then(&mut self, first: Expression, second: Expression) -> Expression {
        match (first, second) {
            (NEVER, _) | (_, NEVER) => NEVER,
            (EMPTY, other) | (other, EMPTY) => other,
            // Leaning to the right, so that the same text is the same expression.
            _ => match self.nodes[first as usize] {
                Node::Then(a, b) => {
                    let rest = self.then(b, second);
                    self.then(a, rest)
                }
                _ => self.add(Node::Then(first, second)),
            },
        }
    }

    /// All, one after the other.
    pub fn sequence(&mut self, parts: &[Expression]) -> Expression {
        parts.iter().rev().fold(EMPTY, |rest, part| self.then(*part, rest))
    }

    /// Any of them.
    pub fn either(&mut self, parts: impl IntoIterator<Item = Expression>) -> Expression {
        let mut all = Vec::new();
        for part in parts {
            match &self.nodes[part as usize] {
                Node::Never => {}
                Node::Either(parts) => all.extend_from_slice(parts),
                _ => all.push(part),
            }
        }
        all.sort_unstable();
        all.dedup();
        match all.as_slice() {
            [] => NEVER,
            [one] => *one,
            _ => self.add(Node::Either(all)),
        }
    }

    /// It or nothing.
    pub fn maybe(&mut self, part: Expression) -> Expression {
        self.either([part, EMPTY])
    }

    /// As often as one likes, also never.
    pub fn many(&mut self, part: Expression) -> Expression {
        if part <= EMPTY { EMPTY } else { self.add(Node::Many(part)) }
    }

    /// At most so often.
    pub fn up_to(&mut self, most: usize, part: Expression) -> Expression {
        (0..most).fold(EMPTY, |rest, _| {
            let more = self.then(part, rest);
            self.maybe(more)
        })
    }

    /// A JSON object of these members (`"name": value`, at most 64) in any order, each at most once, and those whose bit is in
    /// `required` exactly once.
    pub fn object(&mut self, members: Vec<Expression>, required: u64) -> Expression {
        let left = if members.len() < 64 { (1 << members.len()) - 1 } else { u64::MAX };
        self.objects.push(Object { members, required });
        let rest = self.add(Node::Members { object: self.objects.len() - 1, left, begun: false });
        let open = self.text("{");
        self.then(open, rest)
    }

    /// What may stand behind a byte.
    pub fn derivative(&mut self, expression: Expression, byte: u8) -> Expression {
        if expression <= EMPTY {
            return NEVER;
        }
        if let Some(known) = &self.derivatives[expression as usize]
            && known[usize::from(byte)] != UNKNOWN
        {
            return known[usize::from(byte)];
        }
        let found = match self.nodes[expression as usize].clone() {
            Node::Never | Node::Empty => NEVER,
            Node::Byte(set) => {
                if set[usize::from(byte) / 64] >> (byte % 64) & 1 == 1 {
                    EMPTY
                } else {
                    NEVER
                }
            }
            Node::Then(first, second) => {
                let rest = self.derivative(first, byte);
                let through = self.then(rest, second);
                if self.fits_empty(first) {
                    let over = self.derivative(second, byte);
                    self.either([through, over])
                } else {
                    through
                }
            }
            Node::Either(parts) => {
                let rests: Vec<Expression> = parts.iter().map(|part| self.derivative(*part, byte)).collect();
                self.either(rests)
            }
            Node::Many(part) => {
                let rest = self.derivative(part, byte);
                self.then(rest, expression)
            }
            Node::Members { object, left, begun } => {
                let rest = self.members(object, left, begun);
                self.derivative(rest, byte)
            }
        };
        let known = self.derivatives[expression as usize].get_or_insert_with(|| Box::new([UNKNOWN; 256]));
        known[usize::from(byte)] = found;
        found
    }

    /// The rest of an object, its next member written out.
    fn members(&mut self, object: usize, left: u64, begun: bool) -> Expression {
        let required = self.objects[object].required & left;
        let mut parts = Vec::new();
        if required == 0 {
            parts.push(self.text("}"));
        }
        let comma = if begun { self.text(", ") } else { EMPTY };
        for place in (0..64).filter(|place| left >> place & 1 == 1) {
            let member = self.objects[object].members[place];
            let rest = self.add(Node::Members { object, left: left & !(1 << place), begun: true });
            parts.push(self.sequence(&[comma, member, rest]));
        }
        self.either(parts)
    }

    /// What may stand behind a text.
    pub fn behind(&mut self, expression: Expression, text: &[u8]) -> Expression {
        text.iter().fold(expression, |rest, byte| self.derivative(rest, *byte))
    }

    /// Whether a text fits.
    pub fn fits(&mut self, expression: Expression, text: &str) -> bool {
        let rest = self.behind(expression, text.as_bytes());
        self.fits_empty(rest)
    }

    /// One character in UTF-8: one of ASCII for which `ascii` holds, or any beyond.
    pub fn character(&mut self, ascii: impl Fn(u8) -> bool) -> Expression {
        let follow = self.byte(|byte| (0x80..=0xbf).contains(&byte));
        let mut parts = vec![self.byte(|byte| byte < 0x80 && ascii(byte))];
        // Unicode, table 3-7: the first byte, the second, and how many more.
        let forms = [
            (0xc2..=0xdf, 0x80..=0xbf, 0),
            (0xe0..=0xe0, 0xa0..=0xbf, 1),
            (0xe1..=0xec, 0x80..=0xbf, 1),
            (0xed..=0xed, 0x80..=0x9f, 1),
            (0xee..=0xef, 0x80..=0xbf, 1),
            (0xf0..=0xf0, 0x90..=0xbf, 2),
            (0xf1..=0xf3, 0x80..=0xbf, 2),
            (0xf4..=0xf4, 0x80..=0x8f, 2),
        ];
        for (first, second, more) in forms {
            let first = self.byte(|byte| first.contains(&byte));
            let second = self.byte(|byte| second.contains(&byte));
            parts.push(self.sequence(&[&[first, second][..], &vec![follow; more]].concat()));
        }
        self.either(parts)
    }
}
