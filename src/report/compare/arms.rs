//! What was named on the command line becomes arms: runs, or stages with score tables; those that differ in the seed only
//! are replicates of one arm.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;

use super::library::Library;
use super::{Arm, Options, Replicate};
use crate::engine::fingerprint::Fields;
use crate::engine::graph::{base, pairs};
use crate::engine::history::{RunRecord, StageRecord};
use crate::eval::ScoreRow;
use crate::table::Row;

/// A run, or a stage or an output of it, and how it was called.
#[derive(Clone, Debug)]
pub struct Target<'a> {
    /// The word for it.
    pub name: String,
    /// Whether people gave it this name: what they call otherwise they mean as another arm.
    pub given: bool,
    /// The run.
    pub run: &'a RunRecord,
    /// Its stage.
    pub stage: Option<&'a StageRecord>,
    /// An output of the stage; of a comparison also one of its arms.
    pub port: Option<&'a str>,
}

/// What was named is there, but has no scores to compare: a mistake of who named it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoScoreTable(String);

impl NoScoreTable {
    /// Says what is wrong.
    pub(super) fn new(what: String) -> Self {
        Self(what)
    }
}

/// How few arms are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fewest {
    /// One: there is nothing to be compared with.
    One,
    /// Two: what differs in nothing but seeds is compared with each other.
    Two,
}

/// One replicate: the stages that matter of a run.
#[derive(Clone, Debug)]
pub(super) struct Side<'a> {
    pub name: String,
    /// As in [`Target::given`].
    given: bool,
    pub run: &'a RunRecord,
    /// The stage with the scores and its port, where it is a part of a run.
    pub root: Option<(&'a StageRecord, String)>,
    /// The stages: of a part of a run those upstream and its own.
    pub stages: Vec<&'a StageRecord>,
}

/// An arm with its replicates.
#[derive(Clone, Debug)]
pub(super) struct Party<'a> {
    pub arm: Arm,
    pub sides: Vec<Side<'a>>,
}

/// What makes replicates.
pub(super) struct Seeds<'a>(pub &'a Options);

impl Seeds<'_> {
    /// Whether a parameter or a matrix's axis of this name only makes another replicate.
    fn is(&self, name: &str) -> bool {
        let last = name.rsplit('.').next().unwrap_or(name);
        last == "seed" || last.ends_with("_seed") || self.0.replicates.iter().any(|other| other == last)
    }

    /// A stage's name without the seeds that a matrix gave it, and those seeds; the name itself where nothing is pooled.
    pub fn apart<'n>(&self, name: &'n str) -> (String, Vec<&'n str>) {
        let inner = name.split_once('[').and_then(|(_, inner)| inner.strip_suffix(']'));
        let Some(inner) = inner.filter(|_| self.0.pool) else { return (name.to_owned(), Vec::new()) };
        let seed = |pair: &&str| self.is(pair.split('=').next().unwrap_or_default().trim());
        let (seeds, others): (Vec<&str>, Vec<&str>) = pairs(inner).into_iter().partition(seed);
        let rest = if others.is_empty() { String::new() } else { format!("[{}]", others.join(",")) };
        (format!("{}{rest}", base(name)), seeds)
    }
}

/// Finds what a target stands for.
pub(super) fn side<'a>(library: &Library<'a>, target: &Target<'a>) -> anyhow::Result<Side<'a>> {
    let Some(stage) = target.stage else {
        let stages = target.run.stages.iter().collect();
        return Ok(Side { name: target.name.clone(), given: target.given, run: target.run, root: None, stages });
    };
    let (stage, port) = scored(library, target, stage)?;
    let stages = upstream(target.run, stage);
    Ok(Side { name: target.name.clone(), given: target.given, run: target.run, root: Some((stage, port)), stages })
}

