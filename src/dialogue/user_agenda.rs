//! The agenda user: speaks from a task's goals through templates, reacts to what it hears, needs no model.
//!
//! It works through the domains in the order of the goal. In each it says its constraints (the failing ones first, where the
//! goal has them), answers questions, corrects contradictions, asks for attributes, books, and goes on. It believes what the
//! agent says: an agent that claims a booking it never made is taken at its word, and earns nothing for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::hearing::{Heard, hear};
use super::lexicon::Lexicon;
use super::seed;
use super::task::{DomainGoal, Slot, Task};
use super::user_words as say;
use super::words::{has_any, words};

/// The text by which a user ends a dialogue (reference, section 2.5).
pub const END: &str = "END_CONVERSATION";

/// What a user said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserTurn {
    /// The text, with [`END`] where it ends the dialogue.
    pub text: String,
    /// Whether it ends the dialogue: the agent does not answer.
    pub ended: bool,
    /// Whether the dialogue ends with the agent's answer (quirk Q23).
    pub closing: bool,
}

impl UserTurn {
    /// What the agent answers, and then the customer goes on.
    pub fn goes_on(text: impl Into<String>) -> Self {
        Self { text: text.into(), ended: false, closing: false }
    }

    /// The last word of the dialogue.
    pub fn ends(text: impl Into<String>) -> Self {
        Self { text: text.into(), ended: true, closing: false }
    }

    /// The customer's last word, which the agent is to answer.
    pub fn closes(text: impl Into<String>) -> Self {
        Self { text: text.into(), ended: false, closing: true }
    }
}

/// Where the user is in the domain it talks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Constraints were said; an offer is awaited.
    Searching,
    /// Attributes were asked for.
    Asking,
    /// A booking was asked for.
    Booking,
}

/// An agenda user in mid-dialogue. Cloning it forks the dialogue.
#[derive(Clone, Debug)]
pub struct AgendaUser {
    goals: Arc<Vec<DomainGoal>>,
    lexicon: Arc<Lexicon>,
    patience: u32,
    /// The domain that is talked about; `None` before the first word.
    at: Option<usize>,
    stage: Stage,
    told: BTreeSet<String>,
    corrected: BTreeSet<String>,
    asked: bool,
    failing: bool,
    failing_book: bool,
    refusals: u32,
    in_vain: u32,
    misunderstood: u32,
    last_heard: String,
}

/// What customers mean by "anything" (reference, section 2, empty values): no constraint.
fn is_constraint(slot: &Slot) -> bool {
    let any = ["", "dont care", "not mentioned", "don't care", "dontcare", "do n't care", "any", "none"];
    !any.contains(&slot.value.trim().to_lowercase().as_str())
}

impl AgendaUser {
    /// A user of a task who bears `patience` misunderstandings before giving up.
    pub fn new(task: &Task, lexicon: Arc<Lexicon>, patience: u32) -> Self {
        let known = |slots: &[Slot]| slots.iter().filter(|slot| is_constraint(slot)).cloned().collect::<Vec<_>>();
        let goals = task.domains.iter().map(|goal| DomainGoal {
            domain: goal.domain.clone(),
            info: known(&goal.info),
            fail_info: known(&goal.fail_info),
            book: booking_slots(&goal.domain, &goal.book),
            fail_book: booking_slots(&goal.domain, &goal.fail_book),
            requests: goal.requests.clone(),
        });
        Self {
            goals: Arc::new(goals.collect()),
            lexicon,
            patience,
            at: None,
            stage: Stage::Searching,
            told: BTreeSet::new(),
            corrected: BTreeSet::new(),
            asked: false,
            failing: false,
            failing_book: false,
            refusals: 0,
            in_vain: 0,
            misunderstood: 0,
            last_heard: String::new(),
        }
    }

    /// The next utterance: the first one when nothing was heard yet. The same state, text and seed give the same words.
    pub fn speak(&mut self, heard: Option<&str>, seed: u64) -> UserTurn {
        let mut rng = seed::generator(seed, &["agenda-user"]);
        let text = match (self.at, heard) {
            (None, _) | (_, None) => self.next_domain(&mut rng),
            (Some(at), Some(text)) => self.react(at, text, &mut rng),
        };
        match text {
            Some(text) => UserTurn::goes_on(text),
            None if self.misunderstood >= self.patience => farewell(say::give_up(&mut rng)),
            None => farewell(say::thanks(&mut rng)),
        }
    }

