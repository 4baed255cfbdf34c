//! Which stage of one arm is which of another, and the parameters in which they differ.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::arms::{Party, Seeds, Side};
use super::library::Library;
use super::{LoneStage, Options, Parameter, Presence};
use crate::engine::fingerprint::Fields;
use crate::engine::history::StageRecord;

/// A stage in all arms that have it, under the name that each gives it, seeds aside.
#[derive(Clone, Debug)]
pub(super) struct Matched {
    /// Its name; several where arms call it otherwise.
    pub label: String,
    /// Its kind in the first arm that has it.
    pub kind: String,
    /// Its name in each arm.
    pub names: Vec<Option<String>>,
}

/// A stage of a run, in the run's order, under its name without seeds: the first of those that differ in the seed.
fn first_of<'a>(seeds: &Seeds, side: &Side<'a>) -> Vec<(String, &'a StageRecord)> {
    let mut seen = BTreeSet::new();
    let named = side.stages.iter().map(|stage| (seeds.apart(&stage.name).0, *stage));
    named.filter(|(name, _)| seen.insert(name.clone())).collect()
}

/// The stages of this name in all replicates of an arm.
pub(super) fn instances<'a>(options: &Options, party: &Party<'a>, name: &str) -> Vec<&'a StageRecord> {
    let seeds = Seeds(options);
    let stages = party.sides.iter().flat_map(|side| side.stages.iter().copied());
    stages.filter(|stage| seeds.apart(&stage.name).0 == name).collect()
}

/// Matches the stages of all arms with the baseline's, and the rest with each other by their names.
pub(super) fn matched(options: &Options, parties: &[Party]) -> Vec<Matched> {
    let seeds = Seeds(options);
    let firsts: Vec<_> = parties.iter().map(|party| first_of(&seeds, &party.sides[0])).collect();
    let maps: Vec<HashMap<String, String>> = parties
        .iter()
        .zip(&firsts)
        .map(|(party, stages)| Pairing::of(&seeds, &parties[0].sides[0], &firsts[0], &party.sides[0], stages))
        .collect();
    let mut rows: Vec<Matched> = Vec::new();
    for (name, stage) in &firsts[0] {
        let names: Vec<Option<String>> = maps.iter().map(|map| map.get(name).cloned()).collect();
        let mut distinct: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
        let mut seen = BTreeSet::new();
        distinct.retain(|name| seen.insert(*name));
        rows.push(Matched { label: distinct.join(" / "), kind: stage.kind.clone(), names });
    }
    for (arm, stages) in firsts.iter().enumerate().skip(1) {
        let taken: BTreeSet<&String> = maps[arm].values().collect();
        for (name, stage) in stages.iter().filter(|(name, _)| !taken.contains(name)) {
            match rows.iter_mut().find(|row| row.names[0].is_none() && row.label == *name) {
                Some(row) => row.names[arm] = Some(name.clone()),
                None => {
                    let mut names = vec![None; parties.len()];
                    names[arm] = Some(name.clone());
                    rows.push(Matched { label: name.clone(), kind: stage.kind.clone(), names });
                }
            }
        }
    }
    rows
}

/// Finds for the baseline's stages those of an arm.
struct Pairing<'s, 'a> {
    seeds: &'s Seeds<'s>,
    base: HashMap<&'s str, &'a StageRecord>,
    arm: HashMap<&'s str, &'a StageRecord>,
    found: HashMap<String, String>,
    taken: BTreeSet<String>,
}

impl<'s, 'a> Pairing<'s, 'a> {
    /// Stages of one name are the same; where parts of runs are compared, what was named is the same, and what is connected to
    /// the same input of the same stages as far as names do not say otherwise.
    fn of(
        seeds: &'s Seeds<'s>,
        base_side: &Side<'a>,
        base: &'s [(String, &'a StageRecord)],
        arm_side: &Side<'a>,
        arm: &'s [(String, &'a StageRecord)],
    ) -> HashMap<String, String> {
        let by_name = |stages: &'s [(String, &'a StageRecord)]| {
            stages.iter().map(|(name, stage)| (name.as_str(), *stage)).collect()
        };
        let mut pairing =
            Self { seeds, base: by_name(base), arm: by_name(arm), found: HashMap::new(), taken: BTreeSet::new() };
        let root = |side: &Side| side.root.as_ref().map(|(stage, _)| seeds.apart(&stage.name).0);
        let roots = root(base_side).zip(root(arm_side));
        if let Some((base, arm)) = &roots {
            pairing.pair(base, arm);
        }
        for (name, _) in base {
            if pairing.arm.contains_key(name.as_str()) {
                pairing.pair(name, name);
            }
        }
        if let Some((base, arm)) = roots {
            pairing.walk(base, arm);
        }
        pairing.found
    }

    fn pair(&mut self, base: &str, arm: &str) -> bool {
        if self.found.contains_key(base) || self.taken.contains(arm) {
            return false;
        }
        self.taken.insert(arm.to_owned());
        self.found.insert(base.to_owned(), arm.to_owned());
        true
    }

    fn walk(&mut self, base: String, arm: String) {
        let mut open = vec![(base, arm)];
        let mut seen = BTreeSet::new();
        while let Some((base, arm)) = open.pop() {
            let (Some(&one), Some(&other)) = (self.base.get(base.as_str()), self.arm.get(arm.as_str())) else {
                continue;
            };
            if !seen.insert((base, arm)) {
                continue;
            }
            for (port, source) in &one.inputs {
                let Some(others) = other.inputs.get(port) else { continue };
                let stage = |source: &str| source.rsplit_once('.').map(|(stage, _)| self.seeds.apart(stage).0);
                let Some((from, to)) = stage(source).zip(stage(others)) else { continue };
                if self.pair(&from, &to) || self.found.get(&from) == Some(&to) {
                    open.push((from, to));
                }
            }
        }
    }
}

