//! Marks: tokens such as `<|im_end|>` that say where messages begin and end, kept apart from text that only looks like them.
//!
//! Hugging Face's `tokenizers` finds special tokens wherever their characters stand, also in what a user wrote. Here a
//! tokenizer knows its marks only between two noncharacters ([`wrapped`]). Text is tokenised as it is, so that it can never
//! become a mark; a template's own marks are wrapped after it was filled in. What is filled in is [`Marks::guard`]ed first:
//! a [`BREAK`] before everything that looks like a mark says that it is none.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use regex::Regex;
use serde_json::Value;

/// Stands before a mark in the text that a tokenizer gets.
const OPEN: char = '\u{fdd0}';
/// Stands behind it.
const CLOSE: char = '\u{fdd1}';
/// Stands, in what a template gives, before a character that begins no mark.
const BREAK: char = '\u{fdd2}';
/// Stands, in what a template gives, where the assistant's words begin.
pub const BEGIN: char = '\u{fdd3}';
/// Stands where they end.
pub const END: char = '\u{fdd4}';

/// The noncharacters above. In texts, where Unicode does not allow them, they become U+FFFD.
const RESERVED: [char; 5] = [OPEN, CLOSE, BREAK, BEGIN, END];

/// A mark as the tokenizer knows it.
pub fn wrapped(mark: &str) -> String {
    format!("{OPEN}{mark}{CLOSE}")
}

/// Whose text it is, and so which marks it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Author {
    /// A user or an API: no mark at all.
    Outside,
    /// The model, or who made the system prompt: marks that are no special tokens, such as `<tool_call>` in some families, are
    /// what they seem.
    Inside,
}

/// The marks of a tokenizer.
#[derive(Clone, Debug)]
pub struct Marks {
    all: Regex,
    special: Regex,
    common: Regex,
    texts: BTreeSet<String>,
}

impl Marks {
    /// Marks and whether each is a special token.
    ///
    /// # Errors
    /// When they are too many or too long to be looked for.
    pub fn new(marks: &BTreeMap<String, bool>) -> Result<Self, regex::Error> {
        let pick = |want: &dyn Fn(bool) -> bool| {
            marks.iter().filter(|(_, special)| want(**special)).map(|(mark, _)| mark.as_str()).collect()
        };
        Ok(Self {
            all: pattern(pick(&|_| true))?,
            special: pattern(pick(&|special| special))?,
            common: pattern(pick(&|special| !special))?,
            texts: marks.keys().cloned().collect(),
        })
    }

    /// A text so that a template may take it in: what looks like a mark and may be none is broken.
    pub fn guard(&self, text: &str, author: Author) -> String {
        let marks = if author == Author::Outside { &self.all } else { &self.special };
        let mut guarded = String::with_capacity(text.len());
        let mut done = 0;
        while let Some(found) = marks.find_at(text, done) {
            push_text(&mut guarded, &text[done..found.start()]);
            guarded.push(BREAK);
            // Only its first character is passed: another one may begin within it.
            let first = found.as_str().chars().next().map_or(1, char::len_utf8);
            push_text(&mut guarded, &text[found.start()..found.start() + first]);
            done = found.start() + first;
        }
        push_text(&mut guarded, &text[done..]);
        guarded
    }

    /// A value with all its texts guarded, the names in it too.
    pub fn guard_value(&self, value: &Value, author: Author) -> Value {
        match value {
            Value::String(text) => Value::String(self.guard(text, author)),
            Value::Array(items) => items.iter().map(|item| self.guard_value(item, author)).collect(),
            Value::Object(fields) => {
                let guarded =
                    fields.iter().map(|(name, item)| (self.guard(name, author), self.guard_value(item, author)));
                Value::Object(guarded.collect())
            }
            other => other.clone(),
        }
    }

    /// A text for the tokenizer in which special tokens are text.
    pub fn plain(&self, text: &str) -> String {
        let mut plain = String::with_capacity(text.len());
        wrap(&self.common, text, &mut plain);
        plain
    }

    /// A text for the tokenizer in which everything that looks like a mark is one.
    pub fn marked(&self, text: &str) -> String {
        let mut marked = String::with_capacity(text.len());
        wrap(&self.all, text, &mut marked);
        marked
    }

    /// What a template gave, for the tokenizer.
    pub fn filled(&self, text: &str) -> Filled {
        let mut filled = Filled { text: String::with_capacity(text.len() + 64), assistant: Vec::new() };
        let mut begun = None;
        let mut done = 0;
        let hidden = |letter: char| matches!(letter, BREAK | BEGIN | END);
        while let Some(at) = text[done..].find(hidden).map(|at| done + at) {
            wrap(&self.all, &text[done..at], &mut filled.text);
            let letter = text[at..].chars().next().unwrap_or(BREAK);
            done = at + letter.len_utf8();
            match letter {
                BEGIN => begun = Some(filled.text.len()),
                END => filled.assistant.extend(begun.take().map(|begin| begin..filled.text.len())),
                _ => {
                    let next = text[done..].chars().next().filter(|next| !hidden(*next));
                    filled.text.extend(next);
                    done += next.map_or(0, char::len_utf8);
                }
            }
        }
        wrap(&self.all, &text[done..], &mut filled.text);
        filled
    }

