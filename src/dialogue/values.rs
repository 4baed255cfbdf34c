//! Comparing what a customer wants with what an agent asks and what a record says (reference, sections 2.3 to 2.5).

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::rules::{Times, WrongRow};
use super::spelling::{APOSTROPHES, clock, spell};
use super::task::Slot;
use crate::compat::Rules;

/// The texts that the reference takes for "anything", in exactly this spelling.
const REFERENCE_EMPTY: [&str; 6] = ["", "dont care", "not mentioned", "don't care", "dontcare", "do n't care"];

/// The folded texts that mean "anything" (quirk Q8).
const FOLDED_EMPTY: [&str; 12] = [
    "",
    "dont care",
    "dontcare",
    "do nt care",
    "not mentioned",
    "any",
    "anything",
    "none",
    "null",
    "no preference",
    "doesnt matter",
    "not specified",
];

/// Whether a value constrains nothing: an empty text, "dont care" and the like (quirk Q8).
pub fn is_empty(text: &str, rules: &Rules) -> bool {
    if rules.ignores_indifference() {
        if is_plain(text) { FOLDED_EMPTY.contains(&text) } else { FOLDED_EMPTY.contains(&fold(text).as_str()) }
    } else {
        REFERENCE_EMPTY.contains(&text)
    }
}

/// Whether a text is as any rules write it, times excepted: small ASCII letters and other signs, single blanks, no apostrophes.
fn is_plain(text: &str) -> bool {
    let mut before = b' ';
    for byte in text.bytes() {
        if !byte.is_ascii_graphic() && (byte != b' ' || before == b' ')
            || byte.is_ascii_uppercase()
            || matches!(byte, b'\'' | b'`')
        {
            return false;
        }
        before = byte;
    }
    before != b' ' || text.is_empty()
}

/// A text without case, apostrophes, outer blanks and repeated blanks.
fn fold(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let plain = text.to_lowercase().replace(APOSTROPHES, "");
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// As the reference's server treats a text argument: lower case, no apostrophes.
pub fn lower(text: &str) -> Cow<'_, str> {
    if is_plain(text) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.to_lowercase().replace('\'', ""))
}

/// A scalar as text (quirk Q9): numbers in their shortest form, truth values as the `yes` and `no` of the records. `None`
/// for null, lists and objects.
pub fn scalar_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Bool(yes) => Some(Cow::Borrowed(if *yes { "yes" } else { "no" })),
        Value::Number(number) => Some(Cow::Owned(match number.as_f64() {
            Some(float) if number.is_f64() => float.to_string(),
            _ => number.to_string(),
        })),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A value made comparable.
#[derive(Clone, Debug, PartialEq)]
enum Comparable {
    Text(String),
    Other(Value),
}

/// A set of wanted values, ready to compare: what means "anything" is left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Constraints(Vec<(String, Comparable)>);

impl Constraints {
    /// The constraints of a goal.
    pub fn of_slots(slots: &[Slot], rules: &Rules) -> Self {
        Self(slots.iter().filter_map(|slot| Self::text(&slot.name, &slot.value, rules)).collect())
    }

    /// The constraints of a call's arguments.
    pub fn of_arguments(arguments: &Map<String, Value>, rules: &Rules) -> Self {
        Self(arguments.iter().filter_map(|(name, value)| Self::value(name, value, rules)).collect())
    }

    /// The constraints of a call's arguments as the server takes them: its texts in lower case and without apostrophes.
    pub fn of_call(arguments: &Map<String, Value>, rules: &Rules) -> Self {
        let constraint = |(name, value): (&String, &Value)| match value {
            Value::String(text) => Self::text(name, &lower(text), rules),
            value => Self::value(name, value, rules),
        };
        Self(arguments.iter().filter_map(constraint).collect())
    }

    /// The wanted texts by name; what cannot be read as a text is left out.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, value)| match value {
            Comparable::Text(text) => Some((name.as_str(), text.as_str())),
            Comparable::Other(_) => None,
        })
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every one of these constraints stands among the others too: the reference's `subset`.
    pub fn within(&self, others: &Self) -> bool {
        self.0.iter().all(|wanted| others.0.contains(wanted))
    }

    /// Whether a record is what is wanted: by equality of every field, or, where the rules judge by constraint, with times
    /// as bounds (quirk Q10).
    pub fn hold_for(&self, record: &Map<String, Value>, rules: &Rules) -> bool {
        self.0.iter().all(|(name, wanted)| {
            let Some(value) = record.get(name) else { return false };
            match (bound(name), wanted, rules.wrong_row()) {
                (Some(bound), Comparable::Text(limit), WrongRow::FirstByConstraint) => {
                    scalar_text(value).is_some_and(|text| bound.allows(&text, limit, rules))
                }
                _ => Self::value(name, value, rules).is_some_and(|(_, value)| value == *wanted),
            }
        })
    }

    fn value(name: &str, value: &Value, rules: &Rules) -> Option<(String, Comparable)> {
        match value {
            Value::String(text) => Self::text(name, text, rules),
            Value::Null if rules.ignores_indifference() => None,
            value => match readable(value, rules) {
                Some(text) => Self::text(name, &text, rules),
                None => Some((name.to_owned(), Comparable::Other(value.clone()))),
            },
        }
    }

    fn text(name: &str, text: &str, rules: &Rules) -> Option<(String, Comparable)> {
        (!is_empty(text, rules)).then(|| {
            let text = spell(name, &lower(text), rules).into_owned();
            (name.to_owned(), Comparable::Text(text))
        })
    }
}

