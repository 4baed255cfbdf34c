//! Text to tokens and back: any `tokenizer.json` of Hugging Face's `tokenizers`, with what the files beside it say.
//!
//! What users and APIs write never becomes a special token, whatever it looks like: see [`marks`].

mod bpe;
mod bytes;
pub mod files;
pub mod gguf;
pub mod marks;
pub mod ours;
mod parse;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, OnceLock};

pub use self::bytes::Decoding;
pub use self::files::TextFiles;
pub use self::ours::{MIN_VOCABULARY, SPECIAL};
pub use self::stream::TextStream;

use self::marks::{Filled, Marks};
use super::template::{ChatTemplate, TemplateError};
use crate::fs;

/// The format of a folder that holds a tokenizer alone, as ports name it.
pub const FORMAT: &str = "model.tokenizer/v1";

/// Why there is no tokenizer, or why it refuses a text.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file could not be read or written.
    #[error(transparent)]
    Path(#[from] fs::PathError),
    /// A file holds something else than it should.
    #[error("`{name}` is wrong: {reason}")]
    File { name: &'static str, reason: String },
    /// There is no `tokenizer.json`.
    #[error(
        "there is no `tokenizer.json`; a model that only has another form of vocabulary gets one when transformers' \
         `AutoTokenizer` loads and saves it"
    )]
    NoFile,
    /// The crate refuses it.
    #[error("the tokenizer is unusable: {0}")]
    Unusable(String),
    /// The crate would give a token another number than the file.
    #[error("the tokenizer is unusable: the token `{token}` has id {said} in the file and {found} in the vocabulary")]
    OtherId { token: String, said: u32, found: u32 },
    /// Fewer tokens than bytes.
    #[error("a vocabulary of {0} tokens cannot hold every byte; it needs at least {MIN_VOCABULARY}")]
    TooSmall(usize),
    /// A vocabulary of GGUF that cannot be used.
    #[error("the vocabulary is unusable: {0}")]
    Vocabulary(String),
    /// The chat template is wrong, or cannot say what is asked of it.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// Text to token ids and back, and how chats are written. A clone shares everything.
#[derive(Clone)]
pub struct Tokenizer(Arc<Parts>);

pub(super) struct Parts {
    pub(super) inner: tokenizers::Tokenizer,
    pub(super) files: TextFiles,
    pub(super) marks: Marks,
    /// The special tokens.
    pub(super) special: BTreeSet<u32>,
    /// The tokens that end a reply.
    pub(super) ends: BTreeSet<u32>,
    pub(super) pad: u32,
    pub(super) begin: Option<u32>,
    pub(super) size: usize,
    pub(super) template: Option<ChatTemplate>,
    /// How tokens become bytes, as soon as it is asked; nothing where that is not known.
    pub(super) decoding: OnceLock<Option<Decoding>>,
}

/// A token's id and the bytes of the text that it stands for.
pub(super) type Placed = (u32, (usize, usize));

