//! Fenced blocks of Markdown, and when two outputs are the same.

use std::sync::LazyLock;

use regex::Regex;

/// A fenced block.
pub struct Block {
    /// The language: what stands before the first comma.
    pub language: String,
    marks: Vec<String>,
    /// What it holds, every line with its end.
    pub text: String,
    /// The line of its opening fence, from 1.
    pub line: usize,
    /// Where its text lies in the page.
    pub range: std::ops::Range<usize>,
}

impl Block {
    /// All blocks of a page.
    pub fn all(page: &str) -> Vec<Self> {
        let mut blocks = Vec::new();
        let mut open: Option<(String, Self)> = None;
        let mut at = 0;
        for (number, line) in page.split_inclusive('\n').enumerate() {
            let bare = line.trim_end();
            let ticks = bare.len() - bare.trim_start_matches('`').len();
            match &mut open {
                Some((fence, block)) if bare == *fence => {
                    block.range.end = at;
                    blocks.extend(open.take().map(|(_, block)| block));
                }
                Some((_, block)) => block.text.push_str(line),
                None if ticks >= 3 => {
                    let mut marks = bare[ticks..].split(',').map(str::to_owned);
                    let language = marks.next().unwrap_or_default();
                    let start = at + line.len();
                    let block = Self {
                        language,
                        marks: marks.collect(),
                        text: String::new(),
                        line: number + 1,
                        range: start..start,
                    };
                    open = Some(("`".repeat(ticks), block));
                }
                None => {}
            }
            at += line.len();
        }
        assert!(open.is_none(), "a block is not closed");
        blocks
    }

    /// The value of a mark, which is empty where it has none.
    pub fn mark(&self, name: &str) -> Option<&str> {
        self.marks.iter().find_map(|mark| match mark.split_once('=') {
            Some((key, value)) => (key == name).then_some(value),
            None => (mark == name).then_some(""),
        })
    }

    /// A mark that nobody knows.
    pub fn unknown(&self) -> Option<&str> {
        let known = ["norun", "in", "file", "source", "output", "stderr", "exit", "part", "wrong"];
        let name = |mark: &str| mark.split('=').next().unwrap_or_default().to_owned();
        self.marks.iter().find(|mark| !known.contains(&name(mark).as_str())).map(String::as_str)
    }
}

/// What changes from run to run, and what stands for it.
static CHANGING: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    let pairs = [
        (r"\d{8}-\d{6}-\d+", "RUN"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?( UTC|Z)?", "TIME"),
        (r"\b\d+(\.\d+)? (s|ms|min|h)\b", "SECONDS"),
        (r"\b\d+(\.\d+)? (B|KiB|MiB|GiB)\b", "SIZE"),
        (r"tokens_per_second \d+(\.\d+)?", "TOKENS"),
        (r"\b[0-9a-f]{12,}\b", "DIGEST"),
        (r"[─═━-]{3,}", "---"),
        (r"[ \t]+", " "),
    ];
    pairs.into_iter().map(|(pattern, word)| (Regex::new(pattern).unwrap(), word)).collect()
});

fn lines(text: &str) -> Vec<String> {
    let same = |line: &str| {
        CHANGING.iter().fold(line.to_owned(), |line, (regex, word)| regex.replace_all(&line, *word).into_owned())
    };
    let text = text.trim_matches('\n');
    text.lines().map(|line| same(line).trim().to_owned()).collect()
}

/// Whether the output that a page shows is what was printed; a line `…` stands for any number of lines.
pub fn matches(shown: &str, printed: &str) -> bool {
    fn fits(shown: &[String], printed: &[String]) -> bool {
        match shown.split_first() {
            None => printed.is_empty(),
            Some((line, rest)) if line == "…" => (0..=printed.len()).any(|skipped| fits(rest, &printed[skipped..])),
            Some((line, rest)) => printed.first() == Some(line) && fits(rest, &printed[1..]),
        }
    }
    fits(&lines(shown), &lines(printed))
}
