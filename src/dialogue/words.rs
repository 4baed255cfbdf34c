//! Texts as words: one form in which what customers and agents say is compared, and phrases found in it.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

/// Spellings that mean one word of the lexicon; longer ones first where one contains another.
const SPELLINGS: &[(&str, &str)] = &[
    ("guest house", "guesthouse"),
    ("guest houses", "guesthouse"),
    ("guesthouses", "guesthouse"),
    ("hotels", "hotel"),
    ("center", "centre"),
    ("moderately", "moderate"),
    ("inexpensive", "cheap"),
    ("swimming pool", "swimmingpool"),
    ("swimming pools", "swimmingpool"),
    ("concert hall", "concerthall"),
    ("concert halls", "concerthall"),
    ("mutliple sports", "multiple sports"),
    ("museums", "museum"),
    ("colleges", "college"),
    ("theatres", "theatre"),
    ("theater", "theatre"),
    ("nightclubs", "nightclub"),
    ("night club", "nightclub"),
    ("cinemas", "cinema"),
    ("boats", "boat"),
    ("parks", "park"),
    ("wi fi", "wifi"),
];

/// A text in the form in which words are compared: lower case, apostrophes gone, everything but letters, digits and the
/// colons of times a space, spellings unified, a space at both ends.
pub fn words(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    if text.is_ascii() {
        spell_ascii(text, &mut out)
    } else {
        spell(text, &mut out)
    }
    unify_spellings(&mut out);
    out
}

fn spell(text: &str, out: &mut String) {
    out.push(' ');
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '’' => {}
            ':' if digit(out.chars().next_back()) && digit(chars.peek().copied()) => out.push(':'),
            c if c.is_alphanumeric() => out.extend(c.to_lowercase().filter(|c| c.is_alphanumeric())),
            _ if out.ends_with(' ') => {}
            _ => out.push(' '),
        }
    }
    if !out.ends_with(' ') {
        out.push(' ');
    }
}

/// What [`spell`] does, for text of which every byte is a character.
fn spell_ascii(text: &str, out: &mut String) {
    out.push(' ');
    let mut last = b' ';
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        let next = match byte {
            b'\'' => continue,
            b':' if last.is_ascii_digit() && bytes.peek().is_some_and(u8::is_ascii_digit) => b':',
            byte if byte.is_ascii_alphanumeric() => byte.to_ascii_lowercase(),
            _ if last == b' ' => continue,
            _ => b' ',
        };
        out.push(char::from(next));
        last = next;
    }
    if last != b' ' {
        out.push(' ');
    }
}

/// Writes every known spelling of a word in one way.
fn unify_spellings(text: &mut String) {
    static KNOWN: LazyLock<Phrases> =
        LazyLock::new(|| Phrases::new(SPELLINGS.iter().map(|(from, _)| (*from).to_owned()).collect()));
    // Few texts have any.
    if KNOWN.possible(text).is_empty() {
        return;
    }
    for (from, to) in SPELLINGS {
        // Twice the same word shares a space, so one replacement may leave the second.
        while find(text, from).is_some() {
            *text = text.replace(&format!(" {from} "), &format!(" {to} "));
        }
    }
}

/// Where the words of a text in the form of [`words`] start.
fn starts(words: &str) -> impl Iterator<Item = usize> {
    words.bytes().enumerate().filter_map(|(at, byte)| (byte == b' ').then_some(at + 1))
}

/// Whether a phrase stands at a place where a word starts.
fn stands(words: &str, at: usize, phrase: &str) -> bool {
    let (rest, phrase) = (&words.as_bytes()[at..], phrase.as_bytes());
    // Most are told apart by where they end and how they begin.
    rest.get(phrase.len()) == Some(&b' ') && rest.first() == phrase.first() && rest.starts_with(phrase)
}

/// Whether a text in the form of [`words`] has one of these words or phrases.
pub fn has_any(words: &str, phrases: &[&str]) -> bool {
    starts(words).any(|at| phrases.iter().any(|phrase| stands(words, at, phrase)))
}

/// Where a phrase stands in a text in the form of [`words`].
pub fn find(words: &str, phrase: &str) -> Option<usize> {
    starts(words).find(|at| stands(words, *at, phrase))
}

