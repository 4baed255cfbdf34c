//! Styled lines: measured, wrapped, cut and padded by the columns that they take.

use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What a piece of text is, which decides its style.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ink {
    /// Text.
    #[default]
    Plain,
    /// What may be overlooked.
    Dim,
    /// What stands out.
    Bold,
    /// The customer.
    User,
    /// The agent.
    Agent,
    /// A call.
    Call,
    /// A goal reached, a success.
    Good,
    /// A failure, an error.
    Bad,
    /// What is broken, or otherwise odd.
    Odd,
    /// The golden path.
    Golden,
}

impl Ink {
    fn style(self) -> Style {
        let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
        match self {
            Self::Plain => Style::new(),
            Self::Dim => Style::new().dimmed(),
            Self::Bold => Style::new().bold(),
            Self::User => colour(AnsiColor::Cyan).bold(),
            Self::Agent => colour(AnsiColor::Blue).bold(),
            Self::Call => colour(AnsiColor::Magenta),
            Self::Good => colour(AnsiColor::Green),
            Self::Bad => colour(AnsiColor::Red),
            Self::Odd => colour(AnsiColor::Yellow),
            Self::Golden => colour(AnsiColor::Yellow).bold(),
        }
    }
}

/// A line of text in pieces. Until it is wrapped it may hold line ends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line(Vec<(Ink, String)>);

impl Line {
    /// A line of one piece.
    pub fn new(ink: Ink, text: impl AsRef<str>) -> Self {
        Self::default().with(ink, text)
    }

    /// The line with one more piece, its control characters taken out.
    #[must_use]
    pub fn with(mut self, ink: Ink, text: impl AsRef<str>) -> Self {
        let text = plain(text.as_ref());
        if !text.is_empty() {
            self.0.push((ink, text));
        }
        self
    }

    /// The line with another behind it.
    #[must_use]
    pub fn then(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The columns that it takes.
    pub fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.width()).sum()
    }

    /// The line, filled with spaces to this many columns.
    #[must_use]
    pub fn padded(self, columns: usize) -> Self {
        let missing = columns.saturating_sub(self.width());
        self.with(Ink::Plain, " ".repeat(missing))
    }

    /// The line as it is where it fits; else its beginning with `…` behind it. Line ends become spaces.
    #[must_use]
    pub fn cut(&self, columns: usize) -> Self {
        let cells: Vec<Cell> = self.cells().map(|(cell, ink)| (if cell == '\n' { ' ' } else { cell }, ink)).collect();
        if cells.iter().map(|cell| width(*cell)).sum::<usize>() <= columns {
            return Self::of(&cells);
        }
        let room = fitting(&cells, columns.saturating_sub(1));
        Self::of(&cells[..room]).with(Ink::Dim, "…")
    }

    /// The line in lines of at most this many columns (of 8 where it is less), broken between words where that can be, and at
    /// its line ends.
    pub fn wrap(&self, columns: usize) -> Vec<Self> {
        let columns = columns.max(8);
        let cells: Vec<Cell> = self.cells().collect();
        let mut lines = Vec::new();
        for mut rest in cells.split(|(cell, _)| *cell == '\n') {
            loop {
                let room = fitting(rest, columns);
                if room == rest.len() {
                    lines.push(Self::of(rest));
                    break;
                }
                let space = rest[..=room].iter().rposition(|(cell, _)| *cell == ' ').filter(|space| *space > 0);
                let end = space.unwrap_or(room);
                lines.push(Self::of(&rest[..end]));
                rest = &rest[end..];
                let spaces = rest.iter().take_while(|(cell, _)| *cell == ' ').count();
                rest = &rest[spaces..];
            }
        }
        lines
    }

    /// The text with the codes of its styles; `anstream` takes them out where there is no colour.
    pub fn paint(&self) -> String {
        let end = self.0.iter().rposition(|(ink, text)| *ink != Ink::Plain || !text.trim_end().is_empty());
        let mut painted = String::new();
        for (place, (ink, text)) in self.0.iter().enumerate().take(end.map_or(0, |end| end + 1)) {
            let text = if Some(place) == end { text.trim_end() } else { text };
            let style = ink.style();
            painted.push_str(&format!("{style}{text}{style:#}"));
        }
        painted
    }

    fn cells(&self) -> impl Iterator<Item = Cell> {
        self.0.iter().flat_map(|(ink, text)| text.chars().map(|cell| (cell, *ink)))
    }

    fn of(cells: &[Cell]) -> Self {
        let mut line = Self::default();
        for piece in cells.chunk_by(|a, b| a.1 == b.1) {
            line.0.push((piece[0].1, piece.iter().map(|(cell, _)| cell).collect()));
        }
        line
    }
}

