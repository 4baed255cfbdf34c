//! A file from a server, gone on with where the last attempt broke off.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, SystemTime};

use futures_util::future::{Either, select};
use reqwest::header::{CONTENT_RANGE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{Client, Response, StatusCode, Url, redirect};

use super::Watch;
use super::source::SourceError;
use crate::fs;
use crate::net::{self, Backoff};

/// Attempts in a row that may bring no byte.
const ATTEMPTS: u32 = 5;

/// The longest silence of a server.
const SILENCE: Duration = Duration::from_secs(60);

/// The first wait before another attempt, and the longest.
const WAITS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(20));

/// How often a watch is asked whether to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Downloads `url` into a folder and returns the file's path. A file that is there already is taken as it is; a part of one is
/// gone on with, where the server can and still has the same file.
pub(super) fn download(url: &str, folder: &Path, watch: &dyn Watch) -> Result<PathBuf, SourceError> {
    let url: Url = url.parse().map_err(|error| SourceError::Download(format!("`{url}`: {error}")))?;
    let name = url.path_segments().and_then(|mut names| names.next_back()).filter(|name| !name.is_empty());
    let folder = folder.join(&blake3::hash(url.as_str().as_bytes()).to_hex()[..16]);
    let whole = folder.join(name.filter(|name| super::manifest::is_plain(name)).unwrap_or("download"));
    if whole.exists() {
        return Ok(whole);
    }
    fs::create_dir_all(&folder)?;
    let client = net::client(&url).redirect(redirect::Policy::limited(10)).read_timeout(SILENCE);
    let client = client.build().map_err(|error| SourceError::Download(net::reason(error)))?;
    let part = Part { data: folder.join("part"), version: folder.join("part.version") };
    let job = Job { client, url, part, watch };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| SourceError::Download(error.to_string()))?;
    runtime.block_on(unless_stopped(watch, job.run())).unwrap_or(Err(SourceError::Stopped))?;
    fs::rename(&job.part.data, &whole)?;
    fs::remove_file(&job.part.version)?;
    Ok(whole)
}

/// An unfinished file, and which version of the server's file it is a part of.
struct Part {
    data: PathBuf,
    version: PathBuf,
}

struct Job<'a> {
    client: Client,
    url: Url,
    part: Part,
    watch: &'a dyn Watch,
}

/// How an attempt ended that may be followed by another.
struct Broken {
    reason: String,
    wait: Option<Duration>,
}

enum Trouble {
    Passing(Broken),
    Lasting(SourceError),
}

impl From<fs::PathError> for Trouble {
    fn from(error: fs::PathError) -> Self {
        Self::Lasting(error.into())
    }
}

impl Job<'_> {
    async fn run(&self) -> Result<(), SourceError> {
        let mut backoff = Backoff::new(WAITS.0, WAITS.1, 0);
        let mut fruitless = 0;
        loop {
            let before = self.part.len();
            let broken = match self.attempt(before).await {
                Ok(()) => return Ok(()),
                Err(Trouble::Lasting(error)) => return Err(error),
                Err(Trouble::Passing(broken)) => broken,
            };
            fruitless = if self.part.len() > before { 0 } else { fruitless + 1 };
            if fruitless == ATTEMPTS {
                return Err(SourceError::Download(format!("{} ({ATTEMPTS} attempts)", broken.reason)));
            }
            tokio::time::sleep(backoff.next(broken.wait)).await;
        }
    }

    /// Asks for what is missing and appends it.
    async fn attempt(&self, have: u64) -> Result<(), Trouble> {
        let passing = |error| Trouble::Passing(Broken { reason: net::reason(error), wait: None });
        let mut request = self.client.get(self.url.clone());
        // Without a version there is no telling whether the rest would be the rest of the same file.
        let version = std::fs::read_to_string(&self.part.version).unwrap_or_default();
        let resuming = have > 0 && !version.is_empty();
        if resuming {
            request = request.header(RANGE, format!("bytes={have}-")).header(IF_RANGE, version);
        }
        let mut response = request.send().await.map_err(passing)?;
        let mut file = match response.status() {
            StatusCode::PARTIAL_CONTENT if resuming && starts_at(&response, have) => self.part.append()?,
            StatusCode::OK => self.part.create(&response)?,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                fs::remove_file(&self.part.data)?;
                let reason = format!("the server could not go on at byte {have}");
                return Err(Trouble::Passing(Broken { reason, wait: None }));
            }
            status => return Err(refused(status, &response)),
        };
        let mut done = self.part.len();
        let total = response.content_length().map(|rest| done + rest);
        let place = self.url.path();
        while let Some(chunk) = response.chunk().await.map_err(passing)? {
            let path = &self.part.data;
            let wrong = |source| fs::PathError { action: "write", path: path.clone(), source };
            file.write_all(&chunk).map_err(wrong)?;
            done += chunk.len() as u64;
            self.watch.bytes(place.rsplit('/').next().unwrap_or(place), done, total);
        }
        Ok(())
    }
}

impl Part {
    fn len(&self) -> u64 {
        self.data.metadata().map_or(0, |meta| meta.len())
    }

    fn append(&self) -> Result<File, fs::PathError> {
        let opened = OpenOptions::new().append(true).open(&self.data);
        opened.map_err(|source| fs::PathError { action: "open", path: self.data.clone(), source })
    }

    /// An empty file, with the version that the server names. A weak one would not do: it promises no equal bytes.
    fn create(&self, response: &Response) -> Result<File, fs::PathError> {
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let strong = header(ETAG).filter(|tag| tag.starts_with('"'));
        // The data first: a version must never stand beside data of another one.
        let file = fs::create(&self.data)?;
        fs::write_whole(&self.version, strong.or(header(LAST_MODIFIED)).unwrap_or_default().as_bytes())?;
        Ok(file)
    }
}

fn starts_at(response: &Response, byte: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {byte}-")))
}

fn refused(status: StatusCode, response: &Response) -> Trouble {
    let reason = format!("the server answered {status}");
    if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
        let wait = net::retry_after(response.headers(), SystemTime::now());
        return Trouble::Passing(Broken { reason, wait });
    }
    Trouble::Lasting(SourceError::Download(reason))
}

/// The result of a future, or `None` when the watch ends it before.
async fn unless_stopped<F: Future>(watch: &dyn Watch, future: F) -> Option<F::Output> {
    let stopped = async {
        while !watch.stopped() {
            tokio::time::sleep(LOOK).await;
        }
    };
    match select(pin!(stopped), pin!(future)).await {
        Either::Left(_) => None,
        Either::Right((result, _)) => Some(result),
    }
}
