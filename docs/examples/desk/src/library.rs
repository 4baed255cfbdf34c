//! The world: books on shelves, what a reader wants, and the two tools of the desk.

use thresh::seed::derive;

const SHELVES: [&str; 6] = ["red", "blue", "green", "white", "black", "amber"];
const TITLES: [&str; 12] = [
    "river", "garden", "tower", "mirror", "winter", "letter", "forest", "harbor", "silver", "candle", "thunder",
    "meadow",
];

/// A book by its number.
pub type Book = usize;

/// A book's title.
pub fn title(book: Book) -> &'static str {
    TITLES[book]
}

/// Where a book stands.
pub fn shelf(book: Book) -> &'static str {
    SHELVES[derive(7, &["shelf", title(book)]) as usize % SHELVES.len()]
}

/// Some shelf.
pub fn any_shelf(seed: u64) -> &'static str {
    SHELVES[derive(seed, &["any"]) as usize % SHELVES.len()]
}

/// The books that a reader wants, one after the other: the first is asked for first.
pub fn wishes(visit: &str) -> Vec<Book> {
    let draw = |what: &str| derive(11, &[what, visit]) as usize;
    let first = draw("first") % TITLES.len();
    let second = (first + 1 + draw("second") % (TITLES.len() - 1)) % TITLES.len();
    if draw("both").is_multiple_of(2) { vec![first] } else { vec![first, second] }
}

/// What the agent may do beside talking.
pub enum Command {
    /// `FIND title`
    Find(String),
    /// `HOLD shelf`: whatever the reader asked for is taken from this shelf.
    Hold(String),
}

impl Command {
    /// The command that a reply is; what is no command is said to the reader.
    pub fn read(reply: &str) -> Option<Self> {
        match reply.split_once(' ')? {
            ("FIND", title) => Some(Self::Find(title.trim().to_owned())),
            ("HOLD", shelf) => Some(Self::Hold(shelf.trim().to_owned())),
            _ => None,
        }
    }

    /// What the agent sees of it. Nobody tells it whether it holds the right book: only the reward does.
    pub fn answer(&self) -> String {
        match self {
            Self::Find(title) => match TITLES.iter().position(|known| known == title) {
                Some(book) => format!("RESULT {}", shelf(book)),
                None => "RESULT nothing".to_owned(),
            },
            Self::Hold(shelf) => format!("RESULT held {shelf}"),
        }
    }
}
