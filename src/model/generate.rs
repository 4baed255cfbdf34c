//! Generation: many requests at once, each with its own random numbers, on one batch of keys and values.

use std::collections::HashMap;

use super::decoder::Decoder;
use super::infer::Inference;
use super::kv::{HostKv, KvBatch};
use super::prefix::{BLOCK, PrefixCache};
use super::sample::{Draw, Sampler};

/// One request for a continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct GenRequest {
    /// The tokens to continue; at least one.
    pub ids: Vec<u32>,
    /// The most tokens to generate.
    pub max_new: usize,
    /// How tokens are drawn.
    pub draw: Draw,
    /// The seed of this request's random numbers.
    pub seed: u64,
}

/// One continuation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The new tokens, without the one that ended them.
    pub ids: Vec<u32>,
    /// Whether the number of tokens or the context cut the continuation off.
    pub cut_off: bool,
}

/// What a continuation ends with.
pub trait Stop {
    /// Whether a continuation is complete. `ids` are the new tokens of the request at `index`, the newest one last; when that
    /// one is a mark rather than content, it is taken off.
    fn is_over(&mut self, index: usize, ids: &mut Vec<u32>) -> bool;
}

/// Ends at a token, which is taken off.
#[derive(Clone, Copy, Debug)]
pub struct StopToken(pub u32);

impl Stop for StopToken {
    fn is_over(&mut self, _index: usize, ids: &mut Vec<u32>) -> bool {
        ids.pop_if(|id| *id == self.0).is_some()
    }
}

/// Counters of what was computed and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Tokens of prompts.
    pub prompt: u64,
    /// Those of them whose keys and values were known.
    pub reused: u64,
    /// Tokens generated.
    pub generated: u64,
    /// Steps, each over all rows of a batch.
    pub steps: u64,
}

/// The most rows in one batch.
const ROWS: usize = 64;

/// A model that continues token sequences and remembers those it has seen.
#[derive(Debug)]
pub struct Generator {
    model: Inference,
    prefixes: PrefixCache,
    counters: Counters,
}

impl Generator {
    /// A generator over a decoder's weights, remembering at most `limit` bytes of keys and values.
    pub fn new(decoder: &Decoder, limit: usize) -> Self {
        Self { model: Inference::new(decoder), prefixes: PrefixCache::new(limit), counters: Counters::default() }
    }

    /// The longest sequence, prompt and continuation together.
    pub fn context(&self) -> usize {
        self.model.shape().context
    }

    /// What was computed so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Continues every request; the results stand in the order of the requests. A prompt that fills the context gets an
    /// empty continuation that is cut off.
    ///
    /// # Panics
    /// When a prompt is empty.
    pub fn generate(&mut self, requests: &[GenRequest], stop: &mut dyn Stop) -> Vec<Generated> {
        assert!(requests.iter().all(|request| !request.ids.is_empty()), "a prompt has at least one token");
        let mut results = vec![Generated { ids: Vec::new(), cut_off: true }; requests.len()];
        let fits = |index: &usize| requests[*index].ids.len() < self.context() && requests[*index].max_new > 0;
        let mut order: Vec<usize> = (0..requests.len()).filter(fits).collect();
        order.sort_by_key(|&index| requests[index].ids.len());
        // The longest first: what they leave behind may serve the shorter ones' batches too.
        for chunk in order.rchunks(ROWS) {
            for (index, generated) in self.run(requests, chunk, stop) {
                results[index] = generated;
            }
        }
        results
    }

    fn run(&mut self, requests: &[GenRequest], chunk: &[usize], stop: &mut dyn Stop) -> Vec<(usize, Generated)> {
        let (batch, logits) = self.prefill(requests, chunk);
        let rows = chunk.iter().map(|&index| Row::new(index, &requests[index], self.context())).collect();
        let mut running = Running { batch: Some(batch), rows, done: Vec::new() };
        let mut logits = logits;
        loop {
            self.counters.generated += running.alive() as u64;
            running.draw(&logits, self.model.shape().vocab, stop);
            if running.alive() == 0 {
                break;
            }
            if running.alive() * 2 <= running.rows.len() {
                running.compact(&mut self.prefixes, &self.model);
            }
            let tokens: Vec<Vec<u32>> = running.rows.iter().map(Row::newest).collect();
            let batch = running.batch.as_mut().expect("put back by compaction");
            logits = self.model.extend(batch, &tokens);
            // A row that is over writes to the same place again and again, behind its last token.
            for (place, _) in running.rows.iter().enumerate().filter(|(_, row)| row.alive()) {
                batch.grow(place, 1);
            }
            self.counters.steps += 1;
        }
        running.finish(&mut self.prefixes)
    }

