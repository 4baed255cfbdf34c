//! The drawing as SVG: as a file of its own, or to stand in a page.
//!
//! In a page, colours are variables of CSS: [`STYLE`] says what is drawn with which, the page gives each a value. Each stage is
//! `g.dag-stage` with `data-stage`, its index, and a class of what became of it (`dag-computed`); each edge `g.dag-edge` with
//! `data-from` and `data-to`.

use std::fmt::Write as _;

use super::layout::{Area, BOLD, INSET, LARGE, Layout, Line, SMALL, layout};
use super::{Dag, Stage, text, word};
use crate::engine::history::Outcome;
use crate::report::duration;

/// What is drawn with which variable: `--dag-back`, `--dag-box`, `--dag-border`, `--dag-line`, `--dag-text`, `--dag-muted`, and
/// one for each outcome as `--dag-computed`.
pub const STYLE: &str = include_str!("style.css");

/// The variables' values on light and on dark ground.
pub const COLOURS: [(&str, &str, &str); 12] = [
    ("--dag-back", "#ffffff", "#11161d"),
    ("--dag-box", "#ffffff", "#1b222c"),
    ("--dag-border", "#cbd5e1", "#3a4554"),
    ("--dag-line", "#8896a8", "#6b7a8f"),
    ("--dag-text", "#0f172a", "#e6edf3"),
    ("--dag-muted", "#5b6778", "#9aa7b8"),
    ("--dag-computed", "#15803d", "#4ade80"),
    ("--dag-fresh", "#475f85", "#9db4d6"),
    ("--dag-frozen", "#0369a1", "#38bdf8"),
    ("--dag-failed", "#b91c1c", "#f87171"),
    ("--dag-skipped", "#92400e", "#fbbf24"),
    ("--dag-pending", "#64748b", "#94a3b8"),
];

/// A drawing as a file: it has its colours with it, and follows what its reader prefers.
pub fn standalone(dag: &Dag) -> String {
    let style = |dark: bool| {
        COLOURS.iter().fold(STYLE.to_owned(), |style, (name, light, night)| {
            style.replace(&format!("var({name})"), if dark { night } else { light })
        })
    };
    let mut dark = String::new();
    for line in style(true).lines().filter(|line| line.contains('#')) {
        let _ = writeln!(dark, "  {line}");
    }
    let style = format!("<style>\n{}@media (prefers-color-scheme: dark) {{\n{dark}}}\n</style>\n", style(false));
    let back = "<rect class=\"dag-back\" width=\"100%\" height=\"100%\"/>\n";
    draw(dag, " xmlns=\"http://www.w3.org/2000/svg\"", &format!("{style}{back}"))
}

/// A drawing for a page, which has [`STYLE`] and the colours.
pub fn inline(dag: &Dag) -> String {
    draw(dag, "", "")
}

fn draw(dag: &Dag, space: &str, before: &str) -> String {
    let Layout { width, height, boxes, outputs, lines } = layout(dag);
    let mut out = format!(
        "<svg{space} class=\"dag\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"{}\">\n{before}",
        escaped(&format!("pipeline {}: {} stages", dag.name, dag.stages.len())),
    );
    out.push_str("<g class=\"dag-edges\">\n");
    for (edge, line) in dag.edges.iter().zip(&lines) {
        let (from, to) = (&dag.stages[edge.from].name, &dag.stages[edge.to].name);
        let inputs = edge.inputs.join(", ");
        let title = escaped(&format!("{from}.{} → {to} ({inputs})", edge.port));
        let _ = writeln!(
            out,
            "<g class=\"dag-edge\" data-from=\"{}\" data-to=\"{}\"><title>{title}</title><path d=\"{}\"/>\
             <path class=\"dag-head\" d=\"{}\"/></g>",
            edge.from,
            edge.to,
            path(line),
            head(line),
        );
    }
    out.push_str("</g>\n<g class=\"dag-outputs\">\n");
    for output in &outputs {
        let (x, y, port) = (output.x, output.y, escaped(&output.port));
        let _ = writeln!(
            out,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"3\"/><text x=\"{}\" y=\"{}\">{port}</text>",
            x + 5.0,
            y + 13.0
        );
    }
    out.push_str("</g>\n<g class=\"dag-stages\">\n");
    for (index, (stage, area)) in dag.stages.iter().zip(&boxes).enumerate() {
        draw_stage(&mut out, index, stage, area);
    }
    out.push_str("</g>\n</svg>\n");
    out
}

