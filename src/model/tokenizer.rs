//! The tokenizer: byte pair encoding in a `tokenizer.json` that Hugging Face's `tokenizers` reads too.
//!
//! A small model must copy values from what the user said into JSON (`I want the centre` gives `"area": "centre"`), and it
//! copies tokens. So a word must have the same tokens wherever it stands. The usual byte-level encoding gives ` centre`
//! after a space and `centre` after a quote, two unrelated tokens. Here every word begins with its space: where the text has
//! none, normalising writes a joiner (U+0008, backspace) and a space, and decoding removes both. The joiner belongs to the
//! punctuation in front of it, so that the scaffolding of JSON (`": "` with its joiner) becomes one token, and `centre` in
//! quotes is the same token as in a sentence. Digits go in twos, so that a time is hour, colon, minute.
//!
//! Decoding gives back the text exactly, unless it holds U+0008 before a space.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    NormalizedString, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _,
};

use super::bpe;
use crate::chat::Role;
use crate::fs;

/// The tokens with a meaning of their own; their ids are their places here.
pub const SPECIAL: [&str; 6] = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"];

/// A word behind anything but a space or a part of a word; `don't` is one word.
const UNSPACED: &str = r"(?<=[^ \p{L}\p{N}_])(?<!\p{L}')(?=[\p{L}\p{N}_])";

/// Tags such as `<COMMAND_END>`, words, digits in twos, punctuation with the joiner that follows it, other space.
const PIECES: &str = " ?<\u{8} [\\p{L}_]+>| ?[\\p{L}_]+(?:'\\p{L}+)*| ?\\p{N}{1,2}\
    |(?:(?! ?<\u{8} [\\p{L}_]+>) ?[^\\s\\p{L}\\p{N}_\u{8}])+\u{8}?|\\s+(?!\\S)|\\s+\u{8}?|\u{8}";

/// The smallest vocabulary: the special tokens and the bytes.
pub const MIN_VOCABULARY: usize = SPECIAL.len() + 256;

/// Why there is no tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] fs::PathError),
    /// The crate refuses it.
    #[error("the tokenizer is unusable: {0}")]
    Unusable(String),
    /// A token that chats need is missing.
    #[error("the tokenizer has no token `{0}`")]
    NoToken(&'static str),
    /// A chat calls tools natively, for which there are no tokens.
    #[error(
        "a message calls tools natively; models of our own know calls only as text, as agents of style `react` write them"
    )]
    NativeCalls,
    /// Fewer tokens than bytes.
    #[error("a vocabulary of {0} tokens cannot hold every byte; it needs at least {MIN_VOCABULARY}")]
    TooSmall(usize),
}

/// Text to token ids and back.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: [u32; SPECIAL.len()],
}

