//! The words of a world: names and slot values as they are found in what customers and agents say.

use std::collections::{BTreeMap, BTreeSet};

use super::tools::unique_key;
use super::words::{Mention, Phrases, words};
use super::world::World;

/// The slots of a domain that a value of its own in a sentence can fill: closed sets of words.
pub fn worded_slots(domain: &str) -> &'static [&'static str] {
    match domain {
        "restaurant" => &["food", "pricerange", "area"],
        "hotel" => &["area", "pricerange", "type"],
        "attraction" => &["type", "area"],
        "train" => &["departure", "destination", "day"],
        _ => &[],
    }
}

/// Cuisines that customers ask for although no restaurant may serve them.
const CUISINES: &[&str] = &[
    "african",
    "american",
    "asian",
    "australian",
    "austrian",
    "bavarian",
    "belgian",
    "brazilian",
    "british",
    "caribbean",
    "catalan",
    "chinese",
    "corsican",
    "creative",
    "crossover",
    "cuban",
    "danish",
    "english",
    "eritrean",
    "european",
    "french",
    "fusion",
    "gastropub",
    "german",
    "greek",
    "halal",
    "hungarian",
    "indian",
    "indonesian",
    "international",
    "irish",
    "italian",
    "jamaican",
    "japanese",
    "korean",
    "kosher",
    "lebanese",
    "light bites",
    "malaysian",
    "mediterranean",
    "mexican",
    "middle eastern",
    "modern american",
    "modern european",
    "moroccan",
    "new zealand",
    "north american",
    "panasian",
    "persian",
    "polish",
    "polynesian",
    "portuguese",
    "romanian",
    "russian",
    "scandinavian",
    "scottish",
    "seafood",
    "singaporean",
    "south african",
    "spanish",
    "sri lankan",
    "steakhouse",
    "swedish",
    "swiss",
    "thai",
    "traditional",
    "turkish",
    "tuscan",
    "unusual",
    "vegetarian",
    "venetian",
    "vietnamese",
    "welsh",
    "world",
    "asian oriental",
];

const AREAS: &[&str] = &["centre", "north", "south", "east", "west"];
const PRICES: &[&str] = &["cheap", "moderate", "expensive"];

