//! Fetches from archives made here, and from a server of our own.

use std::cell::{Cell, RefCell};
use std::fs as std_fs;
use std::io::{Cursor, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use proptest::prelude::*;
use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::unpack::unpack;
use super::*;
use crate::server::{Answer, Server};

#[derive(Default)]
struct Watcher {
    seen: RefCell<Vec<u64>>,
    stop_after: Cell<Option<u64>>,
}

impl Watch for Watcher {
    fn bytes(&self, _: &str, done: u64, total: Option<u64>) {
        assert!(total.is_none_or(|total| done <= total), "{done} of {total:?}");
        self.seen.borrow_mut().push(done);
    }

    fn stopped(&self) -> bool {
        self.stop_after.get().is_some_and(|bytes| self.seen.borrow().last().is_some_and(|done| *done >= bytes))
    }
}

/// A project with an output and a scratch folder.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        for name in ["out", "scratch"] {
            std_fs::create_dir(bench.path(name)).unwrap();
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std_fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std_fs::write(self.path(name), bytes).unwrap();
    }

    fn fetch(&self, sources: &str, files: &[Listed]) -> Result<Source, FetchError> {
        let manifest = Manifest::parse(Path::new("m.toml"), &manifest_text(sources, files)).unwrap();
        fetch(&manifest, self.folder.path(), &self.path("scratch"), &self.path("out"), &Watcher::default())
    }

    fn error(&self, sources: &str, files: &[Listed]) -> String {
        let error = self.fetch(sources, files).unwrap_err().to_string();
        assert_eq!(std_fs::read_dir(self.path("out")).unwrap().count(), 0, "something was left behind");
        error
    }
}

fn manifest_text(sources: &str, files: &[Listed]) -> String {
    let mut text = format!("name = 'set'\nlicence = 'MIT'\norigin = 'here'\ndescription = 'a set'\n{sources}\n");
    for Listed { path, to, sha256, bytes } in files {
        text += &format!("[[file]]\npath = {path:?}\nto = {to:?}\nsha256 = '{sha256}'\nbytes = {bytes}\n");
    }
    text
}

fn listed(path: &str, to: &str, bytes: &[u8]) -> Listed {
    let sha256 = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Listed { path: path.to_owned(), to: to.to_owned(), sha256, bytes: bytes.len() as u64 }
}

