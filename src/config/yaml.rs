//! YAML text into nodes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Location, Spanned};

use super::diagnostic::Diagnostic;
use crate::value::{Key, Node, Span, Value};

/// Reads YAML text as one node; `file` goes into its spans.
///
/// # Errors
/// What is no YAML; or else every key that a map holds twice.
pub fn read(file: usize, text: &str) -> Result<Node, Vec<Diagnostic>> {
    match parse::<Spanned<Raw>>(text) {
        Ok(raw) => {
            let mut twice = Vec::new();
            let node = raw.value.place(file, raw.referenced, &mut twice);
            // Maps are built from the inside.
            twice.sort_by_key(|problem| problem.place.as_ref().map(|(span, _)| *span));
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

/// Reads YAML text as one node whose spans are empty, in half the time; `None` where something is wrong with it.
pub fn read_without_places(file: usize, text: &str) -> Option<Node> {
    let mut twice = Vec::new();
    let node = parse::<Bare>(text).ok()?.place(file, &mut twice);
    twice.is_empty().then_some(node)
}

fn parse<T: for<'de> Deserialize<'de>>(text: &str) -> Result<T, serde_yaml::Error> {
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
    serde_yaml::from_str_with_options(text, options)
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

/// In a map of so few keys each is compared with all before it, which is quicker than a table of them.
const FEW: usize = 16;

/// A value as the parser gives it, places beside.
enum Raw {
    Scalar(Value),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

/// A value as the parser gives it, without places.
enum Bare {
    Scalar(Value),
    List(Vec<Bare>),
    Map(Vec<(String, Bare)>),
}

impl Raw {
    fn place(self, file: usize, location: Location, twice: &mut Vec<Diagnostic>) -> Node {
        let value = match self {
            Raw::Scalar(value) => value,
            Raw::List(items) => {
                Value::List(items.into_iter().map(|item| item.value.place(file, item.referenced, twice)).collect())
            }
            Raw::Map(entries) => {
                let keys = entries.into_iter().map(|(key, item)| {
                    let key = Key { text: key.value, span: span(file, key.referenced) };
                    (key, item.value.place(file, item.referenced, twice))
                });
                let placed: Vec<_> = keys.collect();
                told_twice(&placed, twice);
                Value::Map(placed)
            }
        };
        Node { value, span: span(file, location) }
    }
}

impl Bare {
    fn place(self, file: usize, twice: &mut Vec<Diagnostic>) -> Node {
        let span = Span { file, start: 0, end: 0 };
        let value = match self {
            Bare::Scalar(value) => value,
            Bare::List(items) => Value::List(items.into_iter().map(|item| item.place(file, twice)).collect()),
            Bare::Map(entries) => {
                let keys = entries.into_iter().map(|(text, item)| (Key { text, span }, item.place(file, twice)));
                let placed: Vec<_> = keys.collect();
                told_twice(&placed, twice);
                Value::Map(placed)
            }
        };
        Node { value, span }
    }
}

/// Reports keys that a map holds twice.
fn told_twice(entries: &[(Key, Node)], twice: &mut Vec<Diagnostic>) {
    let mut tell = |first: &Key, again: &Key| {
        twice.push(
            Diagnostic::at(again.span, format!("`{}` is given twice", again.text)).related(first.span, "first here"),
        );
    };
    if entries.len() <= FEW {
        for (at, (key, _)) in entries.iter().enumerate() {
            if let Some((first, _)) = entries[..at].iter().find(|(first, _)| first.text == key.text) {
                tell(first, key);
            }
        }
        return;
    }
    let mut seen: HashMap<&str, &Key> = HashMap::with_capacity(entries.len());
    for (key, _) in entries {
        match seen.entry(&key.text) {
            Entry::Vacant(entry) => _ = entry.insert(key),
            Entry::Occupied(first) => tell(first.get(), key),
        }
    }
}

/// What the parser's values are built into.
trait Build<'de>: Sized {
    type Key: Deserialize<'de>;
    type Item: Deserialize<'de>;
    fn scalar(value: Value) -> Self;
    fn list(items: Vec<Self::Item>) -> Self;
    fn map(entries: Vec<(Self::Key, Self::Item)>) -> Self;
}

impl<'de> Build<'de> for Raw {
    type Key = Spanned<String>;
    type Item = Spanned<Raw>;

    fn scalar(value: Value) -> Self {
        Raw::Scalar(value)
    }

    fn list(items: Vec<Self::Item>) -> Self {
        Raw::List(items)
    }

    fn map(entries: Vec<(Self::Key, Self::Item)>) -> Self {
        Raw::Map(entries)
    }
}

impl<'de> Build<'de> for Bare {
    type Key = String;
    type Item = Bare;

    fn scalar(value: Value) -> Self {
        Bare::Scalar(value)
    }

    fn list(items: Vec<Self::Item>) -> Self {
        Bare::List(items)
    }

    fn map(entries: Vec<(Self::Key, Self::Item)>) -> Self {
        Bare::Map(entries)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Builder(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Bare {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Builder(PhantomData))
    }
}

struct Builder<B>(PhantomData<B>);

impl<'de, B: Build<'de>> Visitor<'de> for Builder<B> {
    type Value = B;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<B, E> {
        Ok(B::scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<B, E> {
        Ok(B::scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<B, E> {
        Ok(B::scalar(Value::Int(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<B, E> {
        Ok(B::scalar(i64::try_from(value).map_or(Value::Large(value), Value::Int)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<B, E> {
        Ok(B::scalar(Value::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<B, E> {
        Ok(B::scalar(Value::Text(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<B, E> {
        Ok(B::scalar(Value::Text(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<B, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(B::list(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<B, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(B::map(map))
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
    fn without_places_the_values_are_the_same() {
        fn bare(node: &mut Node) {
            node.span = Span { file: 3, start: 0, end: 0 };
            match &mut node.value {
                Value::List(items) => items.iter_mut().for_each(bare),
                Value::Map(entries) => entries.iter_mut().for_each(|(key, value)| {
                    key.span = Span { file: 3, start: 0, end: 0 };
                    bare(value);
                }),
                _ => {}
            }
        }
        let keys: String = (0..40).map(|key| format!("k{key}: {key}\n")).collect();
        for text in
            ["a: [1, -2.5e3, 18446744073709551615, true, yes, ~, '7']\nb: &x {c: 'd'}\ne: *x\n", "", "- a\n", &keys]
        {
            let mut placed = read(3, text).unwrap();
            bare(&mut placed);
            assert_eq!(read_without_places(3, text).unwrap(), placed, "{text}");
        }
        assert_eq!(read_without_places(0, "a: 1\na: 2\n"), None);
        assert_eq!(read_without_places(0, &format!("{keys}k7: 1\n")), None);
        assert_eq!(read_without_places(0, "a: [1\n"), None);
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
