//! Learning the merges of a byte pair encoding.
//!
//! The trainer of the `tokenizers` crate keeps its candidates in hash maps and threads, and may hold one pair twice at the
//! same rank; here every choice has a total order, so that the same texts always give the same tokens.

use std::collections::{BTreeMap, HashMap};

/// A pair is merged only when it occurs this often: the vector of a rarer token would hardly be trained.
const MIN_COUNT: i64 = 8;

type Pair = (u32, u32);

/// Learns up to `budget` merges from counted words, the most frequent pair first, ties by the pair's text.
///
/// A word is a string whose characters are the symbols to begin with. The result names pairs by their text, in order.
pub fn learn(words: &BTreeMap<String, u64>, budget: usize) -> Vec<(String, String)> {
    let mut learner = Learner::new(words);
    let mut merges = Vec::new();
    while merges.len() < budget {
        let Some(pair) = learner.best() else { break };
        merges.push((learner.texts[pair.0 as usize].clone(), learner.texts[pair.1 as usize].clone()));
        learner.merge(pair);
    }
    merges
}

struct Learner {
    texts: Vec<String>,
    ids: HashMap<String, u32>,
    words: Vec<(Vec<u32>, i64)>,
    counts: HashMap<Pair, i64>,
    places: HashMap<Pair, Vec<usize>>, // words that hold the pair, or held it
}

impl Learner {
    fn new(words: &BTreeMap<String, u64>) -> Self {
        let (counts, places) = (HashMap::new(), HashMap::new());
        let mut learner = Self { texts: Vec::new(), ids: HashMap::new(), words: Vec::new(), counts, places };
        for (index, (word, &count)) in words.iter().enumerate() {
            let symbols: Vec<u32> = word.chars().map(|symbol| learner.id(symbol.to_string())).collect();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            learner.words.push((symbols, count));
            learner.count(index, 1);
        }
        learner
    }

    fn id(&mut self, text: String) -> u32 {
        if let Some(&id) = self.ids.get(&text) {
            return id;
        }
        let id = self.texts.len() as u32;
        self.texts.push(text.clone());
        self.ids.insert(text, id);
        id
    }

    /// Adds the pairs of a word to the counts, or takes them away.
    fn count(&mut self, index: usize, sign: i64) {
        let (symbols, count) = &self.words[index];
        for pair in symbols.windows(2).map(|pair| (pair[0], pair[1])) {
            *self.counts.entry(pair).or_default() += sign * count;
            if sign > 0 {
                self.places.entry(pair).or_default().push(index);
            }
        }
    }

    /// The order is total, so that the map's own order does not matter.
    fn best(&self) -> Option<Pair> {
        let text = |id: u32| self.texts[id as usize].as_str();
        let (&pair, &count) = self.counts.iter().max_by(|(a, a_count), (b, b_count)| {
            a_count.cmp(b_count).then_with(|| (text(b.0), text(b.1)).cmp(&(text(a.0), text(a.1))))
        })?;
        (count >= MIN_COUNT).then_some(pair)
    }

    fn merge(&mut self, pair: Pair) {
        let merged = self.id(format!("{}{}", self.texts[pair.0 as usize], self.texts[pair.1 as usize]));
        let mut places = self.places.remove(&pair).unwrap_or_default();
        places.sort_unstable();
        places.dedup();
        for index in places {
            self.count(index, -1);
            let symbols = std::mem::take(&mut self.words[index].0);
            let mut left = symbols.into_iter().peekable();
            while let Some(symbol) = left.next() {
                let joined = symbol == pair.0 && left.next_if_eq(&pair.1).is_some();
                self.words[index].0.push(if joined { merged } else { symbol });
            }
            self.count(index, 1);
        }
        self.counts.remove(&pair);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[(&str, u64)]) -> BTreeMap<String, u64> {
        list.iter().map(|&(word, count)| (word.to_owned(), count)).collect()
    }

    #[test]
    fn merges_the_most_frequent_pair_first_and_ties_by_text() {
        let merges = learn(&words(&[("abc", 10), ("bc", 10), ("xy", 20), ("rare", 7)]), 10);
        let found: Vec<String> = merges.iter().map(|(left, right)| format!("{left}+{right}")).collect();
        assert_eq!(found, ["b+c", "x+y", "a+bc"]);
    }

    #[test]
    fn merges_runs_from_the_left() {
        assert_eq!(learn(&words(&[("aaa", 8)]), 9), [("a".into(), "a".into()), ("aa".to_owned(), "a".to_owned())]);
        assert_eq!(learn(&words(&[("aaaa", 8)]), 1).len(), 1);
    }
}
