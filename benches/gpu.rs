//! Decoders on a CUDA device: the same results as on the processor, and how fast. For `gpu.py`, which runs PyTorch beside it.
//!
//! usage: gpu CACHE check | small | small-f32 | generate | large | generate-large ...
//!
//! CACHE is the folder of compiled kernels. Figures are JSON lines: `name`, `tokens_per_second`, `milliseconds`, `gib` (memory
//! taken on the device) and `start` (seconds until the first step or token was there). `check` prints differences and fails
//! where they are more than rounding.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use serde_json::json;
use thresh::model::architecture::{Activation, Architecture, LayerKind, Rope};
use thresh::model::cuda::batch::{Packed, Scored};
use thresh::model::cuda::blas::Number;
use thresh::model::cuda::driver::Gpu;
use thresh::model::cuda::inference::{Capacity, Inference};
use thresh::model::cuda::table::AdapterShape;
use thresh::model::cuda::trainer::{Adam, Plan, Trainer};
use thresh::model::cuda::{self, CudaError};
use thresh::model::device::{CudaPlace, Place};
use thresh::model::executor::{self, cuda::CudaExecutor};
use thresh::model::lora::{ALL, LoraConfig};
use thresh::model::sample::{Draw, Drawn};
use thresh::model::scheduler::{Request, Scheduler, Sink, Ticket};
use thresh::model::{Decoder, ModelConfig};
use thresh::train::batch::Sequence;
use thresh::train::learner::{self, Learner, LearnerSettings, Precision, Under};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Timed repetitions, of which the median counts.
const STEPS: usize = 12;

/// Steps before the timed ones.
const WARM: usize = 8;

fn main() -> Outcome<()> {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let Some((cache, wanted)) = arguments.split_first() else {
        // `cargo test --all-targets` runs every bench without arguments: nothing is asked for, and nothing is wrong.
        println!("usage: gpu CACHE check | small | small-f32 | generate | large | generate-large ...");
        return Ok(());
    };
    let cache = Path::new(cache);
    for wanted in wanted {
        match wanted.as_str() {
            "check" => check(cache)?,
            "small" => train("small", &small(), 0, Number::Bf16, [32, 1024], cache)?,
            "small-f32" => train("small-f32", &small(), 0, Number::F32, [32, 1024], cache)?,
            "large" => train("large", &large(), 64, Number::Bf16, [1, 5256], cache)?,
            "generate" => generate("generate", &small(), [512, 128], &[1, 16, 64, 256], cache)?,
            "generate-large" => generate("generate-large", &large(), [2048, 64], &[1, 16], cache)?,
            other => return Err(format!("unknown figure `{other}`").into()),
        }
    }
    Ok(())
}

/// A Llama of 30 million parameters.
fn small() -> Architecture {
    llama(8192, [512, 1408, 8], [8, 8, 64], Some(2048))
}

/// A Llama of 8 billion parameters.
fn large() -> Architecture {
    llama(128_256, [4096, 14_336, 32], [32, 8, 128], None)
}

/// A Llama; tied, and of this context, where `tied` says so.
fn llama(
    vocab: usize,
    [hidden, inner, layers]: [usize; 3],
    [heads, kv_heads, head]: [usize; 3],
    tied: Option<usize>,
) -> Architecture {
    Architecture {
        vocab,
        context: tied.unwrap_or(8192),
        hidden,
        inner,
        heads,
        kv_heads,
        head,
        epsilon: 1e-5,
        unit_offset: false,
        activation: Activation::Silu,
        query_scale: (head as f64).powf(-0.5),
        embed_scale: None,
        tied: tied.is_some(),
        qkv_bias: false,
        out_bias: false,
        mlp_bias: false,
        qk_norm: false,
        post_norms: false,
        ropes: vec![Rope::plain(head, 10_000.0)],
        layers: vec![LayerKind { window: None, rope: 0 }; layers],
    }
}

/// Token ids from a linear congruential generator.
fn tokens(count: usize, vocab: usize, seed: u64) -> Vec<u32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab as u64) as u32
    };
    (0..count).map(|_| next()).collect()
}

fn adapters(shape: &Architecture, rank: usize) -> BTreeMap<String, AdapterShape> {
    let adapter = AdapterShape { rank, scale: 1.0, dropout: 0.05 };
    let parts = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];
    let parts = parts.into_iter().chain(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]);
    let layers =
        (0..shape.layers.len()).flat_map(|layer| parts.clone().map(move |part| format!("layers.{layer}.{part}")));
    layers.filter(|_| rank > 0).map(|path| (path, adapter)).collect()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn figure(name: &str, tokens: usize, seconds: f64, gib: f64, start: f64) {
    let line = json!({"name": name, "tokens_per_second": tokens as f64 / seconds, "milliseconds": seconds * 1e3, "gib": gib, "start": start});
    println!("{line}");
}

