//! What a customer has said so far, as slots: how the rule agent understands its chat.

use std::collections::BTreeMap;

use regex::Regex;
use std::sync::{Arc, LazyLock};

use super::hearing::{Sentence, Waiver, asked_slots, domain_slots, sentences};
use super::lexicon::{Lexicon, worded_slots};
use super::tools::{DOMAINS, unique_key};
use super::words::{Mention, find, has_any, words};

/// What a customer wants of one domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Belief {
    /// Constraints by slot.
    pub info: BTreeMap<&'static str, String>,
    /// Booking details by slot.
    pub book: BTreeMap<&'static str, String>,
    /// The entity that the customer named for the booking.
    pub entity: Option<String>,
    /// Whether a booking was asked for.
    pub wants_booking: bool,
}

/// What one utterance did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// It stated or waived constraints of the current domain.
    pub informed: bool,
    /// It asked for a booking, or gave details of one.
    pub booking: bool,
    /// Attributes that it asks for.
    pub requests: Vec<&'static str>,
}

/// What a customer wants of all domains, and which one is being talked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beliefs {
    /// The domain of the last utterance that showed one.
    pub current: Option<&'static str>,
    /// Shared by clones until they hear more.
    domains: BTreeMap<&'static str, Arc<Belief>>,
}

static TIME: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\d{1,2}:\d{2}").expect("a valid pattern"));
static COUNT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r" (\d{1,2}) ([a-z]+)").expect("a valid pattern"));
static FOR_COUNT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r" (?:for|of) (\d{1,2}) ").expect("a valid pattern"));

const NUMBERS: [&str; 11] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

/// Words by which customers name a domain.
fn domain_words(domain: &str) -> &'static [&'static str] {
    match domain {
        "train" => &["train", "trains"],
        "restaurant" => &["restaurant", "restaurants", "food", "eat", "dine", "dining", "cuisine", "meal", "table"],
        "hotel" => &[
            "hotel",
            "guesthouse",
            "place to stay",
            "places to stay",
            "somewhere to stay",
            "lodging",
            "accommodation",
            "accommodations",
            "room",
            "rooms",
            "lodgings",
        ],
        "attraction" => &[
            "attraction",
            "attractions",
            "place to go",
            "places to go",
            "place to visit",
            "places to visit",
            "things to do",
            "something to do",
            "to see",
            "sightseeing",
            "visit",
        ],
        _ => &[],
    }
}

/// Attributes and the words by which customers ask for them.
const ATTRIBUTES: &[(&str, &[&str])] = &[
    ("phone", &["phone", "telephone", "contact number"]),
    ("postcode", &["postcode", "post code", "postal code", "zip"]),
    ("address", &["address"]),
    ("entrance fee", &["entrance fee", "entrance", "admission", "entry fee", "fee"]),
    ("duration", &["travel time", "duration", "how long"]),
    ("price", &["price", "cost", "how much"]),
    ("trainID", &["train id", "trainid", "id"]),
    ("leaveAt", &["departure time", "when does it leave", "leave time"]),
    ("arriveBy", &["arrival time", "when does it arrive", "arrive time"]),
    ("area", &["area", "part of town"]),
    ("pricerange", &["price range", "pricerange"]),
    ("food", &["food type", "type of food", "cuisine"]),
    ("type", &["type", "kind of"]),
    ("stars", &["stars", "star rating"]),
    ("internet", &["internet", "wifi"]),
    ("parking", &["parking"]),
    ("openhours", &["opening hours", "open hours"]),
];

impl Beliefs {
    /// The belief about a domain; empty where nothing was said.
    pub fn of(&self, domain: &str) -> Arc<Belief> {
        self.domains.get(domain).cloned().unwrap_or_default()
    }

