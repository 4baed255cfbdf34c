//! From a model's files to its tokenizer: which tokens are special, which end a reply, and the vocabulary with its marks apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::files::{Named, TextFiles, ids};
use super::marks::{Marks, wrapped};
use super::{MarkTexts, Parts, TokenizerError, unusable};
use crate::model::template::ChatTemplate;

const FILE: &str = "tokenizer.json";

pub(super) fn parse(files: TextFiles, ends: &[u32]) -> Result<Parts, TokenizerError> {
    if files.get(FILE).is_none() {
        return Err(TokenizerError::NoFile);
    }
    let mut format = files.json(FILE)?;
    if !format["model"].is_object() {
        return Err(TokenizerError::File { name: FILE, reason: "it has no `model`".to_owned() });
    }
    let named = Named::read(&files)?;
    let added = added_tokens(&format, &files, &named)?;
    let template = ChatTemplate::read(&files, &named)?;
    let source = template.as_ref().map(ChatTemplate::sources).unwrap_or_default();
    let texts = mark_texts(&added, &source);
    let marks = Marks::new(&texts).map_err(unusable)?;
    format["added_tokens"] = added.values().map(|token| token.with_marks_apart(&texts)).collect();
    // A file may ask for every text to be cut or filled up to a length.
    format["truncation"] = Value::Null;
    format["padding"] = Value::Null;
    keep_apart(&mut format["model"], &texts);
    let inner: tokenizers::Tokenizer = serde_json::from_value(format).map_err(unusable)?;

    let find = |text: &str| inner.token_to_id(&wrapped(text)).or_else(|| inner.token_to_id(text));
    for token in added.values() {
        match find(&token.text) {
            Some(found) if found != token.id => {
                return Err(TokenizerError::OtherId { token: token.text.clone(), said: token.id, found });
            }
            _ => {}
        }
    }
    let special: BTreeSet<u32> = added.values().filter(|token| token.special).map(|token| token.id).collect();
    let generation = files.json("generation_config.json")?;
    let mut all_ends: BTreeSet<u32> = ends.iter().copied().collect();
    all_ends.extend(ids("generation_config.json", &generation, "eos_token_id")?);
    all_ends.extend(named.text("eos_token").and_then(find));
    let pad = match ids("generation_config.json", &generation, "pad_token_id")?.first() {
        Some(&pad) => Some(pad),
        None => named.text("pad_token").and_then(find),
    };
    let begin = begin(&inner, &named, find)?;
    let size = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
    let pad = pad.or_else(|| all_ends.first().copied()).unwrap_or(0);
    Ok(Parts { inner, files, marks, special, ends: all_ends, pad, begin, size, template, decoding: OnceLock::new() })
}

/// The token that begins a text: what the post-processor adds, unless `add_bos_token` says something else.
fn begin(
    inner: &tokenizers::Tokenizer,
    named: &Named,
    find: impl Fn(&str) -> Option<u32>,
) -> Result<Option<u32>, TokenizerError> {
    let bos = named.text("bos_token").and_then(find);
    Ok(match named.adds_begin {
        Some(adds) => bos.filter(|_| adds),
        None => {
            let empty = inner.encode("", true).map_err(unusable)?;
            empty.get_ids().first().copied().filter(|id| Some(*id) == bos)
        }
    })
}

/// A token beside the model's own vocabulary, or in it and set apart.
struct Added {
    id: u32,
    text: String,
    special: bool,
    rest: Value,
}

impl Added {
    fn read(value: &Value, id: Option<u32>, named: &Named) -> Option<Self> {
        let text = value["content"].as_str()?.to_owned();
        let id = id.or_else(|| value["id"].as_u64().and_then(|id| u32::try_from(id).ok()))?;
        let special = value["special"].as_bool().unwrap_or(false) || named.holds(&text);
        Some(Self { id, text, special, rest: value.clone() })
    }

    fn with_marks_apart(&self, marks: &MarkTexts) -> Value {
        let flag = |name: &str| self.rest[name].as_bool().unwrap_or(false);
        let content = if marks.contains_key(&self.text) { wrapped(&self.text) } else { self.text.clone() };
        json!({
            "id": self.id, "content": content, "special": self.special, "single_word": flag("single_word"),
            "lstrip": flag("lstrip"), "rstrip": flag("rstrip"), "normalized": flag("normalized"),
        })
    }
}

