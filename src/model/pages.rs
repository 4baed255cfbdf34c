//! Who has which page of keys and values, and what stands in pages that are done with.
//!
//! A page of a sequence is known by the page before it and its own tokens, so that a page stands for one history only. A
//! sequence begins with the known pages of its prompt, also with those that another one is about to fill: nothing is encoded
//! twice, and nothing is copied. Pages that nobody has are kept as long as there is room; the one that was needed least
//! recently goes first, and a history after what continues it.

use std::collections::{BTreeMap, HashMap};

use super::executor::PAGE;

/// A history's page: which known page it continues (0 for none), and its tokens.
type Key = (u64, [u32; PAGE]);

#[derive(Clone, Debug, Default)]
struct Page {
    /// How many sequences have it.
    users: usize,
    /// What it is known by, and the number of this piece of knowledge: 0 where it is not known.
    key: Option<Key>,
    id: u64,
    /// Whether its keys and values are there.
    filled: bool,
    /// When it was let go of.
    stamp: u64,
}

/// The pages of a device. What happens depends on the calls alone, not on time or memory addresses.
#[derive(Debug)]
pub struct Pages {
    pages: Vec<Page>,
    /// Pages that were never used, or of which nothing is known, the last one next.
    free: Vec<u32>,
    known: HashMap<Key, u32>,
    /// Known pages that nobody has, by when they were let go of.
    idle: BTreeMap<u64, u32>,
    reserved: usize,
    clock: u64,
    ids: u64,
}

/// The pages of one sequence.
#[derive(Debug, Default)]
pub struct Held {
    /// The pages, first to last.
    pub pages: Vec<u32>,
    /// How many of them are known, from the first on, and the number of the last known one.
    known: usize,
    last: u64,
    /// How many more it may take.
    reserved: usize,
}

impl Pages {
    /// So many pages, all free.
    pub fn new(count: usize) -> Self {
        Self {
            pages: vec![Page::default(); count],
            free: (0..count as u32).rev().collect(),
            known: HashMap::new(),
            idle: BTreeMap::new(),
            reserved: 0,
            clock: 0,
            ids: 0,
        }
    }

    /// Pages for a prompt that may grow to so many tokens: the known ones that it begins with, its last token never being in
    /// one, then new ones up to its end; and the number of tokens in known ones. `None` while there is no room.
    ///
    /// The new pages that the prompt fills are known from now on; whoever gets them must wait until they are filled.
    pub fn begin(&mut self, prompt: &[u32], most: usize) -> Option<(Held, usize)> {
        let mut held = Held::default();
        for tokens in prompt[..prompt.len().saturating_sub(1)].as_chunks::<PAGE>().0 {
            let Some(&page) = self.known.get(&(held.last, *tokens)) else { break };
            held.last = self.pages[page as usize].id;
            held.pages.push(page);
        }
        let found = held.pages.len();
        let idle = held.pages.iter().filter(|&&page| self.pages[page as usize].users == 0).count();
        let needed = most.max(prompt.len()).div_ceil(PAGE) - found;
        if self.free.len() + self.idle.len() < self.reserved + needed + idle {
            return None;
        }
        for page in &held.pages {
            let page = &mut self.pages[*page as usize];
            page.users += 1;
            if page.users == 1 {
                self.idle.remove(&page.stamp);
            }
        }
        (held.known, held.reserved) = (found, needed);
        self.reserved += needed;
        self.extend(&mut held, prompt.len());
        self.know(&mut held, prompt, false);
        Some((held, found * PAGE))
    }

    /// Takes pages until so many tokens have their place, within what the sequence reserved.
    pub fn extend(&mut self, held: &mut Held, tokens: usize) {
        while held.pages.len() * PAGE < tokens && held.reserved > 0 {
            let Some(page) = self.take() else { break };
            held.reserved -= 1;
            self.reserved -= 1;
            held.pages.push(page);
        }
    }

    fn take(&mut self) -> Option<u32> {
        let page = match self.free.pop() {
            Some(page) => page,
            None => {
                let (_, page) = self.idle.pop_first()?;
                if let Some(key) = self.pages[page as usize].key {
                    self.known.remove(&key);
                }
                page
            }
        };
        self.pages[page as usize] = Page { users: 1, ..Page::default() };
        Some(page)
    }