    /// Hears one utterance of the customer. `before` is what the agent said last: a bare "3" answers its question.
    pub fn hear(&mut self, lexicon: &Lexicon, before: &str, text: &str) -> Effect {
        let mut all = words(text);
        let named = DOMAINS.iter().find_map(|domain| {
            let names = lexicon.take_names(domain, &mut all);
            names.into_iter().next().map(|mention| (*domain, mention))
        });
        let domain = domain_of(&all, lexicon).or(named.as_ref().map(|(domain, _)| *domain)).or(self.current);
        let Some(domain) = domain else { return Effect::default() };
        self.current = Some(domain);
        let belief = Arc::make_mut(self.domains.entry(domain).or_default());
        let mut effect = Effect::default();
        for mut sentence in sentences(text) {
            let names = lexicon.take_names(domain, &mut sentence.words);
            numerals(&mut sentence.words);
            let requests = requests(&sentence, domain);
            let stated = belief.informed(domain, lexicon, before, &sentence.words, &requests);
            effect.informed |= stated;
            if !stated {
                effect
                    .requests
                    .extend(requests.into_iter().filter(|slot| !effect.requests.contains(slot)).collect::<Vec<_>>());
            }
            effect.booking |= belief.booked(domain, before, &sentence.words);
            effect.informed |= belief.named(domain, lexicon, &names, &sentence.words);
        }
        effect
    }
}

