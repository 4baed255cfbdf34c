//! Child processes that never outlive us: not when a run is stopped, and not when we are killed.
//!
//! Between us and the command stands a supervisor, a fork that runs no program of its own. It is woken by the kernel when we
//! die, adopts what the command leaves behind, and kills all of it. Linux only: it builds on `prctl`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::libc::{self, c_int, pid_t};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often a run that waits for a command looks whether it should stop. The command's end itself wakes it.
const LOOK: Duration = Duration::from_millis(50);

/// How long a command may take to end by itself after SIGTERM, in seconds.
const GRACE: libc::time_t = 3;

/// The signal that tells the supervisor that we are gone.
const ORPHANED: c_int = libc::SIGUSR1;

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
/// It runs in a process group of its own, so a Ctrl-C at the terminal does not reach it. When it ends, or is stopped, or when
/// the calling thread ends for any reason, everything that it started is killed: after `stopped` with SIGTERM first and 3
/// seconds of grace.
///
/// # Errors
/// When the program cannot be started.
pub fn run(command: &mut Command, stopped: impl Fn() -> bool) -> io::Result<Ended> {
    // SAFETY: only for its number, which always exists.
    let us = unsafe { libc::getpid() };
    // SAFETY: `supervise` keeps to what is allowed between fork and exec: system calls on its own stack, no memory, no locks.
    unsafe { command.pre_exec(move || supervise(us)) };
    let pid = command.spawn()?.id() as pid_t;
    let file = pidfd(pid)?;
    let mut stopping = false;
    loop {
        if ends_within(&file, LOOK)? {
            let (status, usage) = collect(pid)?;
            return Ok(Ended { status: (!stopping).then_some(status), usage });
        }
        if !stopping && stopped() {
            stopping = true;
            // An error means that it has just ended.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

/// A file that becomes readable when a child ends.
fn pidfd(pid: pid_t) -> io::Result<OwnedFd> {
    // SAFETY: a system call on numbers; the file that it returns is nobody else's.
    unsafe {
        let file = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if file < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(file as c_int)) }
    }
}

/// Waits for the end of a child, at most so long; whether it came.
fn ends_within(child: &OwnedFd, time: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: child.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry that lives on this stack.
    match unsafe { libc::poll(&raw mut poll, 1, time.as_millis() as c_int) } {
        -1 => {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) }
        }
        count => Ok(count > 0),
    }
}

/// Takes the status of a child that has ended, and what it and all that it waited for took.
fn collect(pid: pid_t) -> io::Result<(ExitStatus, Usage)> {
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: both live on this stack; all zeros are a valid value of the second.
    let usage = unsafe {
        while libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()) == -1 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    // Linux counts in kilobytes.
    let peak_memory = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024;
    Ok((ExitStatus::from_raw(status), Usage { cpu_seconds, peak_memory }))
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

/// Called in the new process before it becomes the command: forks once more. The fork returns, to become the command; the
/// original stays as its supervisor and never returns.
fn supervise(us: pid_t) -> io::Result<()> {
    // SAFETY: system calls whose arguments are numbers or live on this stack; the set is initialised by sigemptyset.
    unsafe {
        let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(signals.as_mut_ptr());
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        for signal in [libc::SIGCHLD, libc::SIGTERM, ORPHANED] {
            libc::sigaddset(signals.as_mut_ptr(), signal);
        }
        check(libc::sigprocmask(libc::SIG_BLOCK, signals.as_ptr(), before.as_mut_ptr()))?;
        // A signal that is ignored, perhaps since before our own start, would never be reported.
        for signal in [libc::SIGCHLD, libc::SIGTERM, ORPHANED] {
            libc::signal(signal, libc::SIG_DFL);
        }
        check(libc::setpgid(0, 0))?;
        check(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1))?;
        check(libc::prctl(libc::PR_SET_PDEATHSIG, ORPHANED))?;
        if libc::getppid() != us {
            // We died before the kernel was told to say so.
            libc::_exit(1);
        }
        let supervisor = libc::getpid();
        match libc::fork() {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                check(libc::setpgid(0, 0))?;
                check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
                if libc::getppid() != supervisor {
                    libc::_exit(1);
                }
                check(libc::sigprocmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()))
            }
            command => watch_over(command, signals.as_ptr()),
        }
    }
}

