//! Texts that stand once, however many dialogues hold them.

use std::collections::HashMap;

/// Numbers texts in the order in which they are first asked for.
#[derive(Debug, Default)]
pub(super) struct Texts {
    numbers: HashMap<String, u32>,
    /// Those that are new since they were last taken.
    new: Vec<String>,
    /// Their bytes.
    bytes: usize,
}

impl Texts {
    /// The number of a text.
    pub fn number(&mut self, text: &str) -> u32 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.count();
        self.numbers.insert(text.to_owned(), number);
        self.new.push(text.to_owned());
        self.bytes += text.len();
        number
    }

    /// The number of a text, −1 where there is none.
    pub fn or_none(&mut self, text: Option<&str>) -> i64 {
        text.map_or(-1, |text| i64::from(self.number(text)))
    }

    /// How many different texts there are.
    pub fn count(&self) -> u32 {
        self.numbers.len() as u32
    }

    /// The bytes of the texts that [`take`](Self::take) would give.
    pub fn waiting(&self) -> usize {
        self.bytes
    }

    /// The texts that are new since this was last called, in the order of their numbers.
    pub fn take(&mut self) -> Vec<String> {
        self.bytes = 0;
        std::mem::take(&mut self.new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_number_and_is_given_once() {
        let mut texts = Texts::default();
        assert_eq!((texts.number("a"), texts.number("bc"), texts.number("a"), texts.or_none(None)), (0, 1, 0, -1));
        assert_eq!((texts.waiting(), texts.take(), texts.waiting()), (3, vec!["a".to_owned(), "bc".to_owned()], 0));
        assert_eq!((texts.or_none(Some("bc")), texts.number("d"), texts.count()), (1, 2, 3));
        assert_eq!(texts.take(), ["d"]);
    }
}