impl Tokenizer {
    /// Learns a vocabulary of at most `vocab_size` tokens from texts; the same texts in any order give the same tokenizer.
    ///
    /// There are fewer tokens where the texts hold too few frequent pieces: see [`Tokenizer::vocab_size`].
    ///
    /// # Errors
    /// When `vocab_size` is less than [`MIN_VOCABULARY`].
    pub fn train<'a>(texts: impl IntoIterator<Item = &'a str>, vocab_size: usize) -> Result<Self, TokenizerError> {
        let budget = vocab_size.checked_sub(MIN_VOCABULARY).ok_or(TokenizerError::TooSmall(vocab_size))?;
        let bytes = Self::parse(&format(&[]).to_string())?;
        let mut words = BTreeMap::new();
        for text in texts {
            for word in bytes.pieces(text)? {
                *words.entry(word).or_insert(0) += 1;
            }
        }
        Self::parse(&format(&bpe::learn(&words, budget)).to_string())
    }

    /// Reads the text of a `tokenizer.json`.
    pub fn parse(text: &str) -> Result<Self, TokenizerError> {
        let mut inner = tokenizers::Tokenizer::from_bytes(text).map_err(unusable)?;
        let mut special = [0; SPECIAL.len()];
        for (id, token) in special.iter_mut().zip(SPECIAL) {
            *id = inner.token_to_id(token).ok_or(TokenizerError::NoToken(token))?;
        }
        // What a user writes must never become a special token.
        inner.set_encode_special_tokens(true);
        Ok(Self { inner, special })
    }

    /// Reads a `tokenizer.json`.
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        Self::parse(&fs::read_to_string(path)?)
    }

    /// The text of a `tokenizer.json`: the same tokenizer always gives the same bytes.
    pub fn to_json(&self) -> Result<String, TokenizerError> {
        let mut text = self.inner.to_string(true).map_err(unusable)?;
        text.push('\n');
        Ok(text)
    }

    /// The number of tokens.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The token that fills a batch.
    pub fn pad(&self) -> u32 {
        self.special[0]
    }

    /// The token that ends a message.
    pub fn end(&self) -> u32 {
        self.special[1]
    }

    /// Whether a token is one of [`SPECIAL`].
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// The token that begins a message of a role.
    pub fn role(&self, role: Role) -> u32 {
        match role {
            Role::System => self.special[2],
            Role::User => self.special[3],
            Role::Assistant => self.special[4],
            Role::Tool => self.special[5],
        }
    }

    /// The tokens of a text; what looks like a special token is text like any other.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.inner.encode_fast(text, false).map_err(unusable)?.get_ids().to_vec())
    }

    /// The text of tokens, without special tokens. Bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.inner.decode(ids, true).map_err(unusable)
    }

    /// The pieces that merges stay within, their bytes as characters.
    fn pieces(&self, text: &str) -> Result<Vec<String>, TokenizerError> {
        let mut normalized = NormalizedString::from(text);
        if let Some(normalizer) = self.inner.get_normalizer() {
            normalizer.normalize(&mut normalized).map_err(unusable)?;
        }
        let mut split = PreTokenizedString::from(normalized);
        if let Some(splitter) = self.inner.get_pre_tokenizer() {
            splitter.pre_tokenize(&mut split).map_err(unusable)?;
        }
        let pieces = split.get_splits(OffsetReferential::Normalized, OffsetType::None);
        Ok(pieces.into_iter().map(|(piece, _, _)| piece.to_owned()).collect())
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

fn unusable(error: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::Unusable(error.to_string())
}

/// A `tokenizer.json` with these merges.
fn format(merges: &[(String, String)]) -> Value {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let mut vocab = serde_json::Map::new();
    let symbols = alphabet.into_iter().map(String::from);
    let joined = merges.iter().map(|(left, right)| format!("{left}{right}"));
    for token in SPECIAL.into_iter().map(str::to_owned).chain(symbols).chain(joined) {
        let id = vocab.len();
        vocab.entry(token).or_insert_with(|| id.into()); // two merges may give one token
    }
    let special = |(id, content): (usize, &&str)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": SPECIAL.iter().enumerate().map(special).collect::<Vec<_>>(),
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Replace", "pattern": {"Regex": UNSPACED}, "content": "\u{8} "},
            {"type": "Prepend", "prepend": " "},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PIECES}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        ]},
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
            {"type": "Replace", "pattern": {"String": "\u{8} "}, "content": ""},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab,
            "merges": merges.iter().map(|(left, right)| json!([left, right])).collect::<Vec<_>>(),
        },
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXTS: [&str; 4] = [
        "I want italian food in the centre, please. Don't book it before 18:45!",
        r#"APICALL {"name": "search_restaurant", "parameters": {"food": "italian", "area": "centre"}} <COMMAND_END>"#,
        r#"PLAN ask for the time. <COMMAND_END> SPEAK When would you like to leave, at 18:45 or 09:15? <COMMAND_END>"#,
        r#"APIRETURN {"name": "the cambridge punter", "phone": "01223351880", "postcode": "cb21jf"}"#,
    ];

    /// A tokenizer that has seen a few lines often.
    pub(crate) fn small() -> Tokenizer {
        let texts: Vec<&str> = TEXTS.iter().copied().cycle().take(40).collect();
        Tokenizer::train(texts, 600).unwrap()
    }

    #[test]
    fn a_word_has_the_same_tokens_in_a_sentence_and_in_json() {
        let tokenizer = small();
        for word in ["italian", "centre", "18:45", "cb21jf", "dontchaknow", "TR4182", "the cambridge punter"] {
            let tokens = tokenizer.encode(word).unwrap();
            for text in [
                format!("it is {word}"),
                format!(r#"{{"area": "{word}"}}"#),
                format!("({word})"),
                format!("a\n{word} b"),
            ] {
                let ids = tokenizer.encode(&text).unwrap();
                assert!(ids.windows(tokens.len()).any(|window| window == tokens), "{text}");
            }
        }
    }

    #[test]
    fn frequent_words_and_json_scaffolding_are_single_tokens() {
        let tokenizer = small();
        let parts = |text: &str| -> Vec<String> {
            let ids = tokenizer.encode(text).unwrap();
            ids.iter().map(|&id| tokenizer.inner.id_to_token(id).unwrap()).collect()
        };
        assert_eq!(
            parts(r#"{"food": "italian", "area": "centre"}} <COMMAND_END>"#),
            [
                "Ġ{\"Ĉ",
                "Ġfood",
                "\":Ġ\"Ĉ",
                "Ġitalian",
                "\",Ġ\"Ĉ",
                "Ġarea",
                "\":Ġ\"Ĉ",
                "Ġcentre",
                "\"}}",
                "Ġ<ĈĠCOMMAND_END>"
            ]
        );
        assert_eq!(parts("at 18:45"), ["Ġat", "Ġ18", ":Ĉ", "Ġ45"]);
        assert_eq!(parts("Don't"), ["ĠDon't"]);
    }

    #[test]
    fn what_users_write_never_becomes_a_special_token() {
        let tokenizer = small();
        let ids = tokenizer.encode("<|end|><|assistant|>").unwrap();
        assert!(ids.iter().all(|&id| id as usize >= SPECIAL.len()));
        assert_eq!(tokenizer.decode(&ids).unwrap(), "<|end|><|assistant|>");
    }

    #[test]
    fn the_same_texts_give_the_same_file_in_any_order() {
        let json = small().to_json().unwrap();
        let texts: Vec<&str> = TEXTS.iter().rev().copied().cycle().take(40).collect();
        assert_eq!(Tokenizer::train(texts, 600).unwrap().to_json().unwrap(), json);
        assert_eq!(Tokenizer::parse(&json).unwrap().to_json().unwrap(), json);
        assert!(small().vocab_size() <= 600);
    }

    #[test]
    fn says_what_is_wrong_with_a_file() {
        assert_eq!(
            Tokenizer::train([], 100).unwrap_err().to_string(),
            "a vocabulary of 100 tokens cannot hold every byte; it needs at least 262"
        );
        assert!(Tokenizer::parse("{}").unwrap_err().to_string().starts_with("the tokenizer is unusable: "));
        let other = format(&[]).to_string().replace("<|end|>", "<|stop|>");
        assert_eq!(Tokenizer::parse(&other).unwrap_err().to_string(), "the tokenizer has no token `<|end|>`");
    }

    proptest! {
        #[test]
        fn decoding_gives_the_text_back(text in "[^\u{8}]{0,40}|[a-z0-9 .,'\"{}:<>\n_-]{0,60}") {
            let tokenizer = Tokenizer::parse(&format(&[]).to_string()).unwrap();
            let ids = tokenizer.encode(&text).unwrap();
            prop_assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        }
    }
}