fn draw_stage(out: &mut String, index: usize, stage: &Stage, area: &Area) {
    let class = stage.outcome.map_or("planned", word);
    let Area { x, y, width, height } = *area;
    let room = width - 2.0 * INSET;
    let (name, values) = text::parts(&stage.name);
    let state = state(stage);
    let title = match state.as_str() {
        "" => format!("{} ({})", stage.name, stage.kind),
        state => format!(
            "{} ({}): {class}{}",
            stage.name,
            stage.kind,
            if state == class { String::new() } else { format!(", {state}") }
        ),
    };
    let _ = write!(
        out,
        "<g class=\"dag-stage dag-{class}\" data-stage=\"{}\" data-index=\"{index}\" transform=\"translate({x} {y})\">\
         <title>{}</title><rect class=\"dag-box\" width=\"{width}\" height=\"{height}\" rx=\"7\"/>",
        escaped(&stage.name),
        escaped(&title),
    );
    if stage.outcome.is_some() {
        let _ = write!(
            out,
            "<rect class=\"dag-mark\" x=\"5\" y=\"8\" width=\"3\" height=\"{}\" rx=\"1.5\"/>",
            height - 16.0
        );
    }
    let mut line = |class: &str, at: f64, words: &str| {
        let _ = write!(out, "<text class=\"{class}\" x=\"{INSET}\" y=\"{at}\">{}</text>", escaped(words));
    };
    line("dag-name", 20.0, &text::shortened(name, LARGE * BOLD, room));
    if let Some(values) = values {
        line("dag-values", 36.0, &text::shortened(&values, SMALL, room));
    }
    let beside = if state.is_empty() { 0.0 } else { text::width(&state, SMALL) + 12.0 };
    line("dag-kind", height - 10.0, &text::shortened(&stage.kind, SMALL, room - beside));
    if !state.is_empty() {
        let (right, low) = (width - INSET + 4.0, height - 10.0);
        let _ = write!(out, "<text class=\"dag-state\" x=\"{right}\" y=\"{low}\">{}</text>", escaped(&state));
    }
    out.push_str("</g>\n");
}

/// What the box says of its stage: how long it took, else what became of it.
pub fn state(stage: &Stage) -> String {
    match (stage.outcome, stage.seconds) {
        (None, _) => String::new(),
        (Some(Outcome::Computed), Some(seconds)) => duration(seconds),
        (Some(outcome), _) => word(outcome).to_owned(),
    }
}

/// The line as path data: straight down beside boxes, bent between rows.
fn path(line: &Line) -> String {
    let mut data = String::new();
    let (mut x, mut y) = (0.0, 0.0);
    for (place, piece) in line.0.iter().enumerate() {
        // What lies below each other is one straight piece.
        if place == 0 {
            let _ = write!(data, "M{} {}", piece.x, piece.top);
        } else if piece.x != x {
            let straight = y;
            let half = ((piece.top - straight) / 2.0).round();
            let _ = write!(
                data,
                "V{straight}C{x} {} {} {} {} {}",
                straight + half,
                piece.x,
                piece.top - half,
                piece.x,
                piece.top
            );
        }
        (x, y) = (piece.x, piece.bottom);
    }
    let _ = write!(data, "V{y}");
    data
}

/// The arrow's head at the end of a line.
fn head(line: &Line) -> String {
    line.0.last().map_or(String::new(), |end| format!("M{} {}l-4 -7h8z", end.x, end.bottom))
}

/// Text as XML takes it: what XML does not know at all becomes a replacement character.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            one if one.is_control() => out.push('\u{fffd}'),
            one => out.push(one),
        }
    }
    out
}