/// A character with its ink.
type Cell = (char, Ink);

fn width((cell, _): Cell) -> usize {
    cell.width().unwrap_or(0)
}

/// How many of the cells take no more than this many columns; at least one, so that a wide one in a narrow place is not stuck.
fn fitting(cells: &[Cell], columns: usize) -> usize {
    let mut used = 0;
    let over = cells.iter().position(|cell| {
        used += width(*cell);
        used > columns
    });
    over.map_or(cells.len(), |over| over.max(1))
}

/// A text without control characters but line ends; a tab is a space.
fn plain(text: &str) -> String {
    let kept = |c: char| match c {
        '\t' => Some(' '),
        '\n' => Some('\n'),
        c if c.is_control() => None,
        c => Some(c),
    };
    text.chars().filter_map(kept).collect()
}

/// Lines behind a label: the first behind it, the others below, all `indent` columns in.
pub fn hang(label: &Line, indent: usize, lines: Vec<Line>) -> Vec<Line> {
    let behind = |(place, line): (usize, Line)| {
        let before = if place == 0 { label.clone() } else { Line::default() };
        before.padded(indent).then(line)
    };
    lines.into_iter().enumerate().map(behind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| anstream::adapter::strip_str(&line.paint()).to_string()).collect()
    }

    #[test]
    fn lines_break_between_words_and_keep_their_ink() {
        let line = Line::new(Ink::Bold, "search_hotel").with(Ink::Plain, "(area: north, stars: 4)\nend");
        let wrapped = line.wrap(20);
        assert_eq!(texts(&wrapped), ["search_hotel(area:", "north, stars: 4)", "end"]);
        assert_eq!(wrapped[0].0[0], (Ink::Bold, "search_hotel".to_owned()));
        assert_eq!(texts(&Line::new(Ink::Plain, "abcdefghijk").wrap(8)), ["abcdefgh", "ijk"]);
        assert_eq!(texts(&Line::default().wrap(8)), [""]);
    }

    #[test]
    fn lines_are_cut_and_hung() {
        assert_eq!(texts(&[Line::new(Ink::Plain, "a\nlong text").cut(7)]), ["a long…"]);
        assert_eq!(texts(&[Line::new(Ink::Plain, "fits").cut(4)]), ["fits"]);
        let hung = hang(&Line::new(Ink::User, "user"), 6, Line::new(Ink::Plain, "two lines").wrap(8));
        assert_eq!(texts(&hung), ["user  two", "      lines"]);
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let line = Line::new(Ink::Plain, "a\u{1b}[31mred\u{7}\tb\u{9b}2J");
        assert_eq!(line.paint(), "a[31mred b2J");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_is_too_wide(text in "[a-zü漢 \n]{0,80}", columns in 8_usize..40) {
            let lines = Line::new(Ink::Plain, &text).wrap(columns);
            prop_assert!(lines.iter().all(|line| line.width() <= columns));
            let kept = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(kept(&texts(&lines).concat()), kept(&text));
            prop_assert!(Line::new(Ink::Plain, &text).cut(columns).width() <= columns);
        }
    }
}