/// The days of the week.
pub const DAYS: &[&str] = &["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

const ATTRACTIONS: &[&str] = &[
    "architecture",
    "boat",
    "cinema",
    "college",
    "concerthall",
    "entertainment",
    "museum",
    "multiple sports",
    "nightclub",
    "park",
    "swimmingpool",
    "theatre",
];

/// Names and values of one world.
#[derive(Clone, Debug, Default)]
pub struct Lexicon {
    names: BTreeMap<String, Phrases>,
    /// By domain, then by slot.
    values: BTreeMap<String, BTreeMap<String, Phrases>>,
    spelling: BTreeMap<String, String>,
}

impl Lexicon {
    /// The lexicon of a world's records.
    pub fn new(world: &World) -> Self {
        let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut values: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        let mut spelling = BTreeMap::new();
        for domain in world.domains() {
            let slots = worded_slots(domain).iter().copied().chain([unique_key(domain)]);
            for (slot, value) in
                slots.flat_map(|slot| world.values(domain, slot).iter().map(move |value| (slot, value)))
            {
                let form = words(value).trim().to_owned();
                if form.is_empty() {
                    continue;
                }
                spelling.entry(form.clone()).or_insert_with(|| value.clone());
                if slot == unique_key(domain) {
                    names.entry(domain.to_owned()).or_default().insert(form);
                } else {
                    values.entry((domain.to_owned(), slot.to_owned())).or_default().insert(form);
                }
            }
        }
        add_common(&mut values);
        let names = names.into_iter().map(|(domain, set)| (domain, Phrases::new(set))).collect();
        let mut by_domain = BTreeMap::<String, BTreeMap<String, Phrases>>::new();
        for ((domain, slot), set) in values {
            by_domain.entry(domain).or_default().insert(slot, Phrases::new(set));
        }
        Self { names, values: by_domain, spelling }
    }

    /// A value as the records spell it: `multiple sports` may stand there misspelt, a name with an apostrophe.
    pub fn spelt(&self, form: &str) -> String {
        self.spelling.get(form).cloned().unwrap_or_else(|| form.to_owned())
    }

    /// The known values of a slot in the form of [`words`], longest first.
    pub fn values(&self, domain: &str, slot: &str) -> &[String] {
        self.phrases(domain, slot).map_or(&[], |phrases| phrases.list())
    }

    fn phrases(&self, domain: &str, slot: &str) -> Option<&Phrases> {
        self.values.get(domain)?.get(slot)
    }

    /// The known names of a domain in the form of [`words`], longest first.
    pub fn names(&self, domain: &str) -> &[String] {
        self.names.get(domain).map_or(&[], |phrases| phrases.list())
    }

    /// The names of a domain's entities that a text (in the form of [`words`]) says; they are blanked out of it, so that
    /// "pizza hut city centre" is not heard as a wish for the centre.
    pub fn take_names(&self, domain: &str, text: &mut String) -> Vec<Mention> {
        if domain == "train" {
            return take_train_ids(text);
        }
        self.names.get(domain).map(|phrases| phrases.take(text)).unwrap_or_default()
    }

    /// The values of a slot that a text says, in the text's order; longer values hide the shorter ones inside them.
    pub fn mentions(&self, domain: &str, slot: &str, text: &str) -> Vec<Mention> {
        let Some(phrases) = self.phrases(domain, slot) else { return Vec::new() };
        if phrases.possible(text).is_empty() { Vec::new() } else { phrases.take(&mut text.to_owned()) }
    }
}

fn add_common(values: &mut BTreeMap<(String, String), BTreeSet<String>>) {
    let common: [(&str, &str, &[&str]); 9] = [
        ("restaurant", "food", CUISINES),
        ("restaurant", "area", AREAS),
        ("restaurant", "pricerange", PRICES),
        ("hotel", "area", AREAS),
        ("hotel", "pricerange", PRICES),
        ("hotel", "type", &["hotel", "guesthouse"]),
        ("attraction", "area", AREAS),
        ("attraction", "type", ATTRACTIONS),
        ("train", "day", DAYS),
    ];
    for (domain, slot, list) in common {
        let set = values.entry((domain.to_owned(), slot.to_owned())).or_default();
        set.extend(list.iter().map(|word| (*word).to_owned()));
    }
    let stations: BTreeSet<String> = ["departure", "destination"]
        .iter()
        .filter_map(|slot| values.get(&("train".to_owned(), (*slot).to_owned())).cloned())
        .flatten()
        .collect();
    for slot in ["departure", "destination"] {
        values.insert(("train".to_owned(), slot.to_owned()), stations.clone());
    }
}

/// Train identifiers have a pattern: `TR` and digits; no list of them is needed.
fn take_train_ids(text: &mut String) -> Vec<Mention> {
    let mut found = Vec::new();
    if !text.contains(" tr") {
        return found;
    }
    let mut at = 0;
    for word in text.clone().split(' ') {
        let digits = word.strip_prefix("tr").unwrap_or_default();
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            text.replace_range(at..at + word.len(), &"_".repeat(word.len()));
            found.push(Mention { at, value: word.to_owned() });
        }
        at += word.len() + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::task::WorldItem;
    use super::*;

    fn lexicon() -> Lexicon {
        let item = |name: &str, body: &str| WorldItem { part: "record".into(), name: name.into(), body: body.into() };
        let items = [
            item("restaurant", r#"{"name": "Pizza Hut City Centre", "food": "italian", "area": "centre"}"#),
            item("attraction", r#"{"name": "king's college", "type": "mutliple sports"}"#),
            item("train", r#"{"trainID": "TR0001", "departure": "ely", "destination": "cambridge"}"#),
        ];
        Lexicon::new(&World::from_items(items).unwrap())
    }

    #[test]
    fn a_name_hides_the_values_inside_it() {
        let lexicon = lexicon();
        let mut text = words("Is Pizza Hut city centre in the north?");
        assert_eq!(lexicon.take_names("restaurant", &mut text)[0].value, "pizza hut city centre");
        let areas = lexicon.mentions("restaurant", "area", &text);
        assert_eq!(areas.iter().map(|m| m.value.as_str()).collect::<Vec<_>>(), ["north"]);
        assert_eq!(lexicon.spelt("pizza hut city centre"), "Pizza Hut City Centre");
    }

    #[test]
    fn longer_values_win_and_spellings_are_unified() {
        let lexicon = lexicon();
        let foods = lexicon.mentions("restaurant", "food", &words("a Modern European place in the city center"));
        assert_eq!(foods.len(), 1);
        assert_eq!(foods[0].value, "modern european");
        assert_eq!(lexicon.mentions("restaurant", "area", &words("the CENTER."))[0].value, "centre");
        assert_eq!(lexicon.spelt("multiple sports"), "mutliple sports");
        assert_eq!(lexicon.take_names("train", &mut words("Book TR0001, please"))[0].value, "tr0001");
    }
}
