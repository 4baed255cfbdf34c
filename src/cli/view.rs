//! `thresh view`: one dialogue, one tree, or two dialogues about the same task, as a person reads them.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use super::{Common, Failure, Outcome, records, reference, runs, say};
use crate::config::diagnostic::nearest;
use crate::report::note;
use crate::report::table::Screen;
use crate::report::talk::source::tasks_of;
use crate::report::talk::{Headline, Holds, Source, Talk, Tree, TreeHeadline, Turn, example};
use crate::report::view::{Line, Look, dialogue, example as example_view, list, pair, tree};
use crate::table::{self, TableError};

#[derive(Args)]
#[command(override_usage = "thresh view [OPTIONS] TABLE [TABLE] [DIALOGUE]")]
pub(super) struct ViewArgs {
    /// A table of episodes, trees or training examples, and a dialogue of it; two tables of episodes show it side by side.
    ///
    /// A table is `RUN.stage.port`, `stage.port` of the newest run that has it, or a Parquet file. Without a dialogue those of the
    /// table are listed; of two tables those that came out otherwise. In a pager, in colour: `CLICOLOR_FORCE=1 thresh view … | less -R`.
    #[arg(num_args = 1..=3, required = true, value_name = "TABLE or DIALOGUE")]
    targets: Vec<String>,
    /// List only what ended so: `success`, `failure`, `broken`; of trees `complete`, `partial`, `empty`, `broken`.
    #[arg(long)]
    outcome: Option<String>,
    /// List only dialogues in which this text stands: said, planned, called or seen, whatever its case.
    #[arg(long, value_name = "TEXT")]
    find: Option<String>,
    /// List only dialogues that came out otherwise in this table.
    #[arg(long, value_name = "TABLE")]
    flipped: Option<String>,
    /// Of a tree the whole dialogue to this node; `golden` for that which the search went on from.
    #[arg(long, value_name = "NODE")]
    branch: Option<String>,
    /// Of a tree only nodes down to this depth.
    #[arg(long)]
    depth: Option<u32>,
    /// Show long observations, and of examples what they share, whole.
    #[arg(long)]
    full: bool,
    /// The table of tasks, where the run does not tell it: gives the goals their arguments.
    #[arg(long, value_name = "TABLE")]
    tasks: Option<String>,
}

pub(super) fn run(args: &ViewArgs, common: &Common) -> Outcome {
    let viewer = Viewer { args, json: common.json, look: Look { width: Screen::of_stdout().width, full: args.full } };
    let first = viewer.table(&args.targets[0])?;
    match &args.targets[1..] {
        [] => match &args.flipped {
            Some(other) => viewer.flips(&first, &viewer.table(other)?),
            None => viewer.list(&first),
        },
        // The second word is a dialogue, or another table.
        [second] => match viewer.table(second) {
            Ok(second) if !viewer.is_dialogue(&first, &args.targets[1])? => viewer.flips(&first, &second),
            _ => viewer.one(&first, second),
        },
        [second, dialogue, ..] => viewer.two(&first, &viewer.table(second)?, dialogue),
    }
}

/// A table that was named.
struct Table {
    name: String,
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    Dialogues(Source),
    Examples,
}

impl Table {
    /// What it holds where that is dialogues.
    fn source(&self) -> Result<&Source, Failure> {
        match &self.kind {
            Kind::Dialogues(source) => Ok(source),
            Kind::Examples => {
                Err(Failure::Wrong(anyhow!("`{}` holds training examples, expected episodes", self.name)))
            }
        }
    }

    /// What it holds where that is episodes.
    fn episodes(&self) -> Result<&Source, Failure> {
        match self.source()? {
            source if source.holds == Holds::Episodes => Ok(source),
            _ => Err(Failure::Wrong(anyhow!("`{}` holds trees, expected episodes", self.name))),
        }
    }

    /// The names of its dialogues.
    fn dialogues(&self) -> Result<Vec<String>, Failure> {
        Ok(match &self.kind {
            Kind::Examples => example::counts(&self.path)?.into_iter().map(|count| count.dialogue).collect(),
            Kind::Dialogues(source) if source.holds == Holds::Trees => {
                source.tree_headlines()?.into_iter().map(|line| line.dialogue).collect()
            }
            Kind::Dialogues(source) => source.headlines()?.into_iter().map(|line| line.dialogue).collect(),
        })
    }

    /// The full name of a dialogue: as it is, or without its `.json`.
    fn dialogue(&self, name: &str) -> Result<String, Failure> {
        let known = self.dialogues()?;
        let long = format!("{name}.json");
        if let Some(found) = [name, &long].into_iter().find(|name| known.iter().any(|known| known == name)) {
            return Ok(found.to_owned());
        }
        let near = nearest(&long, known.iter().map(String::as_str))
            .or_else(|| nearest(name, known.iter().map(String::as_str)));
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        Err(Failure::Wrong(anyhow!("there is no dialogue `{name}` in `{}`{hint}", self.name)))
    }
}

