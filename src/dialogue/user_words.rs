//! The agenda user's sentences: several wordings each, short, so that small models can learn them.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

/// A slot and its value.
pub type Said<'a> = (&'a str, &'a str);

/// Takes one of several wordings.
pub fn one_of<'a>(rng: &mut ChaCha8Rng, wordings: &[&'a str]) -> &'a str {
    wordings[rng.random_range(0..wordings.len())]
}

fn value<'a>(slots: &[Said<'a>], name: &str) -> Option<&'a str> {
    slots.iter().find(|(slot, _)| *slot == name).map(|(_, value)| *value)
}

/// A noun with its article.
pub fn with_article(noun: &str) -> String {
    let vowel = noun.starts_with(['a', 'e', 'i', 'o']) || noun.starts_with("un");
    format!("{} {noun}", if vowel { "an" } else { "a" })
}

/// What is looked for, as a noun with its article: "a cheap thai restaurant in the north".
pub fn thing(domain: &str, slots: &[Said<'_>]) -> String {
    let mut before: Vec<String> = Vec::new();
    let mut after: Vec<String> = Vec::new();
    for (slot, value) in slots {
        match (domain, *slot) {
            (_, "pricerange") => before.insert(0, (*value).to_owned()),
            (_, "food") => before.push((*value).to_owned()),
            (_, "stars") => before.push(format!("{value} star")),
            (_, "area") => after.insert(0, format!("in the {value}")),
            (_, "name") => after.push(format!("called {value}")),
            (_, "internet") => after.push(amenity("wifi", value)),
            (_, "parking") => after.push(amenity("parking", value)),
            _ => {}
        }
    }
    if domain == "train" {
        return train(slots);
    }
    let noun = match (domain, value(slots, "type")) {
        ("hotel", None) => "place to stay",
        ("attraction", None) => "attraction",
        (_, Some(kind)) => kind,
        (other, None) => other,
    };
    before.push(noun.to_owned());
    let head = with_article(&before.join(" "));
    if after.is_empty() { head } else { format!("{head} {}", after.join(" ")) }
}

fn amenity(what: &str, value: &str) -> String {
    if value == "no" { format!("without {what}") } else { format!("with free {what}") }
}

fn train(slots: &[Said<'_>]) -> String {
    let mut out = "a train".to_owned();
    for (slot, lead) in [
        ("departure", " from "),
        ("destination", " to "),
        ("day", " on "),
        ("leaveAt", " leaving after "),
        ("arriveBy", " arriving by "),
    ] {
        if let Some(value) = value(slots, slot) {
            out.push_str(lead);
            out.push_str(value);
        }
    }
    out
}

/// What the thing should be or do, as verb phrases: "be cheap and be in the north".
pub fn clauses(domain: &str, slots: &[Said<'_>]) -> String {
    let clause = |(slot, value): &Said<'_>| match (domain, *slot) {
        (_, "food") => format!("serve {value} food"),
        (_, "pricerange") => format!("be {value}"),
        (_, "area") => format!("be in the {value}"),
        (_, "name") => format!("be called {value}"),
        (_, "type") => format!("be {}", with_article(value)),
        (_, "stars") => format!("have {value} stars"),
        (_, "internet") => have("wifi", value),
        (_, "parking") => have("parking", value),
        (_, "departure") => format!("leave from {value}"),
        (_, "destination") => format!("go to {value}"),
        (_, "day") => format!("be on {value}"),
        (_, "leaveAt") => format!("leave after {value}"),
        (_, "arriveBy") => format!("arrive by {value}"),
        _ => format!("have {value} as {slot}"),
    };
    joined(&slots.iter().map(clause).collect::<Vec<_>>())
}

fn have(what: &str, value: &str) -> String {
    if value == "no" { format!("be without {what}") } else { format!("have free {what}") }
}

/// A list in words: "a, b and c".
pub fn joined(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Opens a domain.
pub fn open(rng: &mut ChaCha8Rng, thing: &str, first: bool) -> String {
    let lead = if first {
        one_of(rng, &["i need ", "i am looking for ", "can you find me ", "i want ", "please find me "])
    } else {
        one_of(
            rng,
            &["thanks. i also need ", "great. now i need ", "thank you. i am also looking for ", "ok. i also want "],
        )
    };
    format!("{lead}{thing}{}", if lead.starts_with("can") { "?" } else { "." })
}

/// Adds constraints, or repeats them.
pub fn add(rng: &mut ChaCha8Rng, clauses: &str) -> String {
    format!("{}{clauses}.", one_of(rng, &["it should ", "it should also ", "i want it to ", "it has to "]))
}

/// Gives constraints in place of ones that found nothing.
pub fn instead(rng: &mut ChaCha8Rng, clauses: &str) -> String {
    format!("{}{clauses}.", one_of(rng, &["then it should ", "ok, then it can ", "in that case it should "]))
}

/// Corrects what the agent said.
pub fn correct(rng: &mut ChaCha8Rng, clauses: &str) -> String {
    format!("{}{clauses}.", one_of(rng, &["no, it should ", "that is not right, it should ", "no, it has to "]))
}

/// Asks for a booking with these details; with none, asks whether it can be booked.
pub fn book(rng: &mut ChaCha8Rng, domain: &str, slots: &[Said<'_>]) -> String {
    if slots.is_empty() {
        return one_of(rng, &["can you book it?", "please book it.", "i would like to book it."]).to_owned();
    }
    if domain == "train" {
        let people = value(slots, "people").unwrap_or("1");
        let tickets = if people == "1" { "1 ticket".to_owned() } else { format!("{people} tickets") };
        return format!("{}{tickets}.", one_of(rng, &["please book ", "book ", "i need "]));
    }
    format!("{}{}.", one_of(rng, &["book it ", "please book it ", "i want to book it "]), details(slots))
}

/// Booking details alone: "for 2 people on friday at 18:00".
pub fn details(slots: &[Said<'_>]) -> String {
    let mut parts = Vec::new();
    if let Some(people) = value(slots, "people") {
        parts.push(format!("for {people} {}", if people == "1" { "person" } else { "people" }));
    }
    if let Some(stay) = value(slots, "stay") {
        parts.push(format!("for {stay} {}", if stay == "1" { "night" } else { "nights" }));
    }
    if let Some(day) = value(slots, "day") {
        parts.push(format!("{} {day}", if value(slots, "stay").is_some() { "from" } else { "on" }));
    }
    if let Some(time) = value(slots, "time") {
        parts.push(format!("at {time}"));
    }
    parts.join(" ")
}

/// Gives other booking details after a refusal.
pub fn book_instead(rng: &mut ChaCha8Rng, slots: &[Said<'_>]) -> String {
    format!("{}{}?", one_of(rng, &["then how about ", "what about ", "ok, can you do it "]), details(slots))
}

/// The customer's word for an attribute.
pub fn attribute(name: &str) -> &str {
    match name {
        "phone" => "phone number",
        "trainID" => "train id",
        "leaveAt" => "departure time",
        "arriveBy" => "arrival time",
        "duration" => "travel time",
        "pricerange" => "price range",
        "food" => "food type",
        "internet" => "internet",
        other => other,
    }
}

/// Asks for attributes.
pub fn ask(rng: &mut ChaCha8Rng, names: &[String]) -> String {
    let list: Vec<String> = names.iter().map(|name| format!("the {}", attribute(name))).collect();
    let list = joined(&list);
    match rng.random_range(0..3) {
        0 => format!("what is {list}?"),
        1 => format!("can i get {list}?"),
        _ => format!("i need {list}."),
    }
}

/// Says that slots do not matter.
pub fn waive(names: &[&str]) -> String {
    let list: Vec<String> = names.iter().map(|name| format!("the {}", question_word(name))).collect();
    format!("i do not care about {}.", joined(&list))
}

/// The word by which a slot is asked for.
pub fn question_word(slot: &str) -> &str {
    match slot {
        "pricerange" => "price range",
        "food" => "food",
        "stay" => "nights",
        "leaveAt" => "departure time",
        "arriveBy" => "arrival time",
        other => other,
    }
}

/// Ends content.
pub fn thanks(rng: &mut ChaCha8Rng) -> String {
    one_of(rng, &["thank you, that is all.", "thanks, goodbye.", "that is all i need. bye."]).to_owned()
}

/// Ends after too many misunderstandings.
pub fn give_up(rng: &mut ChaCha8Rng) -> String {
    one_of(rng, &["this does not work. goodbye.", "never mind, i will try elsewhere. bye."]).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_read_as_english() {
        assert_eq!(
            thing("restaurant", &[("food", "thai"), ("pricerange", "cheap"), ("area", "north")]),
            "a cheap thai restaurant in the north"
        );
        assert_eq!(thing("hotel", &[("stars", "4"), ("parking", "yes")]), "a 4 star place to stay with free parking");
        assert_eq!(
            thing(
                "train",
                &[("day", "friday"), ("departure", "ely"), ("destination", "norwich"), ("arriveBy", "10:00")]
            ),
            "a train from ely to norwich on friday arriving by 10:00"
        );
        assert_eq!(thing("restaurant", &[("food", "italian")]), "an italian restaurant");
        assert_eq!(
            clauses("restaurant", &[("pricerange", "cheap"), ("area", "north")]),
            "be cheap and be in the north"
        );
        assert_eq!(
            details(&[("people", "2"), ("day", "friday"), ("time", "18:00")]),
            "for 2 people on friday at 18:00"
        );
    }
}
