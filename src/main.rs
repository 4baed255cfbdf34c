//! The `thresh` binary: parse, run, exit code.

use std::process::ExitCode;

/// Reading pipelines and manifests is mostly allocation, and the C library's allocator made a no-op run a tenth slower.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    thresh::cli::main()
}
