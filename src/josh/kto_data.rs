//! Trees to agent turns that are to become likelier or less likely: the golden path's, and those of its failed siblings.

use std::collections::{HashMap, HashSet};

use super::paths::Harvest;
use super::sft_data::{Recipe, Trees, golden_path, tells_of_error};
use crate::chat::{Message, Role};
use crate::examples::KtoExample;

/// What trees gave, and what was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KtoData {
    /// The desirable examples in the trees' order, then the undesirable ones.
    pub examples: Vec<KtoExample>,
    /// Failed paths that said only what was also said on the way to a success, and turns that two dialogues would label
    /// differently: no label is right, none is given. Always 0 with the paper's recipe, which labels such a turn both ways.
    pub contradictions: usize,
}

/// One turn of an agent: the messages before it, and it.
type Turn<'h> = (&'h [Message], &'h Message);

/// Makes examples of trees, each prompt after the system message where there is one.
pub fn kto_data(harvests: &[Harvest], recipe: Recipe, trees: Trees, system: Option<&Message>) -> KtoData {
    let (good, bad, contradictions) = match recipe {
        Recipe::Paper => paper(harvests),
        Recipe::Fixed => fixed(harvests, trees),
    };
    let labelled = |label: bool| {
        move |(harvest, (prompt, completion)): (&Harvest, Turn)| KtoExample {
            dialogue: harvest.dialogue.clone(),
            prompt: system.into_iter().chain(prompt).cloned().collect(),
            completion: vec![completion.clone()],
            label,
        }
    };
    let examples = good.into_iter().map(labelled(true)).chain(bad.into_iter().map(labelled(false))).collect();
    KtoData { examples, contradictions }
}

/// Good turns, bad turns, contradictions.
type Split<'h> = (Vec<(&'h Harvest, Turn<'h>)>, Vec<(&'h Harvest, Turn<'h>)>, usize);

fn agent_turns(path: &[Message]) -> impl Iterator<Item = Turn<'_>> {
    path.iter()
        .enumerate()
        .filter(|(_, message)| message.role == Role::Assistant)
        .map(|(place, message)| (&path[..place], message))
}

/// The paper's recipe (reference, section 2.8): complete trees with a clean golden path; of each failed path the last agent
/// turn; of those turns the ones whose prompt is a good turn's prompt, in the order of the good turns.
fn paper(harvests: &[Harvest]) -> Split<'_> {
    let (mut good, mut candidates) = (Vec::new(), HashMap::<&[Message], Vec<(&Harvest, Turn)>>::new());
    for harvest in harvests.iter().filter(|harvest| Trees::Complete.take(harvest.outcome)) {
        let Some(path) = golden_path(harvest) else { continue };
        good.extend(agent_turns(path).map(|turn| (harvest, turn)));
        let golden: HashSet<&[Message]> =
            harvest.records.iter().filter(|at| at.golden).map(|at| &at.messages[..]).collect();
        let mut seen = HashSet::new();
        for record in harvest.records.iter().filter(|record| !record.success && !record.golden) {
            if !golden.contains(&record.messages[..]) && seen.insert(&record.messages) {
                for turn in last_turn(&record.messages) {
                    candidates.entry(turn.0).or_default().push((harvest, turn));
                }
            }
        }
    }
    let (mut bad, mut taken) = (Vec::new(), HashSet::new());
    for (_, (prompt, _)) in &good {
        for &(harvest, turn) in candidates.get(prompt).into_iter().flatten() {
            if taken.insert(turn) {
                bad.push((harvest, turn));
            }
        }
    }
    (good, bad, 0)
}

/// The messages of a path's last agent turn, last first: back to what the customer said, past what tools returned.
fn last_turn(path: &[Message]) -> Vec<Turn<'_>> {
    let mut turns = Vec::new();
    for (place, message) in path.iter().enumerate().rev() {
        match message.role {
            Role::System => {}
            Role::User if !message.content.contains("APIRETURN") => break,
            _ if message.content.starts_with("APIRETURN") => {}
            _ => turns.push((&path[..place], message)),
        }
    }
    turns
}

