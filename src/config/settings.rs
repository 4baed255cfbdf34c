//! Which keys `thresh.toml` knows, and what is wrong with one that holds others.

use toml::{Table, Value};

use super::diagnostic::nearest;

const SETTINGS: &[&str] = &["store", "jobs", "pools", "device", "endpoints", "profiles"];

const ENDPOINT: &[&str] = &[
    "url",
    "model",
    "key_env",
    "in_flight",
    "requests_per_minute",
    "tokens_per_minute",
    "connect_timeout",
    "timeout",
    "retries",
    "price_per_million",
    "budget",
    "max_tokens_field",
    "omit",
    "extra",
];

const PRICES: &[&str] = &["prompt", "completion", "cached"];

/// Something that is wrong with a `thresh.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// What is wrong.
    pub said: String,
    /// What to do.
    pub advice: String,
}

impl Mistake {
    pub(super) fn new(said: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { said: said.into(), advice: advice.into() }
    }
}

/// The settings without keys that are none, and a word on each of those; nothing of a text that is no TOML.
pub(super) fn cleaned(text: &str) -> (Table, Vec<Mistake>) {
    let mut mistakes = Vec::new();
    let mut table: Table = toml::from_str(text).unwrap_or_else(|error: toml::de::Error| {
        mistakes.push(Mistake::new(format!("this is no TOML: {}", error.to_string().trim_end()), "put it right"));
        Table::new()
    });
    settings(&mut table, "", &mut mistakes);
    (table, mistakes)
}

fn settings(table: &mut Table, path: &str, mistakes: &mut Vec<Mistake>) {
    known(table, path, SETTINGS, mistakes);
    for (name, endpoint) in tables(table.get_mut("endpoints")) {
        let path = format!("{path}endpoints.{name}.");
        known(endpoint, &path, ENDPOINT, mistakes);
        if let Some(Value::Table(prices)) = endpoint.get_mut("price_per_million") {
            known(prices, &format!("{path}price_per_million."), PRICES, mistakes);
        }
    }
    for (name, profile) in tables(table.get_mut("profiles")) {
        settings(profile, &format!("{path}profiles.{name}."), mistakes);
    }
}

/// The tables in a table.
fn tables(value: Option<&mut Value>) -> impl Iterator<Item = (&String, &mut Table)> {
    let entries = value.and_then(Value::as_table_mut).into_iter().flat_map(|table| table.iter_mut());
    entries.filter_map(|(name, value)| Some((name, value.as_table_mut()?)))
}

/// Takes the keys out that are not known.
fn known(table: &mut Table, path: &str, known: &[&str], mistakes: &mut Vec<Mistake>) {
    table.retain(|key, _| {
        let fine = known.contains(&key);
        if !fine {
            let advice = match nearest(key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    format!("known are {}", known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", "))
                }
            };
            mistakes.push(Mistake::new(format!("unknown key `{path}{key}`"), advice));
        }
        fine
    });
}

#[cfg(test)]
mod tests {
    use super::super::profile::{EndpointSettings, PriceSettings, Settings};
    use super::*;

    fn expected<T: serde::de::DeserializeOwned>(known: &[&str]) {
        let list = known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let Err(error) = toml::from_str::<T>("no_such_key = 1") else { panic!("it is known") };
        assert!(error.message().ends_with(&format!("expected one of {list}")), "{error}");
    }

    #[test]
    fn the_known_keys_are_those_that_are_read() {
        expected::<Settings>(SETTINGS);
        expected::<EndpointSettings>(ENDPOINT);
        expected::<PriceSettings>(PRICES);
    }

    #[test]
    fn every_unknown_key_is_told_and_left_out() {
        let text = "jbos = 3\nstore = \"s\"\n[endpoints.e]\nurl = \"u\"\nkey = 1\nprice_per_million = {promt = 1}\n[profiles.big]\ndevcie = 1\n";
        let (table, mistakes) = cleaned(text);
        let said: Vec<&str> = mistakes.iter().map(|one| one.said.as_str()).collect();
        let paths = ["jbos", "endpoints.e.key", "endpoints.e.price_per_million.promt", "profiles.big.devcie"];
        assert_eq!(said, paths.map(|path| format!("unknown key `{path}`")));
        assert_eq!(mistakes[0].advice, "did you mean `jobs`?");
        assert!(table.contains_key("store") && !table.contains_key("jbos"));
        assert!(cleaned("= 3").1[0].said.starts_with("this is no TOML"));
    }
}