/// What was taken since `free` bytes were free.
fn taken(gpu: &Gpu, free: usize) -> Result<f64, CudaError> {
    Ok(free.saturating_sub(gpu.memory()?.0) as f64 / f64::from(1 << 30))
}

/// One training step after another on random tokens; with adapters of `rank`, checkpointed, and the base frozen.
fn train(
    name: &str,
    shape: &Architecture,
    rank: usize,
    number: Number,
    [batch, length]: [usize; 2],
    cache: &Path,
) -> Outcome<()> {
    let begin = Instant::now();
    let gpu = Gpu::open(0)?;
    let free = gpu.memory()?.0;
    let adapters = adapters(shape, rank);
    let plan = Plan { shape, adapters: &adapters, number, checkpointing: rank > 0, cache };
    let adam = Adam { beta_1: 0.9, beta_2: 0.999, epsilon: 1e-8, weight_decay: 0.01 };
    let mut trainer = Trainer::new(&gpu, &plan, adam)?;
    trainer.scramble()?;
    let sequences: Vec<Vec<u32>> = (0..batch).map(|row| tokens(length, shape.vocab, row as u64)).collect();
    let scored = vec![true; length];
    let (mut times, mut start) = (Vec::new(), 0.0);
    for step in 0..WARM + STEPS {
        let clock = Instant::now();
        let rows: Vec<Scored> = sequences.iter().map(|ids| Scored { ids, scored: &scored }).collect();
        let packed = Packed::new(&rows);
        let slope = -1.0 / packed.scored() as f32;
        trainer.accumulate(&packed, step as u64, |found| Ok::<_, CudaError>(vec![slope; found.len()]))?;
        let norm = trainer.gradient_squares()?.sqrt();
        if !norm.is_finite() {
            return Err(format!("the gradient of step {step} is {norm}").into());
        }
        trainer.update(3e-4, 1.0 / norm.max(1.0))?;
        if step == 0 {
            gpu.synchronize()?;
            start = begin.elapsed().as_secs_f64();
        }
        times.push(clock.elapsed().as_secs_f64());
    }
    figure(name, batch * length, median(times.split_off(WARM)), taken(&gpu, free)?, start);
    Ok(())
}

/// Takes tokens and counts them.
#[derive(Default)]
struct Count(usize);

impl Sink for Count {
    fn token(&mut self, _: Ticket, _: Drawn) -> bool {
        self.0 += 1;
        false
    }

    fn end(&mut self, _: Ticket, _: bool) {}
}

/// Continuations of random prompts, all through the scheduler.
fn generate(
    name: &str,
    shape: &Architecture,
    [prompt, new]: [usize; 2],
    batches: &[usize],
    cache: &Path,
) -> Outcome<()> {
    let begin = Instant::now();
    let most = batches.iter().copied().max().unwrap_or(1);
    let pages = most * ((prompt + new).div_ceil(cuda::inference::PAGE) + 2);
    let gpu = Gpu::open(0)?;
    let free = gpu.memory()?.0;
    let capacity = Capacity { pages, rows: most, tokens: 16_384, ahead: 16 };
    let mut inference = Inference::new(&gpu, shape, Number::Bf16, capacity, cache)?;
    inference.scramble()?;
    let mut scheduler = Scheduler::new(Box::new(CudaExecutor::with(inference)));
    let mut start = 0.0;
    for &batch in batches {
        let mut times = Vec::new();
        for turn in 0..5 {
            let clock = Instant::now();
            for row in 0..batch {
                // Other prompts each time: what is known of earlier ones must not help.
                let ids = tokens(prompt, shape.vocab, (turn * batch + row + 7 * batch * batch) as u64);
                let draw = Draw { temperature: 1.0, ..Draw::default() };
                scheduler.submit(Request { ids, max_new: new, draw, seed: row as u64, logprobs: false, guide: None });
            }
            let mut count = Count::default();
            scheduler.run(&mut count)?;
            if count.0 != batch * new {
                return Err(format!("{} tokens came instead of {}", count.0, batch * new).into());
            }
            if start == 0.0 {
                start = begin.elapsed().as_secs_f64();
            }
            times.push(clock.elapsed().as_secs_f64());
        }
        figure(&format!("{name}-{batch}"), batch * new, median(times.split_off(2)), taken(&gpu, free)?, start);
    }
    Ok(())
}

