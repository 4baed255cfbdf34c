//! What is wrong with a file, shown the way compilers show it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use crate::value::Span;
pub use crate::value::nearest;

/// More mistakes than these nobody reads at once.
const SHOWN: usize = 50;

/// The files that were read, so that a span can be shown.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: Vec<(PathBuf, String)>,
    /// Whether files are read without places: then spans are empty, and who asks for their text is noted.
    without_places: bool,
    asked: OnceLock<()>,
}

impl Sources {
    /// The files of a reading without places, which serves where nothing is wrong and nobody asks for a text.
    pub fn without_places() -> Self {
        Self { without_places: true, ..Self::default() }
    }

    /// Whether files are read without places.
    pub fn lack_places(&self) -> bool {
        self.without_places
    }

    /// Whether the text of a span was asked for that a reading without places does not have.
    pub fn were_asked(&self) -> bool {
        self.without_places && self.asked.get().is_some()
    }

    /// Adds a file; its number stands in spans.
    pub fn add(&mut self, path: &Path, text: String) -> usize {
        self.files.push((path.to_owned(), text));
        self.files.len() - 1
    }

    /// A file's text.
    pub fn text(&self, file: usize) -> &str {
        &self.files[file].1
    }

    /// The text of a span; empty where the span is none of the text's.
    pub fn slice(&self, span: Span) -> &str {
        let _ = self.asked.set(());
        self.slice_for_place(span)
    }

    /// Like [`slice`](Self::slice), where the text only makes a place more exact.
    pub fn slice_for_place(&self, span: Span) -> &str {
        self.text(span.file).get(span.start..span.end).unwrap_or_default()
    }

    /// The files and what else was read, in the order of reading.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    fn path(&self, file: usize) -> String {
        self.files[file].0.display().to_string()
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// What is wrong, lower case, names in backticks.
    pub message: String,
    /// Where, and what to say there.
    pub place: Option<(Span, String)>,
    /// A second place that explains the first: where a name was used before.
    pub related: Option<Box<(Span, String)>>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A mistake without a place: one on the command line.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, related: None, help: None }
    }

    /// A mistake at a place.
    pub fn at(span: Span, message: impl Into<String>) -> Self {
        Self::new(message).label(span, "")
    }

    /// Where it is.
    pub fn span(&self) -> Option<Span> {
        self.place.as_ref().map(|(span, _)| *span)
    }

    /// Says where.
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.place = Some((span, text.into()));
        self
    }

    /// Points to a place that explains.
    pub fn related(mut self, span: Span, text: impl Into<String>) -> Self {
        self.related = Some(Box::new((span, text.into())));
        self
    }

    /// Says what to do.
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Suggests the known name that is nearest to a wrong one, or lists the known ones where none is near.
    pub fn suggest<'a>(self, wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        if let Some(near) = nearest(wrong, known.iter().copied()) {
            return self.help(format!("did you mean `{near}`?"));
        }
        if known.is_empty() || known.len() > 24 {
            return self;
        }
        let listed = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        self.help(format!("known are {listed}"))
    }
}

/// A mistake as programs read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What stands at the place, where something is said there.
    pub label: Option<String>,
    /// What to do.
    pub help: Option<String>,
    /// The file, or `--set`; nothing where the mistake has no place.
    pub file: Option<PathBuf>,
    /// The line, from 1.
    pub line: Option<usize>,
    /// The character in the line, from 1.
    pub column: Option<usize>,
}

/// All mistakes of a pipeline and the files they are in.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    /// The files.
    pub sources: Sources,
    /// The mistakes, in the order of their places.
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Mistakes, put in the order of their places.
    pub fn new(sources: Sources, mut list: Vec<Diagnostic>) -> Self {
        list.sort_by_key(|diagnostic| diagnostic.place.as_ref().map(|(span, _)| *span));
        list.dedup();
        Self { sources, list }
    }

    /// The mistakes as text, in colour where asked.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for diagnostic in self.list.iter().take(SHOWN) {
            text.push_str(&renderer.render(&[self.group(diagnostic)]));
            text.push_str("\n\n");
        }
        let count = self.list.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        let shown = if count > SHOWN { format!(", the first {SHOWN} shown") } else { String::new() };
        text.push_str(&format!("{count} {noun}{shown}; nothing was run\n"));
        text
    }

    /// The mistakes as programs read them.
    pub fn problems(&self) -> Vec<Problem> {
        let problem = |Diagnostic { message, place, help, .. }: &Diagnostic| {
            let at = place.as_ref().map(|(span, label)| {
                let text = self.sources.text(span.file);
                let before = &text[..visible(text, *span).start];
                let line = before.rsplit('\n').next().unwrap_or_default();
                (&self.sources.files[span.file].0, before.matches('\n').count() + 1, line.chars().count() + 1, label)
            });
            Problem {
                message: message.clone(),
                label: at.map(|(.., label)| label.clone()).filter(|label| !label.is_empty()),
                help: help.clone(),
                file: at.map(|(file, ..)| file.clone()),
                line: at.map(|(_, line, ..)| line),
                column: at.map(|(_, _, column, _)| column),
            }
        };
        self.list.iter().map(problem).collect()
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let mut group = Group::with_title(Level::ERROR.primary_title(diagnostic.message.as_str()));
        let related = diagnostic.related.as_deref();
        let same_file = match (&diagnostic.place, related) {
            (Some((place, _)), Some((related, _))) => place.file == related.file,
            _ => false,
        };
        for (index, (span, label)) in [diagnostic.place.as_ref(), related].into_iter().flatten().enumerate() {
            if index == 1 && same_file {
                break;
            }
            let text = self.sources.text(span.file);
            let mut snippet = Snippet::source(text)
                .path(self.sources.path(span.file))
                .annotation(AnnotationKind::Primary.span(visible(text, *span)).label(label.as_str()));
            if let (true, Some((related, label))) = (same_file, related) {
                snippet =
                    snippet.annotation(AnnotationKind::Context.span(visible(text, *related)).label(label.as_str()));
            }
            group = group.element(snippet);
        }
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        group
    }
}

/// A span cut to its first line and to the text's characters, so that a caret always stands under something.
fn visible(text: &str, span: Span) -> std::ops::Range<usize> {
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let line_end = text[start..].find('\n').map_or(text.len(), |offset| start + offset);
    let mut end = span.end.clamp(start, line_end.max(start));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    start..end.max(start)
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}
