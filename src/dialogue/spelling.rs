//! What people write differently and mean the same: capitals, apostrophes, blanks, times and numbers (quirks Q5 to Q7, Q9).
//!
//! Only spellings are unified, never meanings: what MultiWOZ's own records tell apart stays apart.

use std::borrow::Cow;

use super::rules::Times;
use crate::compat::Rules;

/// Apostrophes and what is typed for them.
pub(super) const APOSTROPHES: [char; 6] = ['\'', '\u{2019}', '\u{2018}', '\u{2bc}', '\u{b4}', '`'];

/// Choices that stand for others, blanks and hyphens gone. The attractions' records misspell one of theirs.
const CHOICES: [(&str, &str); 8] = [
    ("center", "centre"),
    ("citycentre", "centre"),
    ("citycenter", "centre"),
    ("towncentre", "centre"),
    ("towncenter", "centre"),
    ("theater", "theatre"),
    ("mutliplesports", "multiplesports"),
    ("moderately", "moderate"),
];

/// What kind of value a parameter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A time of day.
    Time,
    /// How many.
    Number,
    /// Yes or no.
    Truth,
    /// One of few words: an area, a kind of place.
    Choice,
    /// Any other text, a name above all.
    Name,
}

fn kind(name: &str) -> Kind {
    match name {
        "leaveAt" | "arriveBy" | "time" => Kind::Time,
        "people" | "stay" | "stars" => Kind::Number,
        "parking" | "internet" => Kind::Truth,
        "area" | "pricerange" | "type" => Kind::Choice,
        _ => Kind::Name,
    }
}

/// A text as records and what is searched for are compared: as it stands, but for what the rules ignore.
pub fn spell<'t>(name: &str, text: &'t str, rules: &Rules) -> Cow<'t, str> {
    let mut text = Cow::Borrowed(text);
    if rules.ignores_apostrophes() && text.contains(APOSTROPHES) {
        text = Cow::Owned(text.replace(APOSTROPHES, ""));
    }
    let kind = kind(name);
    if rules.ignores_spelling() {
        text = unified(kind, text);
    }
    match kind {
        Kind::Time if rules.times() == Times::Clock => match clock(&text) {
            Some(time) => Cow::Owned(format!("{:02}:{:02}", time / 60, time % 60)),
            None => text,
        },
        Kind::Number | Kind::Truth if rules.reads_scalars() => match scalar(kind, &text) {
            Some(plain) => Cow::Owned(plain),
            None => text,
        },
        _ => text,
    }
}

/// A text without what is mere spelling (quirk Q6). Blanks and hyphens do not count in words, since `guest house` and
/// `guesthouse` are one; times and numbers only lose case and superfluous blanks.
fn unified(kind: Kind, text: Cow<'_, str>) -> Cow<'_, str> {
    if !matches!(kind, Kind::Choice | Kind::Name) {
        return Cow::Owned(text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" "));
    }
    let text = if text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        text
    } else {
        Cow::Owned(joined(&text))
    };
    if kind == Kind::Choice {
        let known = CHOICES.iter().find(|(from, _)| *from == text);
        return known.map_or(text, |(_, to)| Cow::Borrowed(*to));
    }
    if !text.contains("center") && !text.contains("theater") {
        return text;
    }
    Cow::Owned(text.replace("center", "centre").replace("theater", "theatre"))
}

/// Small letters without accents, blanks, hyphens and stops.
fn joined(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars().flat_map(char::to_lowercase) {
        match letter {
            '&' => plain.push_str("and"),
            '-' | '\u{2010}'..='\u{2015}' | '.' | ',' => {}
            letter if letter.is_whitespace() => {}
            letter => plain.push(unaccented(letter)),
        }
    }
    plain
}

fn unaccented(letter: char) -> char {
    match letter {
        'à'..='å' => 'a',
        'ç' => 'c',
        'è'..='ë' => 'e',
        'ì'..='ï' => 'i',
        'ñ' => 'n',
        'ò'..='ö' => 'o',
        'ù'..='ü' => 'u',
        letter => letter,
    }
}

