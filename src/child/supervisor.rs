//! The process that watches over one command: starts it, tells how it ended, and kills what it leaves behind.

use std::ffi::CString;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::libc::{self, c_int, pid_t};

use super::{Ended, Usage, check};

/// The byte that asks for an end.
pub(super) const STOP: u8 = b's';

/// How long a command may take to end by itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);

/// The size of an answer: an error number, a status, CPU microseconds, peak memory in bytes.
pub(super) const ANSWER: usize = 24;

/// Reads what [`run`] has to tell.
pub(super) fn read_answer(answer: &[u8; ANSWER], stopping: bool) -> io::Result<Ended> {
    let number = |at: usize| i32::from_le_bytes([answer[at], answer[at + 1], answer[at + 2], answer[at + 3]]);
    let long = |at: usize| u64::from(number(at) as u32) | u64::from(number(at + 4) as u32) << 32;
    if number(0) != 0 {
        return Err(io::Error::from_raw_os_error(number(0)));
    }
    let status = (!stopping).then(|| ExitStatus::from_raw(number(4)));
    Ok(Ended { status, usage: Usage { cpu_seconds: long(8) as f64 / 1e6, peak_memory: long(16) } })
}

fn answer(error: i32, status: c_int, usage: &Usage) -> [u8; ANSWER] {
    let mut answer = [0; ANSWER];
    answer[..4].copy_from_slice(&error.to_le_bytes());
    answer[4..8].copy_from_slice(&status.to_le_bytes());
    answer[8..16].copy_from_slice(&((usage.cpu_seconds * 1e6) as u64).to_le_bytes());
    answer[16..].copy_from_slice(&usage.peak_memory.to_le_bytes());
    answer
}

/// Tells that no supervisor could be made.
pub(super) fn refuse(line: OwnedFd, error: &io::Error) {
    let told = answer(error.raw_os_error().unwrap_or(libc::EIO), 0, &Usage::default());
    // Who is not there any more needs no answer.
    let _ = UnixStream::from(line).write_all(&told);
}

/// The supervisor's life; `held` closes with it.
pub(super) fn run(line: OwnedFd, log: OwnedFd, held: Option<OwnedFd>) -> ! {
    let mut line = UnixStream::from(line);
    let told = match start(&mut line, &log) {
        Ok(command) => {
            drop(log);
            let status = watch_over(command, &line);
            answer(0, status, &usage())
        }
        Err(error) => answer(error.raw_os_error().unwrap_or(libc::EIO), 0, &Usage::default()),
    };
    // Nothing of the command is left.
    drop(held);
    // Who is not there any more needs no answer.
    let _ = line.write_all(&told);
    // SAFETY: ends this process without what the one that it was forked from has registered for its end.
    unsafe { libc::_exit(0) }
}

/// Starts the command that comes on the line.
fn start(line: &mut UnixStream, log: &OwnedFd) -> io::Result<pid_t> {
    let [arguments, environment, folder] = read_request(line)?;
    let programs = candidates(&arguments, &environment);
    let (arguments, environment) = (pointers(&arguments), pointers(&environment));
    // Learns of a failed exec; a good one closes the other end.
    let (mut failed, fails) = UnixStream::pair()?;
    // SAFETY: this process has one thread; the pointers point into texts that live on.
    unsafe {
        check(libc::setpgid(0, 0))?;
        check(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1))?;
        block_child_signal()?;
        let supervisor = libc::getpid();
        let command = check(libc::fork())?;
        if command == 0 {
            let error = become_command(supervisor, log, folder.first(), &programs, &arguments, &environment);
            let number = error.raw_os_error().unwrap_or(libc::EIO);
            libc::write(fails.as_raw_fd(), (&raw const number).cast(), size_of_val(&number));
            libc::_exit(127)
        }
        drop(fails);
        let mut number = [0; 4];
        match failed.read(&mut number)? {
            0 => Ok(command),
            _ => {
                libc::waitpid(command, std::ptr::null_mut(), 0);
                Err(io::Error::from_raw_os_error(i32::from_le_bytes(number)))
            }
        }
    }
}

/// Turns this process into the command; comes back only with an error.
///
/// # Safety
/// To be called in a process that does nothing else any more; the pointers end with null.
unsafe fn become_command(
    supervisor: pid_t,
    log: &OwnedFd,
    folder: Option<&CString>,
    programs: &[CString],
    arguments: &[*const libc::c_char],
    environment: &[*const libc::c_char],
) -> io::Error {
    let steps = || -> io::Result<()> {
        // SAFETY: system calls on numbers and on texts that live on.
        unsafe {
            check(libc::setpgid(0, 0))?;
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            if libc::getppid() != supervisor {
                libc::_exit(1);
            }
            let nothing = check(libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY))?;
            check(libc::dup2(nothing, 0))?;
            check(libc::dup2(log.as_raw_fd(), 1))?;
            check(libc::dup2(log.as_raw_fd(), 2))?;
            if libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) != 0 {
                // Linux before 5.11: what we open is closed on exec by itself.
                libc::close(nothing);
            }
            if let Some(folder) = folder {
                check(libc::chdir(folder.as_ptr()))?;
            }
            let mut none = MaybeUninit::<libc::sigset_t>::uninit();
            libc::sigemptyset(none.as_mut_ptr());
            check(libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut()))?;
        }
        Ok(())
    };
    if let Err(error) = steps() {
        return error;
    }
    let mut error = io::Error::from_raw_os_error(libc::ENOENT);
    for program in programs {
        // SAFETY: texts and lists that end with null.
        unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
        let last = io::Error::last_os_error();
        // As shells do: look on where there is nothing, and remember what may not be run.
        match last.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::EACCES) => error = last,
            _ => return last,
        }
    }
    error
}

