//! What counts as the same answer.

/// What people and models put around an answer without meaning it: quotes, and the stars of bold and slanted text.
const AROUND: &[char] = &['"', '\'', '`', '*', '“', '”', '‘', '’'];

/// A text without what stands around it: whitespace, quotes, stars and a final full stop, in any order and number. Whitespace
/// within counts as one blank; case counts only where it is kept.
pub(super) fn bare(text: &str, keep_case: bool) -> String {
    let mut text = text;
    loop {
        let inner = text.trim().trim_matches(AROUND);
        let inner = inner.strip_suffix('.').unwrap_or(inner);
        if inner == text {
            break;
        }
        text = inner;
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if keep_case { text } else { text.to_lowercase() }
}

/// The words and numbers of a text, in order. An apostrophe within a word, a point within a number and a minus before one
/// belong to it: `don't`, `7.5` and `-7` are one word each, so neither `t` nor `7` stands in them.
pub(super) fn words(text: &str, keep_case: bool) -> Vec<String> {
    let characters: Vec<char> = text.chars().map(|character| if character == '’' { '\'' } else { character }).collect();
    let at = |place: Option<usize>| place.and_then(|place| characters.get(place)).copied();
    let mut words = vec![String::new()];
    for (place, &character) in characters.iter().enumerate() {
        let (before, after) = (at(place.checked_sub(1)), at(place.checked_add(1)));
        if character.is_alphanumeric() || joins(before, character, after) {
            words.last_mut().into_iter().for_each(|word| word.push(character));
        } else {
            words.push(String::new());
        }
    }
    words.retain(|word| !word.is_empty());
    if keep_case { words } else { words.into_iter().map(|word| word.to_lowercase()).collect() }
}

/// Whether a character that is neither letter nor digit is part of a word.
fn joins(before: Option<char>, character: char, after: Option<char>) -> bool {
    let is = |neighbour: Option<char>, what: fn(char) -> bool| neighbour.is_some_and(what);
    match character {
        '\'' => is(before, char::is_alphabetic) && is(after, char::is_alphabetic),
        '.' => is(before, char::is_numeric) && is(after, char::is_numeric),
        '-' | '−' => before.is_none_or(char::is_whitespace) && is(after, char::is_numeric),
        _ => false,
    }
}

/// Whether the words stand in others, one after the other. No words stand nowhere.
pub(super) fn contains(all: &[String], wanted: &[String]) -> bool {
    !wanted.is_empty() && all.windows(wanted.len()).any(|window| window == wanted)
}

/// The words without the places where others stand one after the other. A gap stays a gap: what stood before and behind it does
/// not become neighbours.
pub(super) fn without(all: &[String], told: &[String]) -> Vec<String> {
    let mut left = Vec::new();
    let mut rest = all;
    while let Some((first, behind)) = rest.split_first() {
        match rest.strip_prefix(told).filter(|_| !told.is_empty()) {
            Some(after) => {
                left.push(String::new());
                rest = after;
            }
            None => {
                left.push(first.clone());
                rest = behind;
            }
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_an_answer_does_not_count() {
        for text in ["Paris", " paris\n", "Paris.", "**Paris**", "\"Paris.\"", "**\"Paris\"**.", "“Paris”", "`paris` "]
        {
            assert_eq!(bare(text, false), "paris", "{text}");
        }
        assert_eq!(bare("the  door\nis open", false), "the door is open");
        assert_eq!(bare("\"Paris.\"", true), "Paris");
        for text in ["Paris!", "Paris?", "Paris, France", "(Paris)", "- Paris"] {
            assert_ne!(bare(text, false), "paris", "{text}");
        }
        assert_eq!(bare(" ..\"*", false), "");
    }

    #[test]
    fn words_are_whole() {
        let said = |reply: &str, wanted: &str| contains(&words(reply, false), &words(wanted, false));
        assert!(said("It is Paris, of course.", "paris") && said("the sum is 7.", "7") && said("3+4=7", "7"));
        assert!(said("**New** Delhi", "new delhi") && said("1,3,5", "1, 3, 5"));
        assert!(!said("Parisian", "paris") && !said("17", "7") && !said("7.5", "7") && !said("it is -7", "7"));
        assert!(!said("don’t", "t") && !said("don't", "don") && !said("new old delhi", "new delhi"));
        assert!(!said("anything", "") && !said("", "paris"));
        assert!(!contains(&words("hello", true), &words("HELLO", true)));
    }

    #[test]
    fn what_was_told_is_cut_out_and_leaves_a_gap() {
        let cut = |reply: &str, told: &str| without(&words(reply, false), &words(told, false)).join("|");
        assert_eq!(cut("red: the red bus.", "The red bus"), "red|");
        assert_eq!(cut("new the bus delhi the bus", "the bus"), "new||delhi|");
        assert_eq!(cut("the red", "the red bus"), "the|red");
        assert_eq!(cut("a b", ""), "a|b");
    }
}