    /// Encodes the prompts as far as they are not known, each different one once.
    fn prefill(&mut self, requests: &[GenRequest], chunk: &[usize]) -> (KvBatch, Vec<f32>) {
        let mut unique: Vec<&[u32]> = Vec::new();
        let mut seen: HashMap<&[u32], usize> = HashMap::new();
        let sources: Vec<usize> = chunk
            .iter()
            .map(|&index| {
                let ids = requests[index].ids.as_slice();
                *seen.entry(ids).or_insert_with(|| {
                    unique.push(ids);
                    unique.len() - 1
                })
            })
            .collect();
        let room = |&index: &usize| (requests[index].ids.len() + requests[index].max_new).min(self.context());
        let capacity = chunk.iter().map(room).max().unwrap_or(0).next_multiple_of(BLOCK);
        self.share(&unique);
        // The last token is always encoded: its logits are wanted.
        let blocks: Vec<_> = unique.iter().map(|ids| self.prefixes.find(&ids[..ids.len() - 1])).collect();
        let device = self.model.device().clone();
        let mut batch = KvBatch::new(self.model.shape(), capacity, &blocks, &device);
        let tokens: Vec<Vec<u32>> =
            unique.iter().enumerate().map(|(row, ids)| ids[batch.length(row)..].to_vec()).collect();
        for (ids, tokens) in unique.iter().zip(&tokens) {
            self.counters.prompt += ids.len() as u64;
            self.counters.reused += (ids.len() - tokens.len()) as u64;
        }
        let logits = self.model.extend(&mut batch, &tokens);
        for (row, tokens) in tokens.iter().enumerate() {
            batch.grow(row, tokens.len());
        }
        if unique.len() == chunk.len() {
            return (batch, logits);
        }
        let vocab = self.model.shape().vocab;
        let spread = sources.iter().flat_map(|&row| &logits[row * vocab..(row + 1) * vocab]).copied().collect();
        (batch.into_host().into_batch(&sources, &device), spread)
    }

    /// Encodes what all prompts begin with, once, where it is long and not known: the instructions of a first turn.
    fn share(&mut self, prompts: &[&[u32]]) {
        let Some((first, others)) = prompts.split_first().filter(|(_, others)| !others.is_empty()) else { return };
        let common = |other: &&[u32]| first.iter().zip(*other).take_while(|(a, b)| a == b).count();
        let shared = others.iter().map(common).min().unwrap_or(0) / BLOCK * BLOCK;
        if shared <= self.prefixes.known_tokens(&first[..shared]) {
            return;
        }
        let ids = &first[..shared];
        let blocks = self.prefixes.find(ids);
        let mut batch = KvBatch::new(self.model.shape(), shared, &[blocks], self.model.device());
        let rest = ids[batch.length(0)..].to_vec();
        self.model.extend(&mut batch, &[rest]);
        let host = batch.into_host();
        self.prefixes.insert(ids, |token| host.block(0, token));
    }
}

/// One request while it runs.
#[derive(Debug)]
struct Row {
    index: usize,
    prompt: Vec<u32>,
    ids: Vec<u32>,
    fed: Vec<u32>, // every token drawn, also those that a stop took off
    room: usize,
    sampler: Sampler,
    over: Option<bool>, // whether it was cut off
}

impl Row {
    fn new(index: usize, request: &GenRequest, context: usize) -> Self {
        Self {
            index,
            room: request.max_new.min(context - request.ids.len()),
            prompt: request.ids.clone(),
            ids: Vec::new(),
            fed: Vec::new(),
            sampler: Sampler::new(request.draw, request.seed),
            over: None,
        }
    }