/// The paths at which the program may be: itself, or in the folders of the command's own `PATH`.
fn candidates(arguments: &[CString], environment: &[CString]) -> Vec<CString> {
    let Some(program) = arguments.first() else { return Vec::new() };
    if program.as_bytes().contains(&b'/') {
        return vec![program.clone()];
    }
    let path = environment.iter().find_map(|variable| variable.as_bytes().strip_prefix(b"PATH="));
    let folders = path.unwrap_or(b"/usr/bin:/bin").split(|&byte| byte == b':');
    let join = |folder: &[u8]| {
        let folder = if folder.is_empty() { b"." } else { folder };
        CString::new([folder, b"/", program.as_bytes()].concat()).ok()
    };
    folders.filter_map(join).collect()
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Reads a request: see `request` in the parent module.
fn read_request(line: &mut UnixStream) -> io::Result<[Vec<CString>; 3]> {
    let mut length = [0; 8];
    line.read_exact(&mut length)?;
    let mut body = Vec::new();
    line.take(u64::from_le_bytes(length)).read_to_end(&mut body)?;
    let mut rest = body.as_slice();
    let mut lists = [Vec::new(), Vec::new(), Vec::new()];
    for list in &mut lists {
        for _ in 0..number(&mut rest)? {
            let length = number(&mut rest)? as usize;
            let text = rest.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
            rest = &rest[length..];
            list.push(CString::new(text).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?);
        }
    }
    Ok(lists)
}

fn number(rest: &mut &[u8]) -> io::Result<u64> {
    let (bytes, after) = rest.split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
    *rest = after;
    Ok(u64::from_le_bytes(*bytes))
}

/// Waits for the command's end or a reason to end it, and kills what is left; the command's status.
fn watch_over(command: pid_t, line: &UnixStream) -> c_int {
    // SAFETY: system calls on numbers and on values of this stack.
    unsafe {
        let deaths = deaths().unwrap_or(-1);
        let (mut status, mut ending) = (0, None);
        while !reap(command, &mut status) {
            let mut polls = [
                libc::pollfd { fd: deaths, events: libc::POLLIN, revents: 0 },
                // After it was heard once there is nothing more to hear but that it closes.
                libc::pollfd { fd: line.as_raw_fd(), events: libc::POLLIN, revents: 0 },
            ];
            let left =
                ending.map(|until: Instant| until.saturating_duration_since(Instant::now()).as_millis() as c_int);
            libc::poll(polls.as_mut_ptr(), 2, left.unwrap_or(-1));
            // By the clock: others that die meanwhile must not put it off.
            if left == Some(0) {
                kill_all(command);
                continue;
            }
            if polls[0].revents != 0 {
                hear_death(deaths);
            }
            if polls[1].revents != 0 {
                let mut byte = 0_u8;
                if libc::read(line.as_raw_fd(), (&raw mut byte).cast(), 1) == 1 {
                    ending = ending.or(Some(Instant::now() + GRACE));
                    libc::kill(-command, libc::SIGTERM);
                } else {
                    kill_all(command);
                    // Nobody is left to hear: what follows is only to see the last of them off.
                    libc::waitpid(command, &raw mut status, 0);
                    break;
                }
            }
        }
        kill_all(command);
        status
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

/// Kills the command's group, and then every process that the supervisor has adopted, until none is left. The command itself
/// is left to be reaped by the loop that wants its status.
///
/// # Safety
/// To be called in the supervisor alone.
unsafe fn kill_all(command: pid_t) {
    // SAFETY: system calls on numbers.
    unsafe {
        libc::kill(-command, libc::SIGKILL);
        kill_children(&[command]);
    }
}

/// Kills all children of this process but some, and what comes to it when they die, until none is left.
///
/// # Safety
/// To be called in a process with one thread that needs no status of those children.
pub(super) unsafe fn kill_children(spared: &[pid_t]) {
    // SAFETY: system calls on numbers and on buffers of this stack.
    unsafe {
        // What left a group comes to us when its parent dies, one generation a round.
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
                if pid > 0 && !spared.contains(&pid) {
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

/// What all processes took that were waited for.
fn usage() -> Usage {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: it lives on this stack, and all zeros are a valid value.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    // Linux counts memory in kilobytes.
    let peak_memory = u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024;
    Usage { cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime), peak_memory }
}

/// A file from which the deaths of children can be read, once [`block_child_signal`] was called.
pub(super) fn deaths() -> io::Result<RawFd> {
    // SAFETY: the set lives on this stack.
    unsafe {
        let mut only = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(only.as_mut_ptr());
        libc::sigaddset(only.as_mut_ptr(), libc::SIGCHLD);
        check(libc::signalfd(-1, only.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))
    }
}

/// Takes a death off the file; who has died, `waitpid` tells.
pub(super) fn hear_death(deaths: RawFd) {
    let mut information = MaybeUninit::<libc::signalfd_siginfo>::uninit();
    // SAFETY: the buffer lives on this stack and has the size that is said.
    unsafe { libc::read(deaths, information.as_mut_ptr().cast(), size_of::<libc::signalfd_siginfo>()) };
}

/// Blocks SIGCHLD, which is read from a file instead.
pub(super) fn block_child_signal() -> io::Result<()> {
    // SAFETY: the set lives on this stack.
    unsafe {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut())).map(drop)
    }
}
