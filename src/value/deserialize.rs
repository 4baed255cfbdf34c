//! Nodes into serde types, the place kept in every error.

use std::fmt::{self, Display};

use serde::de::{self, DeserializeOwned, IntoDeserializer, Visitor};

use super::{Key, Node, Span, Value};

/// Why a node is not the type that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceError {
    /// What is wrong, lower case.
    pub message: String,
    /// Where: the smallest node that is known to be wrong.
    pub span: Option<Span>,
    /// The keys that lead there from the node that was parsed.
    pub path: Vec<String>,
    /// The field that is missing, where that is the matter.
    pub missing: Option<String>,
    /// The key that is unknown and the keys that are known, where that is the matter.
    pub unknown: Option<Box<(String, Vec<String>)>>,
}

impl PlaceError {
    fn at(mut self, span: Span) -> Self {
        self.span.get_or_insert(span);
        self
    }

    fn under(mut self, key: &str) -> Self {
        self.path.insert(0, key.to_owned());
        self
    }
}

impl Display for PlaceError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for PlaceError {}

impl de::Error for PlaceError {
    fn custom<T: Display>(message: T) -> Self {
        Self { message: message.to_string(), span: None, path: Vec::new(), missing: None, unknown: None }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { missing: Some(field.to_owned()), ..Self::custom(format!("`{field}` is missing")) }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let known = expected.iter().map(|&name| name.to_owned()).collect();
        Self { unknown: Some(Box::new((field.to_owned(), known))), ..Self::custom(format!("unknown key `{field}`")) }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let known: Vec<String> = expected.iter().map(|&name| name.to_owned()).collect();
        let listed = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        Self {
            unknown: Some(Box::new((variant.to_owned(), known))),
            ..Self::custom(format!("`{variant}` is none of {listed}"))
        }
    }
}

/// Reads a node as a type.
pub fn parse<T: DeserializeOwned>(node: &Node) -> Result<T, PlaceError> {
    T::deserialize(node)
}

impl Node {
    fn wrong(&self, visitor: &dyn de::Expected) -> PlaceError {
        de::Error::custom(format_args!("expected {visitor}, found {}", self.describe()))
    }
}

macro_rules! number {
    ($method:ident) => {
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PlaceError> {
            self.number(visitor)
        }
    };
}

impl Node {
    fn number<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, PlaceError> {
        let result = match self.value {
            Value::Int(value) => visitor.visit_i64(value),
            Value::Large(value) => visitor.visit_u64(value),
            Value::Float(value) => visitor.visit_f64(value),
            _ => Err(self.wrong(&visitor)),
        };
        result.map_err(|error: PlaceError| plain_numbers(error, self).at(self.span))
    }
}

/// Serde says "invalid value: integer `-1`, expected u32" where a person would say "expected a whole number from 0 to …".
fn plain_numbers(mut error: PlaceError, node: &Node) -> PlaceError {
    let bounds = [
        ("u8", "a whole number from 0 to 255"),
        ("u16", "a whole number from 0 to 65535"),
        ("u32", "a whole number, 0 or more"),
        ("u64", "a whole number, 0 or more"),
        ("usize", "a whole number, 0 or more"),
        ("i32", "a whole number"),
        ("i64", "a whole number"),
        ("nonzero u32", "a whole number, 1 or more"),
        ("nonzero u64", "a whole number, 1 or more"),
        ("a nonzero usize", "a whole number, 1 or more"),
        ("a nonzero u32", "a whole number, 1 or more"),
    ];
    let expected = error.message.rsplit("expected ").next().unwrap_or_default();
    let expected = expected.split(", found ").next().unwrap_or_default();
    if let Some((_, words)) = bounds.iter().find(|(name, _)| *name == expected) {
        error.message = format!("expected {words}, found {}", node.describe());
    }
    error
}

impl<'de> de::Deserializer<'de> for &Node {
    type Error = PlaceError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PlaceError> {
        let result = match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Large(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(text) => visitor.visit_str(text),
            Value::List(items) => visitor.visit_seq(Items { items: items.iter(), index: 0 }),
            Value::Map(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None }),
        };
        result.map_err(|error: PlaceError| error.at(self.span))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PlaceError> {
        match self.value {
            Value::Bool(value) => visitor.visit_bool(value),
            _ => Err(de::Error::custom(format_args!("expected `true` or `false`, found {}", self.describe()))),
        }
        .map_err(|error: PlaceError| error.at(self.span))
    }

    number!(deserialize_i8);
    number!(deserialize_i16);
    number!(deserialize_i32);
    number!(deserialize_i64);
    number!(deserialize_i128);
    number!(deserialize_u8);
    number!(deserialize_u16);
    number!(deserialize_u32);
    number!(deserialize_u64);
    number!(deserialize_u128);

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PlaceError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PlaceError> {
        match self.value {
            Value::Int(_) | Value::Large(_) | Value::Float(_) => self.number(visitor),
            _ => Err(de::Error::custom(format_args!("expected a number, found {}", self.describe()))),
        }
        .map_err(|error: PlaceError| error.at(self.span))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PlaceError> {
        match &self.value {
            Value::Text(text) => visitor.visit_str(text),
            _ => Err(de::Error::custom(format_args!("expected a text, found {}", self.describe()))),
        }
        .map_err(|error: PlaceError| error.at(self.span))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PlaceError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PlaceError> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, PlaceError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PlaceError> {
        match &self.value {
            Value::List(_) => self.deserialize_any(visitor),
            _ => {
                let message = format!("expected a list, found {}", self.describe());
                Err(<PlaceError as de::Error>::custom(message).at(self.span))
            }
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, PlaceError> {
        match &self.value {
            Value::Map(_) => self.deserialize_any(visitor),
            // `with:` followed by nothing is a map without entries.
            Value::Null => visitor.visit_map(Entries { entries: [].iter(), value: None }),
            _ => {
                let message = format!("expected a map, found {}", self.describe());
                Err(<PlaceError as de::Error>::custom(message).at(self.span))
            }
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, PlaceError> {
        self.deserialize_map(visitor).map_err(|error| error.at(self.span))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, PlaceError> {
        let result = match &self.value {
            Value::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Map(entries) if entries.len() == 1 => visitor
                .visit_enum(de::value::MapAccessDeserializer::new(Entries { entries: entries.iter(), value: None })),
            _ => Err(self.wrong(&"a name")),
        };
        result.map_err(|error: PlaceError| error.at(self.span))
    }

    serde::forward_to_deserialize_any! {
        char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Items<'a> {
    items: std::slice::Iter<'a, Node>,
    index: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'_> {
    type Error = PlaceError;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, PlaceError> {
        let Some(node) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(node).map(Some).map_err(|error| error.at(node.span).under(&index.to_string()))
    }
}

struct Entries<'a> {
    entries: std::slice::Iter<'a, (Key, Node)>,
    value: Option<&'a (Key, Node)>,
}

impl<'de> de::MapAccess<'de> for Entries<'_> {
    type Error = PlaceError;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, PlaceError> {
        let Some(entry) = self.entries.next() else { return Ok(None) };
        self.value = Some(entry);
        let key: de::value::StrDeserializer<'_, PlaceError> = entry.0.text.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.at(entry.0.span))
    }

    fn next_value_seed<V: de::DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, PlaceError> {
        let Some((key, node)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(node).map_err(|error| error.at(node.span).under(&key.text))
    }
}
