//! Trees to agent turns that are to become likelier or less likely: the golden path's, and those of its failed siblings.

use std::collections::{HashMap, HashSet};

use super::extraction::{Trees, golden_path};
use super::forest::{Forest, Point};
use super::frame::Frame;
use super::paths::{Harvest, Harvests};
use super::turns::{Good, agent_turns, judge};
use crate::chat::Role;
use crate::compat::Rules;
use crate::examples::KtoExample;

/// A turn with its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// The tree's place among the harvests.
    pub tree: usize,
    /// The turn.
    pub turn: Point,
    /// Whether it is desirable.
    pub desirable: bool,
}

/// What trees gave, and what was left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KtoData {
    /// The desirable turns in the trees' order, then the undesirable ones.
    pub turns: Vec<Labelled>,
    /// Failed paths that said only what was also said on the way to a success, and turns that two dialogues would label
    /// differently: no label is right, none is given. Always 0 by the reference's rules, which label such a turn both ways.
    pub contradictions: usize,
}

impl KtoData {
    /// Labels the turns of trees.
    ///
    /// `good` decides by our rules alone; the reference takes golden paths, of trees that are complete.
    pub fn of(harvests: &Harvests, rules: &Rules, trees: Trees, good: Good) -> Self {
        if rules.labels_soundly() { sound(harvests, trees, good) } else { reference(harvests) }
    }

    /// The examples, each prompt after the system message where there is one.
    pub fn examples<'d>(&'d self, harvests: &'d Harvests, frame: &'d Frame) -> impl Iterator<Item = KtoExample> + 'd {
        let calling = harvests.calling();
        self.turns.iter().map(move |&Labelled { tree, turn, desirable }| {
            let forest = &harvests.forest;
            KtoExample {
                dialogue: harvests.trees[tree].dialogue.clone(),
                prompt: frame.chat(forest.messages(forest.before(turn))),
                completion: forest.message(turn).cloned().into_iter().collect(),
                label: desirable,
                tools: frame.tools_where(calling[tree]),
            }
        })
    }

    fn new(good: Vec<(usize, Point)>, bad: Vec<(usize, Point)>, contradictions: usize) -> Self {
        let labelled = |desirable: bool| move |(tree, turn)| Labelled { tree, turn, desirable };
        let turns = good.into_iter().map(labelled(true)).chain(bad.into_iter().map(labelled(false))).collect();
        Self { turns, contradictions }
    }
}

/// The trees that are taken, with their places.
fn taken(harvests: &Harvests, trees: Trees) -> impl Iterator<Item = (usize, &Harvest)> {
    harvests.trees.iter().enumerate().filter(move |(_, harvest)| trees.take(harvest.outcome))
}

/// The reference's script (section 2.8): complete trees with a clean golden path; of each failed path the last agent turn; of
/// those turns the ones whose prompt is a good turn's prompt, in the order of the good turns.
fn reference(harvests: &Harvests) -> KtoData {
    let forest = &harvests.forest;
    let (mut good, mut candidates) = (Vec::new(), HashMap::<Point, Vec<(usize, Point)>>::new());
    for (tree, harvest) in taken(harvests, Trees::Complete) {
        let Some(path) = golden_path(forest, harvest, &Rules::default()) else { continue };
        good.extend(agent_turns(forest, path).map(|turn| (tree, turn)));
        let golden: HashSet<Point> = harvest.records.iter().filter(|at| at.golden).map(|at| at.end).collect();
        let mut seen = HashSet::new();
        for record in harvest.records.iter().filter(|record| record.failed()) {
            if !golden.contains(&record.end) && seen.insert(record.end) {
                for turn in last_turns(forest, record.end) {
                    candidates.entry(forest.before(turn)).or_default().push((tree, turn));
                }
            }
        }
    }
    let (mut bad, mut seen) = (Vec::new(), HashSet::new());
    for (_, turn) in &good {
        let candidates = candidates.get(&forest.before(*turn)).into_iter().flatten();
        bad.extend(candidates.filter(|(_, turn)| seen.insert(*turn)));
    }
    KtoData::new(good, bad, 0)
}

/// The messages of a path's last agent turn, last first: back to what the customer said, past what tools returned.
fn last_turns(forest: &Forest, end: Point) -> Vec<Point> {
    let mut turns = Vec::new();
    for place in forest.path(end).into_iter().rev() {
        let Some(message) = forest.message(place) else { break };
        match message.role {
            Role::System => {}
            Role::User if !message.content.contains("APIRETURN") => break,
            _ if message.content.starts_with("APIRETURN") => {}
            _ => turns.push(place),
        }
    }
    turns
}

