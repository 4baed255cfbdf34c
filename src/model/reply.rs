//! A reply while it is being written: its text as soon as it is certain, where it ends, and what it calls.

use super::calls;
use super::tokenizer::{TextStream, Tokenizer, TokenizerError};
use crate::chat::ToolCall;

/// Puts the tokens of one reply together.
#[derive(Debug)]
pub struct ReplyWriter {
    tokenizer: Tokenizer,
    stream: TextStream,
    ids: Vec<u32>,
    text: StopText,
    native: bool,
}

impl ReplyWriter {
    /// A reply without a token as yet that ends before any of the texts `stops`, or at a token that ends one. `native` says
    /// whether it may call tools natively.
    pub fn new(tokenizer: &Tokenizer, stops: impl IntoIterator<Item = String>, native: bool) -> Self {
        let (stream, text) = (tokenizer.stream(), StopText::new(stops));
        Self { tokenizer: tokenizer.clone(), stream, ids: Vec::new(), text, native }
    }

    /// Takes in a token: the text that has become certain, which is never a part of a stop, and whether the reply is over.
    ///
    /// # Errors
    /// When the tokenizer cannot decode.
    pub fn push(&mut self, id: u32) -> Result<(String, bool), TokenizerError> {
        if self.tokenizer.is_end(id) {
            return Ok((String::new(), true));
        }
        self.ids.push(id);
        Ok(self.text.push(&self.stream.push(id)?))
    }

    /// How many tokens it has, the one that ended it not counted.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Whether a stop has ended it.
    pub fn stopped(&self) -> bool {
        self.text.stopped
    }

    /// The rest of the text, when no token comes any more.
    ///
    /// # Errors
    /// When the tokenizer cannot decode.
    pub fn rest(&mut self) -> Result<String, TokenizerError> {
        let stream = std::mem::replace(&mut self.stream, self.tokenizer.stream());
        let new = stream.finish()?;
        let (text, _) = self.text.push(&new);
        Ok(text + &self.text.rest())
    }

    /// The whole reply: its text without the stop that ended it, and the tools that it calls natively.
    ///
    /// # Errors
    /// When the tokenizer cannot decode.
    pub fn finish(mut self) -> Result<(String, Vec<ToolCall>), TokenizerError> {
        if !self.native {
            self.rest()?;
            return Ok((self.text.text, Vec::new()));
        }
        let (mut text, calls) = calls::read_reply(&self.tokenizer, &self.ids, true)?;
        if let Some((at, _)) = self.text.find(&text, 0) {
            text.truncate(at);
        }
        Ok((text, calls))
    }
}

/// A text that ends before the first of some stops, told piece by piece without ever telling a part of one.
#[derive(Debug)]
struct StopText {
    stops: Vec<String>,
    text: String,
    told: usize,
    stopped: bool,
}

impl StopText {
    /// An empty stop is none.
    fn new(stops: impl IntoIterator<Item = String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, text: String::new(), told: 0, stopped: false }
    }

    /// Adds to the text: what can be told now, and whether a stop is in it.
    fn push(&mut self, new: &str) -> (String, bool) {
        if self.stopped {
            return (String::new(), true);
        }
        // A stop that is whole only now begins at most its length before what is new.
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = floor(&self.text, self.text.len().saturating_sub(longest));
        self.text.push_str(new);
        let certain = match self.find(&self.text, from) {
            Some((at, _)) => {
                self.text.truncate(at);
                self.stopped = true;
                at
            }
            None => self.text.len() - self.begun(),
        };
        let certain = certain.max(self.told);
        let told = self.text[self.told..certain].to_owned();
        self.told = certain;
        (told, self.stopped)
    }

    /// What is left to tell when nothing comes any more: what began like a stop was none.
    fn rest(&mut self) -> String {
        let rest = self.text[self.told..].to_owned();
        self.told = self.text.len();
        rest
    }

    /// The first stop in a text from a place on.
    fn find(&self, text: &str, from: usize) -> Option<(usize, &str)> {
        self.stops.iter().filter_map(|stop| Some((from + text[from..].find(stop.as_str())?, stop.as_str()))).min()
    }

    /// How many bytes at the end of the text may be the beginning of a stop.
    fn begun(&self) -> usize {
        let begun = |stop: &String| {
            let most = (stop.len() - 1).min(self.text.len() - self.told);
            (1..=most).rev().find(|&count| stop.is_char_boundary(count) && self.text.ends_with(&stop[..count]))
        };
        self.stops.iter().filter_map(begun).max().unwrap_or(0)
    }
}

/// The last border between characters up to a place.
fn floor(text: &str, place: usize) -> usize {
    (0..=place).rev().find(|&place| text.is_char_boundary(place)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::bundle::tests::untrained;
    use proptest::prelude::*;

    #[test]
    fn a_reply_is_told_as_it_is_written_and_ends_at_its_stop() {
        let tokenizer = untrained().tokenizer;
        let ids = tokenizer.encode("I want italian food in the centre, please. 東京").unwrap();
        for stops in [vec![], vec!["centre".to_owned()], vec![" food in".to_owned(), "zz".to_owned()]] {
            let mut writer = ReplyWriter::new(&tokenizer, stops.clone(), false);
            let mut told = String::new();
            for &id in &ids {
                let (text, over) = writer.push(id).unwrap();
                told += &text;
                if over {
                    break;
                }
            }
            told += &writer.rest().unwrap();
            let whole = "I want italian food in the centre, please. 東京";
            let end = stops.iter().filter_map(|stop| whole.find(stop.as_str())).min().unwrap_or(whole.len());
            assert_eq!(told, whole[..end]);
            assert_eq!((writer.stopped(), writer.finish().unwrap().0.as_str()), (end < whole.len(), &whole[..end]));
        }
    }

    proptest! {
        #[test]
        fn what_is_told_is_the_text_before_the_first_stop(
            pieces in prop::collection::vec("[abé]{0,4}", 0..12),
            stops in prop::collection::vec("[abé]{0,4}", 0..4),
        ) {
            let mut text = StopText::new(stops.clone());
            let mut told = String::new();
            for piece in &pieces {
                told += &text.push(piece).0;
            }
            told += &text.rest();
            let whole = pieces.concat();
            let real = stops.iter().filter(|stop| !stop.is_empty());
            // Of stops in the same piece the first counts; in different pieces the one that is whole first.
            let ends: Vec<usize> = real.flat_map(|stop| whole.match_indices(stop.as_str()).map(|(at, _)| at)).collect();
            prop_assert!(whole.starts_with(&told));
            prop_assert!(ends.is_empty() != text.stopped);
            prop_assert!(ends.is_empty() || ends.contains(&told.len()));
            for stop in stops.iter().filter(|stop| !stop.is_empty()) {
                prop_assert!(!told.contains(stop.as_str()));
            }
        }
    }
}