impl Belief {
    /// Takes the constraints of a sentence; returns whether there were any.
    fn informed(
        &mut self,
        domain: &'static str,
        lexicon: &Lexicon,
        before: &str,
        text: &str,
        requests: &[&'static str],
    ) -> bool {
        let mut informed = false;
        let waiver = Waiver::of(text);
        for slot in worded_slots(domain) {
            let found = lexicon.mentions(domain, slot, text);
            let found = found.iter().rfind(|mention| means(domain, slot, mention, text));
            if let Some(mention) = found.filter(|_| !matches!(*slot, "departure" | "destination")) {
                self.info.insert(slot, lexicon.spelt(&mention.value));
                informed = true;
            } else if waiver.waives(domain, slot) {
                informed |= self.info.remove(slot).is_some();
            }
        }
        informed |= match domain {
            "train" => self.stations(lexicon, before, text) | self.times(text),
            "hotel" => self.amenities(text, requests),
            _ => false,
        };
        for slot in ["stars", "internet", "parking", "leaveAt", "arriveBy"] {
            if domain_slots(domain).contains(&slot) && waiver.waives(domain, slot) {
                informed |= self.info.remove(slot).is_some();
            }
        }
        informed
    }

    fn amenities(&mut self, text: &str, requests: &[&'static str]) -> bool {
        let mut informed = false;
        for (count, unit) in counts(text) {
            if matches!(unit.as_str(), "star" | "stars") {
                self.info.insert("stars", count);
                informed = true;
            }
        }
        for (slot, word) in [("internet", "wifi"), ("internet", "internet"), ("parking", "parking")] {
            let Some(at) = find(text, word).filter(|_| !requests.contains(&slot)) else { continue };
            let lead: Vec<&str> = text[..at].split_whitespace().rev().take(3).collect();
            let free_of = lead.iter().any(|word| matches!(*word, "no" | "without" | "not" | "dont"));
            self.info.insert(slot, if free_of { "no" } else { "yes" }.to_owned());
            informed = true;
        }
        informed
    }

    fn stations(&mut self, lexicon: &Lexicon, before: &str, text: &str) -> bool {
        let mentions = lexicon.mentions("train", "departure", text);
        let asked = asked_slots(before, "train");
        for mention in &mentions {
            let lead: Vec<&str> = text[..mention.at].split_whitespace().rev().take(2).collect();
            let slot = match lead.first().copied().unwrap_or_default() {
                "from" | "leaving" | "departing" | "leave" | "depart" => "departure",
                "to" | "reach" | "visit" | "destination" => "destination",
                "in" | "at" if lead.get(1).is_some_and(|word| word.starts_with("arriv")) => "destination",
                _ if asked.contains(&"departure") && !asked.contains(&"destination") => "departure",
                _ if asked.contains(&"destination") && !asked.contains(&"departure") => "destination",
                _ if self.info.contains_key("departure") => "destination",
                _ => "departure",
            };
            self.info.insert(slot, lexicon.spelt(&mention.value));
        }
        !mentions.is_empty()
    }

    fn times(&mut self, text: &str) -> bool {
        let mut informed = false;
        if !has_digits(text) {
            return informed;
        }
        for time in TIME.find_iter(text) {
            let lead = text[..time.start()].split_whitespace().rev().take(5);
            let slot = lead.into_iter().find_map(|word| match word {
                "by" | "before" => Some("arriveBy"),
                "after" | "leave" | "leaves" | "leaving" | "depart" | "departing" | "from" => Some("leaveAt"),
                word if word.starts_with("arriv") => Some("arriveBy"),
                _ => None,
            });
            self.info.insert(slot.unwrap_or("leaveAt"), time.as_str().to_owned());
            informed = true;
        }
        informed
    }

    /// Takes the booking details of a sentence; returns whether it is about a booking.
    fn booked(&mut self, domain: &'static str, before: &str, text: &str) -> bool {
        if domain == "attraction" {
            return false;
        }
        let mut about = false;
        let mut put = |slot: &'static str, value: String| {
            about = true;
            self.book.insert(slot, value);
        };
        let counted = counts(text);
        for (count, unit) in &counted {
            match unit.as_str() {
                "people" | "person" | "persons" | "guests" | "guest" | "ticket" | "tickets" | "of" | "passengers"
                | "seats" => {
                    put("people", count.clone());
                }
                "night" | "nights" | "days" if domain == "hotel" => put("stay", count.clone()),
                _ => {}
            }
        }
        if has_any(text, &["just me", "myself", "only me"]) {
            put("people", "1".to_owned());
        }
        let days = super::lexicon::DAYS.iter().filter_map(|day| find(text, day).map(|at| (at, *day))).max();
        if let Some((_, day)) = days.filter(|_| domain != "train") {
            put("day", day.to_owned());
        }
        if has_digits(text) {
            if let Some(time) = TIME.find_iter(text).last().filter(|_| domain == "restaurant") {
                put("time", time.as_str().to_owned());
            }
            if let Some(found) =
                FOR_COUNT.captures_iter(text).last().filter(|_| counted.is_empty() && domain != "hotel")
            {
                put("people", found[1].to_owned());
            }
        }
        self.bare_number(domain, before, text, &mut about);
        let declined = has_any(
            text,
            &["no need to book", "do not need a booking", "dont need a booking", "not book", "dont book"],
        );
        let asks =
            has_any(text, &["book", "booking", "reserve", "reservation", "tickets", "ticket", "booked", "reserved"]);
        self.wants_booking = (self.wants_booking || asks || about) && !declined;
        about || asks && !declined
    }

    fn bare_number(&mut self, domain: &str, before: &str, text: &str, about: &mut bool) {
        let number = text.trim();
        if number.len() > 2 || !number.bytes().all(|b| b.is_ascii_digit()) || number.is_empty() {
            return;
        }
        let asked = asked_slots(before, domain);
        if let Some(slot) = ["people", "stay"].into_iter().find(|slot| asked.contains(slot)) {
            self.book.insert(slot, number.to_owned());
            *about = true;
        }
    }

    /// Takes a name: the one to book, or one to look for. Returns whether it is to be looked for.
    fn named(&mut self, domain: &'static str, lexicon: &Lexicon, names: &[Mention], text: &str) -> bool {
        let Some(mention) = names.last() else { return false };
        let name = lexicon.spelt(&mention.value);
        if domain == "train" {
            self.entity = Some(name.to_uppercase());
            return false;
        }
        if has_any(text, &["book", "reserve"]) {
            self.entity = Some(name);
            return false;
        }
        self.info.insert(unique_key(domain), name);
        true
    }
}

/// The domain that a text (in the form of [`words`], names blanked) shows first.
fn domain_of(text: &str, lexicon: &Lexicon) -> Option<&'static str> {
    let mut places: Vec<(usize, &'static str)> = Vec::new();
    for domain in DOMAINS {
        places.extend(domain_words(domain).iter().filter_map(|word| find(text, word)).map(|at| (at, domain)));
    }
    places.extend(lexicon.mentions("attraction", "type", text).iter().map(|mention| (mention.at, "attraction")));
    places.into_iter().min_by_key(|(at, _)| *at).map(|(_, domain)| domain)
}

/// Whether a mention is meant as a value: "the hotel should be cheap" names no kind of place.
fn means(domain: &str, slot: &str, mention: &Mention, text: &str) -> bool {
    if domain != "hotel" || slot != "type" {
        return true;
    }
    let before = text[..mention.at].split_whitespace().next_back().unwrap_or_default();
    !matches!(before, "the" | "this" | "that" | "or" | "any")
}

/// Attributes that a sentence asks for.
fn requests(sentence: &Sentence, domain: &str) -> Vec<&'static str> {
    let asks = sentence.question
        || has_any(
            &sentence.words,
            &[
                "i need the",
                "get the",
                "give me",
                "tell me",
                "what is",
                "also need the",
                "have the",
                "the phone number",
            ],
        );
    let wishes =
        has_any(&sentence.words, &["find", "looking for", "are there any", "with free", "with wifi", "with parking"]);
    if !asks || wishes {
        return Vec::new();
    }
    let mut found: Vec<&'static str> = Vec::new();
    for (slot, phrases) in ATTRIBUTES {
        if has_any(&sentence.words, phrases)
            && !(*slot == "price" && (domain != "train" || found.contains(&"pricerange")))
        {
            found.push(slot);
        }
    }
    found
}