    /// The answer to an utterance; `None` ends the dialogue.
    fn react(&mut self, at: usize, text: &str, rng: &mut ChaCha8Rng) -> Option<String> {
        let goals = self.goals.clone();
        let goal = &goals[at];
        let heard = hear(text, &goal.domain, &self.lexicon);
        let repeated = text == self.last_heard;
        text.clone_into(&mut self.last_heard);
        if heard.broken || repeated {
            self.misunderstood += 1;
        }
        let answer = match self.stage {
            Stage::Searching => self.while_searching(goal, &heard, rng),
            Stage::Asking => self.while_asking(goal, &heard, &words(text), rng),
            Stage::Booking => self.while_booking(goal, &heard, rng),
        };
        if self.misunderstood >= self.patience { None } else { answer }
    }

    /// Opens the next domain, all constraints at once or, now and then, a part of them first.
    fn next_domain(&mut self, rng: &mut ChaCha8Rng) -> Option<String> {
        let at = self.at.map_or(0, |at| at + 1);
        let goals = self.goals.clone();
        let goal = goals.get(at)?;
        self.at = Some(at);
        self.stage = Stage::Searching;
        self.told.clear();
        self.corrected.clear();
        self.asked = false;
        self.refusals = 0;
        self.in_vain = 0;
        self.failing = !goal.fail_info.is_empty();
        self.failing_book = !goal.fail_book.is_empty();
        let wanted = self.wanted(goal);
        let in_parts =
            wanted.len() >= 3 && !self.failing && !self.failing_book && goals.len() <= 2 && rng.random_bool(0.3);
        let count = if in_parts { wanted.len() - rng.random_range(1..wanted.len() - 1) } else { wanted.len() };
        let first: Vec<say::Said> = wanted.iter().take(count).map(pair).collect();
        self.told.extend(first.iter().map(|(slot, _)| (*slot).to_owned()));
        Some(say::open(rng, &say::thing(&goal.domain, &first), at == 0))
    }

    /// The constraints that the user states at present: the failing ones as long as they were not found to fail.
    fn wanted(&self, goal: &DomainGoal) -> Vec<Slot> {
        if !self.failing {
            return goal.info.clone();
        }
        let mut wanted = goal.info.clone();
        for slot in &goal.fail_info {
            match wanted.iter_mut().find(|other| other.name == slot.name) {
                Some(other) => other.value.clone_from(&slot.value),
                None => wanted.push(slot.clone()),
            }
        }
        wanted
    }

    fn booking(&self, goal: &DomainGoal) -> Vec<Slot> {
        let mut booking = goal.book.clone();
        for slot in goal.fail_book.iter().filter(|_| self.failing_book) {
            if let Some(other) = booking.iter_mut().find(|other| other.name == slot.name) {
                other.value.clone_from(&slot.value);
            }
        }
        booking
    }

    fn while_searching(&mut self, goal: &DomainGoal, heard: &Heard, rng: &mut ChaCha8Rng) -> Option<String> {
        let wanted = self.wanted(goal);
        if heard.booked && self.refusals > 0 {
            // The constraints were said again after a refusal, and the agent booked what it then found.
            return self.next_domain(rng);
        }
        if heard.nothing_found {
            return self.after_nothing(goal, rng);
        }
        let asks_constraint = heard.asked.iter().any(|slot| goal.book.iter().all(|book| book.name != *slot));
        if !heard.asked.is_empty() && (!heard.offers || asks_constraint) && !heard.booked {
            return Some(self.answer(goal, &heard.asked, rng));
        }
        if let Some((slot, value)) = self.contradiction(&wanted, heard) {
            self.corrected.insert(slot.clone());
            self.told.insert(slot.clone());
            return Some(say::correct(rng, &say::clauses(&goal.domain, &[(&slot, &value)])));
        }
        let untold: Vec<Slot> = wanted.iter().filter(|slot| !self.told.contains(&slot.name)).cloned().collect();
        if !untold.is_empty() {
            self.told.extend(untold.iter().map(|slot| slot.name.clone()));
            return Some(say::add(rng, &self.clauses(goal, &untold)));
        }
        if !heard.offers && !heard.booked {
            self.misunderstood += 1;
            return Some(say::add(rng, &self.clauses(goal, &wanted)));
        }
        if self.failing {
            // What was to fail was found: the goal's own constraints are wanted all the same.
            return self.after_nothing(goal, rng);
        }
        self.after_offer(goal, rng)
    }

