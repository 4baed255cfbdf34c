//! Child processes that never outlive us: not when a run is stopped, and not when we are killed.
//!
//! A warden, forked from us while we are small, forks a supervisor for every command, and that forks the command. So a fork
//! copies a small process however large we have grown, and what a command took is told without our own memory in it. A
//! supervisor notices by a socket that closes when we die or want an end; it adopts what its command leaves behind, and
//! kills all of it. Linux only: it builds on `prctl`.

mod supervisor;
mod warden;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::libc::{self, c_int};
use nix::sys::signal::Signal;

pub use warden::{finish, start};

/// How often a run that waits for a command looks whether it should stop. The command's end itself wakes it.
const LOOK: Duration = Duration::from_millis(50);

/// The end of a log that is searched for its last lines.
const TAIL: u64 = 64 << 10;

/// What a command and everything that it started took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU seconds, of the user and of the system.
    pub cpu_seconds: f64,
    /// The largest resident set of any of its processes, in bytes.
    pub peak_memory: u64,
}

/// How a command ended, and what it took.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Its status; `None` when it was stopped.
    pub status: Option<ExitStatus>,
    /// What it took.
    pub usage: Usage,
}

/// Runs a command to its end; the status is `None` when `stopped` ended it before.
///
/// Its environment is what the command names and nothing else, its input is empty, and what it prints goes to `log`. It runs
/// in a process group of its own, so a Ctrl-C at the terminal does not reach it. When it ends, or is stopped, or when this
/// process ends for any reason, everything that it started is killed: after `stopped` with SIGTERM first and 3 seconds of
/// grace. `held`, such as a lock, stays open until all of it is gone, also when this process is not there any more.
///
/// # Errors
/// When the program cannot be started.
pub fn run(command: &Command, log: &File, held: Option<&File>, stopped: impl Fn() -> bool) -> io::Result<Ended> {
    let mut line = warden::supervised(log, held)?;
    line.write_all(&request(command))?;
    let mut stopping = false;
    loop {
        if readable_within(&line, LOOK)? {
            let mut answer = [0; supervisor::ANSWER];
            line.read_exact(&mut answer)
                .map_err(|_| io::Error::other("the process that watched over the command is gone"))?;
            return supervisor::read_answer(&answer, stopping);
        }
        if !stopping && stopped() {
            stopping = true;
            // An error means that it has just ended.
            let _ = line.write_all(&[supervisor::STOP]);
        }
    }
}

/// Makes a file that may grow no further (`ulimit -f`) an error of whoever writes it, and not the end of this process. Commands
/// are not affected.
pub fn outlive_limits() {
    // SAFETY: a system call on numbers.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// A command as bytes: three lists (arguments, environment, folder), each a count, and of each text its length and bytes.
fn request(command: &Command) -> Vec<u8> {
    let arguments = std::iter::once(command.get_program()).chain(command.get_args());
    let arguments: Vec<Vec<u8>> = arguments.map(|word| word.as_bytes().to_vec()).collect();
    let variable = |(name, value): (&std::ffi::OsStr, Option<&std::ffi::OsStr>)| {
        Some([name.as_bytes(), b"=", value?.as_bytes()].concat())
    };
    let environment: Vec<Vec<u8>> = command.get_envs().filter_map(variable).collect();
    let folder: Vec<Vec<u8>> =
        command.get_current_dir().map(|folder| folder.as_os_str().as_bytes().to_vec()).into_iter().collect();
    let mut body = Vec::new();
    for list in [&arguments, &environment, &folder] {
        body.extend((list.len() as u64).to_le_bytes());
        for text in list {
            body.extend((text.len() as u64).to_le_bytes());
            body.extend(text);
        }
    }
    let mut request = (body.len() as u64).to_le_bytes().to_vec();
    request.extend(body);
    request
}

/// Waits until a socket can be read or has closed, at most so long; whether it came.
fn readable_within(line: &UnixStream, time: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: line.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry that lives on this stack.
    match unsafe { libc::poll(&raw mut poll, 1, time.as_millis() as c_int) } {
        -1 => {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) }
        }
        count => Ok(count > 0),
    }
}

/// How a command ended, in words: `exit code 3`, `killed by SIGKILL`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
        (None, None) => status.to_string(),
    }
}

/// The last lines of a log, each of at most 500 characters.
pub fn last_lines(log: &Path, count: usize) -> io::Result<String> {
    let mut file = File::open(log)?;
    let start = file.metadata()?.len().saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<String> = text.lines().map(|line| line.trim_end().chars().take(500).collect()).collect();
    Ok(lines[lines.len().saturating_sub(count)..].join("\n"))
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests;
