//! Which tokens of a vocabulary a grammar lets come next.
//!
//! The tokens stand in a tree by their bytes, so that what many begin with is looked at once. What was found for a place in the
//! grammar is kept for all requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::calls::CallFormat;
use super::{Expression, Grammar, NEVER, json};
use crate::model::scheduler::Guide;
use crate::model::tokenizer::{Decoding, Tokenizer, TokenizerError};

/// The most places whose tokens are kept.
const STATES: usize = 4096;

/// Why a tokenizer's replies cannot be constrained.
#[derive(Debug, thiserror::Error)]
pub enum ConstraintError {
    /// Its files cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Its decoder does something that is not known here.
    #[error("replies of this tokenizer cannot be constrained: its decoder has a step `{0}`, which is not known here")]
    Decoder(String),
    /// A tool has an object with too many members.
    #[error(
        "replies cannot be constrained: an object of a tool's parameters has {0} members, and at most 64 can be told apart"
    )]
    Members(usize),
}

/// A place in the grammar and in the decoding of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    rest: Expression,
    /// Nothing has been written as yet, so that a space would be left out.
    begin: bool,
    /// A joiner waits for its space.
    joined: bool,
}

#[derive(Debug, Default)]
struct TreeNode {
    children: Vec<(u8, u32)>,
    tokens: Vec<u32>,
}

/// A call format made ready for one vocabulary.
#[derive(Debug)]
pub struct Constraint {
    tree: Vec<TreeNode>,
    tokens: Vec<Box<[u8]>>,
    ends: Vec<u32>,
    decoding: Decoding,
    begin: State,
    shared: Mutex<Shared>,
}

#[derive(Debug)]
struct Shared {
    grammar: Grammar,
    allowed: HashMap<State, Arc<[u64]>>,
}

impl Constraint {
    /// Makes a format ready for a tokenizer.
    ///
    /// # Errors
    /// When the tokenizer's files cannot be read, or its decoder is not known.
    pub fn new(format: &CallFormat, tokenizer: &Tokenizer) -> Result<Self, ConstraintError> {
        if let Some(members) = format.tools.iter().find_map(json::too_many) {
            return Err(ConstraintError::Members(members));
        }
        let decoding = tokenizer.decoding()?.map_err(ConstraintError::Decoder)?;
        let (grammar, reply) = format.grammar();
        let mut tokens = vec![Box::<[u8]>::default(); tokenizer.vocab_size()];
        for (text, id) in tokenizer.vocabulary() {
            // Special tokens have no text, but for the marks around native calls, which may be some.
            let mark = matches!(text.as_str(), "<tool_call>" | "</tool_call>");
            if !tokenizer.is_special(id) || mark && !tokenizer.is_end(id) {
                tokens[id as usize] = decoding.token(&text, mark).into();
            }
        }
        let mut tree = vec![TreeNode::default()];
        for (id, bytes) in tokens.iter().enumerate().filter(|(_, bytes)| !bytes.is_empty()) {
            let mut at = 0;
            for &byte in bytes {
                let found = tree[at].children.iter().find(|(one, _)| *one == byte).map(|(_, child)| *child);
                at = match found {
                    Some(child) => child as usize,
                    None => {
                        tree.push(TreeNode::default());
                        let child = tree.len() - 1;
                        tree[at].children.push((byte, child as u32));
                        child
                    }
                };
            }
            tree[at].tokens.push(id as u32);
        }
        Ok(Self {
            tree,
            tokens,
            ends: tokenizer.ends().iter().copied().collect(),
            decoding,
            begin: State { rest: reply, begin: decoding.strip, joined: false },
            shared: Mutex::new(Shared { grammar, allowed: HashMap::new() }),
        })
    }

    /// What leads one reply.
    pub fn guide(self: &Arc<Self>) -> Box<dyn Guide> {
        let nothing: Arc<[u64]> = Vec::new().into();
        Box::new(CallGuide { constraint: self.clone(), state: self.begin, allowed: nothing })
    }

    fn allowed(&self, state: State) -> Arc<[u64]> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shared.allowed.get(&state) {
            return known.clone();
        }
        let mut bits = vec![0_u64; self.tokens.len().div_ceil(64)];
        let mut open = vec![(0, state)];
        let mut any = false;
        while let Some((at, state)) = open.pop() {
            let node = &self.tree[at as usize];
            for &id in &node.tokens {
                bits[id as usize / 64] |= 1 << (id % 64);
                any = true;
            }
            for &(byte, child) in &node.children {
                let next = step(self.decoding, &mut shared.grammar, state, byte);
                if next.rest != NEVER {
                    open.push((child, next));
                }
            }
        }
        // Where no token of the vocabulary goes on, the reply can only end.
        if !any || shared.grammar.fits_empty(state.rest) && !state.joined {
            for &id in self.ends.iter().filter(|id| (**id as usize) < self.tokens.len()) {
                bits[id as usize / 64] |= 1 << (id % 64);
            }
        }
        let bits: Arc<[u64]> = bits.into();
        // What was found can be found again.
        if shared.allowed.len() >= STATES {
            shared.allowed.clear();
        }
        shared.allowed.insert(state, bits.clone());
        bits
    }

    fn follow(&self, state: State, id: u32) -> State {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.tokens.get(id as usize).map(|bytes| &**bytes).unwrap_or_default();
        bytes.iter().fold(state, |state, byte| step(self.decoding, &mut shared.grammar, state, *byte))
    }
}

struct CallGuide {
    constraint: Arc<Constraint>,
    state: State,
    allowed: Arc<[u64]>,
}

impl Guide for CallGuide {
    fn allowed(&mut self) -> &[u64] {
        self.allowed = self.constraint.allowed(self.state);
        &self.allowed
    }

    fn follow(&mut self, id: u32) {
        self.state = self.constraint.follow(self.state, id);
    }
}

/// What a byte of a token makes of a place.
fn step(decoding: Decoding, grammar: &mut Grammar, state: State, byte: u8) -> State {
    let dead = State { rest: NEVER, ..state };
    if state.joined {
        return if byte == b' ' { State { joined: false, ..state } } else { dead };
    }
    if decoding.joiner && byte == 8 {
        return State { joined: true, ..state };
    }
    if state.begin && byte == b' ' {
        return State { begin: false, ..state };
    }
    State { rest: grammar.derivative(state.rest, byte), begin: false, joined: false }
}