    /// Nothing was found: the final constraints replace the failing ones; later on, everything is said again.
    fn after_nothing(&mut self, goal: &DomainGoal, rng: &mut ChaCha8Rng) -> Option<String> {
        let before = self.wanted(goal);
        if self.failing {
            self.failing = false;
            self.told.extend(goal.info.iter().map(|slot| slot.name.clone()));
            let changed: Vec<Slot> = goal.info.iter().filter(|slot| !before.contains(slot)).cloned().collect();
            let dropped: Vec<&str> = before
                .iter()
                .filter(|slot| goal.info.iter().all(|info| info.name != slot.name))
                .map(|slot| slot.name.as_str())
                .collect();
            let mut text = String::new();
            if !changed.is_empty() {
                text = say::instead(rng, &self.clauses(goal, &changed));
            }
            if !dropped.is_empty() {
                text = format!("{text} {}", say::waive(&dropped)).trim().to_owned();
            }
            if !text.is_empty() {
                return Some(text);
            }
        }
        let untold: Vec<Slot> = before.iter().filter(|slot| !self.told.contains(&slot.name)).cloned().collect();
        if !untold.is_empty() {
            self.told.extend(untold.iter().map(|slot| slot.name.clone()));
            return Some(say::add(rng, &self.clauses(goal, &untold)));
        }
        self.misunderstood += 1;
        self.in_vain += 1;
        if self.in_vain > 1 && self.misunderstood < self.patience {
            // It does not exist, or this agent cannot find it: the rest of the agenda still matters.
            return self.next_domain(rng);
        }
        Some(say::add(rng, &self.clauses(goal, &goal.info)))
    }

    /// A constraint that the agent got wrong; each slot is corrected once.
    fn contradiction(&self, wanted: &[Slot], heard: &Heard) -> Option<(String, String)> {
        let found = wanted.iter().filter(|slot| !self.corrected.contains(&slot.name)).find(|slot| {
            let mut stated = heard.stated.iter().filter(|(name, _)| *name == slot.name).peekable();
            stated.peek().is_some() && stated.all(|(_, value)| *value != words(&slot.value).trim())
        });
        found.map(|slot| (slot.name.clone(), slot.value.clone()))
    }

    /// Something fitting is offered: attributes, then the booking, then the next domain.
    fn after_offer(&mut self, goal: &DomainGoal, rng: &mut ChaCha8Rng) -> Option<String> {
        let ask = !self.asked && !goal.requests.is_empty();
        if goal.book.is_empty() {
            if !ask {
                return self.next_domain(rng);
            }
            self.asked = true;
            self.stage = Stage::Asking;
            return Some(say::ask(rng, &goal.requests));
        }
        let unhurried = self.goals.len() == 1 && !self.failing_book && goal.fail_info.is_empty();
        if ask && unhurried && rng.random_bool(0.5) {
            self.asked = true;
            self.stage = Stage::Asking;
            return Some(say::ask(rng, &goal.requests));
        }
        self.stage = Stage::Booking;
        let booking = self.booking(goal);
        let vague = unhurried && rng.random_bool(0.25);
        let slots: Vec<say::Said> = booking.iter().filter(|_| !vague).map(pair).collect();
        let mut text = say::book(rng, &goal.domain, &slots);
        if ask {
            self.asked = true;
            text = format!("{text} {}", say::ask(rng, &goal.requests));
        }
        Some(text)
    }

