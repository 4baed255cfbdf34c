//! The first rows of a table on a screen: side by side where they fit, else one below the other, so that nothing is unreadable.

use serde_json::{Map, Value};

use super::cell::{brief, cut, objects, told};
use super::screen::Screen;
use super::source::Table;
use super::{counted, grouped};

/// Rows in a table where nobody says how many.
const ROWS: usize = 10;

/// Rows one below the other where nobody says how many.
const RECORDS: usize = 3;

/// The least of a text that says something.
const TEXT: usize = 12;

/// The least of a list or a record that says something.
const NESTED: usize = 32;

/// Lines of a text, and items of a list, in a record.
const LINES: usize = 3;
const ITEMS: usize = 6;

/// The letters between two columns.
const GAP: usize = 2;

type Row = Map<String, Value>;

/// The first rows, and a line that says how many more there are.
pub(super) fn first(table: &Table, wanted: Option<usize>, screen: &Screen) -> anyhow::Result<String> {
    let most = wanted.unwrap_or_else(|| screen.height.unwrap_or(ROWS).max(ROWS));
    let mut rows: Vec<Row> = Vec::new();
    for batch in table.batches(Some(most))? {
        rows.extend(objects(&batch?)?);
    }
    let names: Vec<&str> = table.columns().map(|field| field.name().as_str()).collect();
    let fit = screen.height.map_or(ROWS, |height| height.saturating_sub(4).max(LINES));
    let some = &rows[..rows.len().min(wanted.unwrap_or(fit))];
    let (full, empty): (Vec<&str>, Vec<&str>) =
        names.iter().partition(|name| some.is_empty() || some.iter().any(|row| row.get(**name) != Some(&Value::Null)));
    let mut lines = if let Some(widths) = widths(&names, some, screen.width) {
        side_by_side(&names, some, &widths)
    } else if let Some(widths) = widths(&full, some, screen.width).filter(|_| !full.is_empty()) {
        // What says nothing here gives its room to what does.
        let mut lines = side_by_side(&full, some, &widths);
        lines.text.push(cut(&format!("empty here: {}", empty.join(", ")), screen.width));
        lines
    } else {
        rows.truncate(wanted.unwrap_or(RECORDS));
        records(&rows, screen, wanted.is_some())
    };
    let (shown, all) = (lines.rows as u64, table.rows());
    if shown < all {
        let which = match shown {
            0 => String::new(),
            1 => "the first of ".to_owned(),
            shown => format!("the first {} of ", grouped(shown)),
        };
        lines.text.push(format!("{which}{}", counted(all, "row")));
    } else if all == 0 {
        lines.text.push("no rows".to_owned());
    }
    Ok(lines.text.join("\n"))
}

struct Lines {
    text: Vec<String>,
    rows: usize,
}

/// How wide each column may be; `None` where some would say nothing.
fn widths(names: &[&str], rows: &[Row], width: usize) -> Option<Vec<usize>> {
    let room = width.checked_sub(GAP * names.len().saturating_sub(1))?;
    let mut least = Vec::new();
    let mut full = Vec::new();
    for name in names {
        let header = name.chars().count();
        let cells = rows.iter().filter_map(|row| row.get(*name));
        let widest = |cell: &Value| brief(cell).chars().count();
        let whole = cells.clone().map(widest).max().unwrap_or(0).max(header);
        let needed = cells.map(|cell| least_of(cell).min(widest(cell))).max().unwrap_or(0).max(header);
        least.push(needed.min(whole));
        full.push(whole);
    }
    let mut left = room.checked_sub(least.iter().sum())?;
    // First what lacks least: a name in full is worth more than a sentence that stays cut.
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by_key(|&column| full[column] - least[column]);
    for (done, &column) in order.iter().enumerate() {
        let more = (full[column] - least[column]).min(left / (order.len() - done));
        least[column] += more;
        left -= more;
    }
    Some(least)
}

fn least_of(cell: &Value) -> usize {
    match cell {
        Value::String(_) => TEXT,
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => NESTED,
        Value::Array(_) => TEXT,
        Value::Object(_) => NESTED,
        _ => usize::MAX,
    }
}