/// A value that a text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Where it starts in the form of [`words`].
    pub at: usize,
    /// The value in that form, without the spaces at its ends.
    pub value: String,
}

/// Phrases to look for, longest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Phrases {
    list: Vec<String>,
    /// The places in `list` of the phrases that start with a word.
    by_word: HashMap<String, Vec<usize>>,
    /// Bits of the words that phrases start with: most words of a text are none of them, and are not looked up.
    bits: [u64; 16],
}

/// A bit's place for a word that is not empty.
fn bit(word: &str) -> (usize, u64) {
    let bytes = word.as_bytes();
    let [first, last] = [bytes[0], bytes[bytes.len() - 1]].map(usize::from);
    let hash = first * 31 + last * 7 + bytes.len() * 131;
    (hash / 64 % 16, 1 << (hash % 64))
}

impl Phrases {
    /// Phrases in the form of [`words`], none of them empty.
    pub(super) fn new(set: BTreeSet<String>) -> Self {
        let mut list: Vec<String> = set.into_iter().collect();
        list.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        let mut by_word = HashMap::<String, Vec<usize>>::new();
        let mut bits = [0; 16];
        for (place, phrase) in list.iter().enumerate() {
            let (word, mask) = bit(first_word(phrase));
            bits[word] |= mask;
            by_word.entry(first_word(phrase).to_owned()).or_default().push(place);
        }
        Self { list, by_word, bits }
    }

    /// The phrases, longest first.
    pub(super) fn list(&self) -> &[String] {
        &self.list
    }

    /// The places in `list` of the phrases of which a text has the first word, ascending.
    pub(super) fn possible(&self, text: &str) -> Vec<usize> {
        let mut places = Vec::new();
        let mut start = 0;
        for (at, _) in text.bytes().enumerate().filter(|(_, byte)| *byte == b' ').chain([(text.len(), b' ')]) {
            let word = &text[start..at];
            start = at + 1;
            if word.is_empty() {
                continue;
            }
            let (place, mask) = bit(word);
            if self.bits[place] & mask != 0 {
                places.extend(self.by_word.get(word).into_iter().flatten());
            }
        }
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Finds the phrases of a text and blanks them out of it; longer ones hide the shorter ones inside them.
    pub(super) fn take(&self, text: &mut String) -> Vec<Mention> {
        let mut found = Vec::new();
        for place in self.possible(text) {
            let value = &self.list[place];
            while let Some(at) = find(text, value) {
                // Blanks of the same length, so that places stay comparable.
                text.replace_range(at..at + value.len(), &"_".repeat(value.len()));
                found.push(Mention { at, value: value.clone() });
            }
        }
        found.sort_by_key(|mention| mention.at);
        found
    }
}

fn first_word(phrase: &str) -> &str {
    phrase.split(' ').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn ascii_is_spelt_like_any_text(text in "[a-cA-C0-2:'\\-. \\x00-\\x7f]{0,40}") {
            let (mut quick, mut slow) = (String::new(), String::new());
            spell_ascii(&text, &mut quick);
            spell(&text, &mut slow);
            proptest::prop_assert_eq!(quick, slow);
        }

        #[test]
        fn phrases_are_found_where_they_stand_as_words(text in "[ab ]{0,12}", phrase in "[ab]{1,3}( [ab]{1,2})?") {
            let text = words(&text);
            let found = text.match_indices(&phrase).map(|(at, _)| at).find(|at| {
                text[..*at].ends_with(' ') && text[at + phrase.len()..].starts_with(' ')
            });
            // Overlapping places: `match_indices` passes over them, words do not overlap.
            proptest::prop_assert!(found.is_none() || find(&text, &phrase).is_some());
            if let Some(at) = find(&text, &phrase) {
                let there = format!(" {phrase} ");
                proptest::prop_assert!(text[at - 1..].starts_with(&there));
            }
            let one = Phrases::new([phrase.clone()].into());
            proptest::prop_assert_eq!(one.take(&mut text.clone()).is_empty(), find(&text, &phrase).is_none());
        }

        #[test]
        fn words_are_a_fixed_point(text in ".{0,60}") {
            let once = words(&text);
            proptest::prop_assert_eq!(words(&once), once.clone());
            proptest::prop_assert!(once.starts_with(' ') && once.ends_with(' '));
        }
    }
}