    fn while_asking(&mut self, goal: &DomainGoal, heard: &Heard, words: &str, rng: &mut ChaCha8Rng) -> Option<String> {
        let named = |name: &String| {
            let attribute = say::attribute(name).to_lowercase();
            has_any(words, &[attribute.as_str(), name.as_str()]) || words.bytes().any(|b| b.is_ascii_digit())
        };
        if heard.nothing_found && !goal.requests.iter().any(named) {
            self.stage = Stage::Searching;
            return self.after_nothing(goal, rng);
        }
        if !goal.requests.iter().any(named) && self.refusals == 0 {
            // Asked once more, then let go: attributes earn nothing.
            self.refusals = 1;
            self.misunderstood += 1;
            return Some(say::ask(rng, &goal.requests));
        }
        self.refusals = 0;
        self.after_offer(goal, rng)
    }

    fn while_booking(&mut self, goal: &DomainGoal, heard: &Heard, rng: &mut ChaCha8Rng) -> Option<String> {
        if heard.booked {
            return self.next_domain(rng);
        }
        if heard.refused || heard.nothing_found {
            return self.after_refusal(goal, rng);
        }
        if !heard.asked.is_empty() {
            return Some(self.answer(goal, &heard.asked, rng));
        }
        if let Some((slot, value)) = self.contradiction(&goal.info, heard) {
            self.corrected.insert(slot.clone());
            return Some(say::correct(rng, &say::clauses(&goal.domain, &[(&slot, &value)])));
        }
        self.misunderstood += 1;
        let booking = self.booking(goal);
        Some(say::book(rng, &goal.domain, &booking.iter().map(pair).collect::<Vec<_>>()))
    }

    /// A booking was refused: the final details replace the failing ones; then the details are said again (the agent may have
    /// misheard them), then the constraints (it may have tried to book the wrong thing), and so on in turn.
    fn after_refusal(&mut self, goal: &DomainGoal, rng: &mut ChaCha8Rng) -> Option<String> {
        if self.failing_book {
            let before = self.booking(goal);
            self.failing_book = false;
            let changed: Vec<say::Said> = goal.book.iter().filter(|slot| !before.contains(slot)).map(pair).collect();
            if !changed.is_empty() {
                return Some(say::book_instead(rng, &changed));
            }
        }
        self.misunderstood += 1;
        self.refusals += 1;
        if self.refusals.is_multiple_of(2) && !goal.info.is_empty() {
            self.stage = Stage::Searching;
            self.failing = false;
            return Some(say::add(rng, &self.clauses(goal, &goal.info)));
        }
        Some(say::book(rng, &goal.domain, &goal.book.iter().map(pair).collect::<Vec<_>>()))
    }

    /// Answers a question: the values that were asked for, what else was not yet said, and what does not matter.
    fn answer(&mut self, goal: &DomainGoal, asked: &[&'static str], rng: &mut ChaCha8Rng) -> String {
        let booking = self.stage == Stage::Booking;
        let mut wanted = self.wanted(goal);
        wanted.retain(|slot| asked.contains(&slot.name.as_str()) || !self.told.contains(&slot.name));
        let details: Vec<Slot> =
            self.booking(goal).into_iter().filter(|slot| asked.contains(&slot.name.as_str())).collect();
        if booking {
            wanted.retain(|slot| asked.contains(&slot.name.as_str()) && details.iter().all(|d| d.name != slot.name));
        }
        self.told.extend(wanted.iter().map(|slot| slot.name.clone()));
        let mut parts = Vec::new();
        if !wanted.is_empty() {
            parts.push(say::add(rng, &self.clauses(goal, &wanted)));
        }
        if !details.is_empty() {
            parts.push(format!("{}.", say::details(&details.iter().map(pair).collect::<Vec<_>>())));
        }
        let free: Vec<&str> = asked
            .iter()
            .copied()
            .filter(|slot| wanted.iter().chain(&details).all(|known| known.name != *slot))
            .filter(|slot| !(matches!(*slot, "name" | "people" | "stay" | "time") || booking && *slot == "day"))
            .collect();
        if parts.is_empty() && free.is_empty() {
            return if goal.book.is_empty() {
                "i do not need a booking.".to_owned()
            } else {
                "please go on.".to_owned()
            };
        }
        if !free.is_empty() && (parts.is_empty() || free.len() <= 2) {
            parts.push(say::waive(&free));
        }
        parts.join(" ")
    }

    fn clauses(&self, goal: &DomainGoal, slots: &[Slot]) -> String {
        say::clauses(&goal.domain, &slots.iter().map(pair).collect::<Vec<_>>())
    }
}

fn pair(slot: &Slot) -> say::Said<'_> {
    (&slot.name, &slot.value)
}