    /// A decoded text with its marks as they are written.
    pub fn unwrapped(&self, text: String) -> String {
        if !text.contains(OPEN) {
            return text;
        }
        let mut parts = text.split(OPEN);
        let mut whole = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            match part.split_once(CLOSE).filter(|(mark, _)| self.texts.contains(*mark)) {
                Some((mark, rest)) => whole.extend([mark, rest]),
                None => {
                    whole.push(OPEN);
                    whole.push_str(part);
                }
            }
        }
        whole
    }
}

/// What a template gave, its marks wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// The text.
    pub text: String,
    /// The bytes of it that the assistant wrote, as far as the template says so.
    pub assistant: Vec<Range<usize>>,
}

impl Filled {
    /// The text as a person would read it.
    pub fn readable(&self) -> String {
        self.text.replace([OPEN, CLOSE], "")
    }
}

/// Finds any of the marks, the longest where several begin; never anything where there are none.
fn pattern(mut marks: Vec<&str>) -> Result<Regex, regex::Error> {
    marks.sort_by_key(|mark| std::cmp::Reverse(mark.len()));
    let escaped: Vec<String> = marks.into_iter().map(regex::escape).collect();
    let any = if escaped.is_empty() { "[^\\s\\S]".to_owned() } else { escaped.join("|") };
    regex::RegexBuilder::new(&any).size_limit(1 << 28).build()
}

fn wrap(marks: &Regex, text: &str, to: &mut String) {
    let mut done = 0;
    for found in marks.find_iter(text) {
        push_text(to, &text[done..found.start()]);
        to.push(OPEN);
        to.push_str(found.as_str());
        to.push(CLOSE);
        done = found.end();
    }
    push_text(to, &text[done..]);
}

fn push_text(to: &mut String, text: &str) {
    if text.contains(RESERVED) {
        to.extend(text.chars().map(|letter| if RESERVED.contains(&letter) { '\u{fffd}' } else { letter }));
    } else {
        to.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn marks() -> Marks {
        let marks = [("<|end|>", true), ("<|end|><", true), ("!", true), ("<tool_call>", false)];
        Marks::new(&marks.map(|(mark, special)| (mark.to_owned(), special)).into()).unwrap()
    }

    #[test]
    fn a_templates_marks_are_wrapped_and_what_it_took_in_is_not() {
        let marks = marks();
        let user = marks.guard("a<|end|>!<tool_call>", Author::Outside);
        let model = marks.guard("<tool_call><|end|>", Author::Inside);
        let filled = marks.filled(&format!("{user}<|end|>{BEGIN}{model}<|end|>{END}!"));
        assert_eq!(
            filled.text,
            format!(
                "a<|end|>!<tool_call>{}{}<|end|>{}{}",
                wrapped("<|end|>"),
                wrapped("<tool_call>"),
                wrapped("<|end|>"),
                wrapped("!")
            )
        );
        let [said] = &filled.assistant[..] else { panic!("one") };
        assert_eq!(filled.text[said.clone()], format!("{}<|end|>{}", wrapped("<tool_call>"), wrapped("<|end|>")));
        assert_eq!(filled.readable(), "a<|end|>!<tool_call><|end|><tool_call><|end|><|end|>!");
    }

    #[test]
    fn nobody_can_write_what_only_we_may() {
        let marks = marks();
        for author in [Author::Outside, Author::Inside] {
            let text = format!("{BEGIN}{OPEN}<|end|>{CLOSE}{BREAK}{END}");
            let filled = marks.filled(&marks.guard(&text, author));
            assert_eq!(filled.text, "\u{fffd}\u{fffd}<|end|>\u{fffd}\u{fffd}\u{fffd}");
            assert!(filled.assistant.is_empty());
        }
        assert_eq!(marks.plain(&wrapped("<|end|>")), "\u{fffd}<|end|>\u{fffd}");
    }

    proptest! {
        #[test]
        fn guarded_text_comes_back_and_has_no_mark(text in "(<\\|end\\|>|<tool_call>|!|<|a|\u{fdd2}|é){0,12}") {
            let filled = marks().filled(&marks().guard(&text, Author::Outside));
            prop_assert!(!filled.text.contains(OPEN));
            prop_assert_eq!(filled.text, text.replace('\u{fdd2}', "\u{fffd}"));
        }

        #[test]
        fn unwrapping_undoes_wrapping(text in "(<\\|end\\|>|<tool_call>|!|<|a|é){0,12}") {
            prop_assert_eq!(marks().unwrapped(marks().marked(&text)), text);
        }
    }
}
