//! Inference on a CUDA device: [`crate::model::cuda::inference`] behind the scheduler's border.

use super::{Answer, Executor, ExecutorError, Layout, PAGE, Row, Want};
use crate::model::Decoder;
use crate::model::cuda::CudaError;
use crate::model::cuda::blas::Number;
use crate::model::cuda::driver::Gpu;
use crate::model::cuda::inference::{Ask, Capacity, Drawing, Given, Inference, Wanted};
use crate::model::device::CudaPlace;
use crate::model::sample::{Draw, Drawn};

/// The most sequences of one call.
const ROWS: usize = 256;

/// The most new tokens of one call.
const TOKENS: usize = 16_384;

/// The most tokens drawn for a sequence in one call: enough that the host's part of a step does not count.
const AHEAD: usize = 16;

/// A decoder on a CUDA device.
#[derive(Debug)]
pub struct CudaExecutor {
    inference: Inference,
    layout: Layout,
}

impl From<CudaError> for ExecutorError {
    fn from(error: CudaError) -> Self {
        Self::Device(error.to_string())
    }
}

impl CudaExecutor {
    /// A decoder's weights, adapters merged, and room for at least `bytes` of keys and values, for one sequence of full length,
    /// and for what fits into an eighth of the device's memory.
    ///
    /// # Errors
    /// When the device is not there, does not take the model, or has no room for it.
    pub fn new(decoder: &Decoder, bytes: usize, place: &CudaPlace) -> Result<Self, ExecutorError> {
        let decoder = decoder.merged();
        let shape = decoder.architecture();
        let number = if place.half { Number::Bf16 } else { Number::F32 };
        let gpu = Gpu::open(place.index)?;
        let bytes = bytes.max(gpu.memory()?.0 / 8);
        let pages = (bytes / Inference::page_bytes(shape, number).max(1)).max(shape.context.div_ceil(PAGE));
        let capacity = Capacity { pages, rows: ROWS, tokens: TOKENS, ahead: AHEAD };
        let mut inference = Inference::new(&gpu, shape, number, capacity, &place.cache)?;
        inference.fill(|path| decoder.numbers(path).map_err(ExecutorError::Device))?;
        Ok(Self::with(inference))
    }

    /// An executor of a decoder that is on the device already.
    pub fn with(inference: Inference) -> Self {
        let (shape, Capacity { pages, rows, tokens, ahead }) = (&inference.network().shape, inference.capacity);
        let layout = Layout { vocab: shape.vocab, context: shape.context, pages, rows, tokens, ahead };
        Self { inference, layout }
    }
}

impl Executor for CudaExecutor {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn draws(&self, draw: &Draw) -> bool {
        draw.repetition_penalty == 1.0
    }

    fn run(&mut self, rows: &[Row]) -> Result<Vec<Answer>, ExecutorError> {
        let asks: Vec<Ask> = rows.iter().map(ask).collect();
        let given = self.inference.run(&asks)?;
        Ok(rows.iter().zip(given).map(|(row, given)| answer(row, given)).collect())
    }
}

fn ask<'a>(row: &Row<'a>) -> Ask<'a> {
    let wanted = match row.want {
        Want::Nothing => Wanted::Nothing,
        Want::Logits => Wanted::Logits,
        Want::Tokens { draw, uniforms, .. } => Wanted::Tokens(drawing(&draw), uniforms),
    };
    Ask { pages: row.pages, past: row.past, tokens: row.tokens, wanted }
}

fn drawing(draw: &Draw) -> Drawing {
    let temperature = if draw.is_greedy() { 0.0 } else { draw.temperature };
    Drawing { temperature, top_k: draw.top_k.unwrap_or(0), top_p: draw.top_p, min_p: draw.min_p }
}

fn answer(row: &Row, given: Given) -> Answer {
    match given {
        Given::Nothing => Answer::Nothing,
        Given::Logits(logits) => Answer::Logits(logits),
        Given::Tokens(drawn) => {
            let wanted = matches!(row.want, Want::Tokens { logprobs: true, .. });
            let one = |(id, logprob): (u32, f32)| Drawn { id, logprob: wanted.then_some(logprob) };
            Answer::Tokens(drawn.into_iter().map(one).collect())
        }
    }
}
