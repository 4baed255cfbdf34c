//! Events as progress bars on a terminal.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{Report, plain};
use crate::engine::event::Event;
use crate::engine::graph::Graph;
use crate::engine::stage::Notice;

/// Draws a bar for each running stage, and a line for each that ended.
#[derive(Default)]
pub struct Terminal {
    bars: MultiProgress,
    open: HashMap<usize, ProgressBar>,
}

impl Terminal {
    /// A terminal on stderr.
    pub fn new() -> Self {
        Self::default()
    }

    fn start(&mut self, stage: usize, name: &str) {
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.set_style(style("{spinner} {prefix:16} {elapsed:>4} {wide_msg}"));
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        self.open.insert(stage, bar);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸ ")
}

impl Report for Terminal {
    fn event(&mut self, graph: &Graph, event: &Event) {
        match event {
            Event::StageStarted { stage } => return self.start(*stage, &graph.nodes[*stage].name),
            Event::Said { stage, notice: Notice::Progress { done, total, unit, detail } } => {
                if let Some(bar) = self.open.get(stage) {
                    if bar.length() != Some(*total) {
                        bar.set_length(*total);
                        let template = format!(
                            "{{spinner}} {{prefix:16}} {{elapsed:>4}} {{bar:24}} {{pos}}/{{len}} {unit} {{per_sec}} eta {{eta}} {{wide_msg}}"
                        );
                        bar.set_style(style(&template));
                    }
                    bar.set_position(*done);
                    bar.set_message(detail.clone());
                }
                return;
            }
            Event::StageFinished { stage, .. } | Event::StageFailed { stage, .. } => {
                if let Some(bar) = self.open.remove(stage) {
                    bar.finish_and_clear();
                }
            }
            _ => {}
        }
        if let Some((line, _)) = plain::line(graph, event) {
            // Where the terminal is gone there is nobody to tell.
            let _ = self.bars.println(line);
        }
    }
}
