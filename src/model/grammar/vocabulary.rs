//! Which tokens of a vocabulary a grammar lets come next.
//!
//! The tokens stand in a tree by their bytes, so that what many begin with is looked at once. What was found for a place in the
//! grammar is kept for all requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::calls::CallFormat;
use super::{Expression, Grammar, NEVER};
use crate::model::scheduler::Guide;
use crate::model::tokenizer::{Tokenizer, TokenizerError};

/// Why a tokenizer's replies cannot be constrained.
#[derive(Debug, thiserror::Error)]
pub enum ConstraintError {
    /// Its files cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Its decoder does something that is not known here.
    #[error("replies of this tokenizer cannot be constrained: its decoder has a step `{0}`, which is not known here")]
    Decoder(String),
}

/// What happens between the bytes of tokens and the text that they stand for.
#[derive(Clone, Copy, Debug, Default)]
struct Decoding {
    /// Characters stand for bytes.
    bytes: bool,
    /// `▁` stands for a space.
    underscore: bool,
    /// U+0008 and the space behind it are left out.
    joiner: bool,
    /// A space at the beginning is left out.
    strip: bool,
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
        let decoding = Decoding::of(&tokenizer.files().json("tokenizer.json")?["decoder"])?;
        let (grammar, reply) = format.grammar();
        let mut tokens = vec![Box::<[u8]>::default(); tokenizer.vocab_size()];
        let alphabet = alphabet();
        for (text, id) in tokenizer.vocabulary() {
            // Special tokens have no text, but for the marks around native calls, which may be some.
            let mark = matches!(text.as_str(), "<tool_call>" | "</tool_call>");
            if !tokenizer.is_special(id) || mark && !tokenizer.is_end(id) {
                tokens[id as usize] = decoding.token(&text, mark, &alphabet).into();
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
                let next = self.decoding.step(&mut shared.grammar, state, byte);
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
        shared.allowed.insert(state, bits.clone());
        bits
    }

    fn follow(&self, state: State, id: u32) -> State {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.tokens.get(id as usize).map(|bytes| &**bytes).unwrap_or_default();
        bytes.iter().fold(state, |state, byte| self.decoding.step(&mut shared.grammar, state, *byte))
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

impl Decoding {
    /// What a `tokenizer.json` says of its decoder.
    fn of(decoder: &Value) -> Result<Self, ConstraintError> {
        let mut found = Self::default();
        let single = std::slice::from_ref(decoder);
        let steps = decoder["decoders"].as_array().map_or(single, Vec::as_slice);
        for step in steps {
            let pattern = step["pattern"]["String"].as_str();
            match (step["type"].as_str().unwrap_or("none"), pattern, step["content"].as_str()) {
                ("ByteLevel", ..) => found.bytes = true,
                ("ByteFallback" | "Fuse", ..) => {}
                ("Replace", Some("▁"), Some(" ")) => found.underscore = true,
                ("Replace", Some("\u{8} "), Some("")) => found.joiner = true,
                ("Strip", _, Some(" ")) if step["start"] == 1 && step["stop"] == 0 => found.strip = true,
                ("Metaspace", ..) => {
                    found.underscore = true;
                    found.strip = step["prepend_scheme"].as_str() != Some("never");
                }
                (other, ..) => return Err(ConstraintError::Decoder(other.to_owned())),
            }
        }
        Ok(found)
    }

    /// The bytes of a token as the vocabulary writes it.
    fn token(self, text: &str, mark: bool, alphabet: &HashMap<char, u8>) -> Vec<u8> {
        if self.bytes && !mark {
            let bytes: Option<Vec<u8>> = text.chars().map(|c| alphabet.get(&c).copied()).collect();
            // A token that was added stands for itself.
            return bytes.unwrap_or_else(|| text.as_bytes().to_vec());
        }
        let hex = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|hex| hex.len() == 2);
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => vec![byte],
            None if self.underscore => text.replace('▁', " ").into_bytes(),
            None => text.as_bytes().to_vec(),
        }
    }

    /// What a byte of a token makes of a place.
    fn step(self, grammar: &mut Grammar, state: State, byte: u8) -> State {
        let dead = State { rest: NEVER, ..state };
        if state.joined {
            return if byte == b' ' { State { joined: false, ..state } } else { dead };
        }
        if self.joiner && byte == 8 {
            return State { joined: true, ..state };
        }
        if state.begin && byte == b' ' {
            return State { begin: false, ..state };
        }
        State { rest: grammar.derivative(state.rest, byte), begin: false, joined: false }
    }
}

/// The byte that each character of a byte-level vocabulary stands for: printable ones for themselves, the others in order for
/// the characters from U+0100 on (GPT-2).
fn alphabet() -> HashMap<char, u8> {
    let plain = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut others = 0x100_u32..;
    let all = (0..=u8::MAX).map(|byte| {
        let code = if plain(byte) { u32::from(byte) } else { others.next().unwrap_or(0x100) };
        (char::from_u32(code).unwrap_or('\u{fffd}'), byte)
    });
    let all: HashMap<char, u8> = all.collect();
    debug_assert!(ByteLevel::alphabet().iter().all(|c| all.contains_key(c)));
    all
}