/// The stage and the port of the score table that a stage or one of its ports stands for.
fn scored<'a>(
    library: &Library<'a>,
    target: &Target<'a>,
    stage: &'a StageRecord,
) -> anyhow::Result<(&'a StageRecord, String)> {
    // An arm of a comparison is called as the comparison calls it.
    if let Some(source) = target.port.and_then(|port| stage.inputs.get(port))
        && let Some((from, port)) = source.rsplit_once('.')
        && let Some(from) = target.run.stage(from)
    {
        return Ok((from, port.to_owned()));
    }
    if let Some(port) = score_port(library, stage)? {
        return match target.port {
            Some(named) if named != port => {
                bail!(NoScoreTable(format!("`{}` is no score table; `{}.{port}` is", target.name, stage.name)))
            }
            _ => Ok((stage, port)),
        };
    }
    if library.result(stage)?.is_none() {
        bail!("`{}` has no result in run `{}`: it was not computed, or removed since", stage.name, target.run.run);
    }
    let mut all = Vec::new();
    for one in &target.run.stages {
        if let Some(port) = score_port(library, one)? {
            all.push((one, port));
        }
    }
    let below = all.iter().filter(|(one, _)| upstream(target.run, one).iter().any(|other| other.name == stage.name));
    let below: Vec<_> = below.collect();
    if let [(one, port)] = below.as_slice() {
        return Ok((one, port.clone()));
    }
    let of = if below.is_empty() { all.iter().collect() } else { below };
    let names: Vec<String> = of.iter().map(|(one, port)| format!("`{}.{port}`", one.name)).collect();
    let (name, run) = (&target.name, &target.run.run);
    bail!(NoScoreTable(match names.as_slice() {
        [] => format!("`{name}` is no score table, and run `{run}` has none"),
        names => format!("`{name}` is no score table; run `{run}` has {}", names.join(", ")),
    }))
}

fn score_port(library: &Library, stage: &StageRecord) -> anyhow::Result<Option<String>> {
    let Some(manifest) = library.result(stage)? else { return Ok(None) };
    let found = manifest.outputs.iter().find(|(_, artifact)| artifact.holds == ScoreRow::TYPE);
    Ok(found.map(|(port, _)| port.clone()))
}

/// A stage and all that it reads, in the run's order.
fn upstream<'a>(run: &'a RunRecord, stage: &StageRecord) -> Vec<&'a StageRecord> {
    let by_name = run.by_name();
    let (mut seen, mut open) = (BTreeSet::new(), vec![stage.name.as_str()]);
    while let Some(name) = open.pop() {
        let Some(&stage) = by_name.get(name) else { continue };
        if seen.insert(name) {
            open.extend(stage.inputs.values().filter_map(|source| source.rsplit_once('.')).map(|(from, _)| from));
        }
    }
    run.stages.iter().filter(|stage| seen.contains(stage.name.as_str())).collect()
}

/// Groups replicates to arms, in the order in which the first of each was named.
pub(super) fn parties<'a>(
    library: &Library<'a>,
    sides: Vec<Side<'a>>,
    options: &Options,
    fewest: Fewest,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<Party<'a>>> {
    let seeds = Seeds(options);
    let mut groups: Vec<Vec<(Side, Traits)>> = Vec::new();
    for side in sides {
        let traits = traits(library, &seeds, &side)?;
        let alike = |group: &&mut Vec<(Side, Traits)>| {
            let (first, known) = &group[0];
            if (first.given || side.given) && first.name != side.name {
                return false;
            }
            // Instances that one matrix made differ in its axes alone.
            known.whole == traits.whole || (first.run.run == side.run.run && known.template == traits.template)
        };
        match groups.iter_mut().find(|group| options.pool && alike(group)) {
            Some(group) => group.push((side, traits)),
            None => groups.push(vec![(side, traits)]),
        }
    }
    // The same seeds twice are no replicates: they would count as evidence what was only repeated.
    let distinct = |group: &[(Side, Traits)]| labels(group).iter().collect::<BTreeSet<_>>().len() == group.len();
    let only = groups.len() == 1 && fewest == Fewest::Two;
    let mut parties: Vec<Party> = Vec::new();
    for group in groups {
        let (labels, several) = (labels(&group), group.len() > 1 && distinct(&group));
        let sides: Vec<Side> = group.into_iter().map(|(side, _)| side).collect();
        if several && only {
            notes.push("all of them differ in nothing but seeds: each is an arm of its own".to_owned());
        }
        if several && !only {
            parties.push(party(sides, labels));
        } else {
            parties.extend(sides.into_iter().zip(labels).map(|(side, label)| party(vec![side], vec![label])));
        }
    }
    name_apart(&mut parties);
    Ok(parties)
}

