//! The process that forks supervisors: small, with one thread, and gone when we are.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::libc::{self, pid_t};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use super::{check, supervisor};

/// The warden.
static WARDEN: OnceLock<Warden> = OnceLock::new();

struct Warden {
    pid: pid_t,
    /// Threads take turns.
    line: Mutex<UnixStream>,
}

/// Starts the warden. Best called first of all, while this process is small and has one thread; the first command starts it
/// where nobody has.
///
/// # Errors
/// When the system grants no process.
pub fn start() -> io::Result<()> {
    warden().map(drop)
}

/// Ends the warden, so that what all commands took counts as taken by children of this process. Called when no command runs
/// any more and none will.
pub fn finish() {
    if let Some(warden) = WARDEN.get() {
        let line = warden.line.lock().unwrap_or_else(PoisonError::into_inner);
        // It ends when its line does; an error means that it is gone already.
        let _ = line.shutdown(std::net::Shutdown::Both);
        // SAFETY: a system call on numbers.
        unsafe { libc::waitpid(warden.pid, std::ptr::null_mut(), 0) };
    }
}

fn warden() -> io::Result<&'static Warden> {
    static STARTING: Mutex<()> = Mutex::new(());
    let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(warden) = WARDEN.get() {
        return Ok(warden);
    }
    let (ours, theirs) = UnixStream::pair()?;
    // SAFETY: the new process calls `serve`, which makes system calls and allocates (which the C library allows after a
    // fork of several threads, too), takes no lock of ours, and never returns.
    match check(unsafe { libc::fork() })? {
        0 => {
            drop(ours);
            serve(theirs.into_raw_fd())
        }
        pid => Ok(WARDEN.get_or_init(|| Warden { pid, line: Mutex::new(ours) })),
    }
}

/// A line to a new supervisor, which waits for a command on it.
pub(super) fn supervised(log: &File, held: Option<&File>) -> io::Result<UnixStream> {
    // The warden first: it must not inherit the line.
    let mut warden = warden()?.line.lock().unwrap_or_else(PoisonError::into_inner);
    let (ours, theirs) = UnixStream::pair()?;
    let mut files = vec![theirs.as_raw_fd(), log.as_raw_fd()];
    files.extend(held.map(AsRawFd::as_raw_fd));
    let sent = sendmsg::<()>(
        warden.as_raw_fd(),
        &[IoSlice::new(b"c")],
        &[ControlMessage::ScmRights(&files)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    );
    sent.map_err(|error| io::Error::other(format!("the process that starts commands is gone: {error}")))?;
    warden.flush()?;
    Ok(ours)
}

/// The warden's life: a supervisor for every request, until the line closes.
fn serve(line: RawFd) -> ! {
    const LINE: RawFd = 3;
    // SAFETY: system calls on numbers.
    unsafe {
        // A session of its own: what a terminal sends to ours is not for it, and no command can wait for an answer there.
        libc::setsid();
        // Nothing else that was open may stay so because of us: locks, other lines.
        libc::dup2(line, LINE);
        libc::syscall(libc::SYS_close_range, LINE + 1, u32::MAX, 0_u32);
        // Who waits for the end of our output must not wait for us.
        let nothing = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        for file in 0..3 {
            libc::dup2(nothing, file);
        }
        libc::close(nothing);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE, libc::SIGXFSZ] {
            libc::signal(signal, libc::SIG_DFL);
        }
        // What a supervisor leaves that is killed comes to us.
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1);
    }
    let deaths = supervisor::block_child_signal().and_then(|()| supervisor::deaths()).unwrap_or(-1);
    let mut supervisors: Vec<pid_t> = Vec::new();
    loop {
        let mut polls = [
            libc::pollfd { fd: LINE, events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: deaths, events: libc::POLLIN, revents: 0 },
        ];
        // SAFETY: two entries that live on this stack.
        unsafe { libc::poll(polls.as_mut_ptr(), 2, -1) };
        if polls[1].revents != 0 {
            supervisor::hear_death(deaths);
            reap(&mut supervisors, libc::WNOHANG);
        }
        if polls[0].revents == 0 {
            continue;
        }
        let Ok(Some(Request { command, log, held })) = receive(LINE) else { break };
        // SAFETY: this process has one thread.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: they belong to the warden alone.
                unsafe {
                    libc::close(LINE);
                    libc::close(deaths);
                }
                supervisor::run(command, log, held)
            }
            pid if pid > 0 => supervisors.push(pid),
            _ => supervisor::refuse(command, &io::Error::last_os_error()),
        }
    }
    // What the last of them took is counted, too.
    while reap(&mut supervisors, 0) {}
    // SAFETY: ends this process without what the other one has registered for its end.
    unsafe { libc::_exit(0) }
}

/// Takes note of dead supervisors, waiting for the next one unless `how` says not to; whether there was any. What a killed one
/// has left is killed, too.
fn reap(supervisors: &mut Vec<pid_t>, how: libc::c_int) -> bool {
    let (mut any, mut left) = (false, false);
    loop {
        let mut status = 0;
        // SAFETY: the status lives on this stack.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, if any { libc::WNOHANG } else { how }) };
        if pid <= 0 {
            break;
        }
        any = true;
        left |= libc::WIFSIGNALED(status) || !supervisors.contains(&pid);
        supervisors.retain(|&one| one != pid);
    }
    if left {
        // SAFETY: this process waits for nobody else.
        unsafe { supervisor::kill_children(supervisors) };
    }
    any
}

/// What comes with a request.
struct Request {
    /// The line to who waits for the command.
    command: OwnedFd,
    /// What the command prints goes there.
    log: OwnedFd,
    /// What is to stay open until all that the command started is gone.
    held: Option<OwnedFd>,
}

/// The next request. `None` when the line to us is closed.
fn receive(line: RawFd) -> io::Result<Option<Request>> {
    let (mut byte, mut space) = ([0], nix::cmsg_space!([RawFd; 3]));
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message = loop {
        match recvmsg::<()>(line, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other?,
        }
    };
    if message.bytes == 0 {
        return Ok(None);
    }
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(files) = control {
            // SAFETY: the kernel has just given them to us.
            let mut files = files.into_iter().map(|file| unsafe { OwnedFd::from_raw_fd(file) });
            if let (Some(command), Some(log)) = (files.next(), files.next()) {
                return Ok(Some(Request { command, log, held: files.next() }));
            }
        }
    }
    Err(io::Error::other("a request without files"))
}
