//! The words of a world: names and slot values as they are found in what customers and agents say.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use super::tools::unique_key;
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

/// Spellings that mean one word of the lexicon; longer ones first where one contains another.
const SPELLINGS: &[(&str, &str)] = &[
    ("guest house", "guesthouse"),
    ("guest houses", "guesthouse"),
    ("guesthouses", "guesthouse"),
    ("hotels", "hotel"),
    ("center", "centre"),
    ("moderately", "moderate"),
    ("inexpensive", "cheap"),
    ("swimming pool", "swimmingpool"),
    ("swimming pools", "swimmingpool"),
    ("concert hall", "concerthall"),
    ("concert halls", "concerthall"),
    ("mutliple sports", "multiple sports"),
    ("museums", "museum"),
    ("colleges", "college"),
    ("theatres", "theatre"),
    ("theater", "theatre"),
    ("nightclubs", "nightclub"),
    ("night club", "nightclub"),
    ("cinemas", "cinema"),
    ("boats", "boat"),
    ("parks", "park"),
    ("wi fi", "wifi"),
];

/// A text in the form in which words are compared: lower case, apostrophes gone, everything but letters, digits and the
/// colons of times a space, spellings unified, a space at both ends.
pub fn words(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    if text.is_ascii() {
        spell_ascii(text, &mut out)
    } else {
        spell(text, &mut out)
    }
    unify_spellings(&mut out);
    out
}

fn spell(text: &str, out: &mut String) {
    out.push(' ');
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '’' => {}
            ':' if digit(out.chars().next_back()) && digit(chars.peek().copied()) => out.push(':'),
            c if c.is_alphanumeric() => out.extend(c.to_lowercase().filter(|c| c.is_alphanumeric())),
            _ if out.ends_with(' ') => {}
            _ => out.push(' '),
        }
    }
    if !out.ends_with(' ') {
        out.push(' ');
    }
}

/// What [`spell`] does, for text of which every byte is a character.
fn spell_ascii(text: &str, out: &mut String) {
    out.push(' ');
    let mut last = b' ';
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        let next = match byte {
            b'\'' => continue,
            b':' if last.is_ascii_digit() && bytes.peek().is_some_and(u8::is_ascii_digit) => b':',
            byte if byte.is_ascii_alphanumeric() => byte.to_ascii_lowercase(),
            _ if last == b' ' => continue,
            _ => b' ',
        };
        out.push(char::from(next));
        last = next;
    }
    if last != b' ' {
        out.push(' ');
    }
}

/// Writes every known spelling of a word in one way.
fn unify_spellings(text: &mut String) {
    static KNOWN: LazyLock<Phrases> =
        LazyLock::new(|| Phrases::new(SPELLINGS.iter().map(|(from, _)| (*from).to_owned()).collect()));
    // Few texts have any.
    if KNOWN.possible(text).is_empty() {
        return;
    }
    for (from, to) in SPELLINGS {
        // Twice the same word shares a space, so one replacement may leave the second.
        while find(text, from).is_some() {
            *text = text.replace(&format!(" {from} "), &format!(" {to} "));
        }
    }
}

/// Where the words of a text in the form of [`words`] start.
fn starts(words: &str) -> impl Iterator<Item = usize> {
    words.bytes().enumerate().filter_map(|(at, byte)| (byte == b' ').then_some(at + 1))
}

/// Whether a phrase stands at a place where a word starts.
fn stands(words: &str, at: usize, phrase: &str) -> bool {
    let (rest, phrase) = (&words.as_bytes()[at..], phrase.as_bytes());
    // Most are told apart by where they end and how they begin.
    rest.get(phrase.len()) == Some(&b' ') && rest.first() == phrase.first() && rest.starts_with(phrase)
}

/// Whether a text in the form of [`words`] has one of these words or phrases.
pub fn has_any(words: &str, phrases: &[&str]) -> bool {
    starts(words).any(|at| phrases.iter().any(|phrase| stands(words, at, phrase)))
}

/// Where a phrase stands in a text in the form of [`words`].
pub fn find(words: &str, phrase: &str) -> Option<usize> {
    starts(words).find(|at| stands(words, *at, phrase))
}

/// A value that a text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Where it starts in the form of [`words`].
    pub at: usize,
    /// The value in that form, without the spaces at its ends.
    pub value: String,
}

/// Names and values of one world.
#[derive(Clone, Debug, Default)]
pub struct Lexicon {
    names: BTreeMap<String, Phrases>,
    /// By domain, then by slot.
    values: BTreeMap<String, BTreeMap<String, Phrases>>,
    spelling: BTreeMap<String, String>,
}

