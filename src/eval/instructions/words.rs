//! The lists that tasks are made of.

/// Words to say again.
pub(super) const SAID: &[&str] = &["banana", "window", "thunder", "purple", "kitchen", "forest"];

/// Sentences to say again, each with a name.
pub(super) const SENTENCES: &[(&str, &str)] = &[
    ("door", "The door is open."),
    ("cats", "Three cats sleep on the sofa."),
    ("rain", "It will rain tomorrow."),
    ("bread", "She bought bread and milk."),
    ("train", "The train leaves at noon."),
    ("garden", "Our garden has many roses."),
];

/// What to write in capital letters.
pub(super) const SMALL: &[&str] = &[
    "hello",
    "water",
    "music",
    "garden",
    "orange",
    "school",
    "yellow",
    "planet",
    "good morning",
    "green tea",
    "open door",
    "big city",
    "thank you",
    "cold winter night",
];

/// Words whose first letter is asked for. No answer is a word by itself, as `a` and `i` are.
pub(super) const FIRST: &[&str] = &["tiger", "house", "music", "river", "banana", "garden", "pencil", "lemon"];

/// Words whose last letter is asked for.
pub(super) const LAST: &[&str] = &["book", "green", "world", "table", "sugar", "cloud", "train"];

/// Words and their opposites.
pub(super) const OPPOSITES: &[(&str, &[&str])] = &[
    ("hot", &["cold"]),
    ("big", &["small", "little"]),
    ("up", &["down"]),
    ("day", &["night"]),
    ("fast", &["slow"]),
    ("open", &["closed", "close", "shut"]),
    ("happy", &["sad", "unhappy"]),
    ("rich", &["poor"]),
    ("early", &["late"]),
    ("full", &["empty"]),
    ("wet", &["dry"]),
    ("old", &["young", "new"]),
    ("left", &["right"]),
    ("black", &["white"]),
    ("loud", &["quiet", "soft", "silent"]),
];

/// Countries and their capitals.
pub(super) const CAPITALS: &[(&str, &[&str])] = &[
    ("France", &["Paris"]),
    ("Germany", &["Berlin"]),
    ("Italy", &["Rome"]),
    ("Spain", &["Madrid"]),
    ("England", &["London"]),
    ("Japan", &["Tokyo"]),
    ("China", &["Beijing"]),
    ("Russia", &["Moscow"]),
    ("Greece", &["Athens"]),
    ("Egypt", &["Cairo"]),
    ("Austria", &["Vienna"]),
    ("Canada", &["Ottawa"]),
    ("India", &["New Delhi", "Delhi"]),
    ("Norway", &["Oslo"]),
    ("Portugal", &["Lisbon"]),
];

/// Questions, each with a name and whether the answer is yes: as often yes as no.
pub(super) const FACTS: &[(&str, &str, bool)] = &[
    ("fish-swim", "Can fish swim?", true),
    ("stones-talk", "Can stones talk?", false),
    ("ice-cold", "Is ice cold?", true),
    ("fire-cold", "Is fire cold?", false),
    ("sun-star", "Is the sun a star?", true),
    ("moon-cheese", "Is the moon made of cheese?", false),
    ("week-seven", "Does a week have seven days?", true),
    ("week-ten", "Does a week have ten days?", false),
    ("birds-wings", "Do birds have wings?", true),
    ("snakes-legs", "Do snakes have legs?", false),
    ("paris-france", "Is Paris a city in France?", true),
    ("london-japan", "Is London a city in Japan?", false),
    ("five-three", "Is five greater than three?", true),
    ("two-nine", "Is two greater than nine?", false),
    ("grass-green", "Is grass usually green?", true),
    ("elephant-mouse", "Is an elephant smaller than a mouse?", false),
];

/// Numbers to add.
pub(super) const SUMS: &[(u32, u32)] = &[(1, 1), (2, 3), (3, 4), (5, 5), (4, 2), (6, 3), (7, 8), (10, 5), (9, 9)];

/// Numbers to take the second from the first.
pub(super) const DIFFERENCES: &[(u32, u32)] = &[(5, 2), (9, 4), (10, 3), (8, 7), (20, 5)];

/// Numbers to multiply.
pub(super) const PRODUCTS: &[(u32, u32)] = &[(2, 3), (3, 3), (2, 5), (4, 5)];

/// Words to count.
pub(super) const COUNTED: &[&[&str]] = &[
    &["red", "blue"],
    &["cat", "dog", "bird"],
    &["tea", "milk", "juice", "water"],
    &["sun", "moon", "star"],
    &["pen", "book", "desk", "lamp", "chair"],
    &["apple", "pear", "plum", "grape"],
    &["car", "bus"],
];

/// Words whose letters are to be counted.
pub(super) const SPELT: &[&str] = &["cat", "tree", "house", "go", "bread", "garden"];

/// Words to put into the order of the alphabet, no two with the same first letter.
pub(super) const ALPHABETICAL: &[&[&str]] = &[
    &["banana", "apple", "cherry"],
    &["dog", "cat", "bird"],
    &["zebra", "lion", "monkey"],
    &["tea", "coffee", "milk"],
    &["green", "blue", "red"],
    &["house", "garden", "street"],
];

/// Numbers to put into their order.
pub(super) const UNSORTED: &[&[u32]] = &[&[3, 1, 2], &[9, 4, 7], &[10, 5, 8], &[6, 2, 4], &[30, 10, 20], &[8, 12, 1]];

/// Sequences, each with a name, what there is of it and what comes next.
pub(super) const SEQUENCES: &[(&str, &[&str], &str)] = &[
    ("ones", &["1", "2", "3", "4"], "5"),
    ("twos", &["2", "4", "6", "8"], "10"),
    ("fives", &["5", "10", "15", "20"], "25"),
    ("tens", &["10", "20", "30", "40"], "50"),
    ("odd", &["1", "3", "5", "7"], "9"),
    ("down", &["9", "8", "7", "6"], "5"),
    ("doubles", &["1", "2", "4", "8"], "16"),
    ("threes", &["3", "6", "9", "12"], "15"),
    ("days", &["Monday", "Tuesday", "Wednesday"], "Thursday"),
    ("weekend", &["Thursday", "Friday", "Saturday"], "Sunday"),
    ("months", &["January", "February", "March"], "April"),
    ("summer", &["May", "June", "July"], "August"),
    ("letters", &["B", "C", "D", "E"], "F"),
    ("words", &["one", "two", "three"], "four"),
];

/// Lists with one word that is longer than the others.
pub(super) const LENGTHS: &[&[&str]] = &[
    &["cat", "elephant", "dog"],
    &["sun", "sky", "mountain"],
    &["strawberry", "fig", "pear"],
    &["pen", "cup", "television"],
    &["butterfly", "ant", "bee"],
    &["car", "helicopter", "bus"],
];

/// Sentences with one colour in each.
pub(super) const COLOURED: &[(&str, &str)] = &[
    ("red", "The red bus is late today."),
    ("blue", "My sister wears a blue coat."),
    ("green", "He sat on the green chair."),
    ("yellow", "A yellow bird sings in the tree."),
    ("white", "We painted the wall white."),
    ("black", "The black cat ran away."),
    ("brown", "She has a brown dog."),
    ("pink", "There is a pink flower on the table."),
];

/// The numbers whose names are accepted too.
pub(super) const NAMES: [&str; 21] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];