fn party(sides: Vec<Side>, seeds: Vec<Option<String>>) -> Party {
    let replicate = |(side, seed): (&Side, Option<String>)| Replicate {
        run: Some(side.run.run.clone()),
        file: None,
        stage: side.root.as_ref().map(|(stage, _)| stage.name.clone()),
        port: side.root.as_ref().map(|(_, port)| port.clone()),
        seed,
    };
    let replicates = sides.iter().zip(seeds).map(replicate).collect();
    Party { arm: Arm { name: sides[0].name.clone(), replicates }, sides }
}

/// Which replicate of the baseline each of an arm's replicates belongs to, by their seeds.
pub(super) type Pairing = Option<Vec<usize>>;

/// The pairings of arms with the baseline, the first arm; none where none are asked for.
pub(super) fn pairings(arms: &[Arm], options: &Options) -> Result<Vec<Pairing>, NoScoreTable> {
    if !options.pair_seeds {
        return Ok(vec![None; arms.len()]);
    }
    let base = &arms[0];
    let pairing = |arm: &Arm| {
        let partner = |one: &Replicate| {
            let same = |other: &Replicate| other.seed.is_some() && other.seed == one.seed;
            base.replicates.iter().position(same)
        };
        let partners: Option<Vec<usize>> = arm.replicates.iter().map(partner).collect();
        let found = partners.filter(|partners| partners.len() == base.replicates.len());
        found.map(Some).ok_or_else(|| {
            let seeds =
                |arm: &Arm| arm.replicates.iter().filter_map(|one| one.seed.clone()).collect::<Vec<_>>().join(", ");
            let (own, others) = (seeds(arm), seeds(base));
            let (arm, base) = (&arm.name, &base.name);
            let why = format!(
                "seeds can be paired only where they are the same: `{arm}` has `{own}`, `{base}` has `{others}`"
            );
            NoScoreTable(why)
        })
    };
    arms.iter().map(pairing).collect()
}

/// Where two arms are called the same, their runs or numbers tell them apart.
fn name_apart(parties: &mut [Party]) {
    let names: Vec<String> = parties.iter().map(|party| party.arm.name.clone()).collect();
    for (place, party) in parties.iter_mut().enumerate() {
        let before = names[..place].iter().filter(|name| **name == names[place]).count();
        if before > 0 {
            party.arm.name = format!("{} #{}", names[place], before + 1);
        }
    }
}

/// The seeds of a replicate by the stages and fields that have them.
type Varying = BTreeMap<(String, String), String>;

/// What tells an experiment from another, seeds aside; and those seeds.
struct Traits {
    /// All that results depend on.
    whole: String,
    /// The same without what instances of a matrix over seeds have of their own: within a run that tells enough.
    template: String,
    varying: Varying,
}

fn traits(library: &Library, seeds: &Seeds, side: &Side) -> anyhow::Result<Traits> {
    let (mut whole, mut template, mut varying) = (BTreeSet::new(), BTreeSet::new(), Varying::new());
    for stage in &side.stages {
        let (name, axes) = seeds.apart(&stage.name);
        for axis in &axes {
            let (key, value) = axis.split_once('=').unwrap_or((axis, ""));
            varying.entry((name.clone(), key.to_owned())).or_insert_with(|| value.to_owned());
        }
        let source = |(port, source): (&String, &String)| format!("{port}={}", seeds.apart_source(source));
        let sources: Vec<String> = stage.inputs.iter().map(source).collect();
        let own = match library.result(stage)? {
            Some(manifest) => own_fields(seeds, &manifest.fields, &name, &axes, &mut varying),
            // What it depends on is not known: it is like no other.
            None => format!("{:?}", stage.fingerprint),
        };
        let common = format!("{name} {} {sources:?}", stage.kind);
        template.insert(if axes.is_empty() { format!("{common} {own}") } else { common.clone() });
        whole.insert(format!("{common} {own}"));
    }
    if let Some((root, port)) = &side.root {
        let root = format!("{}.{port}", seeds.apart(&root.name).0);
        template.insert(root.clone());
        whole.insert(root);
    }
    let text = |parts: BTreeSet<String>| parts.into_iter().collect::<Vec<_>>().join("\n");
    Ok(Traits { whole: text(whole), template: text(template), varying })
}