/// Phrases to look for, longest first.
#[derive(Clone, Debug, Default)]
struct Phrases {
    list: Vec<String>,
    /// The places in `list` of the phrases that start with a word.
    by_word: HashMap<String, Vec<usize>>,
    /// Bits of the words that phrases start with: most words of a text are none of them, and are not looked up.
    bits: [u64; 16],
}

/// A bit's place for a word that is not empty.
fn bit(word: &str) -> (usize, u64) {
    let bytes = word.as_bytes();
    let [first, last] = [bytes[0], bytes[bytes.len() - 1]].map(usize::from);
    let hash = first * 31 + last * 7 + bytes.len() * 131;
    (hash / 64 % 16, 1 << (hash % 64))
}

impl Phrases {
    fn new(set: BTreeSet<String>) -> Self {
        let mut list: Vec<String> = set.into_iter().collect();
        list.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        let mut by_word = HashMap::<String, Vec<usize>>::new();
        let mut bits = [0; 16];
        for (place, phrase) in list.iter().enumerate() {
            let (word, mask) = bit(first_word(phrase));
            bits[word] |= mask;
            by_word.entry(first_word(phrase).to_owned()).or_default().push(place);
        }
        Self { list, by_word, bits }
    }

    /// The places in `list` of the phrases of which a text has the first word, ascending.
    fn possible(&self, text: &str) -> Vec<usize> {
        let mut places = Vec::new();
        let mut start = 0;
        for (at, _) in text.bytes().enumerate().filter(|(_, byte)| *byte == b' ').chain([(text.len(), b' ')]) {
            let word = &text[start..at];
            start = at + 1;
            if word.is_empty() {
                continue;
            }
            let (place, mask) = bit(word);
            if self.bits[place] & mask != 0 {
                places.extend(self.by_word.get(word).into_iter().flatten());
            }
        }
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Finds the phrases of a text and blanks them out of it; longer ones hide the shorter ones inside them.
    fn take(&self, text: &mut String) -> Vec<Mention> {
        let mut found = Vec::new();
        for place in self.possible(text) {
            let value = &self.list[place];
            while let Some(at) = find(text, value) {
                // Blanks of the same length, so that places stay comparable.
                text.replace_range(at..at + value.len(), &"_".repeat(value.len()));
                found.push(Mention { at, value: value.clone() });
            }
        }
        found.sort_by_key(|mention| mention.at);
        found
    }
}

fn first_word(phrase: &str) -> &str {
    phrase.split(' ').next().unwrap_or_default()
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
        self.phrases(domain, slot).map_or(&[], |phrases| &phrases.list)
    }

    fn phrases(&self, domain: &str, slot: &str) -> Option<&Phrases> {
        self.values.get(domain)?.get(slot)
    }

    /// The known names of a domain in the form of [`words`], longest first.
    pub fn names(&self, domain: &str) -> &[String] {
        self.names.get(domain).map_or(&[], |phrases| &phrases.list)
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

    proptest::proptest! {
        #[test]
        fn ascii_is_spelt_like_any_text(text in "[a-cA-C0-2:'\\-. \\x00-\\x7f]{0,40}") {
            let (mut quick, mut slow) = (String::new(), String::new());
            spell_ascii(&text, &mut quick);
            spell(&text, &mut slow);
            proptest::prop_assert_eq!(quick, slow);
        }

        #[test]
        fn phrases_are_found_where_they_stand_as_words(text in "[ab ]{0,12}", phrase in "[ab]{1,3}( [ab]{1,2})?") {
            let text = words(&text);
            let found = text.match_indices(&phrase).map(|(at, _)| at).find(|at| {
                text[..*at].ends_with(' ') && text[at + phrase.len()..].starts_with(' ')
            });
            // Overlapping places: `match_indices` passes over them, words do not overlap.
            proptest::prop_assert!(found.is_none() || find(&text, &phrase).is_some());
            if let Some(at) = find(&text, &phrase) {
                let there = format!(" {phrase} ");
                proptest::prop_assert!(text[at - 1..].starts_with(&there));
            }
            let one = Phrases::new([phrase.clone()].into());
            proptest::prop_assert_eq!(one.take(&mut text.clone()).is_empty(), find(&text, &phrase).is_none());
        }

        #[test]
        fn words_are_a_fixed_point(text in ".{0,60}") {
            let once = words(&text);
            proptest::prop_assert_eq!(words(&once), once.clone());
            proptest::prop_assert!(once.starts_with(' ') && once.ends_with(' '));
        }
    }
}