/// The details that a booking tool takes; the goal's own marks (`invalid`) are none.
fn booking_slots(domain: &str, slots: &[Slot]) -> Vec<Slot> {
    let known: &[&str] = match domain {
        "restaurant" => &["people", "day", "time"],
        "hotel" => &["people", "stay", "day"],
        "train" => &["people"],
        _ => &[],
    };
    known
        .iter()
        .filter_map(|name| slots.iter().find(|slot| slot.name == *name && is_constraint(slot)).cloned())
        .collect()
}

fn farewell(text: String) -> UserTurn {
    UserTurn::ends(format!("{text} {END}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(list: &[(&str, &str)]) -> Vec<Slot> {
        list.iter().map(|(name, value)| Slot { name: (*name).into(), value: (*value).into() }).collect()
    }

    fn user(fail_info: &[(&str, &str)], fail_book: &[(&str, &str)]) -> AgendaUser {
        let goal = DomainGoal {
            domain: "restaurant".into(),
            info: slots(&[("food", "thai"), ("area", "north")]),
            fail_info: slots(fail_info),
            book: slots(&[("people", "2"), ("day", "friday"), ("time", "18:00"), ("invalid", "false")]),
            fail_book: slots(fail_book),
            requests: vec!["phone".into()],
        };
        let task = Task {
            dialogue: "A".into(),
            split: "train".into(),
            message: String::new(),
            domains: vec![goal],
            goals: Vec::new(),
        };
        AgendaUser::new(&task, Arc::new(Lexicon::default()), 4)
    }

    #[test]
    fn failing_constraints_come_first_and_give_way() {
        let mut user = user(&[("food", "corsican")], &[("time", "17:00")]);
        let first = user.speak(None, 1).text;
        assert!(first.contains("corsican") && first.contains("north"), "{first}");
        let second = user.speak(Some("Sorry, I found no such restaurant."), 2).text;
        assert!(second.contains("thai") && !second.contains("north"), "{second}");
        let third = user.speak(Some("I recommend the Lotus."), 3).text;
        assert!(third.contains("17:00") && third.contains("friday"), "{third}");
        let fourth = user.speak(Some("Sorry, the booking failed."), 4).text;
        assert!(fourth.contains("18:00") && !fourth.contains("friday"), "{fourth}");
        let last = user.speak(Some("It is booked, the reference is KETI."), 5);
        assert!(last.ended && last.text.ends_with(END));
    }

    #[test]
    fn questions_are_answered_and_contradictions_corrected() {
        let mut user = user(&[("food", "corsican")], &[]);
        user.speak(None, 1);
        let answer = user.speak(Some("Which area and which price range?"), 2).text;
        assert!(answer.contains("north") && answer.contains("do not care about the price range"), "{answer}");
        let corrected = user.speak(Some("I found Lotus, it is in the south."), 3).text;
        assert!(corrected.contains("north") || corrected.contains("thai"), "{corrected}");
    }

    #[test]
    fn patience_ends() {
        let mut user = user(&[], &[]);
        user.speak(None, 1);
        let ends = (2..12).find(|seed| user.speak(Some("Error: Agent ran out of retries."), *seed).ended);
        assert!(ends.is_some_and(|at| at <= 6), "{ends:?}");
    }

    #[test]
    fn the_same_seed_says_the_same() {
        let (mut a, mut b) = (user(&[], &[]), user(&[], &[]));
        for seed in 0..4 {
            assert_eq!(a.speak(Some("I found Lotus."), seed), b.speak(Some("I found Lotus."), seed));
        }
    }
}
