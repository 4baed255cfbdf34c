//! What differs between the runs, and between the arms of the comparisons in them; the same that `thresh compare` finds.

use serde_json::{Value, json};

use super::{Content, Material, Section};
use crate::engine::history::StageRecord;
use crate::eval::ComparisonRow;
use crate::report::compare::{
    self, Arm, Comparison, Ending, Flip, Flips, Options, Replicate, Target, library::Library,
};
use crate::table::Row;

pub(super) const SECTION: Section = Section {
    id: "comparison",
    title: "Comparison",
    style: include_str!("assets/compare.css"),
    script: include_str!("assets/compare.js"),
    make,
};

pub(super) const FLIPS: Section = Section {
    id: "flips",
    title: "Flips",
    style: include_str!("assets/flips.css"),
    script: include_str!("assets/flips.js"),
    make: flips,
};

fn make(material: &Material) -> anyhow::Result<Option<Content>> {
    let library = Library::new(material.store, material.records);
    let mut groups = Vec::new();
    for (title, targets) in groups_of(material)? {
        // One that cannot be made leaves the rest of the page alone.
        match compare::compare(&library, &targets, &Options::default()) {
            Ok(mut comparison) => {
                rename(&mut comparison);
                groups.push(group(material, &title, comparison)?);
            }
            Err(error) => groups.push(json!({"title": title, "failed": format!("{error:#}")})),
        }
    }
    Ok((!groups.is_empty()).then(|| json!(groups).into()))
}

/// Whether there is something to compare; the lists are in the data of the comparison.
fn flips(material: &Material) -> anyhow::Result<Option<Content>> {
    Ok((!groups_of(material)?.is_empty()).then(Content::default))
}

/// What is compared: all runs, then the arms of each stored comparison. A comparison that several runs have is one group, so
/// that runs which differ in the seed only are replicates.
fn groups_of<'a>(material: &Material<'a>) -> anyhow::Result<Vec<(String, Vec<Target<'a>>)>> {
    let mut groups: Vec<(String, Vec<Target>)> = Vec::new();
    if material.runs.len() > 1 {
        let target = |(index, run): (usize, &&'a _)| Target {
            name: Material::letter(index),
            given: false,
            run,
            stage: None,
            port: None,
        };
        groups.push(("Runs".to_owned(), material.runs.iter().enumerate().map(target).collect()));
    }
    for found in material.outputs(ComparisonRow::TYPE)? {
        let run = material.runs[found.run];
        let arms = found.stage.inputs.keys().map(|arm| Target {
            name: if material.runs.len() > 1 {
                format!("{arm} ({})", Material::letter(found.run))
            } else {
                arm.clone()
            },
            given: false,
            run,
            stage: Some(found.stage),
            port: Some(arm.as_str()),
        });
        let mut arms: Vec<Target> = arms.collect();
        let baseline = baseline(material, found.run, found.stage);
        arms.sort_by_key(|arm| arm.port.map(str::to_owned) != baseline);
        match groups.iter_mut().find(|(title, _)| *title == found.stage.name) {
            Some((_, group)) => group.extend(arms),
            None => groups.push((found.stage.name.clone(), arms)),
        }
    }
    groups.retain(|(_, targets)| targets.len() > 1);
    Ok(groups)
}

/// The arm that a comparison compares with.
fn baseline(material: &Material, run: usize, stage: &StageRecord) -> Option<String> {
    serde_json::from_str(material.result(run, &stage.name)?.fields.get("with.baseline")?).ok()
}

fn group(material: &Material, title: &str, mut comparison: Comparison) -> anyhow::Result<Value> {
    let replicate = |one: &Replicate| {
        let run = material.runs.iter().position(|run| Some(&run.run) == one.run.as_ref());
        let tables = run.map(|run| episodes(material, run, one.stage.as_deref()));
        json!({"seed": one.seed, "tables": tables})
    };
    let of_arm = |arm: &Arm| -> Value { arm.replicates.iter().map(replicate).collect() };
    let episodes: Value = comparison.arms.iter().map(of_arm).collect();
    let flips: Vec<Value> = comparison.flips.drain(..).map(|flips| listed(&flips)).collect();
    let mut found = serde_json::to_value(&comparison)?;
    found["flips"] = json!(flips);
    Ok(json!({"title": title, "comparison": slim(found), "episodes": episodes}))
}