/// The shapes that are checked: what sets the families apart, and sizes that the kernels treat differently.
const SHAPES: [(&str, &str); 5] = [
    ("llama", r#"{"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}"#),
    ("llama-48", r#"{"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 48}"#),
    (
        "qwen2",
        r#"{"model_type": "qwen2", "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64, "tie_word_embeddings": false}"#,
    ),
    ("qwen3", r#"{"model_type": "qwen3", "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 32}"#),
    (
        "gemma3",
        r#"{"model_type": "gemma3_text", "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 128, "query_pre_attn_scalar": 128, "sliding_window": 24}"#,
    ),
];

fn shaped(overrides: &str) -> Outcome<ModelConfig> {
    let mut config = json!({
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 300,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-6, "tie_word_embeddings": true, "rope_theta": 10000.0
    });
    let overrides: serde_json::Map<String, serde_json::Value> = serde_json::from_str(overrides)?;
    if let Some(config) = config.as_object_mut() {
        config.extend(overrides);
    }
    Ok(ModelConfig::parse(&config.to_string())?)
}

/// The relative difference of two lists of numbers.
fn difference<'a>(found: impl Iterator<Item = &'a f32>, expected: impl Iterator<Item = &'a f32>) -> f64 {
    let (mut apart, mut whole) = (0.0, 0.0);
    for (found, expected) in found.zip(expected) {
        apart += f64::from(found - expected).powi(2);
        whole += f64::from(*expected).powi(2);
    }
    (apart / f64::max(whole, 1e-30)).sqrt()
}

fn check(cache: &Path) -> Outcome<()> {
    let mut wrong = Vec::new();
    for (name, overrides) in SHAPES {
        let plain = Decoder::init(&shaped(overrides)?, 3, &Device::flex())?;
        let targets = vec![ALL.to_owned()];
        let lora = LoraConfig { rank: 8, alpha: 16.0, rank_stabilised: false, dropout: 0.0, targets };
        for (kind, model) in [("all", plain.clone()), ("adapters", plain.adapt(&lora, 5)?)] {
            for half in [false, true] {
                for checkpointing in [false, true] {
                    let place = Place::Cuda(CudaPlace { index: 0, half, cache: cache.to_owned() });
                    let label = format!("{name} {kind} {} {checkpointing}", if half { "bf16" } else { "f32" });
                    check_training(&label, &model, &place, checkpointing, half, &mut wrong)?;
                }
            }
        }
        for half in [false, true] {
            let place = Place::Cuda(CudaPlace { index: 0, half, cache: cache.to_owned() });
            check_sampling(&format!("{name} {}", if half { "bf16" } else { "f32" }), &plain, &place, half, &mut wrong)?;
        }
    }
    check_impossible(cache, &mut wrong)?;
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// A model whose numbers are none draws no token, and says so.
fn check_impossible(cache: &Path, wrong: &mut Vec<String>) -> Outcome<()> {
    let decoder = Decoder::init(&shaped(SHAPES[0].1)?, 3, &Device::flex())?;
    let capacity = Capacity { pages: 64, rows: 4, tokens: 1024, ahead: 4 };
    for temperature in [0.0, 1.0] {
        let mut inference = Inference::new(&Gpu::open(0)?, decoder.architecture(), Number::Bf16, capacity, cache)?;
        inference.fill(|path| {
            let numbers = decoder.numbers(path).map_err(CudaError::Model)?;
            Ok::<_, CudaError>(vec![f32::NAN; numbers.len()])
        })?;
        let mut scheduler = Scheduler::new(Box::new(CudaExecutor::with(inference)));
        let draw = Draw { temperature, ..Draw::default() };
        scheduler.submit(Request { ids: vec![1, 2, 3], max_new: 5, draw, seed: 1, logprobs: true, guide: None });
        let outcome = scheduler.run(&mut Count::default()).map_err(|error| error.to_string());
        println!("no numbers at temperature {temperature}: {outcome:?}");
        if !outcome.is_err_and(|error| error.contains("no token can be drawn")) {
            wrong.push(format!("a model without numbers drew tokens at temperature {temperature}"));
        }
    }
    Ok(())
}

/// Two updates on both devices: log-probabilities, gradients' norms, and how far parameters moved.
fn check_training(
    label: &str,
    model: &Decoder,
    place: &Place,
    checkpointing: bool,
    half: bool,
    wrong: &mut Vec<String>,
) -> Outcome<()> {
    let lengths = [37, 64, 5, 150];
    let sequences: Vec<Sequence> = lengths
        .into_iter()
        .enumerate()
        .map(|(row, length)| Sequence {
            dialogue: row.to_string(),
            ids: tokens(length, 300, row as u64 + 1),
            scored: (0..length).map(|place| place % 3 > 0).collect(),
        })
        .collect();
    let rows: Vec<&Sequence> = sequences.iter().collect();
    let run = |model: Decoder, precision: Precision| -> Outcome<_> {
        let settings = LearnerSettings { checkpointing, precision, ..LearnerSettings::default() };
        let mut learner: Box<dyn Learner> = learner::open(model, settings)?;
        let mut log_probs: Vec<f32> = Vec::new();
        let mut norms: Vec<f32> = Vec::new();
        let mut states = Vec::new();
        for _ in 0..2 {
            let before = learner.log_probs(&rows, Under::Policy)?;
            let slope = |first: usize, found: &[f64]| found.iter().map(|_| -0.1 / (1.0 + first as f64)).collect();
            let found = learner.accumulate(&rows, 2, &slope, 9)?;
            log_probs.extend(before.iter().chain(&found).map(|value| *value as f32));
            norms.push(learner.gradient_norm()? as f32);
            learner.update(1e-3, 0.5)?;
            let state = learner.state()?;
            learner.restore(state.clone())?;
            states.push(state);
        }
        log_probs.extend(learner.log_probs(&rows, Under::Reference)?.iter().map(|value| *value as f32));
        let finished = learner.finish()?;
        Ok((log_probs, norms, states, finished.parameters()))
    };
    let precision = if half { Precision::Bf16 } else { Precision::F32 };
    let (expected, found) = (run(model.clone(), Precision::F32)?, run(model.clone().at(place), precision)?);
    // Behind the first update: it moves a parameter by the sign of its gradient, also where that is all but zero, and what
    // comes after starts from other places.
    let moments = |states: &[learner::LearnerState]| -> Vec<f32> {
        states[0].moments.iter().flatten().flat_map(|[mean, _]| mean.clone()).collect()
    };
    let (left, right) = (moments(&found.2), moments(&expected.2));
    let parameters = |states: &[learner::LearnerState]| states[1].parameters.concat();
    let differences = [
        ("log-probabilities", difference(found.0.iter(), expected.0.iter())),
        ("norms", difference(found.1.iter(), expected.1.iter())),
        ("gradients", difference(left.iter(), right.iter())),
        ("parameters", difference(parameters(&found.2).iter(), parameters(&expected.2).iter())),
    ];
    let shown: Vec<String> = differences.iter().map(|(what, apart)| format!("{what} {apart:.1e}")).collect();
    println!("{label}: {}", shown.join(", "));
    let bound = if half { 3e-2 } else { 5e-3 };
    let far = differences.iter().filter(|(_, apart)| apart.is_nan() || *apart >= bound);
    wrong.extend(far.map(|(what, apart)| format!("{label}: {what} differ by {apart:.1e}")));
    if found.3 != expected.3 || left.len() != right.len() {
        wrong.push(format!("{label}: another number of parameters came back"));
    }
    Ok(())
}

/// Takes tokens by request.
#[derive(Default)]
struct Keep(BTreeMap<Ticket, Vec<u32>>);

impl Sink for Keep {
    fn token(&mut self, ticket: Ticket, drawn: Drawn) -> bool {
        self.0.entry(ticket).or_default().push(drawn.id);
        false
    }

    fn end(&mut self, _: Ticket, _: bool) {}
}

/// Greedy and drawn continuations of prompts that share beginnings, on both devices. Rounding may part two texts where two
/// tokens are nearly alike; so most tokens must agree, not all.
fn check_sampling(label: &str, model: &Decoder, place: &Place, half: bool, wrong: &mut Vec<String>) -> Outcome<()> {
    let run = |model: &Decoder| -> Outcome<Vec<Vec<u32>>> {
        let mut scheduler = Scheduler::new(executor::of(model, 1 << 22)?);
        let mut kept = Keep::default();
        for row in 0..40_u64 {
            let mut ids = tokens(40, 300, row % 3);
            ids.extend(tokens(1 + row as usize, 300, row));
            let temperature = if row % 2 == 0 { 0.0 } else { 0.7 };
            let draw = Draw { temperature, top_k: (row % 4 == 3).then_some(9), top_p: 0.9, ..Draw::default() };
            scheduler.submit(Request { ids, max_new: 24, draw, seed: row, logprobs: false, guide: None });
            if row % 8 == 0 {
                scheduler.step(&mut kept)?;
            }
        }
        scheduler.run(&mut kept)?;
        Ok(kept.0.into_values().collect())
    };
    let (expected, found) = (run(model)?, run(&model.clone().at(place))?);
    let agree = |(left, right): (&Vec<u32>, &Vec<u32>)| left.iter().zip(right).take_while(|(l, r)| l == r).count();
    let same: usize = found.iter().zip(&expected).map(agree).sum();
    let all: usize = expected.iter().map(Vec::len).sum();
    println!("{label}: {same} of {all} tokens before the first that differs");
    if found.len() != expected.len() || same * 10 < all * if half { 4 } else { 8 } {
        wrong.push(format!("{label}: only {same} of {all} tokens agree"));
    }
    Ok(())
}
