//! Decoding tokens one by one, as a terminal or a server shows a reply while it is being written.

use super::{Tokenizer, TokenizerError};

/// Gives the text of tokens as soon as it is certain: never half of a character. Joined it is what decoding all tokens at once
/// gives, but that a character once told stays where later bytes spoil the run that it stood in.
#[derive(Clone, Debug)]
pub struct TextStream {
    tokenizer: Tokenizer,
    /// Tokens from the last certain place on, and those before it that decoding needs to know.
    ids: Vec<u32>,
    /// How many of them are told already.
    told: usize,
    /// Their text.
    text: String,
}

impl TextStream {
    pub(super) fn new(tokenizer: Tokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), told: 0, text: String::new() }
    }

    /// The text that has become certain with this token; often empty. Special tokens have none.
    ///
    /// # Errors
    /// When the tokenizer cannot decode.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        if self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids)?;
        // Half a character, or the joiner of our own format, whose fate the next token decides.
        if text.ends_with(['\u{fffd}', '\u{8}']) {
            return Ok(String::new());
        }
        let new = self.rest(&text)?;
        if new.is_empty() {
            return Ok(new);
        }
        self.ids.drain(..self.told);
        self.told = self.ids.len();
        self.text = self.tokenizer.decode(&self.ids)?;
        Ok(new)
    }

    /// The rest, when no token comes any more: bytes that never became a character are U+FFFD.
    ///
    /// # Errors
    /// As [`TextStream::push`].
    pub fn finish(self) -> Result<String, TokenizerError> {
        let text = self.tokenizer.decode(&self.ids)?;
        self.rest(&text)
    }

    /// What the text of all tokens at hand holds beyond what is told. A run of bytes that turns out to be no UTF-8 becomes U+FFFD
    /// as a whole, also the part that is told; then the new tokens are decoded by themselves.
    fn rest(&self, text: &str) -> Result<String, TokenizerError> {
        match text.strip_prefix(self.text.as_str()) {
            Some(new) => Ok(new.to_owned()),
            None => self.tokenizer.decode(&self.ids[self.told..]),
        }
    }
}
