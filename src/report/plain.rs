//! Events as plain lines on stderr.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::pace::Paces;
use super::{Report, duration, tell};
use crate::engine::event::{Event, Summary};
use crate::engine::graph::Graph;
use crate::engine::stage::Notice;

/// Seconds between two progress lines of a stage.
const PAUSE: f64 = 10.0;

/// Writes one line for what matters.
#[derive(Default)]
pub struct Plain {
    quiet: bool,
    said: HashMap<usize, Instant>,
    paces: Paces,
    fresh: Vec<usize>,
}

/// How many fresh stages a line names.
const NAMED: usize = 8;

impl Plain {
    /// Writes warnings and failures only.
    pub fn quiet() -> Self {
        Self { quiet: true, ..Self::default() }
    }
}

impl Report for Plain {
    fn event(&mut self, graph: &Graph, event: &Event) {
        let mut pace = None;
        match event {
            Event::Said { stage, notice: Notice::Progress { done, total, .. } } => {
                pace = self.paces.progress(*stage, *done, *total);
                let last = *self.said.entry(*stage).or_insert_with(Instant::now);
                if last.elapsed().as_secs_f64() < PAUSE {
                    return;
                }
                self.said.insert(*stage, Instant::now());
            }
            Event::StageFinished { stage, computed: false, .. } => return self.fresh.push(*stage),
            Event::StageFinished { stage, .. } | Event::StageFailed { stage, .. } | Event::Retried { stage, .. } => {
                self.paces.forget(*stage);
            }
            _ => {}
        }
        if let Some((line, loud)) = line(graph, event)
            && (loud || !self.quiet)
        {
            self.say_fresh(graph);
            match pace {
                Some(pace) => tell(format!("{line}, {}", pace.words())),
                None => tell(line),
            }
        }
    }
}

impl Plain {
    /// One line for all stages that turned out fresh since the last line: a pipeline may have thousands.
    fn say_fresh(&mut self, graph: &Graph) {
        let fresh = std::mem::take(&mut self.fresh);
        if !fresh.is_empty() && !self.quiet {
            tell(format!("fresh: {}", names(graph, &fresh)));
        }
    }
}

/// The names of stages, the first few of many.
fn names(graph: &Graph, stages: &[usize]) -> String {
    let named: Vec<&str> = stages.iter().take(NAMED).map(|&stage| graph.nodes[stage].name.as_str()).collect();
    match stages.len().checked_sub(NAMED) {
        Some(more @ 1..) => format!("{} and {more} more", named.join(", ")),
        _ => named.join(", "),
    }
}

/// An event as a line, and whether it matters to someone who wants quiet.
pub(super) fn line(graph: &Graph, event: &Event) -> Option<(String, bool)> {
    let name = |stage: &usize| &graph.nodes[*stage].name;
    Some(match event {
        Event::RunStarted { run, stages } => (format!("run {run}: {stages} stages"), false),
        Event::StageStarted { stage } => (format!("{}: started", name(stage)), false),
        Event::Said { stage, notice: Notice::Progress { done, total, unit, detail } } => {
            (format!("{}: {done}/{total} {unit} {detail}", name(stage)), false)
        }
        Event::Said { stage, notice: Notice::Warning(text) } => (format!("{}: warning: {text}", name(stage)), true),
        Event::Said { notice: Notice::Figure { .. }, .. } => return None,
        Event::StageFinished { stage, computed: true, seconds, figures } => {
            (format!("{}: computed in {}{}", name(stage), duration(*seconds), listed(figures)), false)
        }
        Event::StageFinished { stage, computed: false, .. } => (format!("{}: fresh", name(stage)), false),
        Event::StageFailed { stage, message, .. } => (format!("{}: failed: {message}", name(stage)), true),
        Event::Blocked { stage } => (format!("{}: waits, its result is being computed elsewhere", name(stage)), false),
        Event::Retried { stage, attempt, error, pause } => {
            (format!("{}: attempt {attempt} failed, again in {}: {error}", name(stage), duration(*pause)), true)
        }
        Event::StageSkipped { stage, because_of } => {
            (format!("{}: skipped, it needs `{}`", name(stage), name(because_of)), true)
        }
        Event::Damaged { stage, what } => {
            (format!("{}: computed again, its result is damaged: {what}", name(stage)), true)
        }
        Event::NotRecorded { why } => (format!("warning: this run is not recorded: {why}"), true),
        Event::RunFinished(summary) => (finished(summary), false),
    })
}

/// Figures as a remark: ` (tasks 7849, reward 0.969)`.
fn listed(figures: &BTreeMap<String, f64>) -> String {
    let one = |(name, value): (&String, &f64)| match value.fract() {
        0.0 => format!("{name} {value}"),
        _ if value.abs() >= 100.0 => format!("{name} {value:.0}"),
        _ => format!("{name} {value:.3}"),
    };
    if figures.is_empty() {
        return String::new();
    }
    format!(" ({})", figures.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn finished(summary: &Summary) -> String {
    let Summary { computed, fresh, failed, skipped, stopped, seconds, .. } = summary;
    let mut text = format!("{computed} computed, {fresh} fresh");
    if *failed > 0 {
        text.push_str(&format!(", {failed} failed"));
    }
    if *skipped > 0 {
        text.push_str(&format!(", {skipped} not run"));
    }
    let verb = if *stopped { "stopped" } else { "done" };
    format!("{verb} in {}: {text}", duration(*seconds))
}
