//! YAML text into nodes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Location, Spanned};

use super::diagnostic::Diagnostic;
use crate::value::{Key, Node, Span, Value};

/// Reads YAML text as one node; `file` goes into its spans.
///
/// # Errors
/// What is no YAML; or else every key that a map holds twice.
pub fn read(file: usize, text: &str) -> Result<Node, Vec<Diagnostic>> {
    let options = serde_yaml::options! {
        strict_booleans: true,
        with_snippet: false,
        // Seen here, where both places are known.
        duplicate_keys: serde_yaml::DuplicateKeyPolicy::PassThrough,
        budget: serde_yaml::budget! {
            // Room for tens of thousands of stages that share anchors; how much aliases may unfold stays limited.
            max_nodes: 4_000_000,
            max_events: 8_000_000,
            enforce_alias_anchor_ratio: false,
        },
    };
    match serde_yaml::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => {
            let mut twice = Vec::new();
            let node = raw.value.place(file, raw.referenced, &mut twice);
            if twice.is_empty() { Ok(node) } else { Err(twice) }
        }
        Err(error) => {
            let message = error.without_snippet().to_string();
            let place = error.location().map(|location| span(file, location)).filter(|span| span.start < text.len());
            let end = Span { file, start: text.len().saturating_sub(1), end: text.len() };
            Err(vec![Diagnostic::at(place.unwrap_or(end), plain(&message))])
        }
    }
}

/// The parser's words without its own place (the snippet shows it) and without advice about Rust options.
fn plain(message: &str) -> String {
    let message = message.lines().next().unwrap_or_default();
    let message = match message.split_once(": ") {
        Some((place, rest)) if place.starts_with("line ") || place.starts_with("error") => rest,
        _ => message,
    };
    let message = message.split(" at line ").next().unwrap_or(message);
    let message = message.split(", set ").next().unwrap_or(message);
    if message.starts_with("multiple YAML documents") {
        return "a pipeline is one YAML document, here a second one follows `---`".to_owned();
    }
    if let Some(number) = message.strip_prefix("non-finite float ") {
        return format!("{} is no finite number", number.split(" rejected").next().unwrap_or(number));
    }
    format!("not valid YAML: {message}")
}

fn span(file: usize, location: Location) -> Span {
    let span = location.span();
    let start = span.byte_offset().unwrap_or(span.offset()) as usize;
    let length = span.byte_len().unwrap_or(span.len()) as usize;
    Span { file, start, end: start + length.max(1) }
}

/// A value as the parser gives it, places beside.
enum Raw {
    Scalar(Value),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl Raw {
    fn place(self, file: usize, location: Location, twice: &mut Vec<Diagnostic>) -> Node {
        let value = match self {
            Raw::Scalar(value) => value,
            Raw::List(items) => {
                Value::List(items.into_iter().map(|item| item.value.place(file, item.referenced, twice)).collect())
            }
            Raw::Map(entries) => {
                let mut seen: HashMap<String, Span> = HashMap::with_capacity(entries.len());
                let mut placed = Vec::with_capacity(entries.len());
                for (key, item) in entries {
                    let key = Key { text: key.value, span: span(file, key.referenced) };
                    match seen.entry(key.text.clone()) {
                        Entry::Vacant(entry) => _ = entry.insert(key.span),
                        Entry::Occupied(first) => twice.push(
                            Diagnostic::at(key.span, format!("`{}` is given twice", key.text))
                                .related(*first.get(), "first here"),
                        ),
                    }
                    placed.push((key, item.value.place(file, item.referenced, twice)));
                }
                Value::Map(placed)
            }
        };
        Node { value, span: span(file, location) }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Int(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(i64::try_from(value).map_or(Value::Large(value), Value::Int)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_know_their_places() {
        let text = "name: josh\nüber: {a: [1, 2.5, true, yes, ~], b: '7'}\n";
        let node = read(3, text).unwrap();
        assert_eq!(node.get("name").unwrap().text(), Some("josh"));
        let over = node.get("über").unwrap();
        let Value::List(items) = &over.get("a").unwrap().value else { panic!("not a list") };
        let values: Vec<Value> = items.iter().map(|item| item.value.clone()).collect();
        let expected =
            [Value::Int(1), Value::Float(2.5), Value::Bool(true), Value::Text("yes".to_owned()), Value::Null];
        assert_eq!(values, expected);
        let span = items[1].span;
        assert_eq!((span.file, &text[span.start..span.end]), (3, "2.5"));
        assert_eq!(over.get("b").unwrap().value, Value::Text("7".to_owned()));
        let key = &over.entries()[1].0;
        assert_eq!(&text[key.span.start..key.span.end], "b");
    }

    #[test]
    fn a_key_given_twice_and_broken_text_are_refused_at_their_place() {
        let twice = read(0, "a: 1\nb: 2\na: 3\nc: {d: 1, d: 2}\n").unwrap_err();
        assert_eq!(twice.len(), 2);
        assert_eq!(twice[0].message, "`a` is given twice");
        assert_eq!(twice[0].place.as_ref().unwrap().0.start, 10);
        assert_eq!(twice[0].related.as_ref().unwrap().0.start, 0);
        let broken = read(0, "a: [1, 2\nb: 3\n").unwrap_err();
        assert!(broken[0].place.is_some());
        assert!(read(0, "").unwrap().entries().is_empty());
    }
}
