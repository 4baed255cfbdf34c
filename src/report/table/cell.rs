//! One cell, as JSON and as a few words.

use anyhow::Context;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow::util::display::array_value_to_string;
use serde_json::{Map, Value};

/// The rows of a batch as JSON objects, whole.
pub(super) fn objects(batch: &RecordBatch) -> anyhow::Result<Vec<Map<String, Value>>> {
    let schema = batch.schema();
    let row = |row: usize| {
        let cells = schema.fields().iter().zip(batch.columns());
        cells.map(|(field, column)| Ok((field.name().clone(), value(column.as_ref(), row)?))).collect()
    };
    (0..batch.num_rows()).map(row).collect()
}

/// A cell as JSON. What JSON has no words for, such as times, is text; numbers that are none are null.
pub(super) fn value(array: &dyn Array, row: usize) -> anyhow::Result<Value> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    Ok(match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float32 => array.as_primitive::<Float32Type>().value(row).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).into(),
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).into(),
        DataType::Utf8View => array.as_string_view().value(row).into(),
        DataType::List(_) => list(&array.as_list::<i32>().value(row))?,
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(row))?,
        DataType::FixedSizeList(_, _) => list(&array.as_fixed_size_list().value(row))?,
        DataType::Struct(_) => object(array.as_struct(), row)?,
        DataType::Dictionary(_, _) => {
            let words = array.as_any_dictionary();
            let key = words.normalized_keys().get(row).copied().context("a dictionary without its word")?;
            value(words.values().as_ref(), key)?
        }
        _ => array_value_to_string(array, row)?.into(),
    })
}

fn list(items: &ArrayRef) -> anyhow::Result<Value> {
    (0..items.len()).map(|item| value(items.as_ref(), item)).collect::<anyhow::Result<Vec<Value>>>().map(Value::Array)
}

fn object(array: &StructArray, row: usize) -> anyhow::Result<Value> {
    let cells = array.fields().iter().zip(array.columns());
    let cells = cells.map(|(field, column)| Ok((field.name().clone(), value(column.as_ref(), row)?)));
    cells.collect::<anyhow::Result<Map<_, _>>>().map(Value::Object)
}

/// A cell as a program reads it in a text: numbers and texts as they are, nested cells as JSON. `None` of an empty one.
pub(super) fn text(array: &dyn Array, row: usize) -> anyhow::Result<Option<String>> {
    if let DataType::Float32 | DataType::Float64 = array.data_type()
        && array.is_valid(row)
    {
        let number = match array.data_type() {
            DataType::Float32 => f64::from(array.as_primitive::<Float32Type>().value(row)),
            _ => array.as_primitive::<Float64Type>().value(row),
        };
        // JSON has no word for these.
        if !number.is_finite() {
            return Ok(Some(number.to_string()));
        }
    }
    Ok(match value(array, row)? {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    })
}

/// A cell in few words, on one line: floats to six digits, lists and records without quotes, empty cells as `null`.
pub(super) fn brief(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => one_line(text),
        Value::Number(number) if number.is_f64() => float(number.as_f64().unwrap_or(f64::NAN)),
        Value::Array(items) => format!("[{}]", items.iter().map(brief).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => format!("{{{}}}", told(fields)),
        other => other.to_string(),
    }
}

/// The fields of a record, those that say nothing left out.
pub(super) fn told(fields: &Map<String, Value>) -> String {
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    let fields = fields.iter().filter(|(_, value)| says(value));
    fields.map(|(name, value)| format!("{name}: {}", brief(value))).collect::<Vec<_>>().join(", ")
}

fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// Six digits that count, as many as people compare.
fn float(number: f64) -> String {
    if number == 0.0 || (1e-4..1e15).contains(&number.abs()) {
        let digits = (5 - number.abs().log10().floor().clamp(-5.0, 5.0) as i32).max(0) as usize;
        let text = format!("{number:.digits$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    } else {
        format!("{number:.5e}")
    }
}

/// The beginning of a text that has so many letters at most, with a mark where something is left out.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let start: String = text.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", start.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_told_in_few_words() {
        for (value, text) in [
            (json!(0.657333333), "0.657333"),
            (json!(0.0), "0"),
            (json!(1.0), "1"),
            (json!(-12345.678), "-12345.7"),
            (json!(123456789.5), "123456790"),
            (json!(5e-7), "5.00000e-7"),
            (json!(null), "null"),
            (json!(""), "\"\""),
            (json!("a\nb"), "a b"),
            (json!([1, "b", null]), "[1, b, null]"),
            (json!({"role": "user", "tool_calls": [], "id": null, "n": 0}), "{role: user, n: 0}"),
        ] {
            assert_eq!(brief(&value), text);
        }
        assert_eq!(cut("many words", 6), "many…");
        assert_eq!(cut("words", 5), "words");
    }
}