/// A value as the rules read it: a text as it is, other scalars as text where the rules say so (quirk Q9).
pub fn readable<'v>(value: &'v Value, rules: &Rules) -> Option<Cow<'v, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        value if rules.reads_scalars() => scalar_text(value),
        _ => None,
    }
}

/// A parameter that bounds a time instead of naming it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `leaveAt`.
    After,
    /// `arriveBy`.
    Before,
}

/// How a parameter bounds, if it does.
pub fn bound(name: &str) -> Option<Bound> {
    match name {
        "leaveAt" => Some(Bound::After),
        "arriveBy" => Some(Bound::Before),
        _ => None,
    }
}

impl Bound {
    /// Whether a time of day keeps to a limit; what is no time keeps to none.
    pub(super) fn keeps(self, time: Option<u16>, limit: Option<u16>) -> bool {
        match (time, limit) {
            (Some(time), Some(limit)) if self == Self::After => time >= limit,
            (Some(time), Some(limit)) => time <= limit,
            _ => false,
        }
    }

    /// Whether a record's time keeps to the limit (quirk Q7). On the clock, what is no time keeps to none.
    pub fn allows(self, time: &str, limit: &str, rules: &Rules) -> bool {
        match (rules.times(), self) {
            (Times::Text, Self::After) => time > limit,
            (Times::Text, Self::Before) => time < limit,
            (Times::Clock, _) => self.keeps(clock(time), clock(limit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compat::Compat;
    use proptest::prelude::*;
    use serde_json::json;

    fn constraints(value: Value, compat: Compat) -> Constraints {
        Constraints::of_arguments(value.as_object().unwrap(), &Rules::of(compat))
    }

    #[test]
    fn the_reference_keeps_numbers_apart_from_texts() {
        for (compat, equal) in [(Compat::RepoHead, false), (Compat::Fixed, true)] {
            let goal = constraints(json!({"people": "4", "name": "christ's college", "area": ""}), compat);
            let call = constraints(json!({"people": 4, "name": "Christs College", "day": null}), compat);
            assert_eq!(goal.within(&call), equal, "{compat:?}");
            assert_eq!(call.within(&goal), equal, "{compat:?}");
        }
    }

    #[test]
    fn times_bound_as_the_rules_read_them() {
        let fixed = Rules::of(Compat::Fixed);
        assert!(Bound::After.allows("10:00", "9:45", &fixed) && Bound::Before.allows("10:00", "10:00", &fixed));
        let head = Rules::of(Compat::RepoHead);
        assert!(!Bound::After.allows("10:00", "9:45", &head) && !Bound::Before.allows("10:00", "10:00", &head));
    }

    proptest! {
        #[test]
        fn a_plain_text_is_as_any_rules_write_it(text in "[a-cA-C' \\t:1é.]{0,8}") {
            if is_plain(&text) {
                let long = text.to_lowercase().replace(APOSTROPHES, "");
                prop_assert_eq!(&long, &text);
                prop_assert_eq!(long.split_whitespace().collect::<Vec<_>>().join(" "), text);
            }
        }

        #[test]
        fn folding_twice_changes_nothing(text in ".*") {
            let once = fold(&text);
            prop_assert_eq!(fold(&once), once);
        }

        #[test]
        fn a_set_is_within_itself_and_what_contains_it(
            small in proptest::collection::btree_map("[a-c]", "[a-b']{0,2}", 0..3),
            more in proptest::collection::btree_map("[d-f]", "[a-b]{0,2}", 0..3),
        ) {
            for compat in [Compat::RepoHead, Compat::Fixed] {
                let inner = constraints(json!(small), compat);
                let mut large = small.clone();
                large.extend(more.clone());
                let outer = constraints(json!(large), compat);
                prop_assert!(inner.within(&inner) && inner.within(&outer));
                prop_assert_eq!(outer.within(&inner), inner == outer);
            }
        }
    }
}