/// The added tokens by id: those of `tokenizer.json`, those that only `tokenizer_config.json` lists, and those of the vocabulary
/// that a file calls special.
fn added_tokens(format: &Value, files: &TextFiles, named: &Named) -> Result<BTreeMap<u32, Added>, TokenizerError> {
    let wrong = |name, reason: &str| TokenizerError::File { name, reason: reason.to_owned() };
    let mut added = BTreeMap::new();
    for token in format["added_tokens"].as_array().into_iter().flatten() {
        let token = Added::read(token, None, named)
            .ok_or_else(|| wrong(FILE, "an added token needs an `id` and its text as `content`"))?;
        added.insert(token.id, token);
    }
    let config = files.json("tokenizer_config.json")?;
    for (id, token) in config["added_tokens_decoder"].as_object().into_iter().flatten() {
        let id = id.parse().ok();
        let token = id.and_then(|id| Added::read(token, Some(id), named)).ok_or_else(|| {
            wrong(
                "tokenizer_config.json",
                "a token under `added_tokens_decoder` needs its id as name and its text as `content`",
            )
        })?;
        if !added.values().any(|other: &Added| other.text == token.text) {
            added.insert(token.id, token);
        }
    }
    for text in named.texts.values().chain(&named.others) {
        if added.values().any(|token| token.text == *text) {
            continue;
        }
        if let Some(id) = id_in(&format["model"], text) {
            added.insert(id, Added { id, text: text.clone(), special: true, rest: Value::Null });
        }
    }
    Ok(added)
}

/// The id of a token in the model's own vocabulary, an object or a list of pieces.
fn id_in(model: &Value, text: &str) -> Option<u32> {
    let id = match &model["vocab"] {
        Value::Array(pieces) => pieces.iter().position(|piece| piece[0] == text)? as u64,
        vocab => vocab[text].as_u64()?,
    };
    u32::try_from(id).ok()
}

/// The marks: special tokens, and of the others those that the chat template writes. White space that is a token of its own
/// (Gemma's) is none: it is what users write too.
fn mark_texts(added: &BTreeMap<u32, Added>, template: &str) -> MarkTexts {
    let is_mark =
        |token: &&Added| token.special || (!token.text.trim().is_empty() && template.contains(token.text.as_str()));
    let marks = added.values().filter(|token| !token.text.is_empty()).filter(is_mark);
    marks.map(|token| (token.text.clone(), token.special)).collect()
}

/// Renames the marks in the model's own vocabulary, and takes the merges away that would make one of ordinary text.
fn keep_apart(model: &mut Value, marks: &MarkTexts) {
    match &mut model["vocab"] {
        Value::Object(vocab) => {
            for mark in marks.keys() {
                if let Some(id) = vocab.swap_remove(mark) {
                    vocab.insert(wrapped(mark), id);
                }
            }
        }
        Value::Array(pieces) => {
            for piece in pieces.iter_mut() {
                if let Some(text) = piece[0].as_str().filter(|text| marks.contains_key(*text)) {
                    piece[0] = wrapped(text).into();
                }
            }
        }
        _ => {}
    }
    let longest = marks.keys().map(String::len).max().unwrap_or(0);
    let touches = |left: &str, right: &str| {
        let makes = left.len() + right.len() <= longest && marks.contains_key(&[left, right].concat());
        makes || marks.contains_key(left) || marks.contains_key(right)
    };
    if let Some(merges) = model["merges"].as_array_mut() {
        merges.retain(|merge| !sides(merge).is_some_and(|(left, right)| touches(left, right)));
    }
    if let Some(unknown) = model["unk_token"].as_str().filter(|text| marks.contains_key(*text)) {
        model["unk_token"] = wrapped(unknown).into();
    }
}

/// The two sides of a merge, which stands as `["a", "b"]` or as `"a b"`.
fn sides(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(text) => text.split_once(' '),
        pair => Some((pair[0].as_str()?, pair[1].as_str()?)),
    }
}
