//! Pipelines in the notations of other programs, and as text.

use std::fmt::Write as _;

use super::svg::state;
use super::{Dag, Stage, rows, word};

/// One line a stage, each after what it reads: its name, its kind, what became of it, what it reads.
pub fn text(dag: &Dag) -> String {
    let mut order: Vec<usize> = (0..dag.stages.len()).collect();
    let place = rows::places(dag.stages.len(), &dag.pairs());
    order.sort_by_key(|&stage| place[stage]);
    let widest = |of: &dyn Fn(&Stage) -> usize| dag.stages.iter().map(of).max().unwrap_or(0);
    let name = widest(&|stage| stage.name.chars().count());
    let kind = widest(&|stage| stage.kind.chars().count());
    let of_run = dag.stages.iter().any(|stage| stage.outcome.is_some());
    let mut out = String::new();
    for index in order {
        let stage = &dag.stages[index];
        let mut from: Vec<String> = (dag.edges.iter())
            .filter(|edge| edge.to == index)
            .map(|edge| format!("{}.{}", dag.stages[edge.from].name, edge.port))
            .collect();
        from.dedup();
        let mut line = format!("{:name$}  {}", stage.name, stage.kind);
        if of_run {
            let word = stage.outcome.map_or("", word);
            let took = stage.seconds.map(crate::report::duration).unwrap_or_default();
            line = format!("{:name$}  {:kind$}  {word:8}  {took:>12}", stage.name, stage.kind);
        }
        if !from.is_empty() {
            let _ = write!(line, "  <- {}", from.join(", "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Graphviz.
pub fn dot(dag: &Dag) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace(char::is_control, " ");
    let mut out =
        format!("digraph \"{}\" {{\n  node [shape=box, style=rounded, fontname=\"sans-serif\"]\n", quoted(&dag.name));
    out.push_str("  edge [fontname=\"sans-serif\", fontsize=10]\n");
    for (index, stage) in dag.stages.iter().enumerate() {
        let last = match state(stage).as_str() {
            "" => String::new(),
            state => format!("\\n{}", quoted(state)),
        };
        let colour = stage.outcome.map(|outcome| format!(", color=\"{}\"", colour(word(outcome)))).unwrap_or_default();
        let _ = writeln!(out, "  n{index} [label=\"{}\\n{}{last}\"{colour}]", quoted(&stage.name), quoted(&stage.kind));
    }
    for edge in &dag.edges {
        let _ = writeln!(out, "  n{} -> n{} [label=\"{}\"]", edge.from, edge.to, quoted(&edge.port));
    }
    out.push_str("}\n");
    out
}

/// Mermaid, as GitHub, GitLab and many editors draw it.
pub fn mermaid(dag: &Dag) -> String {
    let mut out = "flowchart TD\n".to_owned();
    for (index, stage) in dag.stages.iter().enumerate() {
        let last = match state(stage).as_str() {
            "" => String::new(),
            state => format!("<br/>{}", words(state)),
        };
        let class = stage.outcome.map(|outcome| format!(":::{}", word(outcome))).unwrap_or_default();
        let _ = writeln!(
            out,
            "  n{index}[\"{}<br/><small>{}{last}</small>\"]{class}",
            words(&stage.name),
            words(&stage.kind)
        );
    }
    for edge in &dag.edges {
        let _ = writeln!(out, "  n{} -->|\"{}\"| n{}", edge.from, words(&edge.port), edge.to);
    }
    let mut known: Vec<&str> = dag.stages.iter().filter_map(|stage| stage.outcome.map(word)).collect();
    known.sort_unstable();
    known.dedup();
    for word in known {
        let _ = writeln!(out, "  classDef {word} stroke:{},stroke-width:2px", colour(word));
    }
    out
}

/// Text within quotes of Mermaid: its own entities, as it takes Markdown and HTML for what they are.
fn words(text: &str) -> String {
    let mut out = String::new();
    for one in text.chars() {
        match one {
            '"' | '#' | '&' | '<' | '>' | '`' | '*' | '_' | '\\' | '|' | ';' => {
                let _ = write!(out, "#{};", one as u32);
            }
            one if one.is_control() => out.push(' '),
            one => out.push(one),
        }
    }
    out
}

/// The colour of an outcome, one that can be told on light and on dark ground.
fn colour(word: &str) -> &'static str {
    match word {
        "computed" => "#16a34a",
        "fresh" => "#5b7bab",
        "frozen" => "#0284c7",
        "failed" => "#dc2626",
        "skipped" => "#d97706",
        _ => "#94a3b8",
    }
}
