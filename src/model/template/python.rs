//! What templates expect of Python: `json.dumps`, how values are printed, `strftime`.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::dialogue::python_json;

/// Prints a value where a template names it: `True` and `None` as Python does, all else as minijinja.
pub fn print(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let text = match value.kind() {
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        ValueKind::None => "None",
        _ => return minijinja::escape_formatter(out, state, value),
    };
    out.write_str(text).map_err(Error::from)
}

/// The filter `tojson` of Hugging Face's templates: `json.dumps` with letters beyond ASCII as they are, and its arguments
/// `indent`, `ensure_ascii`, `separators` and `sort_keys`.
pub fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let json: Json = serde_json::to_value(Serde(value.clone()).0)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, "cannot be JSON").with_source(error))?;
    let indent: Option<usize> = options.get::<Option<usize>>("indent")?;
    let separators: Option<(String, String)> = match options.get::<Option<Value>>("separators")? {
        None => None,
        Some(pair) => Some((pair.get_item_by_index(0)?.to_string(), pair.get_item_by_index(1)?.to_string())),
    };
    let comma = if indent.is_some() { "," } else { ", " };
    let (item, name) = separators.unwrap_or_else(|| (comma.to_owned(), ": ".to_owned()));
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let mut text = String::new();
    Dump { text: &mut text, indent, item, name, ascii, sorted }.value(&json, 0);
    Ok(Value::from_safe_string(text))
}

struct Dump<'a> {
    text: &'a mut String,
    indent: Option<usize>,
    item: String,
    name: String,
    ascii: bool,
    sorted: bool,
}

impl Dump<'_> {
    fn value(&mut self, value: &Json, depth: usize) {
        match value {
            Json::String(string) => self.string(string),
            Json::Array(items) if !items.is_empty() => {
                self.text.push('[');
                for (at, item) in items.iter().enumerate() {
                    self.begin(at, depth + 1);
                    self.value(item, depth + 1);
                }
                self.line(depth);
                self.text.push(']');
            }
            Json::Object(fields) if !fields.is_empty() => {
                self.text.push('{');
                let mut fields: Vec<_> = fields.iter().collect();
                if self.sorted {
                    fields.sort_by_key(|(name, _)| *name);
                }
                for (at, (name, item)) in fields.into_iter().enumerate() {
                    self.begin(at, depth + 1);
                    self.string(name);
                    self.text.push_str(&self.name.clone());
                    self.value(item, depth + 1);
                }
                self.line(depth);
                self.text.push('}');
            }
            other => python_json::write_value(self.text, other),
        }
    }

    fn begin(&mut self, at: usize, depth: usize) {
        if at > 0 {
            self.text.push_str(&self.item.clone());
        }
        self.line(depth);
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = self.indent {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn string(&mut self, string: &str) {
        self.text.push('"');
        for letter in string.chars() {
            match letter {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                '\0'..' ' => self.escape(letter),
                // Noncharacters have a meaning here until the text is tokenised.
                '\u{fdd0}'..='\u{fdef}' | ' '..='\u{7f}' => self.text.push(letter),
                _ if self.ascii => self.escape(letter),
                _ => self.text.push(letter),
            }
        }
        self.text.push('"');
    }

    fn escape(&mut self, letter: char) {
        for unit in letter.encode_utf16(&mut [0; 2]) {
            write!(self.text, "\\u{unit:04x}").expect("writing to a string cannot fail");
        }
    }
}

/// A day of the Gregorian calendar, written as `2024-07-26`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

/// The day that templates of Llama 3.1 and 3.2 fall back to when they know none.
impl Default for Date {
    fn default() -> Self {
        Self { year: 2024, month: 7, day: 26 }
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Date {
    /// As `strftime` writes it; the hour is midnight.
    ///
    /// # Errors
    /// When the format asks for what is not known here.
    pub fn format(self, format: &str) -> Result<String, Error> {
        let (month, weekday) = (MONTHS[usize::from(self.month) - 1], DAYS[self.weekday()]);
        let mut text = String::new();
        let mut letters = format.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                text.push(letter);
                continue;
            }
            text.push_str(&match letters.next() {
                Some('Y') => self.year.to_string(),
                Some('y') => format!("{:02}", self.year % 100),
                Some('m') => format!("{:02}", self.month),
                Some('d') => format!("{:02}", self.day),
                Some('e') => format!("{:2}", self.day),
                Some('B') => month.to_owned(),
                Some('b' | 'h') => month[..3].to_owned(),
                Some('A') => weekday.to_owned(),
                Some('a') => weekday[..3].to_owned(),
                Some('F') => String::from(self),
                Some('H' | 'M' | 'S') => "00".to_owned(),
                Some('%') => "%".to_owned(),
                other => {
                    let asked = other.map(String::from).unwrap_or_default();
                    let reason = format!("`strftime_now` knows a day and no `%{asked}`");
                    return Err(Error::new(ErrorKind::InvalidOperation, reason));
                }
            });
        }
        Ok(text)
    }

    /// 0 is Sunday (Sakamoto's method).
    fn weekday(self) -> usize {
        const SHIFTS: [usize; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let month = usize::from(self.month);
        let year = usize::from(self.year) - usize::from(month < 3);
        (year + year / 4 - year / 100 + year / 400 + SHIFTS[month - 1] + usize::from(self.day)) % 7
    }

    fn days_in_month(year: u16, month: u8) -> u8 {
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }
}

impl TryFrom<String> for Date {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let date = || {
            let [year, month, day] = text.split('-').collect::<Vec<_>>()[..] else { return None };
            let lengths = [year.len(), month.len(), day.len()] == [4, 2, 2];
            let date = Self { year: year.parse().ok()?, month: month.parse().ok()?, day: day.parse().ok()? };
            let real = date.year > 0
                && (1..=12).contains(&date.month)
                && (1..=Self::days_in_month(date.year, date.month)).contains(&date.day);
            (lengths && real).then_some(date)
        };
        date().ok_or_else(|| format!("`{text}` is no day; expected one like `2024-07-26`"))
    }
}

impl From<Date> for String {
    fn from(date: Date) -> Self {
        format!("{:04}-{:02}-{:02}", date.year, date.month, date.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> Result<Date, String> {
        Date::try_from(text.to_owned())
    }

    #[test]
    fn a_day_is_written_as_strftime_does() {
        let day = date("2024-07-06").unwrap();
        let format = "%d %b %Y|%Y-%m-%d|%A %e %B %y|%a %H:%M:%S %F %%";
        assert_eq!(day.format(format).unwrap(), "06 Jul 2024|2024-07-06|Saturday  6 July 24|Sat 00:00:00 2024-07-06 %");
        assert_eq!(date("2000-02-29").unwrap().format("%A").unwrap(), "Tuesday");
        assert!(day.format("%Z").unwrap_err().to_string().contains("no `%Z`"));
        assert!(day.format("%").is_err());
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for text in ["", "2024-7-6", "2023-02-29", "1900-02-29", "2024-00-01", "2024-13-01", "0000-01-01", "2024-04-31"]
        {
            assert_eq!(date(text).unwrap_err(), format!("`{text}` is no day; expected one like `2024-07-26`"));
        }
        assert_eq!(String::from(date("0009-01-02").unwrap()), "0009-01-02");
    }
}
