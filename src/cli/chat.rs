//! `thresh chat`: talk to a model, ours or one behind an address.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use serde_json::json;

use super::compute::compute;
use super::{Common, Failure, Outcome, say_json};
use crate::chat::Message;
use crate::llm::http::{Dialect, HttpModel, HttpSettings};
use crate::llm::{ChatModel, ChatRequest, Sampling};
use crate::model::Bundle;
use crate::model::chat::encode_prompt;
use crate::model::executor;
use crate::model::sample::{Draw, Drawn};
use crate::model::scheduler::{Request, Scheduler, Sink, Ticket};
use crate::model::tokenizer::{TextStream, Tokenizer};
use crate::net::gate::{Gate, Limits};
use crate::report::{note, tell};
use crate::seed;

/// Bytes of keys and values that are remembered, so that a turn encodes only what is new.
const REMEMBERED: usize = 512 << 20;

#[derive(Args)]
pub(super) struct ChatArgs {
    /// A bundle, a folder of Hugging Face, a GGUF file, or the address of an OpenAI-compatible endpoint (`http://…/v1`).
    model: String,
    /// What the model is told before all else.
    #[arg(long)]
    system: Option<String>,
    /// How freely tokens are drawn; 0 takes the likeliest.
    #[arg(long, default_value_t = 0.7)]
    temperature: f32,
    /// Only the so many likeliest tokens.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: Option<u32>,
    /// Only the likeliest tokens whose probabilities reach this sum.
    #[arg(long, default_value_t = 1.0)]
    top_p: f32,
    /// Only tokens at least this share as likely as the likeliest one.
    #[arg(long, default_value_t = 0.0)]
    min_p: f32,
    /// What tokens that were said before lose; 1 is nothing.
    #[arg(long, default_value_t = 1.0)]
    repetition_penalty: f32,
    /// The most tokens of a reply.
    #[arg(long, default_value_t = 512)]
    max_tokens: usize,
    /// The same seed gives the same replies.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where a model of our own computes: `cpu`, `cuda` or `cuda:N`; with `wgpu`, which only trains, on the processor.
    /// Kernels compiled for CUDA are kept in the store of the project that holds the current folder, else in
    /// `thresh/cuda` of the user's cache.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// The model's name at the address.
    #[arg(long, default_value = "default")]
    name: String,
    /// The environment variable that holds the address's key.
    #[arg(long, value_name = "VARIABLE")]
    key_env: Option<String>,
}

/// Chats over standard input: a line is what the user says, `/reset` forgets all that was said, `/exit` or the end of the
/// input ends it. Replies go to standard output as they are written; in JSON each as one line, when it is whole.
pub(super) fn run(args: &ChatArgs, common: &Common) -> Outcome {
    check(args)?;
    let mut speaker = Speaker::open(args)?;
    let at_terminal = io::stdin().is_terminal();
    if at_terminal {
        note("a line is what you say; /reset forgets all that was said, /exit ends");
    }
    let system: Vec<Message> = args.system.iter().map(|text| Message::system(&**text)).collect();
    let mut messages = system.clone();
    let mut lines = io::stdin().lock().lines();
    let mut turn = 0_u64;
    loop {
        if at_terminal {
            let _ = write!(io::stderr(), "> ");
        }
        let Some(line) = lines.next().transpose()? else { return Ok(()) };
        match line.trim() {
            "" => continue,
            "/exit" => return Ok(()),
            "/reset" => {
                messages.clone_from(&system);
                continue;
            }
            _ => {}
        }
        messages.push(Message::user(line));
        turn += 1;
        match speaker.reply(args, &messages, !common.json, seed::derive(args.seed, &["turn", &turn.to_string()])) {
            Ok(reply) => {
                if common.json {
                    say_json(&json!({"role": "assistant", "content": reply}))?;
                }
                messages.push(Message::assistant(reply));
            }
            Err(Failure::Failed(error)) if at_terminal => {
                tell(format_args!("error: {error:#}"));
                messages.pop();
            }
            Err(failure) => return Err(failure),
        }
    }
}

fn check(args: &ChatArgs) -> Outcome {
    let wrong = |name: &str, what: &str| Err(Failure::Wrong(anyhow!("`--{name}` must {what}")));
    let share = |value: f32| (0.0..=1.0).contains(&value);
    match args {
        _ if !(args.temperature.is_finite() && args.temperature >= 0.0) => wrong("temperature", "be 0 or above"),
        _ if !share(args.top_p) => wrong("top-p", "lie between 0 and 1"),
        _ if !share(args.min_p) => wrong("min-p", "lie between 0 and 1"),
        _ if !(args.repetition_penalty.is_finite() && args.repetition_penalty > 0.0) => {
            wrong("repetition-penalty", "be above 0")
        }
        _ if args.max_tokens == 0 => wrong("max-tokens", "be at least 1"),
        _ => Ok(()),
    }
}

/// Who replies.
enum Speaker {
    Ours(Box<Scheduler>, Tokenizer),
    Served(Box<HttpModel>, tokio::runtime::Runtime),
}

