//! Events as JSON lines on stdout.

use std::io::Write;

use serde_json::{Value, json};

use super::Report;
use super::pace::Paces;
use crate::engine::event::Event;
use crate::engine::graph::Graph;
use crate::engine::stage::Notice;

/// Writes one JSON object an event.
#[derive(Default)]
pub struct Json {
    paces: Paces,
}

impl Report for Json {
    fn event(&mut self, graph: &Graph, event: &Event) {
        let mut object = object(graph, event);
        match event {
            Event::Said { stage, notice: Notice::Progress { done, total, .. } } => {
                if let Some(pace) = self.paces.progress(*stage, *done, *total) {
                    object["rate"] = json!(pace.rate);
                    object["seconds_left"] = json!(pace.left);
                }
            }
            Event::StageFinished { stage, .. } | Event::StageFailed { stage, .. } | Event::Retried { stage, .. } => {
                self.paces.forget(*stage);
            }
            _ => {}
        }
        let mut out = std::io::stdout().lock();
        // A reader that went away must not end the run.
        let _ = writeln!(out, "{object}");
    }
}

fn object(graph: &Graph, event: &Event) -> Value {
    let name = |stage: &usize| graph.nodes[*stage].name.clone();
    match event {
        Event::RunStarted { run, stages } => json!({"event": "run_started", "run": run, "stages": stages}),
        Event::StageStarted { stage } => json!({"event": "stage_started", "stage": name(stage)}),
        Event::Said { stage, notice } => match notice {
            Notice::Progress { done, total, unit, detail } => {
                json!({"event": "progress", "stage": name(stage), "done": done, "total": total, "unit": unit, "detail": detail})
            }
            Notice::Warning(text) => json!({"event": "warning", "stage": name(stage), "text": text}),
            Notice::Figure { name: figure, value } => {
                json!({"event": "figure", "stage": name(stage), "name": figure, "value": value})
            }
        },
        Event::StageFinished { stage, computed, seconds, figures } => {
            json!({"event": "stage_finished", "stage": name(stage), "computed": computed, "seconds": seconds, "figures": figures})
        }
        Event::StageFailed { stage, message, seconds } => {
            json!({"event": "stage_failed", "stage": name(stage), "message": message, "seconds": seconds})
        }
        Event::Blocked { stage } => json!({"event": "blocked", "stage": name(stage)}),
        Event::Retried { stage, attempt, error, pause } => {
            json!({"event": "retried", "stage": name(stage), "attempt": attempt, "error": error, "pause": pause})
        }
        Event::StageSkipped { stage, because_of } => {
            json!({"event": "stage_skipped", "stage": name(stage), "because_of": name(because_of)})
        }
        Event::Damaged { stage, what } => json!({"event": "damaged", "stage": name(stage), "what": what}),
        Event::NotRecorded { why } => json!({"event": "not_recorded", "why": why}),
        Event::RunFinished(summary) => json!({
            "event": "run_finished", "run": summary.run, "computed": summary.computed, "fresh": summary.fresh,
            "failed": summary.failed, "skipped": summary.skipped, "stopped": summary.stopped, "seconds": summary.seconds,
        }),
    }
}
