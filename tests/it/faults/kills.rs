//! `kill -9` at random moments: the next run starts at once, and ends with what an uninterrupted one ends with.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::{artifacts, clean, nothing_is_left, store, twin};
use crate::project::Project;

/// Kills in all, over the projects that run side by side.
const KILLS: usize = 200;
const PROJECTS: usize = 4;

/// How long a run may take until it says its first word, however busy the machine: without waiting for anybody it takes
/// milliseconds.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A run that is killed after a time, where it is not over by then. When it said its first word, and whether it was killed.
fn killed(project: &Project, seed: &str, after: Duration) -> (Duration, bool) {
    let mut command = project.command(&["run", "--json", "twin.yaml", "--set", seed]);
    let began = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        let first = began.elapsed();
        // Whoever prints must not wait for us.
        std::io::copy(&mut lines, &mut std::io::sink()).unwrap();
        (first, line)
    });
    sleep(after);
    let over = child.try_wait().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let (first, line) = reader.join().unwrap();
    // One that was killed before its first word told us nothing of the time.
    let first = if line.contains("run_started") { first } else { Duration::ZERO };
    assert!(over.is_none_or(|status| status.success()), "{over:?}");
    (first, over.is_none())
}

/// One project, killed again and again; the longest time until a run's first word.
fn cycles(project: &Project, mut random: ChaCha8Rng, kills: usize) -> Duration {
    let (mut done, mut longest) = (0, Duration::ZERO);
    while done < kills {
        let number = random.random_range(20..23);
        let seed = format!("params.seed={number}");
        for _ in 0..random.random_range(1..8) {
            let after = Duration::from_millis(random.random_range(0..400));
            let (first, was_killed) = killed(project, &seed, after);
            done += usize::from(was_killed);
            longest = longest.max(first);
            if !was_killed {
                break;
            }
        }
        let ran = project.thresh(&["run", "twin.yaml", "--set", &seed]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(!ran.stderr.contains("damaged"), "{}", ran.stderr);
        assert_eq!(artifacts(project), *clean(number));
        nothing_is_left(project);
        if random.random_bool(0.6) {
            std::fs::remove_dir_all(store(project)).unwrap();
        }
    }
    longest
}

#[test]
fn after_200_kills_every_next_run_starts_at_once_and_ends_right() {
    let longest = Mutex::new(Duration::ZERO);
    std::thread::scope(|scope| {
        for number in 0..PROJECTS {
            let longest = &longest;
            scope.spawn(move || {
                let project = twin();
                let found = cycles(&project, ChaCha8Rng::seed_from_u64(number as u64), KILLS / PROJECTS);
                let mut longest = longest.lock().unwrap();
                *longest = found.max(*longest);
            });
        }
    });
    let longest = longest.into_inner().unwrap();
    println!("longest time until a run's first word: {longest:?}");
    assert!(longest < AT_ONCE, "{longest:?}");
}
