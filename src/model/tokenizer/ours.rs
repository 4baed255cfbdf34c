//! The tokenizer of models from scratch, in a `tokenizer.json` that Hugging Face's `tokenizers` reads too.
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

use serde_json::{Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    NormalizedString, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _,
};

use super::files::TextFiles;
use super::{TokenizerError, bpe, unusable};

/// The tokens with a meaning of their own; their ids are their places here.
pub const SPECIAL: [&str; 6] = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"];

/// A word behind anything but a space or a part of a word; `don't` is one word.
const UNSPACED: &str = r"(?<=[^ \p{L}\p{N}_])(?<!\p{L}')(?=[\p{L}\p{N}_])";

/// Tags such as `<COMMAND_END>`, words, digits in twos, punctuation with the joiner that follows it, other space.
const PIECES: &str = " ?<\u{8} [\\p{L}_]+>| ?[\\p{L}_]+(?:'\\p{L}+)*| ?\\p{N}{1,2}\
    |(?:(?! ?<\u{8} [\\p{L}_]+>) ?[^\\s\\p{L}\\p{N}_\u{8}])+\u{8}?|\\s+(?!\\S)|\\s+\u{8}?|\u{8}";

/// The smallest vocabulary: the special tokens and the bytes.
pub const MIN_VOCABULARY: usize = SPECIAL.len() + 256;

/// The chat template: a role's token, the text, `<|end|>`; then, where a reply is wanted, the assistant's token.
///
/// Native calls stand behind the text as `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, and the tools that may be
/// called at the end of the system message, one a line: `search_hotel(name, area)`. That takes an eighth of the room of
/// their schemas, which a model from scratch would not understand anyway.
const JINJA: &str = include_str!("ours.jinja");

/// The files of a tokenizer with a vocabulary of at most `vocab_size` tokens, learnt from texts in any order.
pub fn train<'a>(texts: impl IntoIterator<Item = &'a str>, vocab_size: usize) -> Result<TextFiles, TokenizerError> {
    let budget = vocab_size.checked_sub(MIN_VOCABULARY).ok_or(TokenizerError::TooSmall(vocab_size))?;
    let bytes: tokenizers::Tokenizer = serde_json::from_value(format(&[])).map_err(unusable)?;
    let mut words = BTreeMap::new();
    for text in texts {
        for word in pieces(&bytes, text)? {
            *words.entry(word).or_insert(0) += 1;
        }
    }
    Ok(files(&bpe::learn(&words, budget)))
}

/// The files of a tokenizer with these merges.
pub(super) fn files(merges: &[(String, String)]) -> TextFiles {
    let settings = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": SPECIAL[0],
        "eos_token": SPECIAL[1],
        "clean_up_tokenization_spaces": false,
        "chat_template": JINJA.trim_end(),
    });
    // Whatever begins another message ends this one.
    let ends: Vec<usize> = [1, 0].into_iter().chain(2..SPECIAL.len()).collect();
    let generation = json!({"eos_token_id": ends, "pad_token_id": 0});
    TextFiles::default()
        .with_json("tokenizer.json", &format(merges))
        .with_json("tokenizer_config.json", &settings)
        .with_json("generation_config.json", &generation)
}

/// The pieces that merges stay within, their bytes as characters.
fn pieces(tokenizer: &tokenizers::Tokenizer, text: &str) -> Result<Vec<String>, TokenizerError> {
    let mut normalized = NormalizedString::from(text);
    if let Some(normalizer) = tokenizer.get_normalizer() {
        normalizer.normalize(&mut normalized).map_err(unusable)?;
    }
    let mut split = PreTokenizedString::from(normalized);
    if let Some(splitter) = tokenizer.get_pre_tokenizer() {
        splitter.pre_tokenize(&mut split).map_err(unusable)?;
    }
    let pieces = split.get_splits(OffsetReferential::Normalized, OffsetType::None);
    Ok(pieces.into_iter().map(|(piece, _, _)| piece.to_owned()).collect())
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
