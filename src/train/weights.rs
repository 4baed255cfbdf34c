//! The weights of desirable and undesirable rows in KTO: given, or from how many rows there are of each kind.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// The most that desirable rows together should weigh beside the undesirable ones together; the least is 1. TRL advises to keep
/// within (training arithmetic, section 3), and the paper's weights, 1 and 2.71 on 3,283 and 911 rows, are at this end.
pub const HIGHEST_RATIO: f64 = 4.0 / 3.0;

/// The weight of one kind of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Weight {
    /// Both kinds shall weigh alike.
    #[default]
    Auto,
    /// This much for each row.
    Given(f64),
}

/// The weights that are used, and what they come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    /// Of each desirable row.
    pub desirable: f64,
    /// Of each undesirable row.
    pub undesirable: f64,
    /// What all desirable rows weigh over what all undesirable ones weigh; `None` where the latter weigh nothing.
    pub ratio: Option<f64>,
}

impl Weights {
    /// The weights for so many rows of each kind.
    ///
    /// One `auto` weight balances the other one, which is given. Of two the kind with more rows weighs 1 a row, and the other
    /// as much more as there are fewer of them. Where a kind has no row, nothing can be balanced, and `auto` is 1.
    pub fn of(desirable: Weight, undesirable: Weight, rows: (usize, usize)) -> Self {
        use Weight::{Auto, Given};
        let (d, u) = (rows.0 as f64, rows.1 as f64);
        let one_sided = rows.0 == 0 || rows.1 == 0;
        let (desirable, undesirable) = match (desirable, undesirable) {
            (Given(desirable), Given(undesirable)) => (desirable, undesirable),
            (Given(desirable), Auto) if one_sided => (desirable, 1.0),
            (Auto, Given(undesirable)) if one_sided => (1.0, undesirable),
            (Auto, Auto) if one_sided => (1.0, 1.0),
            (Given(desirable), Auto) => (desirable, desirable * d / u),
            (Auto, Given(undesirable)) => (undesirable * u / d, undesirable),
            (Auto, Auto) if d < u => (u / d, 1.0),
            (Auto, Auto) => (1.0, d / u),
        };
        let heavy = undesirable * u;
        Self { desirable, undesirable, ratio: (heavy > 0.0).then(|| desirable * d / heavy) }
    }
}

impl Serialize for Weight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Given(weight) => serializer.serialize_f64(*weight),
        }
    }
}

impl<'de> Deserialize<'de> for Weight {
    /// By hand, so that an error keeps its place.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Weight;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number or `auto`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Weight, E> {
                match text {
                    "auto" => Ok(Weight::Auto),
                    other => Err(E::custom(format_args!("expected a number or `auto`, found `{other}`"))),
                }
            }

            fn visit_f64<E: de::Error>(self, weight: f64) -> Result<Weight, E> {
                Ok(Weight::Given(weight))
            }

            fn visit_i64<E: de::Error>(self, weight: i64) -> Result<Weight, E> {
                Ok(Weight::Given(weight as f64))
            }

            fn visit_u64<E: de::Error>(self, weight: u64) -> Result<Weight, E> {
                Ok(Weight::Given(weight as f64))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Weight {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Weight".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A weight of each row, or `auto`: both kinds of rows together weigh alike.",
            "anyOf": [{"type": "number", "minimum": 0}, {"const": "auto"}],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_weight_balances_the_other() {
        let weights = |desirable, undesirable| {
            let Weights { desirable, undesirable, ratio } = Weights::of(desirable, undesirable, (30, 10));
            (desirable, undesirable, ratio.unwrap())
        };
        assert_eq!(weights(Weight::Auto, Weight::Auto), (1.0, 3.0, 1.0));
        assert_eq!(weights(Weight::Given(2.0), Weight::Auto), (2.0, 6.0, 1.0));
        assert_eq!(weights(Weight::Auto, Weight::Given(6.0)), (2.0, 6.0, 1.0));
        assert_eq!(weights(Weight::Given(1.0), Weight::Given(1.0)), (1.0, 1.0, 3.0));
        let paper = Weights::of(Weight::Given(1.0), Weight::Given(2.71), (3283, 911));
        assert!((1.0..=HIGHEST_RATIO).contains(&paper.ratio.unwrap()), "{paper:?}");
    }

    #[test]
    fn a_kind_without_rows_balances_nothing() {
        for rows in [(0, 5), (5, 0), (0, 0)] {
            let weights = Weights::of(Weight::Auto, Weight::Auto, rows);
            assert_eq!((weights.desirable, weights.undesirable), (1.0, 1.0));
            assert_eq!(Weights::of(Weight::Auto, Weight::Given(2.0), rows).desirable, 1.0);
            assert_eq!(Weights::of(Weight::Given(2.0), Weight::Auto, rows).undesirable, 1.0);
        }
        assert_eq!(Weights::of(Weight::Auto, Weight::Auto, (5, 0)).ratio, None);
        assert_eq!(Weights::of(Weight::Auto, Weight::Auto, (0, 5)).ratio, Some(0.0));
    }

    #[test]
    fn a_weight_is_a_number_or_auto() {
        let read = |text: &str| serde_json::from_str::<Weight>(text);
        assert_eq!(read("\"auto\"").unwrap(), Weight::Auto);
        assert_eq!(read("2").unwrap(), Weight::Given(2.0));
        assert_eq!(read("-1").unwrap(), Weight::Given(-1.0));
        assert!(read("\"auta\"").unwrap_err().to_string().starts_with("expected a number or `auto`, found `auta`"));
        assert!(read("null").is_err());
        for weight in [Weight::Auto, Weight::Given(2.71)] {
            assert_eq!(read(&serde_json::to_string(&weight).unwrap()).unwrap(), weight);
        }
    }

    proptest! {
        #[test]
        fn weights_from_counts_balance(d in 1_usize..5000, u in 1_usize..5000) {
            let weights = Weights::of(Weight::Auto, Weight::Auto, (d, u));
            prop_assert!((weights.ratio.unwrap() - 1.0).abs() < 1e-9);
            prop_assert!(weights.desirable >= 1.0 && weights.undesirable >= 1.0);
            prop_assert!(weights.desirable == 1.0 || weights.undesirable == 1.0);
        }
    }
}