/// Waits for the command's end or a reason to end it, kills what is left, and ends as the command did.
///
/// # Safety
/// To be called with the signals of the set blocked, in a process that is to end.
unsafe fn watch_over(command: pid_t, signals: *const libc::sigset_t) -> ! {
    // SAFETY: as in `supervise`.
    unsafe {
        // The pipe through which the standard library learns of a failed exec must close when the command's copy does.
        if libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) != 0 {
            // Linux before 5.9.
            for file in 3..65_536 {
                libc::close(file);
            }
        }
        let mut status = 0;
        let mut ending = false;
        loop {
            let grace = libc::timespec { tv_sec: if ending { GRACE } else { 3600 }, tv_nsec: 0 };
            let signal = libc::sigtimedwait(signals, std::ptr::null_mut(), &raw const grace);
            if reap(command, &mut status) {
                break;
            }
            match signal {
                libc::SIGTERM => {
                    ending = true;
                    libc::kill(-command, libc::SIGTERM);
                }
                ORPHANED => kill_all(command),
                -1 if ending => kill_all(command),
                _ => {}
            }
        }
        kill_all(command);
        if libc::WIFEXITED(status) {
            libc::_exit(libc::WEXITSTATUS(status));
        }
        end_by(libc::WTERMSIG(status))
    }
}

/// Takes note of the dead; whether the command is among them.
///
/// # Safety
/// To be called in the supervisor alone: it takes every child's status.
unsafe fn reap(command: pid_t, status: &mut c_int) -> bool {
    let mut ended = false;
    loop {
        let mut found = 0;
        // SAFETY: `found` lives on this stack.
        match unsafe { libc::waitpid(-1, &raw mut found, libc::WNOHANG) } {
            pid if pid == command => {
                *status = found;
                ended = true;
            }
            pid if pid > 0 => {}
            _ => return ended,
        }
    }
}

/// Kills the command's group, and then every process that the supervisor has adopted, until none is left.
///
/// # Safety
/// To be called in the supervisor alone.
unsafe fn kill_all(command: pid_t) {
    // SAFETY: system calls on numbers and on buffers of this stack.
    unsafe {
        libc::kill(-command, libc::SIGKILL);
        // What left the group comes to the supervisor when its parent dies, one generation a round.
        for _ in 0..1000 {
            let mut list = [0_u8; 4096];
            let file = libc::open(c"/proc/thread-self/children".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            let count = libc::read(file, list.as_mut_ptr().cast(), list.len());
            libc::close(file);
            let Ok(count @ 1..) = usize::try_from(count) else { return };
            let mut pid: pid_t = 0;
            let mut left = false;
            for &byte in &list[..count] {
                if byte.is_ascii_digit() {
                    pid = pid.wrapping_mul(10).wrapping_add(pid_t::from(byte - b'0'));
                    continue;
                }
                // The command itself is left to be reaped by the loop that wants its status.
                if pid > 0 && pid != command {
                    libc::kill(pid, libc::SIGKILL);
                    libc::waitpid(pid, std::ptr::null_mut(), 0);
                    left = true;
                }
                pid = 0;
            }
            if !left {
                return;
            }
        }
    }
}

/// Ends this process by a signal, so that its parent sees how the command ended.
///
/// # Safety
/// To be called in the supervisor alone.
unsafe fn end_by(signal: c_int) -> ! {
    // SAFETY: system calls on numbers and on values of this stack.
    unsafe {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::signal(signal, libc::SIG_DFL);
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(all.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), std::ptr::null_mut());
        libc::kill(libc::getpid(), signal);
        libc::_exit(128 + signal)
    }
}