/// A number or a truth value as the records spell it (quirk Q9): digits, `yes` and `no`.
fn scalar(kind: Kind, text: &str) -> Option<String> {
    const NUMBERS: [&str; 13] =
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
    let text = text.trim();
    if kind == Kind::Truth {
        let truth = [("true", "yes"), ("false", "no"), ("yes", "yes"), ("no", "no")];
        return truth.iter().find(|(word, _)| text.eq_ignore_ascii_case(word)).map(|(_, plain)| (*plain).to_owned());
    }
    if let Some(number) = NUMBERS.iter().position(|word| text.eq_ignore_ascii_case(word)) {
        return Some(number.to_string());
    }
    let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !rest.bytes().all(|byte| byte == b'0') {
        return None;
    }
    let plain = whole.trim_start_matches('0');
    Some(if plain.is_empty() { "0".to_owned() } else { plain.to_owned() })
}

/// Minutes since midnight of a time of day as people write it: `9:45`, `09:45:00`, `9.45`, `0945`, `9:45 pm`, `5pm`,
/// `5 p.m.`. Hours go on after 23, for trains that arrive past midnight.
pub fn clock(text: &str) -> Option<u16> {
    let text = text.trim().to_ascii_lowercase();
    let (time, half) = half_of_day(&text);
    let mut parts: Vec<&str> = time.split([':', '.']).collect();
    if parts.len() == 1 && time.len() == 4 && time.is_ascii() {
        parts = vec![&time[..2], &time[2..]];
    }
    let digits = |part: &str| !part.is_empty() && part.len() <= 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !parts.iter().all(|part| digits(part)) || parts[1..].iter().any(|part| part.len() != 2) {
        return None;
    }
    let numbers: Vec<u16> = parts.iter().filter_map(|part| part.parse().ok()).collect();
    let (hours, minutes) = match (numbers.as_slice(), half) {
        ([hours, minutes] | [hours, minutes, 0..60], _) => (*hours, *minutes),
        ([hours], Some(_)) => (*hours, 0),
        _ => return None,
    };
    let hours = match (half, hours) {
        (None, 0..48) => hours,
        (Some(Half::Morning), 1..=12) => hours % 12,
        (Some(Half::Evening), 1..=12) => hours % 12 + 12,
        // `17:00 pm` is said twice and meant once.
        (Some(Half::Evening), 13..24) => hours,
        _ => return None,
    };
    (minutes < 60).then_some(hours * 60 + minutes)
}

/// Before or after noon.
#[derive(Clone, Copy)]
enum Half {
    Morning,
    Evening,
}