impl Speaker {
    fn open(args: &ChatArgs) -> Result<Self, Failure> {
        if args.model.starts_with("http://") || args.model.starts_with("https://") {
            let limits = Limits { in_flight: 1, requests_per_minute: None, tokens_per_minute: None, budget: None };
            let settings = HttpSettings {
                url: args.model.clone(),
                model: args.name.clone(),
                key_env: args.key_env.clone(),
                gate: Arc::new(Gate::new(limits)),
                connect_timeout: Duration::from_secs(10),
                timeout: Duration::from_secs(600),
                retries: 2,
                prices: None,
                dialect: Dialect::default(),
            };
            let model = HttpModel::new(&args.name, &settings).map_err(|error| Failure::Wrong(error.into()))?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            return Ok(Self::Served(Box::new(model), runtime));
        }
        let path = PathBuf::from(&args.model);
        if !path.exists() {
            return Err(Failure::Wrong(anyhow!(
                "`{}` is not there; expected a model's folder, a GGUF file, or an address that begins with `http://`",
                args.model
            )));
        }
        let device = compute(&args.device)?;
        super::tell_who_replies(&args.device);
        let bundle = Bundle::load(&path, &device)?;
        bundle.tokenizer.template()?;
        let scheduler = Scheduler::new(executor::of(&bundle.decoder.at(device.place()), REMEMBERED)?);
        Ok(Self::Ours(Box::new(scheduler), bundle.tokenizer))
    }

    /// Makes a reply; where it is to be `shown`, it goes to standard output as it is written.
    fn reply(&mut self, args: &ChatArgs, messages: &[Message], shown: bool, seed: u64) -> Result<String, Failure> {
        let text = match self {
            Self::Ours(scheduler, tokenizer) => written(scheduler, tokenizer, args, messages, shown, seed)?,
            Self::Served(model, runtime) => {
                let reply = runtime.block_on(model.complete(request(args, messages, seed)))?;
                print(shown, &reply.text)?;
                reply.text
            }
        };
        print(shown, "\n")?;
        Ok(text)
    }
}

fn request(args: &ChatArgs, messages: &[Message], seed: u64) -> ChatRequest {
    let sampling = Sampling {
        temperature: args.temperature,
        top_k: args.top_k.map(|k| k as usize),
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
        max_tokens: args.max_tokens,
        stop: Vec::new(),
        calls: None,
    };
    ChatRequest { system: None, chat: messages.iter().cloned().collect(), tools: None, sampling, seed }
}

/// A reply of our own model, token by token.
fn written(
    scheduler: &mut Scheduler,
    tokenizer: &Tokenizer,
    args: &ChatArgs,
    messages: &[Message],
    shown: bool,
    seed: u64,
) -> Result<String, Failure> {
    let ids = encode_prompt(tokenizer, messages, &[])?;
    let context = scheduler.layout().context;
    if ids.len() >= context {
        let tokens = ids.len();
        return Err(anyhow!("the chat has {tokens} tokens, the model's context {context}; /reset begins anew").into());
    }
    let draw = Draw {
        temperature: args.temperature,
        top_k: args.top_k.map(|k| k as usize),
        top_p: args.top_p,
        min_p: args.min_p,
        repetition_penalty: args.repetition_penalty,
    };
    scheduler.submit(Request { ids, max_new: args.max_tokens, draw, seed, logprobs: false, guide: None });
    let mut spoken =
        Spoken { tokenizer, stream: tokenizer.stream(), text: String::new(), shown, over: false, failed: None };
    while !spoken.over {
        scheduler.step(&mut spoken)?;
    }
    if let Some(failure) = spoken.failed {
        return Err(failure);
    }
    let rest = spoken.stream.finish()?;
    print(shown, &rest)?;
    Ok(spoken.text + &rest)
}

/// What was said so far, and how it goes to standard output.
struct Spoken<'a> {
    tokenizer: &'a Tokenizer,
    stream: TextStream,
    text: String,
    shown: bool,
    over: bool,
    failed: Option<Failure>,
}

impl Sink for Spoken<'_> {
    fn token(&mut self, _: Ticket, drawn: Drawn) -> bool {
        if self.tokenizer.is_end(drawn.id) {
            return true;
        }
        let told = self.stream.push(drawn.id).map_err(Failure::from).and_then(|text| {
            print(self.shown, &text)?;
            self.text.push_str(&text);
            Ok(())
        });
        self.failed = told.err();
        self.failed.is_some()
    }

    fn end(&mut self, _: Ticket, _: bool) {
        self.over = true;
    }
}

/// A text without control characters but line ends and tabs: what a model says must not steer a terminal. In JSON they are
/// escaped, and nothing is lost.
fn visible(text: &str) -> String {
    let picture = |c: char| match c {
        '\n' | '\t' => c,
        '\0'..='\x1f' => char::from_u32(0x2400 + c as u32).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\x7f' => '\u{2421}',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(picture).collect()
}

fn print(shown: bool, text: &str) -> io::Result<()> {
    if !shown {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    out.write_all(visible(text).as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_a_model_says_steers_no_terminal() {
        assert_eq!(super::visible("a\tb\n\x1b[31mc\x07\x7f\u{9b}é"), "a\tb\n␛[31mc␇␡\u{fffd}é");
    }
}