fn own_fields(seeds: &Seeds, fields: &Fields, stage: &str, axes: &[&str], varying: &mut Varying) -> String {
    let mut text = String::new();
    // What a stage of a seed's own reads beside its inputs, such as the file that a command copies, may be that seed's.
    let inherited = |field: &str| field.starts_with("in.") || (field.starts_with("also.") && !axes.is_empty());
    for (field, value) in fields.iter().filter(|(field, _)| !inherited(field)) {
        if field.starts_with("with.") && seeds.is(field) {
            varying.entry((stage.to_owned(), field.clone())).or_insert_with(|| value.clone());
            continue;
        }
        let seeds = axes.iter().filter_map(|axis| axis.split_once('=')).map(|(_, seed)| seed);
        // Numbers that happen to be those of a seed are none.
        let words = field.starts_with("with.") && value.contains('"');
        let masked = seeds.filter(|_| words).fold(value.clone(), |value, seed| mask(&value, seed));
        text.push_str(&format!("{field}={masked};"));
    }
    text
}

/// A text in which a matrix's seed, where it stands as a word, is taken out: commands have it among their words.
fn mask(text: &str, seed: &str) -> String {
    let is_word = |one: char| one.is_alphanumeric() || one == '_';
    let digit = |one: char| one.is_ascii_digit();
    // `1` is no word of `0.1`, but one of `seed-1.txt`.
    let joined = |before: &str, after: &str| {
        before.ends_with(is_word)
            || after.starts_with(is_word)
            || before.strip_suffix('.').is_some_and(|rest| rest.ends_with(digit))
            || after.strip_prefix('.').is_some_and(|rest| rest.starts_with(digit))
    };
    let (mut masked, mut done) = (String::new(), 0);
    for (place, _) in text.match_indices(seed).filter(|_| !seed.is_empty()) {
        let end = place + seed.len();
        masked.push_str(&text[done..place]);
        masked.push_str(if joined(&text[..place], &text[end..]) { seed } else { "\u{0}" });
        done = end;
    }
    masked + &text[done..]
}

impl Seeds<'_> {
    /// `stage.port` without the seeds in the stage's name.
    pub fn apart_source(&self, source: &str) -> String {
        match source.rsplit_once('.') {
            Some((stage, port)) => format!("{}.{port}", self.apart(stage).0),
            None => source.to_owned(),
        }
    }
}

/// What each of a group is told apart by: the seeds that are not the same in all.
fn labels(group: &[(Side, Traits)]) -> Vec<Option<String>> {
    let first = &group[0].1.varying;
    let differs = |key: &(String, String)| group.iter().any(|(_, other)| other.varying.get(key) != first.get(key));
    let label = |(_, traits): &(Side, Traits)| {
        let values: BTreeSet<&str> =
            traits.varying.iter().filter(|(key, _)| differs(key)).map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| values.into_iter().collect::<Vec<_>>().join(", "))
    };
    group.iter().map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_told_from_other_values() {
        let options = Options { replicates: vec!["fold".to_owned()], ..Options::default() };
        let seeds = Seeds(&options);
        assert_eq!(seeds.apart("train[lr=0.1,seed=2]"), ("train[lr=0.1]".to_owned(), vec!["seed=2"]));
        assert_eq!(seeds.apart("train[data_seed=2,fold=a]"), ("train".to_owned(), vec!["data_seed=2", "fold=a"]));
        assert_eq!(seeds.apart("train"), ("train".to_owned(), vec![]));
        assert_eq!(seeds.apart_source("train[lr=0.1,seed=2].model"), "train[lr=0.1].model");
        assert!(seeds.is("with.user.seed") && !seeds.is("with.seeds") && !seeds.is("with.seed.size"));
        let kept = Options { pool: false, ..options };
        assert_eq!(Seeds(&kept).apart("train[seed=2]").0, "train[seed=2]");
    }

    #[test]
    fn a_seed_is_masked_as_a_word_only() {
        assert_eq!(
            mask(r#"["t.py","--seed","1","--lr","0.1","--n","11"]"#, "1"),
            "[\"t.py\",\"--seed\",\"\u{0}\",\"--lr\",\"0.1\",\"--n\",\"11\"]"
        );
        assert_eq!(mask("1 1", ""), "1 1");
        assert_eq!(mask("base-1.txt 1.5", "1"), "base-\u{0}.txt 1.5");
    }
}