impl Tokenizer {
    /// Learns a vocabulary of at most `vocab_size` tokens from texts; the same texts in any order give the same tokenizer.
    ///
    /// There are fewer tokens where the texts hold too few frequent pieces: see [`Tokenizer::vocab_size`].
    ///
    /// # Errors
    /// When `vocab_size` is less than [`MIN_VOCABULARY`].
    pub fn train<'a>(texts: impl IntoIterator<Item = &'a str>, vocab_size: usize) -> Result<Self, TokenizerError> {
        Self::new(ours::train(texts, vocab_size)?, &[])
    }

    /// Reads a folder: `tokenizer.json` and, where they are, the files that name its special tokens, what ends a reply, and
    /// the chat template.
    ///
    /// # Errors
    /// When a file is missing or wrong; a folder without a chat template is none of that.
    pub fn load(folder: &Path) -> Result<Self, TokenizerError> {
        let config = folder.join("config.json");
        let mut ends = Vec::new();
        if config.is_file() {
            let config = TextFiles::default().with("config.json", fs::read_to_string(config)?).json("config.json")?;
            for part in [&config, &config["text_config"]] {
                ends.extend(files::ids("config.json", part, "eos_token_id")?);
            }
        }
        Self::new(TextFiles::load(folder)?, &ends)
    }

    /// A tokenizer from its files, and the ids that end a reply beside those that the files name.
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn new(files: TextFiles, ends: &[u32]) -> Result<Self, TokenizerError> {
        Ok(Self(Arc::new(parse::parse(files, ends)?)))
    }

    /// Writes its files as they came: the same tokenizer always gives the same bytes.
    pub fn save(&self, folder: &Path) -> Result<(), fs::PathError> {
        self.0.files.save(folder)
    }

    /// Its files.
    pub fn files(&self) -> &TextFiles {
        &self.0.files
    }

    /// The largest token's id and one: what a model's vocabulary must at least be.
    pub fn vocab_size(&self) -> usize {
        self.0.size
    }

    /// The largest id that a text can give, and one. Some models have special tokens beyond their vocabulary, for what they
    /// cannot read (Gemma's of images).
    pub fn text_size(&self) -> usize {
        let ordinary = (0..self.0.size as u32).rev().find(|id| !self.0.special.contains(id));
        ordinary.map_or(0, |id| id as usize + 1)
    }

    /// The token that fills a batch.
    pub fn pad(&self) -> u32 {
        self.0.pad
    }

    /// The token that begins every text which is no chat, for models that were trained so. Chat templates write their own.
    pub fn begin(&self) -> Option<u32> {
        self.0.begin
    }

    /// The tokens that end a reply, in order.
    pub fn ends(&self) -> &BTreeSet<u32> {
        &self.0.ends
    }

    /// Whether a token ends a reply.
    pub fn is_end(&self, id: u32) -> bool {
        self.0.ends.contains(&id)
    }

    /// Whether a token is a special one, which no text holds.
    pub fn is_special(&self, id: u32) -> bool {
        self.0.special.contains(&id)
    }

    /// How chats are written.
    ///
    /// # Errors
    /// When the model has no chat template.
    pub fn template(&self) -> Result<&ChatTemplate, TemplateError> {
        self.0.template.as_ref().ok_or(TemplateError::None)
    }

    /// What in texts would be a mark.
    pub fn marks(&self) -> &Marks {
        &self.0.marks
    }

    /// The token of a text that is one, special ones too.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.0.inner.token_to_id(&marks::wrapped(text)).or_else(|| self.0.inner.token_to_id(text))
    }

    /// Every token as the vocabulary writes it, with its id, in the order of the ids.
    pub fn vocabulary(&self) -> Vec<(String, u32)> {
        let mut all: Vec<(String, u32)> = self.0.inner.get_vocab(true).into_iter().collect();
        all.sort_by_key(|(_, id)| *id);
        all
    }

    /// What its decoder does, or the step of it that is not known here.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn decoding(&self) -> Result<Result<Decoding, String>, TokenizerError> {
        Ok(Decoding::of(&self.0.files.json("tokenizer.json")?["decoder"]))
    }

    /// The bytes that a token stands for within a text: of a character that several tokens make, its own part alone. `None`
    /// where there is no such token, or where the decoder does something that is not known here.
    pub fn bytes(&self, id: u32) -> Option<Vec<u8>> {
        let decoding = (*self.0.decoding.get_or_init(|| self.decoding().ok()?.ok()))?;
        let text = self.0.marks.unwrapped(self.0.inner.id_to_token(id)?);
        Some(decoding.token(&text, self.is_special(id)))
    }

    /// The tokens of a text; what looks like a special token is text like any other.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.ids(&self.0.marks.plain(text))
    }

    /// The tokens of a text in which special tokens are what they seem. Never for what a user wrote.
    pub fn encode_marked(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.ids(&self.0.marks.marked(text))
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        Ok(self.0.inner.encode_fast(text, false).map_err(unusable)?.get_ids().to_vec())
    }

    /// The tokens of what a template gave.
    pub fn encode_filled(&self, filled: &Filled) -> Result<Vec<u32>, TokenizerError> {
        self.ids(&filled.text)
    }

    /// The same, each with its place in the text.
    pub(super) fn place_filled(&self, filled: &Filled) -> Result<Vec<Placed>, TokenizerError> {
        let encoding = self.0.inner.encode(filled.text.as_str(), false).map_err(unusable)?;
        Ok(encoding.get_ids().iter().copied().zip(encoding.get_offsets().iter().copied()).collect())
    }

    /// The text of tokens, without special tokens. Bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let ids: Vec<u32> = ids.iter().copied().filter(|id| !self.is_special(*id)).collect();
        self.decode_marked(&ids)
    }

    /// The text of tokens, special ones too.
    pub fn decode_marked(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        Ok(self.0.marks.unwrapped(self.0.inner.decode(ids, false).map_err(unusable)?))
    }

    /// The text of tokens that come one by one.
    pub fn stream(&self) -> TextStream {
        TextStream::new(self.clone())
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

/// Marks and whether they are special, by their text.
type MarkTexts = BTreeMap<String, bool>;

#[cfg(test)]
pub(crate) mod tests;