    /// Notes that the keys and values of a sequence's first `filled` tokens are there. What is full becomes known; a page of
    /// which another one holds the same is given up for that one.
    pub fn fill(&mut self, held: &mut Held, tokens: &[u32], filled: usize) {
        for page in &held.pages[..filled / PAGE] {
            self.pages[*page as usize].filled = true;
        }
        self.know(held, &tokens[..filled], true);
    }

    fn know(&mut self, held: &mut Held, tokens: &[u32], swap: bool) {
        while let Some(&own) = held.pages.get(held.known) {
            let Some(tokens) = tokens.as_chunks::<PAGE>().0.get(held.known) else { break };
            let key = (held.last, *tokens);
            match self.known.get(&key).copied() {
                None => {
                    self.ids += 1;
                    self.known.insert(key, own);
                    let page = &mut self.pages[own as usize];
                    (page.key, page.id) = (Some(key), self.ids);
                }
                // Only what is filled is worth as much as one's own.
                Some(other) if swap && self.pages[other as usize].filled => {
                    let page = &mut self.pages[other as usize];
                    page.users += 1;
                    if page.users == 1 {
                        self.idle.remove(&page.stamp);
                    }
                    held.pages[held.known] = other;
                    self.let_go(own);
                }
                Some(_) => break,
            }
            held.last = self.pages[held.pages[held.known] as usize].id;
            held.known += 1;
        }
    }

    /// Whether the first `tokens` tokens of a sequence are in filled pages, or in those of `besides`.
    pub fn is_filled(&self, held: &Held, tokens: usize, besides: impl Fn(u32) -> bool) -> bool {
        held.pages[..tokens.div_ceil(PAGE)].iter().all(|&page| self.pages[page as usize].filled || besides(page))
    }

    /// Takes back the pages of a sequence; those that are known and filled are kept as long as there is room.
    pub fn release(&mut self, held: Held) {
        self.reserved -= held.reserved;
        for page in held.pages.into_iter().rev() {
            self.let_go(page);
        }
    }

    fn let_go(&mut self, number: u32) {
        let page = &mut self.pages[number as usize];
        page.users -= 1;
        if page.users > 0 {
            return;
        }
        match page.key {
            Some(_) if page.filled => {
                self.clock += 1;
                page.stamp = self.clock;
                self.idle.insert(self.clock, number);
            }
            key => {
                if let Some(key) = key {
                    self.known.remove(&key);
                }
                *page = Page::default();
                self.free.push(number);
            }
        }
    }

    /// Whether nobody has a page or the promise of one.
    pub fn is_idle(&self) -> bool {
        self.reserved == 0 && self.free.len() + self.idle.len() == self.pages.len()
    }

