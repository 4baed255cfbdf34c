//! All dialogues and trees of the runs: a list to filter and to search, one dialogue, two side by side, one tree.
//!
//! The page holds columns for the list (`browse/index.rs`), and what was said as compressed pieces (`browse/pack.rs`) that the
//! browser opens when it needs them. A table that several runs share stands once.

mod body;
mod choice;
mod index;
mod pack;
mod texts;

use std::collections::HashMap;

use anyhow::Context as _;
use serde_json::json;

use self::choice::choose;
use self::index::Index;
use self::pack::{Packed, Packer};
use super::{Content, Material, Section};
use crate::dialogue::episode::EpisodeRow;
use crate::josh::node::NodeRow;
use crate::report::talk::{Holds, Source, source};
use crate::table::Row;

pub(super) const SECTION: Section = Section {
    id: "browse",
    title: "Dialogues",
    style: include_str!("assets/browse.css"),
    script: concat!(
        include_str!("assets/browse_data.js"),
        include_str!("assets/browse_show.js"),
        include_str!("assets/browse_tree.js"),
        include_str!("assets/browse_list.js"),
        include_str!("assets/browse.js"),
    ),
    make,
};

/// A table of dialogues or trees, and the outputs that are it.
struct Set {
    source: Source,
    places: Vec<(usize, String, String)>,
    /// The dialogue of each row.
    names: Vec<String>,
}

fn make(material: &Material) -> anyhow::Result<Option<Content>> {
    let sets = sets(material)?;
    let all: usize = sets.iter().map(|set| set.names.len()).sum();
    if all == 0 {
        return Ok(None);
    }
    let limit = material.dialogues.unwrap_or(usize::MAX);
    if limit == 0 {
        material.note(format!("The {all} dialogues and trees of these runs are left out, as was asked for."));
        return Ok(None);
    }
    let chosen = choose(sets.iter().flat_map(|set| &set.names).map(String::as_str), limit);
    let (index, packed) = pack(&sets, chosen)?;
    let tasks = choose(sets.iter().flat_map(|set| &set.names).map(String::as_str), usize::MAX).len();
    let mut data = json!(index);
    data["chunks"] = json!({"rows": packed.rows, "texts": packed.texts, "bytes": packed.bytes});
    if index.rows() < all {
        data["left_out"] = json!({"rows": all, "tasks": tasks});
    }
    Ok(Some(Content { data, chunks: packed.chunks, ..Content::default() }))
}

/// All tables of the runs, those of dialogues first.
fn sets(material: &Material) -> anyhow::Result<Vec<Set>> {
    let mut sets: Vec<Set> = Vec::new();
    for holds in [EpisodeRow::TYPE, NodeRow::TYPE] {
        let mut known: HashMap<String, usize> = HashMap::new();
        for found in material.outputs(holds)? {
            let place = (found.run, found.stage.name.clone(), found.port.clone());
            if let Some(&set) = known.get(&found.digest) {
                sets[set].places.push(place);
                continue;
            }
            let tasks = source::tasks_of(material.store, material.runs[found.run], found.stage)?;
            let source = Source::open(&found.path, tasks)?;
            let names = names(&source).with_context(|| format!("in `{}`", found.path.display()))?;
            known.insert(found.digest, sets.len());
            sets.push(Set { source, places: vec![place], names });
        }
    }
    Ok(sets)
}

fn names(source: &Source) -> anyhow::Result<Vec<String>> {
    Ok(match source.holds {
        Holds::Episodes => source.headlines()?.into_iter().map(|line| line.dialogue).collect(),
        Holds::Trees => source.tree_headlines()?.into_iter().map(|line| line.dialogue).collect(),
    })
}

/// Packs the chosen rows of all tables, in their order.
fn pack(sets: &[Set], mut chosen: HashMap<&str, usize>) -> anyhow::Result<(Index, Packed)> {
    let (mut index, mut packer) = (Index::default(), Packer::default());
    let mut wanted = |name: &str| match chosen.get_mut(name) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    };
    for set in sets {
        index.begin(set.source.holds == Holds::Trees, set.places.clone());
        match set.source.holds {
            Holds::Episodes => {
                for talk in set.source.talks()? {
                    let talk = talk?;
                    if wanted(&talk.dialogue) {
                        index.talk(&mut packer.texts, &talk);
                        let body = body::talk(&mut packer.texts, &talk);
                        packer.push(&body)?;
                    }
                }
            }
            Holds::Trees => {
                for tree in set.source.trees()? {
                    let tree = tree?;
                    if wanted(&tree.dialogue) {
                        index.tree(&mut packer.texts, &tree);
                        let body = body::tree(&mut packer.texts, &tree);
                        packer.push(&body)?;
                    }
                }
            }
        }
    }
    Ok((index, packer.finish()?))
}
