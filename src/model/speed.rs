//! How fast it is: measurements to run by hand, `cargo test --lib model::speed -- --ignored --nocapture`.

use std::time::Instant;

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::config::ModelConfig;
use super::config::tests::tiny;
use super::decoder::Decoder;
use super::generate::{GenRequest, Generator, StopToken};
use super::sample::Draw;

/// The model of the quickstart.
pub(crate) fn quickstart() -> ModelConfig {
    ModelConfig {
        hidden_size: 128,
        intermediate_size: 352,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        num_key_value_heads: Some(4),
        vocab_size: 1_200,
        rope_theta: 1_000.0,
        max_position_embeddings: 768,
        ..tiny()
    }
}

/// CPU seconds of this process, all threads: what other work on the machine changes least.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

#[test]
#[ignore = "measures speed"]
fn training() {
    let device = Device::flex().autodiff();
    let model = Decoder::init(&quickstart(), 1, &device).unwrap();
    let (batch, seq) = (16, 256);
    let ids: Vec<i32> = (0..batch * seq).map(|index| index as i32 * 7919 % 1_200).collect();
    for round in 0..4 {
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids.clone(), [batch, seq]), &device);
        let hidden = model.hidden(tokens.clone()).reshape([batch * seq, 128]);
        let scored = hidden.narrow(0, 0, batch * seq / 4);
        let targets = tokens.reshape([batch * seq, 1]).narrow(0, 0, batch * seq / 4);
        let loss = log_softmax(model.logits(scored), 1).gather(1, targets).mean().neg();
        let forward = start.elapsed();
        let gradients = loss.clone().backward();
        let sum = model.embed_tokens.val().grad(&gradients).unwrap().abs().sum().into_scalar::<f32>();
        let seconds = start.elapsed().as_secs_f64();
        let rate = (batch * seq) as f64 / seconds;
        let loss = loss.into_scalar::<f32>();
        println!(
            "training {round}: {rate:.0} tokens/s, forward {forward:?}, {seconds:.3} s, {:.2} cpu s, {:08x} {:08x}",
            cpu_seconds() - cpu,
            loss.to_bits(),
            sum.to_bits()
        );
    }
}

/// 64 dialogues that grow turn by turn: 40 tokens of the user's, 40 of the model's, after 160 tokens of instructions.
#[test]
#[ignore = "measures speed"]
fn dialogues() {
    let model = Decoder::init(&quickstart(), 1, &Device::flex()).unwrap();
    let mut generator = Generator::new(&model, 512 << 20);
    let draw = Draw { temperature: 1.0, top_k: None, top_p: 1.0 };
    let mut chats: Vec<Vec<u32>> = vec![(0..160).map(|index| index * 7919 % 1_200).collect(); 64];
    for turn in 0..7 {
        for (row, chat) in chats.iter_mut().enumerate() {
            chat.extend((0..40).map(|index| (index * 104_729 + row as u32 * 31 + turn) % 1_200));
        }
        let request =
            |(row, ids): (usize, &Vec<u32>)| GenRequest { ids: ids.clone(), max_new: 40, draw, seed: row as u64 };
        let requests: Vec<GenRequest> = chats.iter().enumerate().map(request).collect();
        let (before, start, cpu) = (generator.counters(), Instant::now(), cpu_seconds());
        let results = generator.generate(&requests, &mut StopToken(u32::MAX));
        let (seconds, cpu, after) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu, generator.counters());
        for (chat, result) in chats.iter_mut().zip(&results) {
            chat.extend(&result.ids);
        }
        let ids = results.iter().flat_map(|result| &result.ids);
        let hash = ids.fold(0u64, |hash, &id| hash.wrapping_mul(31).wrapping_add(u64::from(id)));
        println!(
            "turn {turn}: {seconds:.3} s, {cpu:.2} cpu s, {} new tokens, {} of {} prompt tokens reused, {hash:x}",
            after.generated - before.generated,
            after.reused - before.reused,
            after.prompt - before.prompt,
        );
    }
}
