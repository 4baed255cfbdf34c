//! JSON values that fit a schema, as tools' parameters have them.
//!
//! Written as Python's `json.dumps` writes them: `", "` between members, `": "` behind names. Of schemas these words count: `type`,
//! `enum`, `const`, `properties`, `required`, `items`, `anyOf`, `oneOf`; where they say nothing, any value fits.

use serde_json::Value;

use super::{Expression, Grammar};

/// How deep values nest of which a schema says nothing, and lists in lists.
const DEPTH: usize = 3;

/// The most members of an object.
const MEMBERS: usize = 64;

/// A value that fits a schema.
pub fn value(grammar: &mut Grammar, schema: &Value) -> Expression {
    within(grammar, schema, DEPTH)
}

fn within(grammar: &mut Grammar, schema: &Value, depth: usize) -> Expression {
    if let Some(choices) = schema["enum"].as_array() {
        let texts: Vec<Expression> = choices.iter().map(|choice| grammar.text(&written(choice))).collect();
        return grammar.either(texts);
    }
    if let Some(only) = schema.get("const") {
        return grammar.text(&written(only));
    }
    if let Some(choices) = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()) {
        let parts: Vec<Expression> = choices.iter().map(|choice| within(grammar, choice, depth)).collect();
        return grammar.either(parts);
    }
    match &schema["type"] {
        Value::String(kind) => of_kind(grammar, kind, schema, depth),
        Value::Array(kinds) => {
            let kinds: Vec<&str> = kinds.iter().filter_map(Value::as_str).collect();
            let parts: Vec<Expression> = kinds.iter().map(|kind| of_kind(grammar, kind, schema, depth)).collect();
            grammar.either(parts)
        }
        _ if schema.get("properties").is_some() => of_kind(grammar, "object", schema, depth),
        _ => any(grammar, depth),
    }
}

fn of_kind(grammar: &mut Grammar, kind: &str, schema: &Value, depth: usize) -> Expression {
    match kind {
        "string" => string(grammar),
        "integer" => integer(grammar),
        "number" => number(grammar),
        "boolean" => words(grammar, &["true", "false"]),
        "null" => grammar.text("null"),
        "array" => {
            let item = match schema.get("items") {
                _ if depth == 0 => return grammar.text("[]"),
                Some(items) => within(grammar, items, depth - 1),
                None => any(grammar, depth - 1),
            };
            list(grammar, item)
        }
        "object" => object(grammar, schema, depth),
        _ => any(grammar, depth),
    }
}

/// How many members an object of a schema has that has too many.
pub fn too_many(schema: &Value) -> Option<usize> {
    let own = names(schema).len();
    if own > MEMBERS {
        return Some(own);
    }
    match schema {
        Value::Object(parts) => parts.values().find_map(too_many),
        Value::Array(parts) => parts.iter().find_map(too_many),
        _ => None,
    }
}

/// The members of an object: properties, and those that are required without being described.
fn names(schema: &Value) -> Vec<&str> {
    let properties = schema["properties"].as_object();
    let mut names: Vec<&str> = properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// An object of the properties that a schema names. One that names none is empty, as nothing is known of its members.
pub fn object(grammar: &mut Grammar, schema: &Value, depth: usize) -> Expression {
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let (mut members, mut bits) = (Vec::new(), 0);
    let mut names = names(schema);
    // Whatever is left out beyond the most, the required ones stay.
    names.sort_by_key(|name| !required.contains(name));
    for (place, name) in names.into_iter().take(MEMBERS).enumerate() {
        let name_and_colon = grammar.text(&format!("{}: ", Value::from(name)));
        let value = within(grammar, &schema["properties"][name], depth.saturating_sub(1));
        members.push(grammar.then(name_and_colon, value));
        if required.contains(&name) {
            bits |= 1 << place;
        }
    }
    grammar.object(members, bits)
}

fn any(grammar: &mut Grammar, depth: usize) -> Expression {
    let mut parts = vec![string(grammar), number(grammar), words(grammar, &["true", "false", "null"])];
    if depth > 0 {
        let inner = any(grammar, depth - 1);
        parts.push(list(grammar, inner));
    }
    grammar.either(parts)
}

fn list(grammar: &mut Grammar, item: Expression) -> Expression {
    let (open, close, comma) = (grammar.text("["), grammar.text("]"), grammar.text(", "));
    let more = grammar.then(comma, item);
    let more = grammar.many(more);
    let items = grammar.then(item, more);
    let items = grammar.maybe(items);
    grammar.sequence(&[open, items, close])
}

/// A string: whatever stands in it, its JSON can be read.
pub fn string(grammar: &mut Grammar) -> Expression {
    let quote = grammar.text("\"");
    // Without `<`, so that no mark stands in a string that ends what the string is in.
    let plain = grammar.character(|byte| (0x20..0x7f).contains(&byte) && !b"\"\\<".contains(&byte));
    let slash = grammar.text("\\");
    let short = grammar.byte(|byte| b"\"\\/bfnrt".contains(&byte));
    let hex = grammar.byte(|byte| byte.is_ascii_hexdigit());
    // Halves of surrogate pairs alone are no text.
    let other = grammar.byte(|byte| byte.is_ascii_hexdigit() && !byte.eq_ignore_ascii_case(&b'd'));
    let d = grammar.byte(|byte| byte.eq_ignore_ascii_case(&b'd'));
    let low = grammar.byte(|byte| (b'0'..=b'7').contains(&byte));
    let any_low = grammar.then(d, low);
    let other_hex = grammar.then(other, hex);
    let upper = grammar.either([any_low, other_hex]);
    let u = grammar.text("u");
    let long = grammar.sequence(&[u, upper, hex, hex]);
    let escaped = grammar.either([short, long]);
    let escape = grammar.then(slash, escaped);
    let inside = grammar.either([plain, escape]);
    let inside = grammar.many(inside);
    grammar.sequence(&[quote, inside, quote])
}

fn integer(grammar: &mut Grammar) -> Expression {
    let minus = grammar.text("-");
    let minus = grammar.maybe(minus);
    let (zero, first) = (grammar.text("0"), grammar.byte(|byte| (b'1'..=b'9').contains(&byte)));
    let digit = grammar.byte(|byte| byte.is_ascii_digit());
    let more = grammar.up_to(17, digit);
    let long = grammar.then(first, more);
    let digits = grammar.either([zero, long]);
    grammar.then(minus, digits)
}

fn number(grammar: &mut Grammar) -> Expression {
    let (whole, point) = (integer(grammar), grammar.text("."));
    let digit = grammar.byte(|byte| byte.is_ascii_digit());
    let more = grammar.up_to(15, digit);
    let fraction = grammar.sequence(&[point, digit, more]);
    let fraction = grammar.maybe(fraction);
    grammar.then(whole, fraction)
}

fn words(grammar: &mut Grammar, words: &[&str]) -> Expression {
    let texts: Vec<Expression> = words.iter().map(|word| grammar.text(word)).collect();
    grammar.either(texts)
}

/// A value as it is written.
fn written(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let member =
                |(name, value): (&String, &Value)| format!("{}: {}", Value::from(name.as_str()), written(value));
            format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}