/// Our recipe (quirk Q36).
///
/// A turn is undesirable when a failed path leaves with it, on a prompt of a golden path, every path that succeeded: so a
/// successful sibling is never blamed, and neither is an agent whose dialogue went astray through the user's next words. The
/// error messages that the harness itself writes are no turns.
fn fixed(harvests: &[Harvest], trees: Trees) -> Split<'_> {
    let (mut good, mut bad, mut contradictions) = (Vec::new(), Vec::new(), 0);
    for harvest in harvests.iter().filter(|harvest| trees.take(harvest.outcome)) {
        good.extend(golden_path(harvest).into_iter().flat_map(agent_turns).map(|turn| (harvest, turn)));
        let successful = harvest.records.iter().filter(|record| record.success || record.golden);
        let succeeded = prefixes(successful.map(|record| &record.messages[..]));
        let golden = harvest.records.iter().filter(|record| record.golden);
        let prompts: HashSet<&[Message]> =
            golden.flat_map(|record| agent_turns(clean_start(&record.messages))).map(|(prompt, _)| prompt).collect();
        let mut seen = HashSet::new();
        for record in harvest.records.iter().filter(|record| !record.success && !record.golden) {
            match leaving(&record.messages, &succeeded) {
                Leaving::Never => contradictions += usize::from(seen.insert((&record.messages[..], None))),
                Leaving::With(turn) if !prompts.contains(turn.0) || tells_of_error(turn.1) => {}
                Leaving::With(turn) if seen.insert((turn.0, Some(turn.1))) => bad.push((harvest, turn)),
                Leaving::With(_) | Leaving::Otherwise => {}
            }
        }
    }
    let liked: HashSet<Turn> = good.iter().map(|&(_, turn)| turn).collect();
    let disliked: HashSet<Turn> = bad.iter().map(|&(_, turn)| turn).collect();
    contradictions += liked.intersection(&disliked).count();
    good.retain(|(_, turn)| !disliked.contains(turn));
    bad.retain(|(_, turn)| !liked.contains(turn));
    (good, bad, contradictions)
}

/// All that paths begin with, the whole paths and nothing at all among it.
fn prefixes<'h>(paths: impl Iterator<Item = &'h [Message]>) -> HashSet<&'h [Message]> {
    paths.flat_map(|path| (0..=path.len()).map(move |length| &path[..length])).collect()
}

/// How a failed path leaves those that succeeded.
enum Leaving<'h> {
    /// Not at all: all of it was also said on the way to a success.
    Never,
    /// With this turn of the agent.
    With(Turn<'h>),
    /// With something that the agent did not say.
    Otherwise,
}

fn leaving<'h>(path: &'h [Message], succeeded: &HashSet<&[Message]>) -> Leaving<'h> {
    match (0..path.len()).find(|&place| !succeeded.contains(&path[..=place])) {
        None => Leaving::Never,
        Some(place) if path[place].role == Role::Assistant => Leaving::With((&path[..place], &path[place])),
        Some(_) => Leaving::Otherwise,
    }
}

