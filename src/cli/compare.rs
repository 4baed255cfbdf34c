//! `thresh compare`: what differs between runs.

use clap::Args;

use super::Outcome;

#[derive(Args)]
pub(super) struct CompareArgs {
    /// Runs by name, the beginning of a name, or `latest`.
    #[arg(num_args = 2.., required = true)]
    runs: Vec<String>,
}

pub(super) fn run(args: &CompareArgs) -> Outcome {
    let _ = &args.runs;
    Ok(())
}
