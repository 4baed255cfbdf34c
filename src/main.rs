//! The `thresh` binary: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    thresh::cli::main()
}
