//! The stages of each run as a drawing: what reads what, what became of it, how long it took.

use serde_json::{Value, json};

use super::{Content, Material, Section, stages};
use crate::engine::history::RunRecord;
use crate::report::dag::{self, Dag};

pub(super) const SECTION: Section = Section {
    id: "stages",
    title: "Stages",
    style: concat!(include_str!("../dag/style.css"), include_str!("assets/graph.css")),
    script: include_str!("assets/graph.js"),
    make,
};

fn make(material: &Material) -> anyhow::Result<Option<Content>> {
    let of_run = |(index, run): (usize, &&RunRecord)| -> Value {
        run.stages.iter().map(|stage| stages::facts(material, index, stage)).collect()
    };
    let data = json!(material.runs.iter().enumerate().map(of_run).collect::<Vec<_>>());
    let drawing =
        |run: &&RunRecord| format!("<div class=\"graph-drawing scroll\">{}</div>", dag::inline(&Dag::of_run(run)));
    let markup = material.runs.iter().map(drawing).collect();
    Ok(Some(Content { data, markup, ..Content::default() }))
}
