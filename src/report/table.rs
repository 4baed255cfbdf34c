//! Any Parquet table as text.

use std::path::Path;

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::{ContentArrangement, Table, presets};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::fs;
use crate::table::TYPE_KEY;

/// The longest text of a cell in an overview.
const CELL: usize = 60;

/// A plain table that fits the terminal.
pub fn layout() -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// The row type, the number of rows, the columns and the first rows.
pub fn overview(path: &Path, rows: usize) -> anyhow::Result<String> {
    let (kind, count, batches) = read(path, rows)?;
    let mut table = layout();
    if let Some(batch) = batches.first() {
        table.set_header(batch.schema().fields().iter().map(|field| field.name().clone()));
    }
    for batch in &batches {
        let options = FormatOptions::default().with_null("");
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            table.add_row(columns.iter().map(|column| short(&column.value(row).to_string())));
        }
    }
    Ok(format!("{kind}, {count} rows\n{table}"))
}

fn short(text: &str) -> String {
    let text = text.replace('\n', " ");
    match text.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The first rows, whole, as JSON.
pub fn json_lines(path: &Path, rows: usize) -> anyhow::Result<Vec<String>> {
    let (_, _, batches) = read(path, rows)?;
    let mut lines = Vec::new();
    for batch in &batches {
        let values: Vec<serde_json::Value> = serde_arrow::from_record_batch(batch)?;
        lines.extend(values.iter().map(serde_json::Value::to_string));
    }
    Ok(lines)
}

fn read(path: &Path, rows: usize) -> anyhow::Result<(String, i64, Vec<RecordBatch>)> {
    let damaged = || format!("`{}` is damaged or not Parquet", path.display());
    let builder = ParquetRecordBatchReaderBuilder::try_new(fs::open(path)?).with_context(damaged)?;
    let kind = builder.schema().metadata().get(TYPE_KEY).cloned().unwrap_or_else(|| "no row type".to_owned());
    let count = builder.metadata().file_metadata().num_rows();
    let schema = builder.schema().clone();
    let reader = builder.with_limit(rows).build().with_context(damaged)?;
    let mut batches = reader.collect::<Result<Vec<_>, _>>().with_context(damaged)?;
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(schema));
    }
    Ok((kind, count, batches))
}