/// A path up to its first message that tells of an error.
fn clean_start(path: &[Message]) -> &[Message] {
    &path[..path.iter().position(tells_of_error).unwrap_or(path.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::josh::paths::Path;
    use crate::josh::tree::Outcome;

    /// A path in short: `u` and `r` are the customer and a tool, anything else the agent; `S` succeeded, `G` is golden.
    fn path(order: usize, short: &str) -> Path {
        let (marks, texts) = short.split_once(':').unwrap();
        let message = |text: &str| match text.chars().next() {
            Some('u') => Message::user(text),
            Some('r') => Message::user(format!("APIRETURN {text}")),
            Some('s') => Message::system(text),
            _ => Message::assistant(text),
        };
        let messages = texts.split_whitespace().map(message).collect();
        Path { messages, success: marks != "F", golden: marks == "G", order: Some(order as u32) }
    }

    fn harvest(dialogue: &str, outcome: Outcome, paths: &[&str]) -> Harvest {
        let records = paths.iter().enumerate().map(|(order, short)| path(order, short)).collect();
        Harvest { dialogue: dialogue.to_owned(), outcome, records }
    }

    fn spell(data: &KtoData) -> Vec<String> {
        let text = |message: &Message| message.content.replace("APIRETURN ", "");
        let spell = |example: &KtoExample| {
            let prompt: Vec<_> = example.prompt.iter().map(text).collect();
            format!("{}{} > {}", if example.label { '+' } else { '-' }, prompt.join(" "), text(&example.completion[0]))
        };
        data.examples.iter().map(spell).collect()
    }

    #[test]
    fn siblings_of_golden_turns_become_undesirable() {
        let paths = ["G:u a", "S:u b", "F:u c", "G:u a u1 d r e", "F:u a u1 d r f", "F:u c u2 g", "F:u a u3 h"];
        let trees = [harvest("A", Outcome::Complete, &paths)];
        let good = ["+u > a", "+u a u1 > d", "+u a u1 d r > e"];
        let ours = kto_data(&trees, Recipe::Fixed, Trees::Complete, None);
        assert_eq!(spell(&ours), [&good[..], &["-u > c", "-u a u1 d r > f"]].concat());
        // The paper's walk also takes turns that the golden path made word for word.
        let papers = kto_data(&trees, Recipe::Paper, Trees::Complete, None);
        assert_eq!(spell(&papers), [&good[..], &["-u > c", "-u a u1 > d", "-u a u1 d r > f"]].concat());
    }

    #[test]
    fn a_turn_that_failed_and_succeeded_gets_one_label_or_none() {
        let twins = [harvest("A", Outcome::Complete, &["G:u a", "F:u a x", "F:u a"])];
        let data = kto_data(&twins, Recipe::Fixed, Trees::Complete, None);
        assert_eq!((spell(&data), data.contradictions), (vec!["+u > a".to_owned()], 1));
        let trees = [
            harvest("A", Outcome::Complete, &["G:u a", "F:u b"]),
            harvest("B", Outcome::Complete, &["G:u b", "F:u c"]),
        ];
        let data = kto_data(&trees, Recipe::Fixed, Trees::Complete, None);
        assert_eq!((spell(&data), data.contradictions), (vec!["+u > a".to_owned(), "-u > c".to_owned()], 1));
    }

    #[test]
    fn what_the_harness_wrote_and_what_broke_is_no_example() {
        let paths = ["G:u a", "F:u Error:retries", "F:u b"];
        let spelt = |outcome, trees| spell(&kto_data(&[harvest("A", outcome, &paths)], Recipe::Fixed, trees, None));
        assert_eq!(spelt(Outcome::Complete, Trees::Complete), ["+u > a", "-u > b"]);
        assert_eq!(spelt(Outcome::Partial, Trees::Rewarded), ["+u > a", "-u > b"]);
        for (outcome, trees) in [
            (Outcome::Partial, Trees::Complete),
            (Outcome::Broken, Trees::Rewarded),
            (Outcome::Broken, Trees::Complete),
        ] {
            assert!(spelt(outcome, trees).is_empty());
        }
    }

    #[test]
    fn every_prompt_begins_with_the_system_message() {
        let trees = [harvest("A", Outcome::Complete, &["G:u a", "F:u b"])];
        let system = Message::system("s");
        let data = kto_data(&trees, Recipe::Fixed, Trees::Complete, Some(&system));
        assert!(data.examples.iter().all(|example| example.prompt[0] == system && example.prompt.len() == 2));
    }
}