    /// Forgets all that is known; nobody may have a page.
    pub fn forget(&mut self) {
        *self = Self::new(self.pages.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sequence(seed: u32, length: usize) -> Vec<u32> {
        (0..length as u32).map(|index| seed * 1_000 + index).collect()
    }

    /// Begins a sequence, fills its pages, gives it back; how many tokens were known.
    fn pass(pages: &mut Pages, tokens: &[u32]) -> usize {
        let (mut held, known) = pages.begin(tokens, tokens.len()).unwrap();
        pages.fill(&mut held, tokens, tokens.len());
        pages.release(held);
        known
    }

    #[test]
    fn a_sequence_begins_with_what_is_known() {
        let mut pages = Pages::new(20);
        let first = sequence(1, 3 * PAGE + 5);
        assert_eq!(pass(&mut pages, &first), 0);
        assert_eq!(pass(&mut pages, &first), 3 * PAGE);
        // The last token is always encoded: what follows it is asked for.
        assert_eq!(pass(&mut pages, &first[..3 * PAGE]), 2 * PAGE);
        let branch = [&first[..PAGE], &sequence(2, 2 * PAGE)].concat();
        assert_eq!(pass(&mut pages, &branch), PAGE);
        // The same tokens behind another history are another page.
        assert_eq!(pass(&mut pages, &branch[PAGE..]), 0);
    }

    #[test]
    fn what_one_is_about_to_fill_another_waits_for() {
        let mut pages = Pages::new(20);
        let prompt = sequence(1, 2 * PAGE + 3);
        let (mut first, known) = pages.begin(&prompt, 60).unwrap();
        assert_eq!(known, 0);
        let (second, known) = pages.begin(&prompt, 60).unwrap();
        assert_eq!((known, &second.pages[..2]), (2 * PAGE, &first.pages[..2]));
        assert_ne!(second.pages[2], first.pages[2]);
        assert!(!pages.is_filled(&second, known, |_| false));
        assert!(pages.is_filled(&second, known, |page| first.pages.contains(&page)));
        pages.fill(&mut first, &prompt, prompt.len());
        assert!(pages.is_filled(&second, known, |_| false));
    }

    #[test]
    fn two_that_went_the_same_way_share_it_afterwards() {
        let mut pages = Pages::new(20);
        let tokens = sequence(1, 2 * PAGE);
        let (mut first, _) = pages.begin(&tokens[..3], 2 * PAGE).unwrap();
        let (mut second, _) = pages.begin(&tokens[..3], 2 * PAGE).unwrap();
        for held in [&mut first, &mut second] {
            pages.extend(held, 2 * PAGE);
            pages.fill(held, &tokens, 2 * PAGE);
        }
        assert_eq!(first.pages, second.pages);
        pages.release(first);
        pages.release(second);
        assert_eq!(pages.idle.len(), 2);
    }

    #[test]
    fn what_was_needed_least_recently_goes_from_its_end() {
        let mut pages = Pages::new(4);
        let (first, second, third) = (sequence(1, 2 * PAGE), sequence(2, 2 * PAGE), sequence(3, PAGE));
        pass(&mut pages, &first);
        pass(&mut pages, &second);
        pass(&mut pages, &first);
        pass(&mut pages, &third);
        assert_eq!(pages.known.len(), 4);
        let known = |pages: &mut Pages, tokens: &[u32]| {
            let (held, known) = pages.begin(&[tokens, &[7]].concat(), 0).unwrap();
            pages.release(held);
            known
        };
        assert_eq!(known(&mut pages, &second[..PAGE]), PAGE);
        assert_eq!(known(&mut pages, &first[..PAGE]), PAGE);
        assert_eq!(known(&mut pages, &second), PAGE);
    }

    proptest! {
        #[test]
        fn no_page_is_lost_or_had_twice(
            calls in prop::collection::vec((0u32..4, 1usize..90, 0usize..40, 0usize..4), 1..80),
        ) {
            let mut pages = Pages::new(16);
            let mut running: Vec<(Held, Vec<u32>, usize)> = Vec::new();
            for (seed, length, more, which) in calls {
                let prompt = [sequence(seed % 2, length.min(40)), sequence(seed, length.saturating_sub(40))].concat();
                match pages.begin(&prompt, length + more) {
                    Some((held, known)) => {
                        prop_assert!(known < length && held.pages.len() == length.div_ceil(PAGE));
                        running.push((held, prompt, length + more));
                    }
                    None => prop_assert!(!running.is_empty()),
                }
                if let Some(place) = which.checked_sub(1).filter(|place| *place < running.len()) {
                    let (mut held, mut tokens, most) = running.remove(place);
                    tokens.extend(sequence(9, most - tokens.len()));
                    pages.extend(&mut held, most);
                    prop_assert_eq!(held.pages.len(), most.div_ceil(PAGE));
                    pages.fill(&mut held, &tokens, most);
                    pages.release(held);
                }
                let used: std::collections::BTreeSet<u32> =
                    running.iter().flat_map(|(held, ..)| held.pages.iter().copied()).collect();
                prop_assert_eq!(pages.free.len() + pages.idle.len() + used.len(), 16);
                let users: usize = pages.pages.iter().map(|page| page.users).sum();
                prop_assert_eq!(users, running.iter().map(|(held, ..)| held.pages.len()).sum::<usize>());
                prop_assert!(pages.free.len() + pages.idle.len() >= pages.reserved);
                for (key, page) in &pages.known {
                    prop_assert_eq!(pages.pages[*page as usize].key, Some(*key));
                }
            }
        }
    }
}