/// What the arms' stages have of their own and not the same, and the stages that not all have.
pub(super) fn parameters(
    library: &Library,
    options: &Options,
    parties: &[Party],
    rows: &[Matched],
) -> anyhow::Result<(Vec<Parameter>, Vec<LoneStage>)> {
    let (mut parameters, mut lone) = (Vec::new(), Vec::new());
    for row in rows {
        let stages: Vec<Option<&StageRecord>> = row
            .names
            .iter()
            .zip(parties)
            .map(|(name, party)| instances(options, party, name.as_deref()?).into_iter().next())
            .collect();
        let fields = stages.iter().map(|stage| match stage {
            Some(stage) => Ok(library.result(stage)?.map(|manifest| manifest.fields.clone())),
            None => Ok(None),
        });
        let fields = fields.collect::<anyhow::Result<Vec<Option<Fields>>>>()?;
        let presence: Vec<Presence> = stages
            .iter()
            .zip(&fields)
            .map(|(stage, fields)| match (stage, fields) {
                (None, _) => Presence::Absent,
                (Some(_), None) => Presence::WithoutResult,
                (Some(_), Some(_)) => Presence::Present,
            })
            .collect();
        if presence.iter().any(|one| *one != presence[0]) {
            lone.push(LoneStage { stage: row.label.clone(), kind: row.kind.clone(), arms: presence });
        }
        if fields.iter().flatten().count() > 1 {
            parameters.extend(differing(options, row, &fields));
        }
        if stages.iter().flatten().count() > 1 {
            parameters.extend(connections(options, row, rows, &stages));
        }
    }
    Ok((parameters, lone))
}

/// The fields that differ between arms that have the stage.
fn differing(options: &Options, row: &Matched, fields: &[Option<Fields>]) -> Vec<Parameter> {
    let kinds: BTreeSet<Option<&String>> = fields.iter().flatten().map(|fields| fields.get("kind")).collect();
    let names: BTreeSet<&String> = fields.iter().flatten().flat_map(|fields| fields.keys()).collect();
    let own = |name: &&String| {
        // What another kind has by nature says nothing more.
        let by_kind = kinds.len() > 1 && (*name == "version" || name.starts_with("out."));
        !name.starts_with("in.") && !by_kind
    };
    let parameter = |name: &String| {
        let values: Vec<Option<String>> = fields.iter().map(|fields| fields.as_ref()?.get(name).cloned()).collect();
        let known: BTreeSet<&Option<String>> =
            fields.iter().zip(&values).filter(|(fields, _)| fields.is_some()).map(|(_, value)| value).collect();
        (known.len() > 1 || options.all).then(|| Parameter { stage: row.label.clone(), field: name.clone(), values })
    };
    names.into_iter().filter(own).filter_map(parameter).collect()
}

/// Inputs to which the arms connect stages that are not the same.
fn connections(options: &Options, row: &Matched, rows: &[Matched], stages: &[Option<&StageRecord>]) -> Vec<Parameter> {
    let seeds = Seeds(options);
    let mut ports: BTreeMap<&String, Vec<Option<String>>> = BTreeMap::new();
    for (arm, stage) in stages.iter().enumerate() {
        for (port, source) in stage.iter().flat_map(|stage| &stage.inputs) {
            ports.entry(port).or_insert_with(|| vec![None; stages.len()])[arm] = Some(seeds.apart_source(source));
        }
    }
    let place = |arm: usize, source: &str| -> Option<(usize, String)> {
        let (stage, port) = source.rsplit_once('.')?;
        Some((rows.iter().position(|row| row.names[arm].as_deref() == Some(stage))?, port.to_owned()))
    };
    let differs = |sources: &Vec<Option<String>>| {
        let places: BTreeSet<Option<Option<(usize, String)>>> = sources
            .iter()
            .enumerate()
            .filter(|(arm, _)| stages[*arm].is_some())
            .map(|(arm, source)| source.as_ref().map(|source| place(arm, source)))
            .collect();
        places.len() > 1
    };
    let changed = ports.into_iter().filter(|(_, sources)| differs(sources));
    changed.map(|(port, values)| Parameter { stage: row.label.clone(), field: format!("in.{port}"), values }).collect()
}
