//! What a stage said during one attempt, kept with the run.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::context::Notice;
use crate::fs;

/// The least time between two lines of progress.
const PAUSE: Duration = Duration::from_secs(1);

/// The log of one attempt; its file is there once something was said.
pub struct StageLog {
    path: PathBuf,
    file: Option<File>,
    began: Instant,
    progress: Option<Instant>,
}

impl StageLog {
    /// A log at a path, its clock started.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), file: None, began: Instant::now(), progress: None }
    }

    /// Notes what a stage said; of progress a line a second.
    pub fn notice(&mut self, notice: &Notice) {
        match notice {
            Notice::Progress { done, total, unit, detail } => {
                if self.progress.is_some_and(|last| last.elapsed() < PAUSE) && done < total {
                    return;
                }
                self.progress = Some(Instant::now());
                self.line(&format!("{done}/{total} {unit} {detail}"));
            }
            Notice::Warning(text) => self.line(&format!("warning: {text}")),
            Notice::Figure { name, value } => self.line(&format!("{name} = {value}")),
        }
    }

    /// Notes a line, after the seconds since the attempt began. A log that cannot be written must not end a run.
    pub fn line(&mut self, text: &str) {
        if self.file.is_none() {
            let folder = self.path.parent().map(fs::create_dir_all).transpose();
            self.file = folder.and_then(|_| fs::create(&self.path)).ok();
        }
        if let Some(file) = &mut self.file {
            let _ = writeln!(file, "{:10.3}  {}", self.began.elapsed().as_secs_f64(), text.trim_end());
        }
    }
}
