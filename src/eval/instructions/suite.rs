//! The tasks, made from the lists.

use super::words::{
    ALPHABETICAL, CAPITALS, COLOURED, COUNTED, DIFFERENCES, FACTS, FIRST, LAST, LENGTHS, NAMES, OPPOSITES, PRODUCTS,
    SAID, SENTENCES, SEQUENCES, SMALL, SPELT, SUMS, UNSORTED,
};
use super::{Category, Task};

/// Every task, category by category; always the same.
pub fn tasks() -> Vec<Task> {
    Category::ALL.into_iter().flat_map(of).collect()
}

fn of(category: Category) -> Vec<Task> {
    match category {
        Category::Repeat => repeat(),
        Category::Uppercase => SMALL.iter().copied().map(uppercase).collect(),
        Category::Letter => letters(),
        Category::Opposite => OPPOSITES.iter().map(|(word, opposites)| opposite(word, opposites)).collect(),
        Category::Capital => CAPITALS.iter().map(|(country, capitals)| capital(country, capitals)).collect(),
        Category::Fact => FACTS.iter().map(|(name, question, yes)| fact(name, question, *yes)).collect(),
        Category::Sum => sums(),
        Category::Count => counts(),
        Category::Order => orders(),
        Category::Sequence => SEQUENCES.iter().map(|(name, begun, next)| sequence(name, begun, next)).collect(),
        Category::Pick => picks(),
    }
}

/// A task; `what` becomes the name's second part.
fn task(category: Category, what: &str, prompt: String, accepted: impl IntoIterator<Item = impl Into<String>>) -> Task {
    let name = format!("{}/{}", category.name(), what.to_lowercase().replace(' ', "-"));
    let accepted = accepted.into_iter().map(Into::into).collect();
    Task { name, category, prompt, accepted, others: Vec::new(), given: None }
}

impl Task {
    /// The task, with its wrong choices.
    fn but_not(self, others: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { others: others.into_iter().map(Into::into).collect(), ..self }
    }
}

fn repeat() -> Vec<Task> {
    let word = |word: &&str| {
        let prompt = format!("Repeat this word exactly and say nothing else: {word}");
        task(Category::Repeat, word, prompt, [*word])
    };
    let sentence = |(name, sentence): &(&str, &str)| {
        let prompt = format!("Repeat this sentence exactly and say nothing else: {sentence}");
        task(Category::Repeat, name, prompt, [*sentence])
    };
    SAID.iter().map(word).chain(SENTENCES.iter().map(sentence)).collect()
}

fn uppercase(text: &str) -> Task {
    let prompt = format!("Write \"{text}\" in capital letters. Answer with that only.");
    task(Category::Uppercase, text, prompt, [text.to_uppercase()])
}

fn letters() -> Vec<Task> {
    let asked = |which: &str, word: &str, letter: Option<char>| {
        let prompt = format!("What is the {which} letter of the word \"{word}\"? Answer with one letter only.");
        task(Category::Letter, &format!("{which}-{word}"), prompt, letter)
    };
    let first = FIRST.iter().map(|word| asked("first", word, word.chars().next()));
    first.chain(LAST.iter().map(|word| asked("last", word, word.chars().last()))).collect()
}

fn opposite(word: &str, opposites: &[&str]) -> Task {
    let prompt = format!("What is the opposite of \"{word}\"? Answer with one word only.");
    task(Category::Opposite, word, prompt, opposites.iter().copied())
}

fn capital(country: &str, capitals: &[&str]) -> Task {
    let prompt = format!("What is the capital of {country}? Answer with the name of the city only.");
    task(Category::Capital, country, prompt, capitals.iter().copied())
}

fn fact(name: &str, question: &str, yes: bool) -> Task {
    let (right, wrong) = if yes { ("yes", "no") } else { ("no", "yes") };
    task(Category::Fact, name, format!("{question} Answer with yes or no only."), [right]).but_not([wrong])
}

/// A number in digits, and in letters where it is small.
fn number(value: usize) -> Vec<String> {
    let name = NAMES.get(value).map(|name| (*name).to_owned());
    [value.to_string()].into_iter().chain(name).collect()
}

