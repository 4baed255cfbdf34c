//! What an agent's utterance says, heard by keywords: so that the agenda user understands any agent.

use super::lexicon::{Lexicon, worded_slots};
use super::words::{find, has_any, words};

/// What an utterance says about the domain that is being talked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The utterance is the report of a broken turn, or empty.
    pub broken: bool,
    /// A search found nothing.
    pub nothing_found: bool,
    /// A booking was refused.
    pub refused: bool,
    /// A booking was made.
    pub booked: bool,
    /// Something is offered: a name, a train, or words that offer.
    pub offers: bool,
    /// Slots that the agent asks for.
    pub asked: Vec<&'static str>,
    /// Values that the agent states (it does not ask for them), as slot and value.
    pub stated: Vec<(&'static str, String)>,
}

const NEGATIONS: &[&str] = &[
    "sorry",
    "unfortunately",
    "no",
    "not",
    "cannot",
    "cant",
    "couldnt",
    "unable",
    "failed",
    "nothing",
    "none",
    "isnt",
    "arent",
    "doesnt",
    "dont",
    "unavailable",
    "unsuccessful",
    "regret",
    "afraid",
    "havent",
    "wasnt",
    "without",
];

const FINDING: &[&str] = &[
    "find",
    "found",
    "match",
    "matches",
    "matching",
    "results",
    "result",
    "available",
    "options",
    "any",
    "there are",
    "there is",
    "there were",
    "have",
    "exist",
    "nothing",
    "none",
    "returned",
    "locate",
    "meet",
    "meets",
    "fit",
    "fits",
];

const BOOKING: &[&str] =
    &["book", "booked", "booking", "bookings", "reserve", "reserved", "reservation", "tickets", "table", "room"];

const BOOKED: &[&str] = &[
    "reference",
    "booked",
    "reserved",
    "confirmed",
    "confirmation",
    "booking was successful",
    "booking is complete",
    "successfully",
    "reservation is",
    "reservation has been",
    "booking has been",
];

const OFFERING: &[&str] = &[
    "found",
    "recommend",
    "recommended",
    "suggest",
    "how about",
    "there is",
    "there are",
    "i have",
    "would you like to book",
    "shall i book",
    "it is a",
    "is a",
    "located",
    "matches",
    "leaves",
    "arrives",
    "departs",
    "leaving",
    "arriving",
    "should i book",
    "do you want me to book",
    "would you like me to book",
    "available",
];

/// Hears an utterance. `domain` is the domain that the customer is talking about.
pub fn hear(text: &str, domain: &str, lexicon: &Lexicon) -> Heard {
    let mut all = words(text);
    let names = lexicon.take_names(domain, &mut all);
    if all.trim().is_empty() && names.is_empty() || all.starts_with(" error ") {
        return Heard { broken: true, ..Heard::default() };
    }
    let mut heard = Heard { asked: asked_slots(text, domain), ..Heard::default() };
    for sentence in sentences(text) {
        hear_sentence(&sentence, domain, lexicon, &mut heard);
    }
    // "sorry, there is no X, but I found Y" offers Y; "sorry, the booking of Y failed" offers nothing.
    heard.nothing_found &= names.is_empty();
    heard.booked &= !heard.refused;
    heard.offers = !heard.nothing_found && !heard.refused && (!names.is_empty() || has_any(&all, OFFERING));
    heard
}

fn hear_sentence(sentence: &Sentence, domain: &str, lexicon: &Lexicon, heard: &mut Heard) {
    let mut text = sentence.words.clone();
    lexicon.take_names(domain, &mut text);
    let negated = has_any(&text, NEGATIONS);
    let about_booking = has_any(&text, BOOKING);
    if negated && about_booking && !sentence.question {
        heard.refused = true;
    } else if negated && has_any(&text, FINDING) && !sentence.question {
        heard.nothing_found = true;
    } else if !sentence.question && has_any(&text, BOOKED) {
        heard.booked = true;
    }
    if sentence.question || negated {
        return;
    }
    for slot in worded_slots(domain) {
        // Only the train's day can be told apart from other words without more context; stations stand in names.
        if *slot == "departure" || *slot == "destination" {
            continue;
        }
        heard.stated.extend(lexicon.mentions(domain, slot, &text).into_iter().map(|m| (*slot, m.value)));
    }
}

/// A sentence in the form of [`words`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// Its words.
    pub words: String,
    /// Whether it ends with a question mark.
    pub question: bool,
}

/// The sentences of a text. A full stop between digits ends none.
pub fn sentences(text: &str) -> Vec<Sentence> {
    let mut out = Vec::new();
    let mut start = 0;
    let bytes = text.as_bytes();
    for (at, c) in text.char_indices().filter(|(_, c)| matches!(c, '.' | '?' | '!' | '\n')) {
        let inside_number = c == '.' && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
        if !inside_number {
            push_sentence(&text[start..at], c == '?', &mut out);
            start = at + 1;
        }
    }
    push_sentence(&text[start..], false, &mut out);
    out
}

fn push_sentence(text: &str, question: bool, out: &mut Vec<Sentence>) {
    let words = words(text);
    if !words.trim().is_empty() {
        out.push(Sentence { words, question });
    }
}