struct Viewer<'a> {
    args: &'a ViewArgs,
    json: bool,
    look: Look,
}

impl Viewer<'_> {
    fn table(&self, name: &str) -> Result<Table, Failure> {
        let (path, upstream) = locate(name)?;
        if path.is_dir() {
            return Err(Failure::Wrong(anyhow!(
                "`{name}` is a folder, expected a table of episodes, trees or examples"
            )));
        }
        let tasks = match &self.args.tasks {
            Some(tasks) => Some(locate(tasks)?.0),
            None => upstream,
        };
        let found = table::read_type(&path)?.unwrap_or_else(|| "unnamed".to_owned());
        let kind = if example::TYPES.contains(&found.as_str()) {
            Kind::Examples
        } else {
            let source = Source::open(&path, tasks).map_err(|error| match error.downcast_ref::<TableError>() {
                Some(_) => Failure::Failed(error),
                None => Failure::Wrong(anyhow!(
                    "`{name}` holds `{found}` rows, expected episodes, trees or training examples"
                )),
            })?;
            Kind::Dialogues(source)
        };
        Ok(Table { name: name.to_owned(), path, kind })
    }

    fn is_dialogue(&self, table: &Table, name: &str) -> Result<bool, Failure> {
        Ok(table.dialogues()?.iter().any(|known| known == name || known.strip_suffix(".json") == Some(name)))
    }

    fn one(&self, table: &Table, name: &str) -> Outcome {
        let name = table.dialogue(name)?;
        let gone = || Failure::Failed(anyhow!("dialogue `{name}` is not in `{}` any more", table.name));
        let source = match &table.kind {
            Kind::Examples => return self.examples(&example::of(&table.path, &name)?),
            Kind::Dialogues(source) => source,
        };
        match source.holds {
            Holds::Episodes => {
                let talk = source.talk(&name)?.ok_or_else(gone)?;
                if self.json { self.object(&talk) } else { show(&dialogue::page(&talk, self.look)) }
            }
            Holds::Trees => self.tree(&source.tree(&name)?.ok_or_else(gone)?),
        }
    }

    fn tree(&self, tree: &Tree) -> Outcome {
        let Some(branch) = &self.args.branch else {
            return if self.json { self.object(tree) } else { show(&tree::page(tree, self.args.depth, self.look)) };
        };
        let node = match branch.as_str() {
            "golden" => tree
                .golden_end()
                .ok_or_else(|| Failure::Failed(anyhow!("the tree of `{}` has no golden path", tree.dialogue)))?,
            number => number.parse().ok().filter(|node| (*node as usize) < tree.nodes.len()).ok_or_else(|| {
                Failure::Wrong(anyhow!(
                    "there is no node `{number}`; the tree of `{}` has 0 to {}, or say `golden`",
                    tree.dialogue,
                    tree.nodes.len() - 1
                ))
            })?,
        };
        if !self.json {
            return show(&tree::branch(tree, node, self.look));
        }
        let lineage = tree.lineage(node);
        let path: Vec<u32> = lineage.iter().map(|node| node.node).collect();
        let turns: Vec<&Turn> = lineage.iter().flat_map(|node| &node.turns).collect();
        self.object(&json!({"dialogue": tree.dialogue, "node": node, "path": path, "turns": turns}))
    }

    fn examples(&self, examples: &[example::Example]) -> Outcome {
        if self.json { self.objects(examples) } else { show(&example_view::page(examples, self.look)) }
    }

    fn two(&self, a: &Table, b: &Table, name: &str) -> Outcome {
        let (first, second) = (a.episodes()?, b.episodes()?);
        let name = a.dialogue(name)?;
        let missing = |table: &Table| Failure::Wrong(anyhow!("there is no dialogue `{name}` in `{}`", table.name));
        let left: Talk = first.talk(&name)?.ok_or_else(|| missing(a))?;
        let right: Talk = second.talk(&name)?.ok_or_else(|| missing(b))?;
        if self.json {
            let parting = pair::parting(&left, &right);
            let side = |table: &Table, talk: &Talk| json!({"table": table.name, "talk": talk});
            return self
                .object(&json!({"dialogue": name, "parting": parting, "a": side(a, &left), "b": side(b, &right)}));
        }
        show(&pair::Pair { names: [&a.name, &b.name], talks: [&left, &right] }.page(self.look))
    }

    fn list(&self, table: &Table) -> Outcome {
        let source = match &table.kind {
            Kind::Dialogues(source) => source,
            Kind::Examples => {
                let counts = example::counts(&table.path)?;
                return if self.json { self.objects(&counts) } else { show(&example_view::list(&counts)) };
            }
        };
        match source.holds {
            Holds::Episodes => self.list_dialogues(source),
            Holds::Trees => self.list_trees(source),
        }
    }

    fn list_dialogues(&self, source: &Source) -> Outcome {
        let outcomes = ["success", "failure", "broken"];
        self.known_outcome(&outcomes)?;
        let mut lines = match self.find() {
            None => source.headlines()?,
            Some(text) => source
                .talks()?
                .filter(|talk| talk.as_ref().map_or(true, |talk| talk.turns.iter().any(|turn| turn.holds(&text))))
                .map(|talk| talk.map(|talk| Headline::from(&talk)))
                .collect::<anyhow::Result<_>>()?,
        };
        lines.retain(|line| self.wanted(outcomes[line.outcome as usize]));
        if self.json {
            return self.objects(&lines);
        }
        show(&list::dialogues(&lines))?;
        let found = lines.iter().map(|line| outcomes[line.outcome as usize]);
        note(list::tally("dialogue", &outcomes, found));
        self.hint(lines.first().map(|line| line.dialogue.as_str()));
        Ok(())
    }

    fn list_trees(&self, source: &Source) -> Outcome {
        let outcomes = ["complete", "partial", "empty", "broken"];
        self.known_outcome(&outcomes)?;
        let holds =
            |tree: &Tree, text: &str| tree.nodes.iter().flat_map(|node| &node.turns).any(|turn| turn.holds(text));
        let mut lines = match self.find() {
            None => source.tree_headlines()?,
            Some(text) => source
                .trees()?
                .filter(|tree| tree.as_ref().map_or(true, |tree| holds(tree, &text)))
                .map(|tree| tree.map(|tree| TreeHeadline::from(&tree)))
                .collect::<anyhow::Result<_>>()?,
        };
        lines.retain(|line| self.wanted(outcomes[line.outcome as usize]));
        if self.json {
            return self.objects(&lines);
        }
        show(&list::trees(&lines))?;
        note(list::tally("tree", &outcomes, lines.iter().map(|line| outcomes[line.outcome as usize])));
        self.hint(lines.first().map(|line| line.dialogue.as_str()));
        Ok(())
    }

    fn flips(&self, a: &Table, b: &Table) -> Outcome {
        let outcomes = ["success", "failure", "broken"];
        self.known_outcome(&outcomes)?;
        let mut others: std::collections::HashMap<String, Headline> =
            b.episodes()?.headlines()?.into_iter().map(|line| (line.dialogue.clone(), line)).collect();
        let both = a.episodes()?.headlines()?.into_iter();
        let both = both.filter_map(|line| others.remove(&line.dialogue).map(|other| (line, other)));
        let both: Vec<(Headline, Headline)> = both.collect();
        let count = both.len();
        let flips: Vec<(Headline, Headline)> = both
            .into_iter()
            .filter(|(a, b)| a.outcome != b.outcome && self.wanted(outcomes[a.outcome as usize]))
            .collect();
        if self.json {
            let lines: Vec<_> = flips.iter().map(|(a, b)| json!({"dialogue": a.dialogue, "a": a, "b": b})).collect();
            return self.objects(&lines);
        }
        show(&list::flips(&flips))?;
        note(format!("A {}, B {}: {} of {count} dialogues in both came out otherwise", a.name, b.name, flips.len()));
        if let Some((line, _)) = flips.first() {
            note(format!("`thresh view {} {} {}` shows one side by side", a.name, b.name, line.dialogue));
        }
        Ok(())
    }

    /// How one of them is seen.
    fn hint(&self, dialogue: Option<&str>) {
        if let Some(dialogue) = dialogue {
            note(format!("`thresh view {} {dialogue}` shows one", self.args.targets[0]));
        }
    }

    fn find(&self) -> Option<String> {
        self.args.find.as_ref().map(|text| text.to_lowercase())
    }

    fn wanted(&self, outcome: &str) -> bool {
        self.args.outcome.as_ref().is_none_or(|wanted| wanted == outcome)
    }

    fn known_outcome(&self, known: &[&str]) -> Outcome {
        match &self.args.outcome {
            Some(outcome) if !known.contains(&outcome.as_str()) => {
                let known = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
                Err(Failure::Wrong(anyhow!("no dialogue here can end in `{outcome}`; expected {known}")))
            }
            _ => Ok(()),
        }
    }

    fn object(&self, value: &impl serde::Serialize) -> Outcome {
        Ok(say(serde_json::to_string(value)?)?)
    }

    fn objects(&self, values: &[impl serde::Serialize]) -> Outcome {
        values.iter().try_for_each(|value| self.object(value))
    }
}

/// Where a table lies, and the tasks that it goes back to.
fn locate(name: &str) -> Result<(PathBuf, Option<PathBuf>), Failure> {
    if Path::new(name).is_file() {
        return Ok((name.into(), None));
    }
    let store = runs::store()?;
    let records = records(&store)?;
    let (path, _) = reference::output(&store, &records, name)?;
    let named = reference::named(&records, name)?;
    let tasks = named.stage.map(|stage| tasks_of(&store, named.run, stage)).transpose()?.flatten();
    Ok((path, tasks))
}

/// Writes lines to stdout, in colour where it shows colour or `CLICOLOR_FORCE` wants it.
fn show(lines: &[Line]) -> Outcome {
    let text: String = lines.iter().map(|line| line.paint() + "\n").collect();
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