/// Where one arm stands for several runs, it is called as the comparison calls it, without the letter of the first of them.
fn rename(comparison: &mut Comparison) {
    for arm in comparison.arms.iter_mut().filter(|arm| arm.replicates.len() > 1) {
        if let Some((name, _)) = arm.name.rsplit_once(" (") {
            arm.name = name.to_owned();
        }
    }
}

/// Flips as lists, as there may be thousands: `[dialogue, change, before, after, reached, missed, seed]`, and how it ended as
/// `[successes, failures, broken, reward, reasons]`.
fn listed(flips: &Flips) -> Value {
    let ending = |one: &Ending| json!([one.successes, one.failures, one.broken, one.reward, one.reasons]);
    let one = |flip: &Flip| {
        json!([
            flip.dialogue,
            flip.change,
            ending(&flip.before),
            ending(&flip.after),
            flip.reached,
            flip.missed,
            flip.seed
        ])
    };
    json!({
        "table": flips.table, "arm": flips.arm, "gained": flips.gained, "lost": flips.lost, "broken": flips.broken,
        "mended": flips.mended, "dialogues": flips.dialogues.iter().map(|flip| trimmed(one(flip))).collect::<Vec<_>>(),
    })
}

/// A list without what is empty at its end, and so are the lists in it.
fn trimmed(value: Value) -> Value {
    let Value::Array(items) = value else { return value };
    let mut items: Vec<Value> = items.into_iter().map(trimmed).collect();
    while items.last().is_some_and(|last| last.is_null() || last.as_array().is_some_and(Vec::is_empty)) {
        items.pop();
    }
    Value::Array(items)
}

/// The same with numbers of six significant digits, and without entries that say nothing.
fn slim(value: Value) -> Value {
    match value {
        Value::Object(entries) => {
            entries.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name, slim(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(slim).collect(),
        Value::Number(number) if number.is_f64() => {
            let long = number.as_f64().unwrap_or_default();
            let short: f64 = format!("{long:.5e}").parse().unwrap_or(long);
            if short.fract() == 0.0 && short.abs() < 1e9 { json!(short as i64) } else { json!(short) }
        }
        other => other,
    }
}

/// By the name of a table of scores the episodes that it scores, as the browser of dialogues knows them. Of a part of a run there
/// is but one, whatever its name.
fn episodes(material: &Material, run: usize, stage: Option<&str>) -> Value {
    let named = |stage: &StageRecord| {
        let from = stage.inputs.get("episodes")?;
        Some((stage.name.clone(), json!(format!("{}.{from}", Material::letter(run)))))
    };
    let mut stages = material.runs[run].stages.iter();
    match stage {
        Some(name) => stages.find(|stage| stage.name == name).and_then(named).map_or(Value::Null, |(_, from)| from),
        None => Value::Object(stages.filter_map(named).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::compare::Change;

    #[test]
    fn what_says_nothing_is_left_out_and_zeros_stay() {
        let long = json!({"p": null, "mean": 0.123456789, "count": 3, "whole": 5.0, "values": [null, 1e-9, 0.0]});
        assert_eq!(slim(long), json!({"mean": 0.123457, "count": 3, "whole": 5, "values": [null, 1e-9, 0]}));
        assert_eq!(trimmed(json!(["a", [1, 0, 0, null, []], [], [], null])), json!(["a", [1, 0, 0]]));
    }

    #[test]
    fn flips_are_lists() {
        let before = Ending { successes: 1, reward: Some(1.0), ..Ending::default() };
        let after = Ending { broken: 1, reasons: vec!["timeout".to_owned()], ..Ending::default() };
        let flip = Flip {
            dialogue: "d".to_owned(),
            seed: None,
            change: Change::Broken,
            before,
            after,
            reached: Vec::new(),
            missed: vec!["book_hotel".to_owned()],
        };
        let (table, dialogues) = ("scores".to_owned(), vec![flip]);
        let flips = Flips { table, arm: 1, gained: 0, lost: 0, broken: 1, mended: 0, dialogues };
        let expected = json!([["d", "broken", [1, 0, 0, 1.0], [0, 0, 1, null, ["timeout"]], [], ["book_hotel"]]]);
        assert_eq!(listed(&flips)["dialogues"], expected);
    }
}
