//! JSON as Python's `json.dumps` writes it: what the reference's agents read, and what their training data hold.

use std::fmt::Write as _;

use serde_json::{Number, Value};

/// The text of a value: `", "` and `": "` between parts, everything beyond ASCII escaped, floats as Python's `repr`.
pub fn dumps(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value);
    text
}

/// Appends the text of a value.
pub fn write_value(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(true) => text.push_str("true"),
        Value::Bool(false) => text.push_str("false"),
        Value::Number(number) => write_number(text, number),
        Value::String(string) => write_string(text, string),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                separate(text, index);
                write_value(text, item);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            text.push('{');
            for (index, (key, item)) in fields.iter().enumerate() {
                separate(text, index);
                write_string(text, key);
                text.push_str(": ");
                write_value(text, item);
            }
            text.push('}');
        }
    }
}

/// Appends `", "` before every part but the first.
pub fn separate(text: &mut String, index: usize) {
    if index > 0 {
        text.push_str(", ");
    }
}

/// Appends a string with its quotes.
pub fn write_string(text: &mut String, string: &str) {
    text.push('"');
    for letter in string.chars() {
        match letter {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            ' '..='\u{7f}' => text.push(letter),
            _ => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    push(text, format_args!("\\u{unit:04x}"));
                }
            }
        }
    }
    text.push('"');
}

fn write_number(text: &mut String, number: &Number) {
    match number.as_f64() {
        Some(float) if number.is_f64() => write_float(text, float),
        _ => push(text, format_args!("{number}")),
    }
}

/// Python writes exponents below 1e-4 and from 1e16 on, with a sign and at least two digits; otherwise at least one decimal.
fn write_float(text: &mut String, float: f64) {
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            push(text, format_args!("{digits}e{sign}{:02}", exponent.abs()));
        }
        _ => push(text, format_args!("{float:?}")),
    }
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn writes_what_python_writes() {
        for (value, expected) in [
            (json!({"a": [1, null, true], "b": {}}), r#"{"a": [1, null, true], "b": {}}"#),
            (json!("café 😀 / \u{1}\"\\\n"), r#""caf\u00e9 \ud83d\ude00 / \u0001\"\\\n""#),
            (json!("\u{7f}"), "\"\u{7f}\""),
            (
                json!([52.1815361111111, 0.016478, 1.0, -0.0, 1e16, 1.5e-5, 123456789012345680.0, 1e15, 0.0001]),
                "[52.1815361111111, 0.016478, 1.0, -0.0, 1e+16, 1.5e-05, 1.2345678901234568e+17, 1000000000000000.0, 0.0001]",
            ),
            (json!([18446744073709551615u64, -5]), "[18446744073709551615, -5]"),
        ] {
            assert_eq!(dumps(&value), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn reads_back(text in ".*", float in proptest::num::f64::NORMAL, integer: i64) {
            let value = json!({ text.clone(): [text, integer] });
            let back: Value = serde_json::from_str(&dumps(&value)).unwrap();
            proptest::prop_assert_eq!(back, value);
            proptest::prop_assert_eq!(dumps(&json!(float)).parse::<f64>().unwrap(), float);
        }
    }
}
