//! The files that say how a model reads and writes text, kept byte for byte as they came, and what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::TokenizerError;
use crate::fs;

/// The files of Hugging Face's folders that concern text, and `chat.json`, our own. `tokenizer.json` and those of its kin that
/// only other programs read (llama.cpp's converter wants `tokenizer.model` of some families).
const NAMES: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "chat.json",
    "generation_config.json",
    "tokenizer.model",
    "merges.txt",
];

/// The text files of a model, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextFiles(BTreeMap<String, Arc<[u8]>>);

impl TextFiles {
    /// Whether a file of this name is one.
    pub fn is_one(name: &str) -> bool {
        NAMES.contains(&name)
    }

    /// Reads those that a folder has.
    pub fn load(folder: &Path) -> Result<Self, fs::PathError> {
        let mut files = BTreeMap::new();
        for name in NAMES {
            let path = folder.join(name);
            if path.is_file() {
                files.insert(name.to_owned(), fs::read(path)?.into());
            }
        }
        Ok(Self(files))
    }

    /// Writes them into a folder.
    pub fn save(&self, folder: &Path) -> Result<(), fs::PathError> {
        fs::create_dir_all(folder)?;
        for (name, bytes) in &self.0 {
            fs::write_whole(folder.join(name), bytes)?;
        }
        Ok(())
    }

    /// Puts a file in, over one of the same name.
    #[must_use]
    pub fn with(mut self, name: &str, text: impl Into<String>) -> Self {
        self.0.insert(name.to_owned(), text.into().into_bytes().into());
        self
    }

    /// Puts a JSON file in.
    #[must_use]
    pub fn with_json(self, name: &str, value: &Value) -> Self {
        self.with(name, format!("{value:#}\n"))
    }

    /// The bytes of a file.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(|bytes| &**bytes)
    }

    /// The text of a file.
    ///
    /// # Errors
    /// When it is no UTF-8.
    pub fn text(&self, name: &'static str) -> Result<Option<&str>, TokenizerError> {
        let text = |bytes| std::str::from_utf8(bytes).map_err(|error| wrong(name, error));
        self.get(name).map(text).transpose()
    }

    /// What a JSON file holds; null where there is none.
    ///
    /// # Errors
    /// When it is no JSON.
    pub fn json(&self, name: &'static str) -> Result<Value, TokenizerError> {
        match self.get(name) {
            None => Ok(Value::Null),
            Some(bytes) => serde_json::from_slice(bytes).map_err(|error| wrong(name, error)),
        }
    }
}

fn wrong(name: &'static str, error: impl std::fmt::Display) -> TokenizerError {
    TokenizerError::File { name, reason: error.to_string() }
}

/// The tokens that the files name: `bos_token`, `eos_token` and so on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Their texts by what they are for.
    pub texts: BTreeMap<String, String>,
    /// Further special tokens.
    pub others: BTreeSet<String>,
    /// `add_bos_token`, where it is said.
    pub adds_begin: Option<bool>,
}

/// What tokens are for, as the files spell it.
const PURPOSES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

impl Named {
    /// Reads them from `special_tokens_map.json` and `tokenizer_config.json`; the latter wins.
    pub fn read(files: &TextFiles) -> Result<Self, TokenizerError> {
        let mut named = Self::default();
        for file in ["special_tokens_map.json", "tokenizer_config.json"] {
            let value = files.json(file)?;
            for purpose in PURPOSES {
                if let Some(text) = content(&value[purpose]) {
                    named.texts.insert(purpose.to_owned(), text);
                }
            }
            for list in ["additional_special_tokens", "extra_special_tokens"] {
                let items: Vec<&Value> = match &value[list] {
                    Value::Array(items) => items.iter().collect(),
                    Value::Object(items) => items.values().collect(),
                    _ => Vec::new(),
                };
                named.others.extend(items.into_iter().filter_map(content));
            }
            named.adds_begin = value["add_bos_token"].as_bool().or(named.adds_begin);
        }
        Ok(named)
    }

    /// The text of the token that is for this.
    pub fn text(&self, purpose: &str) -> Option<&str> {
        self.texts.get(purpose).map(String::as_str)
    }

    /// Whether one of them is spelt so.
    pub fn holds(&self, token: &str) -> bool {
        self.others.contains(token) || self.texts.values().any(|text| text == token)
    }
}

/// The text of a token, which stands alone or in an object.
fn content(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// Ids of tokens under a name: one or a list; none where it is absent.
///
/// # Errors
/// When it is something else.
pub fn ids(file: &'static str, value: &Value, name: &str) -> Result<Vec<u32>, TokenizerError> {
    let id = |value: &Value| {
        value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
            wrong(file, format!("`{name}` is {}, expected ids of tokens", crate::value::described(value)))
        })
    };
    match &value[name] {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => items.iter().map(id).collect(),
        one => Ok(vec![id(one)?]),
    }
}
