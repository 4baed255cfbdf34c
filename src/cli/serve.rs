//! `thresh serve`: a model of our own behind OpenAI's API.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::compute::compute;
use super::{Common, Failure, Outcome, say, say_json, tell_who_replies};
use crate::model::Bundle;
use crate::report::note;
use crate::serve::{self, Worker};

#[derive(Args)]
pub(super) struct ServeArgs {
    /// The model's folder: a bundle (`thresh path RUN stage.model` prints where one lies), or one of Hugging Face.
    bundle: PathBuf,
    /// The address to listen at; 0.0.0.0 lets other machines in.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The port; 0 takes a free one.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// The name that clients ask for; the folder's where absent.
    #[arg(long)]
    name: Option<String>,
    /// The most replies written at once; others wait.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    max_batch: u16,
    /// MiB for keys and values of chats that run and of those remembered.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory: usize,
    /// The most new tokens of a chat that does not say how many it wants; fewer let more chats be answered at once.
    #[arg(long, value_name = "N", default_value_t = serve::MAX_TOKENS as u32, value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: u32,
    /// Where it computes: `cpu`, `cuda` or `cuda:N`. With `wgpu`, which trains only, replies come from the processor.
    /// Kernels compiled for CUDA are kept in the store of the project that holds the current folder, else in
    /// `thresh/cuda` of the user's cache.
    #[arg(long, default_value = "cpu")]
    device: String,
}

pub(super) fn run(args: &ServeArgs, common: &Common) -> Outcome {
    let device = compute(&args.device)?;
    tell_who_replies(&args.device);
    let bundle = Bundle::load(&args.bundle, &device).map_err(|error| Failure::Wrong(error.into()))?;
    let bundle = Bundle { decoder: bundle.decoder.at(device.place()), ..bundle };
    let folder = std::path::absolute(&args.bundle)?;
    let folder = folder.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned());
    let name = args.name.clone().unwrap_or(folder);
    let worker = Worker::start(&bundle, &name, args.memory.saturating_mul(1 << 20), usize::from(args.max_batch))?
        .with_max_tokens(args.max_tokens as usize);
    drop(bundle);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let at = (args.host.as_str(), args.port);
        let listener = TcpListener::bind(at).await;
        let listener =
            listener.map_err(|error| Failure::Wrong(anyhow!("cannot listen at {}:{}: {error}", at.0, at.1)))?;
        let address = serve::address(listener.local_addr()?);
        if common.json {
            say_json(&json!({"address": address, "model": name}))?;
        } else {
            say(address)?;
        }
        note(format_args!("serving `{name}`; ctrl-c ends it when the replies that are being written are done"));
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let stop = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        Ok(serve::serve(listener, worker, stop).await.context("the server ended")?)
    })
}
