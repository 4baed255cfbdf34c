//! A small invented town: databases in MultiWOZ's layout, drawn from a seed.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use serde_json::Value;

use super::lexicon::DAYS;
use super::seed::generator;
use super::world::Record;

/// How many records each domain has, trains excepted: those follow from lines, days and departures.
const RESTAURANTS: usize = 40;
const HOTELS: usize = 24;
const ATTRACTIONS: usize = 30;
/// Trains a day on each line and in each direction.
const DEPARTURES: usize = 3;

/// Cuisines of the town.
pub const FOODS: [&str; 8] = ["italian", "indian", "chinese", "thai", "french", "spanish", "korean", "turkish"];
/// Kinds of attractions of the town.
pub const SIGHTS: [&str; 6] = ["museum", "college", "park", "theatre", "cinema", "nightclub"];
/// Parts of town.
pub const AREAS: [&str; 5] = ["centre", "north", "south", "east", "west"];
/// Price ranges.
pub const PRICES: [&str; 3] = ["cheap", "moderate", "expensive"];
/// The town, which every train leaves or reaches.
pub const TOWN: &str = "briarton";
/// The other ends of the lines.
pub const STATIONS: [&str; 5] = ["harrowby", "penfield", "oakham", "stanwick", "milbury"];

const FIRST: [[&str; 10]; 3] = [
    ["golden", "silver", "lucky", "hungry", "happy", "little", "royal", "smoky", "sunny", "rusty"],
    ["birch", "maple", "cedar", "willow", "aspen", "hazel", "rowan", "linden", "juniper", "alder"],
    ["amber", "ivory", "cobalt", "crimson", "violet", "scarlet", "marble", "crystal", "velvet", "bronze"],
];
const SECOND: [[&str; 8]; 3] = [
    ["lantern", "kettle", "fork", "oven", "spoon", "barrel", "pepper", "olive"],
    ["lodge", "court", "inn", "manor", "villa", "cottage", "rest", "mews"],
    ["gallery", "tower", "arch", "stage", "pavilion", "dome", "yard", "point"],
];
const STREETS: [&str; 8] = [
    "mill road",
    "bridge street",
    "station road",
    "church lane",
    "king street",
    "hill street",
    "market row",
    "river lane",
];

/// The databases of a town, domain by domain, as `convert::world_items` takes them.
pub fn databases(seed: u64) -> Vec<(String, Vec<Record>)> {
    let places = |domain: &str, kind: usize, count: usize, make: fn(&mut ChaCha8Rng) -> Vec<(&'static str, String)>| {
        let mut rng = generator(seed, &["town", domain]);
        let records = names(kind, count, &mut rng).into_iter().map(|name| {
            let mut fields = vec![("name", name)];
            fields.extend(make(&mut rng));
            fields.push(("phone", format!("{}", rng.random_range(200_000..1_000_000))));
            fields.push(("address", format!("{} {}", rng.random_range(1..90), pick(&mut rng, &STREETS))));
            record(fields)
        });
        (domain.to_owned(), records.collect())
    };
    vec![
        places("restaurant", 0, RESTAURANTS, restaurant),
        places("hotel", 1, HOTELS, hotel),
        places("attraction", 2, ATTRACTIONS, attraction),
        ("train".to_owned(), trains(&mut generator(seed, &["town", "train"]))),
    ]
}

fn record(fields: Vec<(&'static str, String)>) -> Record {
    fields.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
}

/// One of several words.
pub fn pick<'a>(rng: &mut ChaCha8Rng, words: &[&'a str]) -> &'a str {
    words[rng.random_range(0..words.len())]
}

fn names(kind: usize, count: usize, rng: &mut ChaCha8Rng) -> Vec<String> {
    let mut names: Vec<String> = FIRST[kind]
        .iter()
        .flat_map(|first| SECOND[kind].iter().map(move |second| format!("{first} {second}")))
        .collect();
    names.shuffle(rng);
    names.truncate(count);
    names
}

fn restaurant(rng: &mut ChaCha8Rng) -> Vec<(&'static str, String)> {
    vec![
        ("area", pick(rng, &AREAS).to_owned()),
        ("food", pick(rng, &FOODS).to_owned()),
        ("pricerange", pick(rng, &PRICES).to_owned()),
    ]
}

fn hotel(rng: &mut ChaCha8Rng) -> Vec<(&'static str, String)> {
    let yes = |rng: &mut ChaCha8Rng| if rng.random_bool(0.7) { "yes" } else { "no" }.to_owned();
    vec![
        ("area", pick(rng, &AREAS).to_owned()),
        ("pricerange", pick(rng, &PRICES).to_owned()),
        ("type", pick(rng, &["hotel", "guesthouse"]).to_owned()),
        ("stars", rng.random_range(1..=4).to_string()),
        ("internet", yes(rng)),
        ("parking", yes(rng)),
    ]
}

fn attraction(rng: &mut ChaCha8Rng) -> Vec<(&'static str, String)> {
    vec![("area", pick(rng, &AREAS).to_owned()), ("type", pick(rng, &SIGHTS).to_owned())]
}

fn trains(rng: &mut ChaCha8Rng) -> Vec<Record> {
    let mut numbers: Vec<u32> = (1000..10_000).collect();
    numbers.shuffle(rng);
    let lines = STATIONS.iter().flat_map(|station| [(*station, TOWN), (TOWN, *station)]);
    let mut records = Vec::new();
    for (departure, destination) in lines {
        let duration = 5 * rng.random_range(5..18);
        for day in DAYS {
            // One train in each third of the day, on the quarter hour.
            for part in 0..DEPARTURES {
                let leave = 6 * 60 + part as u32 * 300 + 15 * rng.random_range(0..18);
                records.push(record(vec![
                    ("trainID", format!("TR{}", numbers[records.len()])),
                    ("departure", departure.to_owned()),
                    ("destination", destination.to_owned()),
                    ("day", (*day).to_owned()),
                    ("leaveAt", time(leave)),
                    ("arriveBy", time(leave + duration)),
                    ("duration", format!("{duration} minutes")),
                    ("price", format!("{} pounds", 4 + duration / 5)),
                ]));
            }
        }
    }
    records
}

/// Minutes since midnight as `HH:MM`.
pub fn time(minutes: u32) -> String {
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_one_town() {
        assert_eq!(databases(3), databases(3));
        assert_ne!(databases(3), databases(4));
        let trains = &databases(3)[3].1;
        assert_eq!(trains.len(), 2 * STATIONS.len() * DAYS.len() * DEPARTURES);
        assert!(trains.iter().all(|train| train["arriveBy"].as_str() > train["leaveAt"].as_str()));
    }
}