/// The words by which a slot is asked for.
fn slot_words(domain: &str, slot: &str) -> &'static [&'static str] {
    match (domain, slot) {
        (_, "area") => {
            &["area", "part of town", "part of the city", "side of town", "location", "where in town", "region"]
        }
        (_, "pricerange") => &["price", "pricerange", "price range", "budget", "how expensive", "cost"],
        (_, "food") => &["food", "cuisine", "kind of restaurant", "type of restaurant", "cuisines"],
        ("hotel", "type") => {
            &["hotel or guesthouse", "hotel or a guesthouse", "guesthouse or hotel", "type", "kind of place"]
        }
        (_, "type") => &["type", "kind", "sort", "types", "interested in", "what would you like to see"],
        (_, "stars") => &["star", "stars", "rating"],
        (_, "internet") => &["internet", "wifi"],
        (_, "parking") => &["parking"],
        (_, "name") => &["name", "which restaurant", "which hotel", "which attraction"],
        (_, "day") => &["day", "when", "date", "days"],
        ("train", "leaveAt") => &["time", "leave", "leave after", "departure time", "depart after", "when"],
        ("train", "arriveBy") => &["time", "arrive", "arrive by", "arrival time", "arrival", "when"],
        ("restaurant", "time") => &["time", "when"],
        (_, "people") => {
            &["people", "guests", "party", "tickets", "persons", "passengers", "how many of you", "many seats"]
        }
        (_, "stay") => &["nights", "how long", "length of stay", "long will you"],
        (_, "departure") => &[
            "departure",
            "departing",
            "depart from",
            "leaving from",
            "leave from",
            "from where",
            "where from",
            "coming from",
            "where are you leaving",
            "travelling from",
            "traveling from",
        ],
        (_, "destination") => &[
            "destination",
            "going to",
            "to where",
            "where to",
            "arriving at",
            "arrive at",
            "heading to",
            "headed to",
            "go to",
            "where are you going",
            "where would you like to go",
            "travelling to",
            "traveling to",
        ],
        _ => &[],
    }
}

/// The slots that a domain's search and booking take.
pub fn domain_slots(domain: &str) -> &'static [&'static str] {
    match domain {
        "restaurant" => &["food", "pricerange", "area", "name", "day", "time", "people"],
        "hotel" => &["type", "area", "pricerange", "stars", "internet", "parking", "name", "day", "stay", "people"],
        "attraction" => &["type", "area", "name"],
        "train" => &["departure", "destination", "day", "leaveAt", "arriveBy", "people"],
        _ => &[],
    }
}

/// The slots that an utterance asks for: those whose words stand in a sentence that asks.
pub fn asked_slots(text: &str, domain: &str) -> Vec<&'static str> {
    let mut asked = Vec::new();
    for sentence in sentences(text) {
        let asks = sentence.question
            || has_any(
                &sentence.words,
                &["which", "what", "how many", "please tell", "let me know", "i need to know", "please provide"],
            );
        if !asks {
            continue;
        }
        for slot in domain_slots(domain) {
            if !asked.contains(slot) && has_any(&sentence.words, slot_words(domain, slot)) {
                asked.push(*slot);
            }
        }
    }
    asked
}

/// Whether and how a text says that slots do not matter.
#[derive(Clone, Copy, Debug)]
pub struct Waiver<'t> {
    words: &'t str,
    any: bool,
    careless: bool,
}

impl<'t> Waiver<'t> {
    /// Looks at a text in the form of [`words`].
    pub fn of(words: &'t str) -> Self {
        let careless =
            ["dont care", "do not care", "does not matter", "doesnt matter", "no preference", "not important"];
        Self { words, any: has_any(words, &["any"]), careless: has_any(words, &careless) }
    }

    /// Whether a slot does not matter.
    pub fn waives(self, domain: &str, slot: &str) -> bool {
        if !self.any && !self.careless {
            return false;
        }
        slot_words(domain, slot).iter().any(|word| {
            self.any && find(self.words, &format!("any {word}")).is_some()
                || self.careless && find(self.words, word).is_some()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::task::WorldItem;
    use super::super::world::World;
    use super::*;

    fn hear_restaurant(text: &str) -> Heard {
        let record = |name: &str| WorldItem {
            part: "record".into(),
            name: "restaurant".into(),
            body: format!(r#"{{"name": "{name}", "area": "north", "food": "thai", "pricerange": "cheap"}}"#),
        };
        let world = World::from_items([record("golden lantern")]).unwrap();
        hear(text, "restaurant", &Lexicon::new(&world))
    }

    #[test]
    fn offers_refusals_and_questions_are_told_apart() {
        let offer = hear_restaurant("I found Golden Lantern, a cheap thai restaurant in the north. Shall I book it?");
        assert!(offer.offers && !offer.booked && !offer.refused && offer.asked.is_empty());
        assert_eq!(offer.stated.len(), 3);
        assert!(hear_restaurant("Sorry, I could not find any restaurant like that.").nothing_found);
        assert!(hear_restaurant("There are no thai restaurants in the north.").nothing_found);
        assert!(hear_restaurant("I was unable to book it. Would another time work?").refused);
        let booked = hear_restaurant("Your table has been reserved. The reference number is ABC.");
        assert!(booked.booked && !booked.refused);
        assert_eq!(hear_restaurant("What part of town and which price range?").asked, ["pricerange", "area"]);
        assert!(hear_restaurant("Error: Agent ran out of retries.").broken);
    }

    #[test]
    fn questions_state_nothing() {
        assert!(hear_restaurant("Would you like the north or the south?").stated.is_empty());
    }

    #[test]
    fn a_point_inside_a_number_ends_no_sentence() {
        assert_eq!(sentences("it costs 10.50 pounds. ok?").len(), 2);
    }
}