fn zipped(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

const HELLO: &[u8] = "grüß dich".as_bytes();

#[test]
fn a_zip_of_this_machine() {
    let bench = Bench::new();
    bench.write("set.zip", zipped(&[("data/a.json", b"[1]"), ("b.txt", HELLO), ("unwanted", b"x")]));
    let files = [listed("data/a.json", "a.json", b"[1]"), listed("b.txt", "deep/er/b.txt", HELLO)];
    let source = bench.fetch("[[source]]\npath = 'set.zip'", &files).unwrap();
    assert_eq!(source.to_string(), "path `set.zip`");
    assert_eq!(std_fs::read(bench.path("out/a.json")).unwrap(), b"[1]");
    assert_eq!(std_fs::read(bench.path("out/deep/er/b.txt")).unwrap(), HELLO);
    assert_eq!(std_fs::read_dir(bench.path("out")).unwrap().count(), 2);
    assert!(bench.path("set.zip").exists());
}

#[test]
fn a_folder_and_a_single_file_of_this_machine() {
    let bench = Bench::new();
    bench.write("folder/data/a.json", b"[1]");
    let files = [listed("data/a.json", "a.json", b"[1]")];
    bench.fetch("[[source]]\npath = 'folder'", &files).unwrap();
    assert_eq!(std_fs::read(bench.path("out/a.json")).unwrap(), b"[1]");
    bench.fetch("[[source]]\npath = 'folder/data/a.json'", &[listed("a.json", "b", b"[1]")]).unwrap();
    assert_eq!(std_fs::read(bench.path("out/b")).unwrap(), b"[1]");
}

#[test]
fn every_source_that_failed_is_named() {
    let bench = Bench::new();
    bench.write("other.zip", zipped(&[("b", b"x")]));
    bench.write("page.html", b"<html>");
    bench.write("folder/b", b"x");
    let server = Server::answering(vec![Answer::new(404, "text/html", "no")]);
    let sources = format!(
        "source = [{{path = 'absent'}}, {{path = 'other.zip'}}, {{path = 'page.html'}}, {{path = 'folder'}}, {{url = '{}'}}]",
        server.url("/set.zip")
    );
    let error = bench.error(&sources, &[listed("a", "a", b"x")]);
    let expected = format!(
        "no source of data set `set` worked:
  path `absent`: there is no such file or folder
  path `other.zip`: `a` is missing
  path `page.html`: `page.html` is neither a folder nor a zip archive
  path `folder`: `a` is missing
  url `{}`: the server answered 404 Not Found",
        server.url("/set.zip")
    );
    assert_eq!(error, expected);
}

#[test]
fn the_next_source_is_taken_when_one_has_other_bytes() {
    let bench = Bench::new();
    bench.write("one.zip", zipped(&[("a", b"good"), ("b", b"evil")]));
    bench.write("two.zip", zipped(&[("a", b"good"), ("b", b"fine")]));
    let files = [listed("a", "a", b"good"), listed("b", "b", b"fine")];
    let error = bench.error("[[source]]\npath = 'one.zip'", &files);
    let (found, expected) = (listed("b", "b", b"evil").sha256, &files[1].sha256);
    assert!(error.ends_with(&format!("path `one.zip`: `b` has sha256 {found}, expected {expected}")), "{error}");
    let source = bench.fetch("source = [{path = 'one.zip'}, {path = 'two.zip'}]", &files).unwrap();
    assert_eq!(source, Source::Path("two.zip".into()));
}

#[test]
fn sizes_are_checked() {
    let bench = Bench::new();
    bench.write("set.zip", zipped(&[("a", b"12345")]));
    bench.write("folder/a", b"12345");
    let short = [listed("a", "a", b"1234")];
    assert!(bench.error("[[source]]\npath = 'set.zip'", &short).ends_with("`a` has 5 bytes, expected 4"));
    let error = bench.error("[[source]]\npath = 'folder'", &short);
    assert!(error.ends_with("`a` has more than 4 bytes, expected 4"), "{error}");
    let long = [listed("a", "a", b"123456")];
    assert!(bench.error("[[source]]\npath = 'folder'", &long).ends_with("`a` has 5 bytes, expected 6"));
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let bench = Bench::new();
    for hostile in ["../evil", "/etc/evil", "a/../../evil", "a\\evil", "./a", "a//b"] {
        bench.write("set.zip", zipped(&[("a", b"x"), (hostile, b"evil")]));
        let error = bench.error("[[source]]\npath = 'set.zip'", &[listed("a", "a", b"x")]);
        assert!(
            error.contains("a path that leads elsewhere") || error.contains("damaged archive"),
            "{hostile}: {error}"
        );
        for text in [
            manifest_text("source = []", &[listed(hostile, "a", b"x")]),
            manifest_text("source = []", &[listed("a", hostile, b"x")]),
        ] {
            let error = Manifest::parse(Path::new("m.toml"), &text).unwrap_err().to_string();
            assert!(error.contains("no plain relative path"), "{error}");
        }
    }
}

#[test]
fn links_are_refused() {
    let bench = Bench::new();
    bench.write("secret", b"x");
    std_fs::create_dir_all(bench.path("folder/real")).unwrap();
    bench.write("folder/real/a", b"x");
    symlink(bench.path("secret"), bench.path("folder/a")).unwrap();
    symlink("real", bench.path("folder/linked")).unwrap();
    for path in ["a", "linked/a"] {
        let error = bench.error("[[source]]\npath = 'folder'", &[listed(path, "a", b"x")]);
        assert!(error.ends_with(&format!("`{path}` is a link or behind one, expected a plain file")), "{error}");
    }
    let error = bench.error("[[source]]\npath = 'folder'", &[listed("real", "a", b"x")]);
    assert!(error.ends_with("`real` is a folder or a device, expected a plain file"), "{error}");
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink("a", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    bench.write("set.zip", writer.finish().unwrap().into_inner());
    let error = bench.error("[[source]]\npath = 'set.zip'", &[listed("a", "a", b"/etc/passwd")]);
    assert!(error.ends_with("`a` is a link or a folder, expected a plain file"), "{error}");
}

#[test]
fn bombs_are_refused() {
    let bench = Bench::new();
    let zeros = vec![0; 8 << 20];
    bench.write("set.zip", zipped(&[("a", &zeros), ("b", b"x")]));
    let file = listed("a", "a", &zeros);
    let error = bench.error("[[source]]\npath = 'set.zip'", std::slice::from_ref(&file));
    assert!(error.contains("`a` unpacks ") && error.ends_with("more than 1 to 200"), "{error}");
    let tight = |limits: Limits| {
        let files = std::slice::from_ref(&file);
        unpack(&bench.path("set.zip"), files, &bench.path("out"), &limits, &Watcher::default()).unwrap_err().to_string()
    };
    let limits = Limits::default();
    assert_eq!(tight(Limits { entries: 1, ..limits }), "the archive holds 2 entries, the limit is 1");
    assert_eq!(
        tight(Limits { total: 1 << 20, ..limits }),
        "the listed files have 8388608 bytes together, the limit is 1048576"
    );
    unpack(
        &bench.path("set.zip"),
        &[file],
        &bench.path("out"),
        &Limits { ratio: 2_000, ..limits },
        &Watcher::default(),
    )
    .unwrap();
}

#[test]
fn an_archive_that_lies_about_a_size_writes_no_more_than_it_said() {
    let bench = Bench::new();
    let zeros = vec![0; 8 << 20];
    let mut bytes = zipped(&[("a", &zeros)]);
    let real = (zeros.len() as u32).to_le_bytes();
    let places: Vec<usize> = (0..bytes.len() - 4).filter(|place| bytes[*place..*place + 4] == real).collect();
    assert!(!places.is_empty());
    for place in places {
        bytes[place..place + 4].copy_from_slice(&100_u32.to_le_bytes());
    }
    bench.write("set.zip", &bytes);
    let files = [listed("a", "a", &zeros[..100])];
    let out = bench.path("out");
    let unpacked = unpack(&bench.path("set.zip"), &files, &out, &Limits::default(), &Watcher::default());
    assert!(unpacked.is_err());
    assert!(std_fs::metadata(out.join("a")).unwrap().len() <= 100);
}

proptest! {
    #[test]
    fn a_damaged_archive_is_an_error_or_the_listed_bytes(place in 0..400_usize, byte in any::<u8>(), cut in 0..400_usize) {
        let bench = Bench::new();
        let mut bytes = zipped(&[("a", HELLO), ("folder/b", &[7; 300])]);
        let place = place % bytes.len();
        bytes[place] = byte;
        if cut < bytes.len() && cut % 3 == 0 {
            bytes.truncate(cut);
        }
        bench.write("set.zip", &bytes);
        let files = [listed("a", "a", HELLO), listed("folder/b", "b", &[7; 300])];
        if bench.fetch("[[source]]\npath = 'set.zip'", &files).is_ok() {
            prop_assert_eq!(std_fs::read(bench.path("out/a")).unwrap(), HELLO);
            prop_assert_eq!(std_fs::read(bench.path("out/b")).unwrap(), vec![7; 300]);
        } else {
            prop_assert_eq!(std_fs::read_dir(bench.path("out")).unwrap().count(), 0);
        }
    }
}

/// Serves `bytes` by range, and breaks off the first answers after `step` bytes.
fn ranges(bytes: Vec<u8>, step: usize, breaks: usize, tag: fn(usize) -> &'static str) -> Server {
    Server::start(move |request, place| {
        let start = request.header("range").map(|range| range[6..range.len() - 1].parse::<usize>().unwrap());
        let fresh = start.is_none() || request.header("if-range") != Some(tag(place));
        let start = if fresh { 0 } else { start.unwrap() };
        let rest = bytes[start..].to_vec();
        let answer = Answer::new(if fresh { 200 } else { 206 }, "application/zip", rest).header("etag", tag(place));
        let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
        let answer = if fresh { answer } else { answer.header("content-range", range) };
        if place < breaks { answer.cut_after(step) } else { answer }
    })
}

#[test]
fn a_download_goes_on_where_it_broke_off() {
    let bench = Bench::new();
    let archive = zipped(&[("a", HELLO)]);
    let server = ranges(archive.clone(), 50, 2, |_| "\"one\"");
    let sources = format!("[[source]]\nurl = '{}'", server.url("/files/set.zip?x=1"));
    bench.fetch(&sources, &[listed("a", "a", HELLO)]).unwrap();
    assert_eq!(std_fs::read(bench.path("out/a")).unwrap(), HELLO);
    let asked: Vec<_> = server.requests().iter().map(|request| request.header("range").map(str::to_owned)).collect();
    assert_eq!(asked, [None, Some("bytes=50-".to_owned()), Some("bytes=100-".to_owned())]);
}

#[test]
fn a_download_of_a_file_that_changed_starts_anew() {
    let bench = Bench::new();
    let server = ranges(zipped(&[("a", HELLO)]), 50, 1, |place| if place == 0 { "\"one\"" } else { "\"two\"" });
    let sources = format!("[[source]]\nurl = '{}'", server.url("/set.zip"));
    bench.fetch(&sources, &[listed("a", "a", HELLO)]).unwrap();
    assert_eq!(server.requests()[1].header("if-range"), Some("\"one\""));
    assert_eq!(std_fs::read(bench.path("out/a")).unwrap(), HELLO);
}

#[test]
fn a_download_goes_on_in_another_run() {
    let bench = Bench::new();
    let mut large = vec![0; 2_000_000];
    ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut large);
    let archive = zipped(&[("a", &large)]);
    let server = ranges(archive, 1_000_000, 1, |_| "\"one\"");
    let url = server.url("/set.zip");
    let files = [listed("a", "a", &large)];
    let manifest = manifest_text(&format!("[[source]]\nurl = '{url}'"), &files);
    let manifest = Manifest::parse(Path::new("m.toml"), &manifest).unwrap();
    let (scratch, out) = (bench.path("scratch"), bench.path("out"));
    let watch = Watcher::default();
    watch.stop_after.set(Some(900_000));
    let stopped = fetch(&manifest, bench.folder.path(), &scratch, &out, &watch).unwrap_err();
    assert_eq!(stopped.to_string(), "stopped before data set `set` was there");
    fetch(&manifest, bench.folder.path(), &scratch, &out, &Watcher::default()).unwrap();
    assert_eq!(std_fs::read(out.join("a")).unwrap(), large);
    let last = server.requests().last().unwrap().header("range").map(str::to_owned).unwrap();
    let start: usize = last[6..last.len() - 1].parse().unwrap();
    assert!(start >= 900_000, "{start}");
}

#[test]
fn a_bad_download_is_not_kept() {
    let bench = Bench::new();
    let good = zipped(&[("a", HELLO)]);
    let server =
        Server::answering(vec![Answer::new(200, "text/html", "<html>"), Answer::new(200, "application/zip", good)]);
    let sources = format!("[[source]]\nurl = '{}'", server.url("/set.zip"));
    let files = [listed("a", "a", HELLO)];
    assert!(bench.error(&sources, &files).ends_with("`set.zip` is neither a folder nor a zip archive"));
    bench.fetch(&sources, &files).unwrap();
}

/// Fetches with a Python of our own making.
fn with_python(script: &str) -> Result<Bench, String> {
    let bench = Bench::new();
    bench.write("set.zip", zipped(&[("a", HELLO)]));
    bench.write("python", format!("#!/bin/sh\nwheel={}\n{script}", bench.path("set.zip").display()));
    std_fs::set_permissions(bench.path("python"), std_fs::Permissions::from_mode(0o755)).unwrap();
    let python = bench.path(if script.is_empty() { "absent" } else { "python" });
    let place = source::Place { project: bench.folder.path(), scratch: &bench.path("scratch"), python: &python };
    let source = Source::Pypi { package: "josh-train".to_owned(), version: "0.1.4".to_owned() };
    let files = [listed("a", "a", HELLO)];
    let tried = source::try_source(&source, &files, &place, &bench.path("out"), &Watcher::default());
    tried.map_err(|error| error.to_string())?;
    Ok(bench)
}

#[test]
fn a_wheel_by_pip() {
    let script = r#"
[ "$1 $2 $3" = "-m pip download" ] || exit 2
for word; do [ "$before" = --dest ] && dest=$word; before=$word; done
[ "$before" = josh-train==0.1.4 ] || exit 3
cp "$wheel" "$dest/josh_train-0.1.4-py3-none-any.whl""#;
    let bench = with_python(script).unwrap();
    assert_eq!(std_fs::read(bench.path("out/a")).unwrap(), HELLO);
}

#[test]
fn what_is_wrong_with_pip_is_said() {
    let error = |script| with_python(script).err().unwrap();
    assert!(error("").contains("No such file or directory (os error 2); install Python 3 with pip"));
    assert!(error("echo 'python: No module named pip' >&2; exit 1").starts_with("Python has no pip"));
    assert_eq!(
        error("echo Looking; echo ERROR: no matching distribution >&2; exit 1"),
        "pip failed: exit code 1\nLooking\nERROR: no matching distribution"
    );
    assert_eq!(error("exit 0"), "pip failed: it left no wheel, or several");
}

#[test]
fn a_wrong_manifest_says_everything_that_is_wrong() {
    let mut file = listed("a", "b", b"");
    file.sha256 = "ABC".to_owned();
    let files = [file, listed("c", "b", b""), listed("d", "b/e", b"")];
    let sources = "source = [{path = 'a', url = 'b'}, {url = 'ftp://a'}, {pypi = '-r', version = '1'}, {pypi = 'a'}]";
    let error = Manifest::parse(Path::new("m.toml"), &manifest_text(sources, &files)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "manifest `m.toml`:
  source 1: give either `path`, or `url`, or `pypi` with `version`
  source 2: `ftp://a` is no address that starts with http:// or https://
  source 3: `-r` is no name or version of a package
  source 4: give either `path`, or `url`, or `pypi` with `version`
  file `a`: `sha256` is not 64 lower-case hexadecimal digits
  file `c`: `to` is `b`, as it is for another file
  `b` cannot be a file and hold `b/e`"
    );
    let error = Manifest::parse(Path::new("m.toml"), "name = 'x'\nlicense = 'y'").unwrap_err().to_string();
    assert!(error.starts_with("manifest `m.toml`: TOML parse error at line 2") && error.contains("license"), "{error}");
}

#[test]
fn the_shipped_manifest_is_sound() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/toolwoz.toml");
    let manifest = Manifest::read(&path).unwrap();
    assert_eq!((manifest.sources.len(), manifest.files.len()), (2, 10));
}