/// Writes number words as digits.
fn numerals(text: &mut String) {
    for (value, word) in NUMBERS.iter().enumerate() {
        while let Some(at) = find(text, word) {
            text.replace_range(at..at + word.len(), &value.to_string());
        }
    }
}

/// Whether one of the patterns could be found: they look for digits, which may be those of any script.
fn has_digits(text: &str) -> bool {
    !text.is_ascii() || text.bytes().any(|byte| byte.is_ascii_digit())
}

/// Numbers with the word that follows them.
fn counts(text: &str) -> Vec<(String, String)> {
    if !has_digits(text) {
        return Vec::new();
    }
    COUNT.captures_iter(text).map(|found| (found[1].to_owned(), found[2].to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::task::WorldItem;
    use super::super::world::World;
    use super::*;

    fn lexicon() -> Lexicon {
        let item = |name: &str, body: &str| WorldItem { part: "record".into(), name: name.into(), body: body.into() };
        let items = [
            item("restaurant", r#"{"name": "golden lantern", "food": "thai", "area": "north"}"#),
            item("train", r#"{"trainID": "TR0001", "departure": "ely", "destination": "cambridge"}"#),
        ];
        Lexicon::new(&World::from_items(items).unwrap())
    }

    fn heard(texts: &[&str]) -> (Beliefs, Effect) {
        let (lexicon, mut beliefs) = (lexicon(), Beliefs::default());
        let mut effect = Effect::default();
        for text in texts {
            effect = beliefs.hear(&lexicon, "", text);
        }
        (beliefs, effect)
    }

    fn pairs<'a>(map: &'a BTreeMap<&'static str, String>) -> Vec<(&'static str, &'a str)> {
        map.iter().map(|(slot, value)| (*slot, value.as_str())).collect()
    }

    #[test]
    fn restaurants_are_understood() {
        let (beliefs, effect) =
            heard(&["I need a cheap Thai restaurant in the north.", "Book it for two people on friday at 18:00."]);
        let belief = beliefs.of("restaurant");
        assert_eq!(pairs(&belief.info), [("area", "north"), ("food", "thai"), ("pricerange", "cheap")]);
        assert_eq!(pairs(&belief.book), [("day", "friday"), ("people", "2"), ("time", "18:00")]);
        assert!(belief.wants_booking && effect.booking && !effect.informed);
    }

    #[test]
    fn trains_are_understood() {
        let (beliefs, effect) = heard(&["i also need a train from ely to cambridge on monday arriving by 10:15."]);
        let belief = beliefs.of("train");
        let wanted = [("arriveBy", "10:15"), ("day", "monday"), ("departure", "ely"), ("destination", "cambridge")];
        assert_eq!(pairs(&belief.info), wanted);
        assert!(effect.informed && !belief.wants_booking);
    }

    #[test]
    fn hotels_are_understood() {
        let (beliefs, _) = heard(&["i want a cheap 4 star guest house with free wifi without parking."]);
        let belief = beliefs.of("hotel");
        let wanted =
            [("internet", "yes"), ("parking", "no"), ("pricerange", "cheap"), ("stars", "4"), ("type", "guesthouse")];
        assert_eq!(pairs(&belief.info), wanted);
    }

    #[test]
    fn waived_slots_go_and_later_values_win() {
        let (beliefs, _) = heard(&[
            "i want a cheap thai restaurant.",
            "ok, then it can serve korean food. i do not care about the price range.",
        ]);
        assert_eq!(pairs(&beliefs.of("restaurant").info), [("food", "korean")]);
    }

    #[test]
    fn requests_are_no_constraints() {
        let (beliefs, effect) =
            heard(&["i need a place to stay in the north.", "what is the phone number and the internet?"]);
        assert_eq!(effect.requests, ["phone", "internet"]);
        assert_eq!(pairs(&beliefs.of("hotel").info), [("area", "north")]);
    }
}
