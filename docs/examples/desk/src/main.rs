//! `thresh` with kinds of our own.

mod clerk;
mod desk;
mod harvest;
mod lengths;
mod library;
mod play;

use std::process::ExitCode;

use thresh::stages::{Extension, Kind, RowType};

static KINDS: &[Kind] =
    &[Kind::of::<lengths::TalkLengths>(), Kind::of::<play::DeskPlay>(), Kind::of::<harvest::DeskHarvest>()];
static ROWS: &[RowType] = &[RowType::described::<lengths::Length>()];

fn main() -> ExitCode {
    thresh::cli::main_with(Extension { kinds: KINDS, rows: ROWS })
}
