//! Training examples of a dialogue.

use super::ink::{Ink, Line};
use super::list::aligned;
use super::{Look, count, dialogue, turn};
use crate::report::talk::Turn;
use crate::report::talk::example::{Example, ExampleCount};

/// The examples of one dialogue. A chat that the example before has, too, is not shown again unless everything is asked for.
pub fn page(examples: &[Example], look: Look) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut known: &[Turn] = &[];
    if let Some(example) = examples.first() {
        lines.push(
            Line::new(Ink::Bold, &example.dialogue).with(Ink::Plain, format!("  {}", count(examples.len(), "example"))),
        );
    }
    if let Some(system) = examples.first().and_then(|example| example.system.as_deref()) {
        let text = Line::new(Ink::Dim, format!("system: {system}"));
        lines.extend(if look.full { text.wrap(look.prose()) } else { vec![text.cut(look.prose())] });
    }
    for (number, example) in examples.iter().enumerate() {
        lines.push(Line::default());
        lines.push(Line::new(Ink::Bold, format!("example {}", number + 1)));
        let shared = example.turns.iter().zip(known).take_while(|(a, b)| a == b).count();
        let shared = if look.full { 0 } else { shared };
        if shared > 0 {
            lines.push(Line::new(Ink::Dim, format!("    … {} as in the example above", count(shared, "turn"))));
        }
        if shared < example.turns.len() || example.answers.is_empty() {
            lines.extend(dialogue::body(&example.turns[shared..], &[], look));
        }
        for answer in &example.answers {
            let (ink, text) = if answer.desirable { (Ink::Good, "+ desirable") } else { (Ink::Bad, "- undesirable") };
            lines.push(Line::new(ink, format!("    {text}")));
            lines.extend(dialogue::body(&answer.turns, &[], look));
        }
        known = &example.turns;
    }
    lines.push(Line::default());
    lines.extend(Line::new(Ink::Dim, turn::SIGNS).wrap(look.prose()));
    lines
}

/// A line for each dialogue of a table of examples.
pub fn list(counts: &[ExampleCount]) -> Vec<Line> {
    let rows = counts.iter().map(|count| {
        let desirable = count.desirable.map(|desirable| desirable.to_string()).unwrap_or_default();
        [count.dialogue.clone(), count.examples.to_string(), desirable].map(|text| Line::new(Ink::Plain, text)).to_vec()
    });
    let labelled = counts.iter().any(|count| count.desirable.is_some());
    aligned(&["dialogue", "examples", if labelled { "desirable" } else { "" }], rows.collect())
}
