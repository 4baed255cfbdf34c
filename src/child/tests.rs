//! Processes for real.

use std::thread;
use std::time::Instant;

use super::*;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).envs(std::env::vars_os());
    command
}

fn run_here(command: &Command, stopped: impl Fn() -> bool) -> io::Result<Ended> {
    run(command, &tempfile::tempfile().unwrap(), None, stopped)
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
    let ended = |script: &str| describe(run_here(&shell(script), || false).unwrap().status.unwrap());
    assert_eq!(ended("true"), "exit code 0");
    assert_eq!(ended("exit 37"), "exit code 37");
    assert_eq!(ended("kill -9 $$"), "killed by SIGKILL");
    assert_eq!(ended("kill -SEGV $$"), "killed by SIGSEGV");
}

#[test]
fn what_a_command_took_is_counted_with_its_children() {
    let script = "python3 -c 'x = bytearray(200_000_000); sum(range(3_000_000))' & wait";
    let usage = run_here(&shell(script), || false).unwrap().usage;
    assert!(usage.peak_memory > 190_000_000 && usage.peak_memory < 400_000_000, "{usage:?}");
    assert!(usage.cpu_seconds > 0.01 && usage.cpu_seconds < 30.0, "{usage:?}");
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    let error = run_here(&Command::new("no-such-program-at-all"), || false).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

/// A child, a grandchild, and one that has left the process group for a session of its own.
const FAMILY: &str = "sleep 300 & echo $! >> pids; (sleep 300 & echo $! >> pids); \
                      setsid sh -c 'echo $$ >> pids; sleep 300' & sleep 0.3;";

#[test]
fn nothing_outlives_a_command() {
    let folder = tempfile::tempdir().unwrap();
    let status = run_here(shell(FAMILY).current_dir(&folder), || false).unwrap().status.unwrap();
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
    let ended = run_here(command.current_dir(&folder), || pids(&file).len() == 4).unwrap();
    assert!(ended.status.is_none());
    assert!(pids(&file).into_iter().all(gone));
}

#[test]
fn grace_ends_by_the_clock_whoever_dies_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pids");
    let mut command = shell("trap '' TERM; echo $$ >> pids; while :; do (sleep 0.2 &); sleep 0.2; done");
    let begin = Instant::now();
    let ended = run_here(command.current_dir(&folder), || pids(&file).len() == 1).unwrap();
    assert!(ended.status.is_none() && begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert!(pids(&file).into_iter().all(gone));
}

#[test]
fn a_terminal_is_out_of_reach() {
    let ended = run_here(&shell("read answer < /dev/tty"), || false).unwrap();
    assert!(!ended.status.unwrap().success());
}

#[test]
fn what_is_held_stays_open_until_all_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (path, file) = (folder.path().join("lock"), folder.path().join("pids"));
    let lock = File::create(&path).unwrap();
    lock.lock().unwrap();
    let mut command = shell("echo $$ >> pids; sleep 300");
    command.current_dir(&folder);
    let seen = file.clone();
    let thread = thread::spawn(move || {
        let log = tempfile::tempfile().unwrap();
        // As if we were killed while the command runs: our own lock and line are gone at once.
        run(&command, &log, Some(&lock), || if pids(&seen).len() == 1 { panic!("as told") } else { false })
    });
    assert!(thread.join().is_err());
    File::open(&path).unwrap().lock().unwrap();
    assert!(gone(pids(&file)[0]));
}

#[test]
fn nothing_outlives_the_thread_that_waits() {
    // Its line closes with it, as all lines do when we are killed.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pids");
    let mut command = shell(&format!("{FAMILY} echo $$ >> pids; sleep 300"));
    command.current_dir(&folder);
    let seen = file.clone();
    let thread =
        thread::spawn(move || run_here(&command, || if pids(&seen).len() == 4 { panic!("as told") } else { false }));
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
