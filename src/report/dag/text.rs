//! How wide text is where nobody can measure it, and what of it fits.

use crate::engine::graph::base;

/// The width of a text in a sans-serif face of a size, rather too much than too little.
pub fn width(text: &str, size: f64) -> f64 {
    text.chars().map(advance).sum::<f64>() * size
}

/// The advance of a character by its em, a little more than that of Helvetica and its relatives.
fn advance(one: char) -> f64 {
    match one {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' => 0.31,
        'f' | 't' | 'r' | 'I' | '(' | ')' | '[' | ']' | '{' | '}' | '/' | '\\' | '-' | ' ' | '"' => 0.4,
        'm' | 'w' | 'M' | 'W' | '%' | '@' | '…' => 0.96,
        'A'..='Z' | '=' | '+' | '<' | '>' | '~' => 0.72,
        one if one.is_ascii() => 0.6,
        // Letters of other alphabets are about as wide as capitals, ideographs fill their square.
        '\u{80}'..='\u{10ff}' => 0.72,
        _ => 1.05,
    }
}

/// As much of a text as fits, with an ellipsis where something is missing.
pub fn shortened(text: &str, size: f64, room: f64) -> String {
    if width(text, size) <= room {
        return text.to_owned();
    }
    let mut left = room - width("…", size);
    let fits = |one: &char| {
        left -= advance(*one) * size;
        left >= 0.0
    };
    let mut short: String = text.chars().take_while(fits).collect();
    short.push('…');
    short
}

/// A stage's name and the values that tell it from its siblings: `train` and `lr=1e-4, seed=2` of `train[lr=1e-4,seed=2]`.
pub fn parts(name: &str) -> (&str, Option<String>) {
    let base = base(name);
    let values = name[base.len()..].strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match values {
        Some(values) if !base.is_empty() => (base, Some(values.replace(',', ", "))),
        _ => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut() {
        assert_eq!(shortened("harvest", 13.0, 100.0), "harvest");
        let short = shortened(&"harvest".repeat(9), 13.0, 100.0);
        assert!(short.ends_with('…') && short.len() > 8 && width(&short, 13.0) <= 100.0, "{short}");
        assert_eq!(shortened("ü", 13.0, 1.0), "…");
    }

    #[test]
    fn instances_of_a_matrix_have_two_lines() {
        assert_eq!(parts("train[lr=1,seed=2]"), ("train", Some("lr=1, seed=2".to_owned())));
        assert_eq!(parts("train"), ("train", None));
        assert_eq!(parts("[x"), ("[x", None));
    }
}