    fn alive(&self) -> bool {
        self.over.is_none()
    }

    /// The token to encode next. A row that is over goes on with its last one until it is dropped.
    fn newest(&self) -> Vec<u32> {
        self.fed.last().into_iter().copied().collect()
    }

    fn draw(&mut self, logits: &[f32], stop: &mut dyn Stop) {
        let token = self.sampler.next(logits);
        self.fed.push(token);
        self.ids.push(token);
        if stop.is_over(self.index, &mut self.ids) {
            self.over = Some(false);
        } else if self.fed.len() >= self.room {
            self.over = Some(true);
        }
    }
}

/// A batch while it runs.
#[derive(Debug)]
struct Running {
    batch: Option<KvBatch>,
    rows: Vec<Row>,
    done: Vec<(usize, Generated)>,
}

impl Running {
    fn alive(&self) -> usize {
        self.rows.iter().filter(|row| row.alive()).count()
    }

    fn draw(&mut self, logits: &[f32], vocab: usize, stop: &mut dyn Stop) {
        for (row, logits) in self.rows.iter_mut().zip(logits.chunks(vocab)) {
            if row.alive() {
                row.draw(logits, stop);
            }
        }
    }

    /// Drops the rows that are over.
    fn compact(&mut self, prefixes: &mut PrefixCache, model: &Inference) {
        let Some(batch) = self.batch.take() else { return };
        let host = batch.into_host();
        self.keep(prefixes, &host, |row| !row.alive());
        let alive: Vec<usize> = (0..self.rows.len()).filter(|&row| self.rows[row].alive()).collect();
        self.batch = Some(host.into_batch(&alive, model.device()));
        let (over, rows) = std::mem::take(&mut self.rows).into_iter().partition(|row| !row.alive());
        self.rows = rows;
        self.report(over);
    }

    fn finish(mut self, prefixes: &mut PrefixCache) -> Vec<(usize, Generated)> {
        if let Some(batch) = self.batch.take() {
            let host = batch.into_host();
            self.keep(prefixes, &host, |_| true);
        }
        let rows = std::mem::take(&mut self.rows);
        self.report(rows);
        self.done
    }

    /// Remembers the keys and values of prompts and continuations, the last token's excepted, as it was never encoded.
    fn keep(&self, prefixes: &mut PrefixCache, host: &HostKv, which: impl Fn(&Row) -> bool) {
        for (place, row) in self.rows.iter().enumerate().filter(|(_, row)| which(row)) {
            let mut ids = row.prompt.clone();
            ids.extend(&row.fed[..row.fed.len().saturating_sub(1)]);
            prefixes.insert(&ids, |token| host.block(place, token));
        }
    }

