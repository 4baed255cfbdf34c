//! Tables as text in the formats that programs read, a few rows at a time.

use std::io::Write;

use anyhow::Context;
use arrow::array::RecordBatch;
use serde_json::Value;

use super::cell;
use super::source::Table;

/// A format of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Comma-separated values with a header; nested cells as JSON, empty cells empty.
    Csv,
    /// One array of objects.
    Json,
    /// One object a line.
    Jsonl,
    /// A table of Markdown.
    Markdown,
}

/// Writes the first rows, or all, whole; how many there were. Never more than some rows are in memory.
///
/// # Errors
/// When the table is damaged or `out` takes no more.
pub fn write(table: &Table, form: Form, limit: Option<usize>, out: &mut dyn Write) -> anyhow::Result<u64> {
    let names: Vec<&str> = table.columns().map(|field| field.name().as_str()).collect();
    match form {
        Form::Csv => out.write_all(&csv_line(names.iter().map(|name| Some((*name).to_owned())))?)?,
        Form::Json => out.write_all(b"[")?,
        Form::Jsonl => {}
        Form::Markdown => {
            let names: Vec<String> = names.iter().map(|name| markdown(name)).collect();
            writeln!(out, "| {} |\n|{}", names.join(" | "), " --- |".repeat(names.len()))?;
        }
    }
    let mut rows = 0;
    for batch in table.batches(limit)? {
        let batch = batch?;
        out.write_all(&part(&batch, form, rows == 0)?)?;
        rows += batch.num_rows() as u64;
    }
    if form == Form::Json {
        out.write_all(if rows == 0 { b"]\n" } else { b"\n]\n" })?;
    }
    Ok(rows)
}

/// Some rows; whether they are the first of all.
fn part(batch: &RecordBatch, form: Form, first: bool) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    match form {
        Form::Csv => {
            for row in 0..batch.num_rows() {
                let cells = batch.columns().iter().map(|column| cell::text(column.as_ref(), row));
                text.extend(csv_line(cells.collect::<anyhow::Result<Vec<_>>>()?)?);
            }
        }
        Form::Json => {
            for (row, object) in cell::objects(batch)?.into_iter().enumerate() {
                text.extend_from_slice(if first && row == 0 { b"\n" } else { b",\n" });
                serde_json::to_writer(&mut text, &Value::Object(object))?;
            }
        }
        Form::Jsonl => {
            for object in cell::objects(batch)? {
                serde_json::to_writer(&mut text, &Value::Object(object))?;
                text.push(b'\n');
            }
        }
        Form::Markdown => {
            for row in 0..batch.num_rows() {
                let cells = batch.columns().iter().map(|column| cell::text(column.as_ref(), row));
                let cells = cells.map(|cell| Ok(markdown(&cell?.unwrap_or_default())));
                let cells = cells.collect::<anyhow::Result<Vec<String>>>()?;
                writeln!(text, "| {} |", cells.join(" | "))?;
            }
        }
    }
    Ok(text)
}

fn csv_line(cells: impl IntoIterator<Item = Option<String>>) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    writer.write_record(cells.into_iter().map(Option::unwrap_or_default))?;
    writer.into_inner().context("a line of CSV")
}

/// A text that breaks no table.
fn markdown(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace('\n', "<br>").replace('\r', "")
}