/// A time without `am` or `pm`, and which it was.
fn half_of_day(text: &str) -> (&str, Option<Half>) {
    for (ending, half) in
        [("am", Half::Morning), ("a.m.", Half::Morning), ("pm", Half::Evening), ("p.m.", Half::Evening)]
    {
        if let Some(time) = text.strip_suffix(ending) {
            return (time.trim_end(), Some(half));
        }
    }
    (text, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compat::{Compat, Quirk};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::path::Path;

    fn spell_all(name: &str, text: &str) -> String {
        spell(name, text, &Rules::of(Compat::Fixed)).into_owned()
    }

    #[test]
    fn times_are_read_on_the_clock() {
        for (text, minutes) in [
            ("9:45", 585),
            ("24:08", 1448),
            ("00:00", 0),
            ("9.45", 585),
            ("09:45:00", 585),
            ("0945", 585),
            ("9:45 AM", 585),
            ("9:45pm", 1305),
            ("5 p.m.", 1020),
            ("5pm", 1020),
            ("12:15 am", 15),
            ("12:15 pm", 735),
            ("17:00 pm", 1020),
        ] {
            assert_eq!(clock(text), Some(minutes), "{text}");
        }
        for text in [
            "",
            ":",
            "9",
            "945",
            "9:5",
            "+9:45",
            "9:60",
            "48:00",
            "012:00",
            "morning",
            "17:00 am",
            "0 pm",
            "9:45:61",
            "am",
            "9:45:00:00",
            "24 pm",
            "é9:4",
        ] {
            assert_eq!(clock(text), None, "{text}");
        }
    }

    #[test]
    fn what_means_the_same_is_spelt_the_same() {
        for (name, texts) in [
            ("name", &["Christ's College", "christ\u{2019}s  college", "Christs-College"][..]),
            ("name", &["Café Jello Gallery", "cafe jello gallery"]),
            ("name", &["Pizza Hut & Co.", "pizza hut and co"]),
            ("type", &["guest house", "Guesthouse", "guest-house"]),
            ("type", &["mutliple sports", "multiple sports"]),
            ("type", &["theater", "theatre"]),
            ("area", &["center", "centre", "city centre"]),
            ("people", &["4", "4.0", "four", "Four", " 04 "]),
            ("stars", &["0", "zero", "0.0"]),
            ("parking", &["yes", "Yes", "true"]),
            ("time", &["17:00", "17:00:00", "5 pm", "5:00 PM", "17.00", "1700"]),
            ("leaveAt", &["09:45", "9:45", "9:45 am"]),
        ] {
            let spelt: Vec<String> = texts.iter().map(|text| spell_all(name, text)).collect();
            assert!(spelt.iter().all(|one| *one == spelt[0]), "{name}: {spelt:?}");
        }
        for (name, one, other) in [
            ("people", "4", "4.5"),
            ("people", "1", "11"),
            ("time", "5:00", "17:00"),
            ("name", "ask", "ask restaurant"),
        ] {
            assert_ne!(spell_all(name, one), spell_all(name, other));
        }
    }

    #[test]
    fn what_the_records_tell_apart_stays_apart() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/multiwoz");
        for domain in ["hotel", "attraction", "train", "restaurant"] {
            let searched: Vec<&str> =
                crate::dialogue::tools::parameter_names(&format!("search_{domain}")).chain(["trainID"]).collect();
            let text = crate::fs::read_to_string(folder.join(format!("{domain}_db.json"))).unwrap();
            let records: Vec<crate::dialogue::world::Record> = serde_json::from_str(&text).unwrap();
            let mut spelt: BTreeMap<(&str, String), &str> = BTreeMap::new();
            let fields = records.iter().flatten().filter(|(name, _)| searched.contains(&name.as_str()));
            for (name, value) in fields.filter_map(|(name, value)| Some((name, value.as_str()?))) {
                let before = spelt.insert((name, spell_all(name, value)), value);
                assert!(before.is_none_or(|before| before == value), "{domain}.{name}: {before:?} and {value}");
            }
        }
    }

    fn rules() -> impl Strategy<Value = Rules> {
        let flip =
            |rules: Rules, (quirk, mended)| rules.with(quirk, if mended { Compat::Fixed } else { Compat::RepoHead });
        let quirks = [Quirk::Q5, Quirk::Q6, Quirk::Q7, Quirk::Q9];
        any::<[bool; 4]>()
            .prop_map(move |mended| quirks.into_iter().zip(mended).fold(Rules::of(Compat::RepoHead), flip))
    }

    proptest! {
        #[test]
        fn rules_that_ignore_more_take_more_for_the_same(
            name in prop_oneof!["name", "time", "people", "parking", "type", "leaveAt"],
            text in prop_oneof![".*", "[0-9]{1,2}[:.]?[0-9]{0,2}( ?[apAP][mM'])?", "[ 0]{0,2}[0-9](\\.0*)?", "[a-cé'&. -]{0,6}", "(true|No|four|ONE) ?"],
            rules in rules(),
        ) {
            let all = spell_all(&name, &text);
            prop_assert_eq!(spell_all(&name, &spell(&name, &text, &rules)), all.clone());
            prop_assert_eq!(spell_all(&name, &all), all);
        }

        #[test]
        fn every_minute_is_read_as_it_is_written(time in 0..1440u16) {
            let (hours, minutes) = (time / 60, time % 60);
            let half = if hours < 12 { "am" } else { "pm" };
            let twelve = if hours % 12 == 0 { 12 } else { hours % 12 };
            for text in [
                format!("{hours}:{minutes:02}"),
                format!("{hours:02}:{minutes:02}:00"),
                format!("{hours:02}{minutes:02}"),
                format!("{twelve}:{minutes:02} {half}"),
            ] {
                prop_assert_eq!(clock(&text), Some(time), "{}", text);
            }
        }
    }
}