fn sums() -> Vec<Task> {
    let asked = |sign: &str, what: &str, (a, b): (u32, u32), value: u32| {
        let prompt = format!("What is {a} {sign} {b}? Answer with the number only.");
        task(Category::Sum, &format!("{a}-{what}-{b}"), prompt, number(value as usize))
    };
    let sums = SUMS.iter().map(|&(a, b)| asked("+", "plus", (a, b), a + b));
    let differences = DIFFERENCES.iter().map(|&(a, b)| asked("-", "minus", (a, b), a - b));
    let products = PRODUCTS.iter().map(|&(a, b)| asked("x", "times", (a, b), a * b));
    sums.chain(differences).chain(products).collect()
}

fn counts() -> Vec<Task> {
    let listed = |words: &&[&str]| {
        let prompt = format!("How many words are in this list: {}? Answer with the number only.", words.join(", "));
        task(Category::Count, &words.join("-"), prompt, number(words.len()))
    };
    let spelt = |word: &&str| {
        let prompt = format!("How many letters does the word \"{word}\" have? Answer with the number only.");
        task(Category::Count, &format!("letters-{word}"), prompt, number(word.len()))
    };
    COUNTED.iter().map(listed).chain(SPELT.iter().map(spelt)).collect()
}

fn orders() -> Vec<Task> {
    let asked = |how: &str, given: &[String], sorted: &[String]| {
        let given_text = given.join(", ");
        let prompt = format!("Put these {how}: {given_text}. Answer with the list only, separated by commas.");
        let accepted = [", ", ",", " "].map(|between| sorted.join(between));
        task(Category::Order, &given.join("-"), prompt, accepted)
    };
    let words = ALPHABETICAL.iter().map(|words| {
        let given: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let mut sorted = given.clone();
        sorted.sort();
        asked("words in alphabetical order", &given, &sorted)
    });
    let numbers = UNSORTED.iter().map(|numbers| {
        let text = |numbers: &[u32]| numbers.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut sorted = numbers.to_vec();
        sorted.sort_unstable();
        asked("numbers in order from smallest to largest", &text(numbers), &text(&sorted))
    });
    words.chain(numbers).collect()
}

fn sequence(name: &str, begun: &[&str], next: &str) -> Task {
    let prompt = format!("What comes next in this sequence: {}? Answer with the next one only.", begun.join(", "));
    let accepted = next.parse().map_or_else(|_| vec![next.to_owned()], number);
    let named = NAMES.iter().position(|name| *name == next).map(|value| value.to_string());
    task(Category::Sequence, name, prompt, accepted.into_iter().chain(named))
}