/// Our labels (quirk Q36): turns that a tree or two trees would label both ways get none.
fn sound(harvests: &Harvests, trees: Trees, which: Good) -> KtoData {
    let (mut good, mut bad, mut contradictions) = (Vec::new(), Vec::new(), 0);
    for (tree, harvest) in taken(harvests, trees) {
        let judged = judge(&harvests.forest, harvest, which);
        good.extend(judged.good.into_iter().map(|turn| (tree, turn)));
        bad.extend(judged.bad.into_iter().map(|turn| (tree, turn)));
        contradictions += judged.undecided;
    }
    let turns = |turns: &[(usize, Point)]| turns.iter().map(|(_, turn)| *turn).collect::<HashSet<Point>>();
    let (liked, disliked) = (turns(&good), turns(&bad));
    contradictions += liked.intersection(&disliked).count();
    good.retain(|(_, turn)| !disliked.contains(turn));
    bad.retain(|(_, turn)| !liked.contains(turn));
    KtoData::new(good, bad, contradictions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Message;
    use crate::compat::Compat;
    use crate::josh::short::harvests;
    use crate::josh::tree::Outcome;

    fn spell(harvests: &Harvests, data: &KtoData) -> Vec<String> {
        let text = |message: &Message| message.content.replace("APIRETURN ", "");
        let spell = |example: KtoExample| {
            let prompt: Vec<_> = example.prompt.iter().map(text).collect();
            format!("{}{} > {}", if example.label { '+' } else { '-' }, prompt.join(" "), text(&example.completion[0]))
        };
        data.examples(harvests, &Frame::default()).map(spell).collect()
    }

    fn spelt(trees: &[(&str, Outcome, &[&str])], compat: Compat, which: Trees, good: Good) -> (Vec<String>, usize) {
        let harvests = harvests(trees);
        let data = KtoData::of(&harvests, &compat.into(), which, good);
        (spell(&harvests, &data), data.contradictions)
    }

    #[test]
    fn siblings_of_golden_turns_become_undesirable() {
        let paths = ["G:u a", "S:u b", "F:u c", "G:u a u1 d r e", "F:u a u1 d r f", "F:u c u2 g", "F:u a u3 h"];
        let trees = [("A", Outcome::Complete, &paths[..])];
        let good = ["+u > a", "+u a u1 > d", "+u a u1 d r > e"];
        let (ours, _) = spelt(&trees, Compat::Fixed, Trees::Complete, Good::Golden);
        assert_eq!(ours, [&good[..], &["-u > c", "-u a u1 d r > f"]].concat());
        // The reference's walk also takes turns that the golden path made word for word.
        for compat in [Compat::Paper, Compat::RepoHead, Compat::Pypi014] {
            let (papers, _) = spelt(&trees, compat, Trees::Complete, Good::Golden);
            assert_eq!(papers, [&good[..], &["-u > c", "-u a u1 > d", "-u a u1 d r > f"]].concat());
        }
    }

    #[test]
    fn what_succeeded_without_being_golden_may_be_desirable_too() {
        let paths = ["G:u a", "S:u b u1 c", "S:u b u1 Error:no", "F:u b u1 d", "F:u e"];
        let trees = [("A", Outcome::Complete, &paths[..])];
        let (golden, _) = spelt(&trees, Compat::Fixed, Trees::Complete, Good::Golden);
        assert_eq!(golden, ["+u > a", "-u > e"]);
        let (both, _) = spelt(&trees, Compat::Fixed, Trees::Complete, Good::Successful);
        assert_eq!(both, ["+u > a", "+u > b", "+u b u1 > c", "-u b u1 > d", "-u > e"]);
    }

    #[test]
    fn a_turn_that_failed_and_succeeded_gets_one_label_or_none() {
        let twins = [("A", Outcome::Complete, &["G:u a", "F:u a x", "F:u a"][..])];
        let found = spelt(&twins, Compat::Fixed, Trees::Complete, Good::Golden);
        assert_eq!(found, (vec!["+u > a".to_owned()], 1));
        let trees = [("A", Outcome::Complete, &["G:u a", "F:u b"][..]), ("B", Outcome::Complete, &["G:u b", "F:u c"])];
        let found = spelt(&trees, Compat::Fixed, Trees::Complete, Good::Golden);
        assert_eq!(found, (vec!["+u > a".to_owned(), "-u > c".to_owned()], 1));
    }

    #[test]
    fn what_the_harness_wrote_and_what_broke_is_no_example() {
        let paths = ["G:u a", "F:u Error:retries", "F:u b"];
        let spelt = |outcome, trees| spelt(&[("A", outcome, &paths[..])], Compat::Fixed, trees, Good::Golden).0;
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
        let harvests = harvests(&[("A", Outcome::Complete, &["G:u a", "F:u b"])]);
        let frame = Frame { system: Some(Message::system("s")), tools: Some("[]".to_owned()) };
        let data = KtoData::of(&harvests, &Rules::default(), Trees::Complete, Good::Golden);
        let examples: Vec<KtoExample> = data.examples(&harvests, &frame).collect();
        assert_eq!(examples.len(), 2);
        assert!(
            examples.iter().all(|one| one.prompt[0].content == "s" && one.prompt.len() == 2 && one.tools.is_none())
        );
    }
}