fn side_by_side(names: &[&str], rows: &[Row], widths: &[usize]) -> Lines {
    let right: Vec<bool> =
        names.iter().map(|name| rows.iter().any(|row| row.get(*name).is_some_and(Value::is_number))).collect();
    let line = |cells: Vec<String>| {
        let cells = cells.iter().zip(widths).zip(&right).map(|((cell, &width), &right)| {
            let cell = cut(cell, width);
            if right { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        cells.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end().to_owned()
    };
    let mut text = vec![line(names.iter().map(|&name| name.to_owned()).collect())];
    text.push(widths.iter().map(|&width| "─".repeat(width)).collect::<Vec<_>>().join(&"─".repeat(GAP)));
    let cell = |row: &Row, name: &str| row.get(name).map(brief).unwrap_or_default();
    text.extend(rows.iter().map(|row| line(names.iter().map(|name| cell(row, name)).collect())));
    Lines { text, rows: rows.len() }
}

/// Each row with a line or more for each column; as many as fit, where nobody said how many.
fn records(rows: &[Row], screen: &Screen, all: bool) -> Lines {
    let name = rows.iter().flat_map(|row| row.keys()).map(|name| name.chars().count()).max().unwrap_or(0);
    let (mut text, mut shown) = (Vec::new(), 0);
    for (at, row) in rows.iter().enumerate() {
        let mut lines = vec![headed(&format!("row {}", at + 1), screen.width)];
        for (column, value) in row {
            let cell = cell_lines(value, screen.width.saturating_sub(name + GAP).max(TEXT));
            for (line, cell) in cell.into_iter().enumerate() {
                let title = if line == 0 { column.as_str() } else { "" };
                lines.push(format!("{title:name$}{:GAP$}{cell}", "").trim_end().to_owned());
            }
        }
        let room = screen.height.map_or(usize::MAX, |height| height.saturating_sub(2));
        if !all && shown > 0 && text.len() + lines.len() > room {
            break;
        }
        text.extend(lines);
        shown += 1;
    }
    Lines { text, rows: shown }
}

fn headed(title: &str, width: usize) -> String {
    format!("── {title} {}", "─".repeat(width.saturating_sub(title.chars().count() + 4)))
}

/// A cell of a record: texts wrapped, a list's items each on its line.
fn cell_lines(value: &Value, width: usize) -> Vec<String> {
    match value {
        Value::String(text) if !text.is_empty() => wrapped(text, width),
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            let digits = items.len().min(ITEMS).to_string().len();
            let words = |item: &Value| match item {
                Value::Object(fields) => told(fields),
                other => brief(other),
            };
            let line = |(at, item): (usize, &Value)| cut(&format!("{:>digits$}  {}", at + 1, words(item)), width);
            let mut lines: Vec<String> = items.iter().take(ITEMS).enumerate().map(line).collect();
            if items.len() > ITEMS {
                lines.push(format!("… {} more", items.len() - ITEMS));
            }
            lines
        }
        Value::Object(fields) if !fields.is_empty() => {
            let name = fields.keys().map(|name| name.chars().count()).max().unwrap_or(0);
            fields.iter().map(|(key, value)| cut(&format!("{key:name$}  {}", brief(value)), width)).collect()
        }
        Value::Array(_) => wrapped(&brief(value), width),
        other => vec![cut(&brief(other), width)],
    }
}

/// A text in lines of whole words, the first few.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    'all: for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
                lines.push(std::mem::take(&mut line));
                if lines.len() > LINES {
                    break 'all;
                }
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
        if lines.len() > LINES {
            break;
        }
    }
    if lines.len() > LINES {
        lines.truncate(LINES);
        if let Some(last) = lines.last_mut() {
            let start: String = last.chars().take(width.saturating_sub(2)).collect();
            *last = format!("{} …", start.trim_end());
        }
    }
    lines.iter().map(|line| cut(line, width)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn rows(values: &[Value]) -> Vec<Row> {
        values.iter().map(|value| value.as_object().unwrap().clone()).collect()
    }

    #[test]
    fn columns_share_the_room_there_is() {
        let rows = rows(&[json!({"n": 12345, "text": "a".repeat(70), "short": "yes"})]);
        let widths = |width| widths(&["n", "text", "short"], &rows, width);
        assert_eq!(widths(200), Some(vec![5, 70, 5]));
        assert_eq!(widths(40), Some(vec![5, 26, 5]));
        assert_eq!(widths(25), None);
    }

    #[test]
    fn a_text_is_cut_at_words_and_says_so() {
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("a b c d e f g h", 3), ["a b", "c d", "e …"]);
        assert_eq!(wrapped("", 8), [""; 0]);
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_screen(texts in prop::collection::vec("[a-z \n]{0,300}", 1..4), width in 40_usize..140) {
            let values: Vec<Value> = texts
                .iter()
                .map(|text| json!({"text": text, "list": [{"role": text, "n": 1.5}], "words": [text, text], "one": {"a": text}, "n": 7}))
                .collect();
            let (rows, screen) = (rows(&values), Screen { width, height: None });
            let names = ["text", "list", "words", "one", "n"];
            let lines = match widths(&names, &rows, width) {
                Some(widths) => side_by_side(&names, &rows, &widths),
                None => records(&rows, &screen, true),
            };
            prop_assert_eq!(lines.rows, rows.len());
            for line in lines.text {
                prop_assert!(line.chars().count() <= width, "{line}");
            }
        }
    }
}