fn picks() -> Vec<Task> {
    let longest = |words: &&[&str]| {
        let prompt = format!("Which of these words is the longest: {}? Answer with one word only.", words.join(", "));
        let length = words.iter().map(|word| word.len()).max().unwrap_or_default();
        let (long, others): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| word.len() == length);
        task(Category::Pick, &format!("longest-{}", words.join("-")), prompt, long).but_not(others)
    };
    let coloured = |(colour, sentence): &(&str, &str)| {
        let prompt = format!("Which colour is in this sentence: \"{sentence}\" Answer with the colour only.");
        let task = task(Category::Pick, &format!("colour-{colour}"), prompt, [*colour]);
        Task { given: Some((*sentence).to_owned()), ..task }
    };
    LENGTHS.iter().map(longest).chain(COLOURED.iter().map(coloured)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn named(name: &str) -> Task {
        tasks().into_iter().find(|task| task.name == name).unwrap_or_else(|| panic!("no task `{name}`"))
    }

    #[test]
    fn names_and_prompts_are_unique_and_every_category_has_its_share() {
        let tasks = tasks();
        assert_eq!(tasks.len(), 158);
        assert_eq!(tasks.iter().map(|task| &task.name).collect::<BTreeSet<_>>().len(), tasks.len());
        assert_eq!(tasks.iter().map(|task| &task.prompt).collect::<BTreeSet<_>>().len(), tasks.len());
        for category in Category::ALL {
            let count = tasks.iter().filter(|task| task.category == category).count();
            assert!((12..=18).contains(&count), "{}: {count}", category.name());
            let serialized = serde_json::to_value(category).unwrap();
            assert_eq!(serialized, category.name());
        }
        for task in &tasks {
            let tail = task.name.strip_prefix(&format!("{}/", task.category.name())).unwrap();
            assert!(tail.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{}", task.name);
        }
    }

    #[test]
    fn every_right_answer_passes_and_neither_silence_nor_the_prompt_does() {
        for task in tasks() {
            assert!(!task.accepted.is_empty(), "{}", task.name);
            for answer in &task.accepted {
                assert!(task.exact(answer) && task.holds(answer), "{}: {answer}", task.name);
                let dressed = format!(" **\"{answer}\"**.\n");
                assert!(task.exact(&dressed) && task.holds(&dressed), "{}: {dressed}", task.name);
            }
            for reply in ["", " ", "I do not know.", &task.prompt] {
                assert!(!task.exact(reply) && !task.holds(reply), "{}: {reply}", task.name);
            }
        }
    }

    #[test]
    fn half_of_the_facts_are_true_and_a_list_has_one_longest_word() {
        assert_eq!(FACTS.iter().filter(|(_, _, yes)| *yes).count() * 2, FACTS.len());
        for task in tasks().iter().filter(|task| task.name.starts_with("pick/")) {
            assert_eq!(task.accepted.len(), 1, "{}", task.name);
        }
    }

    /// A task, and replies: those that are exact, those that only hold the answer, those that do neither.
    type Judged = (&'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);

    const JUDGED: &[Judged] = &[
        ("repeat/banana", &["banana", "Banana."], &["The word is banana."], &["bananas", "ban ana"]),
        ("repeat/door", &["The door is open.", "the door is open"], &["Sure: The door is open."], &["The door is."]),
        ("uppercase/hello", &["HELLO", "\"HELLO\""], &["It is HELLO!"], &["hello", "Hello", "H E L L O"]),
        ("uppercase/green-tea", &["GREEN TEA"], &["In capitals: GREEN TEA"], &["GREEN tea", "GREENTEA"]),
        ("letter/first-tiger", &["t", "T."], &["The first letter is \"T\"."], &["tiger", "I don't know", "r"]),
        ("opposite/big", &["small", "Little"], &["It is small."], &["smaller", "big"]),
        ("capital/india", &["New Delhi", "Delhi"], &["The capital of India is New Delhi."], &["Mumbai"]),
        ("fact/ice-cold", &["Yes", "yes."], &["Yes, ice is cold."], &["No", "yes or no", "Yesterday"]),
        ("fact/fire-cold", &["No."], &["No, fire is hot."], &["Yes", "Nothing", "Yes and no"]),
        ("sum/3-plus-4", &["7", "seven", "**7**"], &["3 + 4 = 7"], &["17", "7.5", "-7", "34"]),
        ("count/red-blue", &["2", "Two"], &["There are 2 words."], &["3", "red, blue", "12"]),
        ("order/3-1-2", &["1, 2, 3", "1,2,3", "1\n2\n3"], &["Sorted: 1, 2, 3"], &["3, 2, 1", "1, 3, 2"]),
        ("order/dog-cat-bird", &["bird, cat, dog"], &["It is bird, cat, dog!"], &["dog, cat, bird"]),
        ("sequence/twos", &["10", "ten"], &["2, 4, 6, 8, 10, 12"], &["9", "100"]),
        ("sequence/words", &["four", "4"], &["Next is four"], &["fourteen", "five"]),
        ("sequence/days", &["Thursday"], &["It is Thursday."], &["Friday"]),
        (
            "pick/longest-cat-elephant-dog",
            &["Elephant"],
            &["It is elephant."],
            &["cat", "cat, elephant, dog", "elephants"],
        ),
        (
            "pick/colour-red",
            &["red"],
            &["The colour of the bus is red.", "Red, as in: the red bus is late today."],
            &["bus", "The red bus is late today."],
        ),
    ];

    #[test]
    fn replies_are_judged_by_the_rules() {
        for (name, exact, holding, wrong) in JUDGED {
            let task = named(name);
            for reply in *exact {
                assert!(task.exact(reply) && task.holds(reply), "{name}: {reply}");
            }
            for reply in *holding {
                assert!(!task.exact(reply) && task.holds(reply), "{name}: {reply}");
            }
            for reply in *wrong {
                assert!(!task.exact(reply) && !task.holds(reply), "{name}: {reply}");
            }
        }
        let judged: BTreeSet<Category> = JUDGED.iter().map(|(name, ..)| named(name).category).collect();
        assert_eq!(judged.len(), Category::ALL.len());
    }
}