fn check(result: c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Instant;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn gone(pid: i32) -> bool {
        // A dead process whose parent has not looked yet still has a number.
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") {
                return true;
            }
            thread::sleep(LOOK);
        }
        false
    }

    fn pids(file: &Path) -> Vec<i32> {
        std::fs::read_to_string(file).unwrap_or_default().lines().map(|line| line.trim().parse().unwrap()).collect()
    }

    fn wait_for(file: &Path, lines: usize) -> Vec<i32> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while pids(file).len() < lines && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
        pids(file)
    }

    #[test]
    fn a_command_ends_as_it_ends() {
        let ended = |script: &str| describe(run(&mut shell(script), || false).unwrap().status.unwrap());
        assert_eq!(ended("true"), "exit code 0");
        assert_eq!(ended("exit 37"), "exit code 37");
        assert_eq!(ended("kill -9 $$"), "killed by SIGKILL");
        assert_eq!(ended("kill -SEGV $$"), "killed by SIGSEGV");
    }

    #[test]
    fn what_a_command_took_is_counted_with_its_children() {
        let script = "python3 -c 'x = bytearray(200_000_000); sum(range(3_000_000))' & wait";
        let usage = run(&mut shell(script), || false).unwrap().usage;
        assert!(usage.peak_memory > 190_000_000 && usage.peak_memory < 400_000_000, "{usage:?}");
        assert!(usage.cpu_seconds > 0.01 && usage.cpu_seconds < 30.0, "{usage:?}");
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let error = run(&mut Command::new("no-such-program-at-all"), || false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    /// A child, a grandchild, and one that has left the process group for a session of its own.
    const FAMILY: &str = "sleep 300 & echo $! >> pids; (sleep 300 & echo $! >> pids); \
                          setsid sh -c 'echo $$ >> pids; sleep 300' & sleep 0.3;";

    #[test]
    fn nothing_outlives_a_command() {
        let folder = tempfile::tempdir().unwrap();
        let status = run(shell(FAMILY).current_dir(&folder), || false).unwrap().status.unwrap();
        assert!(status.success());
        let family = pids(&folder.path().join("pids"));
        assert_eq!(family.len(), 3);
        assert!(family.into_iter().all(gone));
    }

    #[test]
    fn nothing_outlives_a_stop() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pids");
        let mut command = shell(&format!("{FAMILY} trap '' TERM; echo $$ >> pids; while true; do sleep 1; done"));
        let ended = run(command.current_dir(&folder), || pids(&file).len() == 4).unwrap();
        assert!(ended.status.is_none());
        assert!(pids(&file).into_iter().all(gone));
    }

    #[test]
    fn nothing_outlives_the_thread_that_waits() {
        // The kernel takes the end of the thread that started a child for the parent's end, as it takes kill -9.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pids");
        let mut command = shell(&format!("{FAMILY} echo $$ >> pids; sleep 300"));
        command.current_dir(&folder);
        let seen = file.clone();
        let thread =
            thread::spawn(move || run(&mut command, || if pids(&seen).len() == 4 { panic!("as told") } else { false }));
        assert!(thread.join().is_err());
        let family = wait_for(&file, 4);
        assert_eq!(family.len(), 4);
        assert!(family.into_iter().all(gone));
    }

    #[test]
    fn the_last_lines_of_a_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let lines: Vec<String> = (0..30_000).map(|number| format!("line {number}")).collect();
        std::fs::write(&log, lines.join("\n")).unwrap();
        assert_eq!(last_lines(&log, 2).unwrap(), "line 29998\nline 29999");
        std::fs::write(&log, b"only \xff one\n").unwrap();
        assert_eq!(last_lines(&log, 20).unwrap(), "only \u{fffd} one");
    }
}
