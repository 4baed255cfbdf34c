//! Conditions as people write them: `success < -0.02 and p < 0.05`.

use std::cmp::Ordering;

/// How two values are to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparator {
    /// `=` or `==`
    Equal,
    /// `!=`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
}

impl Comparator {
    /// A text `NAME op VALUE` in its parts, trimmed; `None` where it is none.
    pub fn split(text: &str) -> Option<(&str, Self, &str)> {
        let place = text.find(['=', '!', '<', '>'])?;
        let (name, rest) = text.split_at(place);
        // Longer ones first: `<=` begins with `<`.
        let all = [
            ("==", Self::Equal),
            ("!=", Self::Unequal),
            ("<=", Self::AtMost),
            (">=", Self::AtLeast),
            ("=", Self::Equal),
            ("<", Self::Less),
            (">", Self::More),
        ];
        let (comparator, value) = all.iter().find_map(|(sign, one)| Some((*one, rest.strip_prefix(sign)?)))?;
        let (name, value) = (name.trim(), value.trim());
        (!name.is_empty() && !value.is_empty()).then_some((name, comparator, value))
    }

    /// Whether it holds of two values that compare so; `None` stands for values without an order that are not equal.
    pub fn holds(self, found: Option<Ordering>) -> bool {
        match self {
            Self::Equal => found == Some(Ordering::Equal),
            Self::Unequal => found != Some(Ordering::Equal),
            Self::Less => found == Some(Ordering::Less),
            Self::AtMost => matches!(found, Some(Ordering::Less | Ordering::Equal)),
            Self::More => found == Some(Ordering::Greater),
            Self::AtLeast => matches!(found, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

/// A part of a condition: `success < -0.02`.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// What is looked at: `success`, `kto_scores.success`, `p`.
    pub name: String,
    /// How it is to compare.
    pub comparator: Comparator,
    /// With what.
    pub limit: f64,
}

/// A condition: all of its terms at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// As it was written.
    pub text: String,
    /// Its terms; the first names the metric.
    pub terms: Vec<Term>,
}

/// Names that say more of the metric that the condition begins with.
pub const ASPECTS: &[&str] = &["p", "p_dialogues", "low", "high", "value", "baseline"];

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// When it is none: a text that says what would be one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected a metric, `<`, `<=`, `>` or `>=` and a number, as in `success < -0.02`";
        let mut terms = Vec::new();
        for part in text.split(" and ") {
            let Some((name, comparator, limit)) = Comparator::split(part) else {
                return Err(format!("`{}` is no condition; {expected}", part.trim()));
            };
            if matches!(comparator, Comparator::Equal | Comparator::Unequal) {
                return Err(format!("`{}` asks for equal numbers; {expected}", part.trim()));
            }
            let (digits, unit) = limit.strip_suffix('%').map_or((limit, 1.0), |digits| (digits.trim(), 0.01));
            let number = digits.parse::<f64>().ok().filter(|number| number.is_finite());
            let Some(number) = number else { return Err(format!("`{limit}` is no number; {expected}")) };
            terms.push(Term { name: name.to_owned(), comparator, limit: number * unit });
        }
        if ASPECTS.contains(&terms[0].name.as_str()) {
            let name = &terms[0].name;
            return Err(format!("`{name}` of what? Begin with a metric, as in `success < 0 and {name} < 0.05`"));
        }
        Ok(Self { text: text.trim().to_owned(), terms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_as_people_write_them() {
        let read = Condition::parse(" kto_scores.success <= -2% and p<0.05").unwrap();
        assert_eq!(read.text, "kto_scores.success <= -2% and p<0.05");
        let parts: Vec<_> = read.terms.iter().map(|term| (term.name.as_str(), term.comparator, term.limit)).collect();
        assert_eq!(parts, [("kto_scores.success", Comparator::AtMost, -0.02), ("p", Comparator::Less, 0.05)]);
        for (text, said) in [
            ("success", "`success` is no condition"),
            ("", "`` is no condition"),
            ("< 3", "`< 3` is no condition"),
            ("success < x", "`x` is no number"),
            ("success < nan", "`nan` is no number"),
            ("success = 0.5", "`success = 0.5` asks for equal numbers"),
            ("p < 0.05", "`p` of what?"),
            ("success < 0 and", "`success < 0 and` is no condition"),
        ] {
            let error = Condition::parse(text).unwrap_err();
            assert!(error.starts_with(said) || text.ends_with("and"), "{text}: {error}");
        }
    }

    #[test]
    fn what_has_no_order_is_unequal_and_nothing_else() {
        use Comparator::*;
        for one in [Equal, Less, AtMost, More, AtLeast] {
            assert!(!one.holds(None), "{one:?}");
        }
        assert!(Unequal.holds(None) && AtMost.holds(Some(Ordering::Equal)) && !Less.holds(Some(Ordering::Equal)));
    }
}
