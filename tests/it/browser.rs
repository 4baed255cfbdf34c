//! A real Chromium without a window, spoken to in its own protocol over two pipes: messages of JSON, each ended by a NUL.
//!
//! It goes away with the test, however that ends: dropped, it is killed with all its processes; and where the test's process is
//! killed, the pipes close and Chromium ends by itself.

mod page;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};

pub use page::{Page, Screen};

/// How long any answer may take. The machines that test are slow and busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The names under which systems install it; Debian's is the first.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// What makes it start as root in a container, and keep quiet: no sandbox (the pages are our own), no GPU, no `/dev/shm`, and none
/// of what a browser fetches for itself.
const FLAGS: [&str; 14] = [
    "--headless",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-extensions",
    "--disable-sync",
    "--disable-component-update",
    "--disable-background-networking",
    "--disable-breakpad",
    "--mute-audio",
    "--force-color-profile=srgb",
];

/// A running Chromium with a profile of its own.
pub struct Browser {
    child: Child,
    wire: Mutex<Wire>,
    /// Removed when all else is gone.
    _profile: tempfile::TempDir,
}

struct Wire {
    input: ChildStdin,
    messages: Receiver<Value>,
    last: u64,
    /// What was told meanwhile, by session.
    events: HashMap<String, Vec<Value>>,
}

impl Browser {
    /// Starts Chromium. Where there is none the test that asks is skipped, and says so; but never in CI (the variable `CI`).
    pub fn start() -> Option<Self> {
        let Some(name) = NAMES.iter().find(|name| installed(name)) else {
            assert!(std::env::var_os("CI").is_none(), "CI must have Chromium, or the tests of pages do not run");
            eprintln!("skipped: Chromium is not installed (Debian's package `chromium`), so no page is tested");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        // Chromium reads what it is told from descriptor 3 and answers on 4. It may not speak on descriptors that are ours.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null", name]).args(FLAGS);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        command
            .env("HOME", profile.path())
            .env("XDG_CONFIG_HOME", profile.path())
            .env("XDG_CACHE_HOME", profile.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0) {
                let Ok(message) = message else { break };
                let message = serde_json::from_slice(&message).expect("Chromium answers in JSON");
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let wire = Wire { input, messages, last: 0, events: HashMap::new() };
        Some(Self { child, wire: Mutex::new(wire), _profile: profile })
    }

    /// A command and its answer.
    ///
    /// # Panics
    /// When Chromium refuses it, or is gone.
    fn call(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        self.wire().call(session, method, &params)
    }

    /// What was told of a session since this was last asked for.
    fn events(&self, session: &str) -> Vec<Value> {
        let mut wire = self.wire();
        while let Ok(message) = wire.messages.try_recv() {
            wire.note(message);
        }
        wire.events.remove(session).unwrap_or_default()
    }

    /// Another test's failure does not matter here.
    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn installed(name: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$0\"", name]).stdout(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

impl Wire {
    fn call(&mut self, session: Option<&str>, method: &str, params: &Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message).unwrap();
        bytes.push(0);
        self.input.write_all(&bytes).unwrap_or_else(|error| panic!("Chromium is gone before `{method}`: {error}"));
        loop {
            let answer = self.messages.recv_timeout(PATIENCE);
            let mut answer = answer.unwrap_or_else(|_| panic!("Chromium does not answer `{method}`"));
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "`{method}` {params}: {}", answer["error"]);
                return answer["result"].take();
            }
            self.note(answer);
        }
    }

    fn note(&mut self, message: Value) {
        if let Some(session) = message["sessionId"].as_str() {
            self.events.entry(session.to_owned()).or_default().push(message);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The group is that of the child alone: it was made for it.
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

#[test]
fn what_a_page_does_wrong_is_noticed() {
    let Some(browser) = Browser::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    let body = "<!doctype html><meta charset=utf-8><title>t</title><link rel=stylesheet href=missing.css><p id=p>ä</p><input id=i>
        <script>console.error('said', 7); setTimeout(() => { throw new Error('thrown') });
        document.addEventListener('keydown', (event) => { window.key = event.key });
        document.getElementById('p').onclick = () => { window.clicked = true };</script>";
    std::fs::write(&path, body).unwrap();
    let page = Page::open(&browser, &path, "", Screen::DESKTOP);
    assert_eq!(page.eval("document.getElementById('p').textContent"), "ä");
    assert_eq!(page.eval("new Promise((done) => setTimeout(() => done({a: [1]}), 5))"), json!({"a": [1]}));
    page.click("#p");
    page.until("window.clicked");
    page.click("#i");
    page.insert("hällo");
    assert_eq!(page.eval("document.getElementById('i').value"), "hällo");
    page.key("PageDown");
    page.until("window.key === 'PageDown'");
    let problems = page.problems().join("\n");
    for problem in ["said 7", "thrown", "missing.css"] {
        assert!(problems.contains(problem), "{problem} in {problems}");
    }
    assert!(page.problems().is_empty());
    page.shift_key("Tab");
    page.until("document.activeElement.id !== 'i'");
    // Anew, for what follows a key at once is no shift.
    page.reload();
    assert!(page.first_paint() > 0.0 && page.shift() == 0.0);
    page.eval("document.body.prepend(Object.assign(document.createElement('div'), {style: 'height:300px'}))");
    page.until("window.shifts.length");
    assert!(page.shift() > 0.0 && page.pdf().starts_with(b"%PDF"));
    page.media(true, false);
    assert_eq!(page.eval("matchMedia('(prefers-color-scheme: dark)').matches"), true);
    page.media(false, true);
    assert_eq!(page.eval("matchMedia('print').matches && innerWidth"), 1280);
    page.screen(Screen::PHONE);
    page.until("innerWidth !== 1280");
    let picture = folder.path().join("page.png");
    page.screenshot(&picture);
    assert!(std::fs::read(picture).unwrap().starts_with(b"\x89PNG"));
}