    fn report(&mut self, rows: Vec<Row>) {
        let generated = |row: Row| (row.index, Generated { ids: row.ids, cut_off: row.over.unwrap_or(true) });
        self.done.extend(rows.into_iter().map(generated));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::config::ModelConfig;
    use crate::model::config::tests::tiny;
    use burn::tensor::{Device, Int, Tensor, TensorData};
    use proptest::prelude::*;

    const GREEDY: Draw = Draw { temperature: 0.0, top_k: None, top_p: 1.0 };
    const WARM: Draw = Draw { temperature: 1.0, top_k: None, top_p: 0.95 };

    fn decoder() -> Decoder {
        // A small tied head gives nearly equal logits; one of its own makes choices clear.
        let config = ModelConfig { tie_word_embeddings: false, max_position_embeddings: 128, ..tiny() };
        Decoder::init(&config, 4, &Device::flex()).unwrap()
    }

    fn request(ids: Vec<u32>, max_new: usize, draw: Draw, seed: u64) -> GenRequest {
        GenRequest { ids, max_new, draw, seed }
    }

    fn prompt(seed: u32, length: u32) -> Vec<u32> {
        (0..length).map(|index| (index * index + 7 * seed + index * seed) % 19 + 1).collect()
    }

    /// What the whole sequence's forward pass says, token by token.
    fn slowly(decoder: &Decoder, ids: &[u32], count: usize) -> Vec<u32> {
        let mut ids: Vec<u32> = ids.to_vec();
        let start = ids.len();
        for _ in 0..count {
            let tokens: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
            let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, [1, ids.len()]), &Device::flex());
            let logits: Vec<f32> = decoder.forward(tokens).try_into_vec_as().unwrap();
            let vocab = decoder.config().vocab_size;
            ids.push(Sampler::new(GREEDY, 0).next(&logits[logits.len() - vocab..]));
        }
        ids.split_off(start)
    }

    #[test]
    fn batched_generation_is_the_forward_pass_step_by_step() {
        let decoder = decoder();
        let mut generator = Generator::new(&decoder, 1 << 20);
        let requests: Vec<GenRequest> =
            (0..9).map(|seed| request(prompt(seed, 3 + 9 * (seed % 5)), 4 + 5 * seed as usize, GREEDY, 0)).collect();
        for _ in 0..2 {
            let found = generator.generate(&requests, &mut StopToken(u32::MAX));
            for (request, found) in requests.iter().zip(found) {
                assert_eq!(found.ids, slowly(&decoder, &request.ids, request.max_new));
                assert!(found.cut_off);
            }
        }
        assert!(generator.counters().reused > 0);
    }

    #[test]
    fn logits_are_the_same_with_and_without_known_prefixes() {
        let decoder = decoder();
        let model = Inference::new(&decoder);
        let ids = prompt(3, 50);
        let mut prefixes = PrefixCache::new(1 << 20);
        let mut logits = Vec::new();
        for _ in 0..2 {
            let blocks = prefixes.find(&ids[..49]);
            let mut batch = KvBatch::new(model.shape(), 64, &[blocks], model.device());
            let known = batch.length(0);
            logits.push(model.extend(&mut batch, &[ids[known..].to_vec()]));
            batch.grow(0, ids.len() - known);
            let host = batch.into_host();
            prefixes.insert(&ids, |token| host.block(0, token));
        }
        let tokens: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, [1, 50]), &Device::flex());
        let whole: Vec<f32> = decoder.forward(tokens).try_into_vec_as().unwrap();
        let whole = &whole[whole.len() - 20..];
        for logits in &logits {
            let gap = logits.iter().zip(whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(gap < 1e-4, "{gap}");
        }
        assert!(whole.iter().any(|logit| logit.abs() > 0.1), "{whole:?}");
    }

    #[test]
    fn stops_at_a_token_and_at_the_context() {
        let decoder = decoder();
        let mut generator = Generator::new(&decoder, 1 << 20);
        let free = generator.generate(&[request(prompt(2, 20), 30, GREEDY, 0)], &mut StopToken(u32::MAX));
        let end = free[0].ids[12];
        let place = free[0].ids.iter().position(|&id| id == end).unwrap();
        let stopped = generator.generate(&[request(prompt(2, 20), 30, GREEDY, 0)], &mut StopToken(end));
        assert_eq!(stopped[0], Generated { ids: free[0].ids[..place].to_vec(), cut_off: false });
        let lengths: Vec<usize> = generator
            .generate(
                &[request(prompt(1, 120), 30, GREEDY, 0), request(prompt(1, 128), 30, GREEDY, 0)],
                &mut StopToken(u32::MAX),
            )
            .iter()
            .map(|generated| generated.ids.len())
            .collect();
        assert_eq!(lengths, [8, 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn a_request_gets_the_same_tokens_in_any_company(
            asked in prop::collection::vec((0u32..6, 1u32..60, 1usize..30, 0u64..4), 1..80),
            limit in prop::sample::select(vec![0usize, 1 << 14, 1 << 22]),
        ) {
            let decoder = decoder();
            let requests: Vec<GenRequest> = asked
                .into_iter()
                .map(|(which, length, max_new, seed)| request(prompt(which, length), max_new, WARM, seed))
                .collect();
            let mut together = Generator::new(&decoder, limit);
            let found = together.generate(&requests, &mut StopToken(5));
            for (request, found) in requests.iter().zip(&found).take(6) {
                let alone = Generator::new(&decoder, 0).generate(std::slice::from_ref(request), &mut StopToken(5));
                prop_assert_eq!(&alone[0], found);
            }
        }
    }
}
