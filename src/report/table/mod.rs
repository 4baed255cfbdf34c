//! Any Parquet table as what people and programs read.

mod cell;
mod form;
mod rows;
mod schema;
mod screen;
mod source;

use comfy_table::{ContentArrangement, presets};

pub use self::form::{Form, write};
pub use self::schema::About;
pub use self::screen::Screen;
pub use self::source::{NoColumn, Table};

/// A plain table that fits the terminal.
pub fn layout() -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// What a table holds: its columns with their types and empty cells, and its first rows as they fit the screen.
///
/// # Errors
/// When the file is damaged.
pub fn overview(table: &Table, about: &About, rows: Option<usize>, screen: &Screen) -> anyhow::Result<String> {
    let columns = schema::columns(table, about, screen.width)?;
    let left = screen.height.map(|height| height.saturating_sub(columns.lines().count() + 3));
    let first = rows::first(table, rows, &Screen { height: left, ..*screen })?;
    Ok(format!("{}\n\n{columns}\n\n{first}", headline(table)))
}

/// The first rows alone, as they fit the screen, and what more there is.
///
/// # Errors
/// When the file is damaged.
pub fn first_rows(table: &Table, rows: Option<usize>, screen: &Screen) -> anyhow::Result<String> {
    rows::first(table, rows, screen)
}

fn headline(table: &Table) -> String {
    let kind = table.kind().map(|kind| format!("{kind}, ")).unwrap_or_default();
    format!("{kind}{}, {}", counted(table.rows(), "row"), counted(table.width() as u64, "column"))
}

/// A number with its noun: `1 row`, `7,849 rows`.
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
