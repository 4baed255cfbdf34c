//! Tests in mount namespaces of their own: what they mount nobody else sees, and it goes away with them.

use std::path::{Path, PathBuf};
use std::process::Command;

const INSIDE: &str = "THRESH_TEST_INSIDE";

/// Whether the test runs where it may mount. Outside, it is run again inside of a new namespace, under its full name, and the
/// caller is done. Where the system allows no namespace the test is skipped, but never in CI (the variable `CI`).
pub fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let allowed = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    let why = match &allowed {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(format!("cannot start `unshare`: {error}")),
    };
    if let Some(why) = why {
        assert!(
            std::env::var_os("CI").is_none(),
            "CI must allow `unshare -rm`, or tests of full disks do not run: {why}"
        );
        eprintln!("skipped: nothing may be mounted here: {why}");
        return false;
    }
    let mut command = Command::new("unshare");
    command.arg("-rm").arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    let output = command.env(INSIDE, "1").output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    print!("{text}");
    false
}

/// What is mounted over a folder, until this is dropped: who removes the folder comes after.
pub struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(std::thread::panicking() || ended.is_ok_and(|status| status.success()), "{}", self.0.display());
    }
}

/// Mounts something over a folder.
pub fn mount(arguments: &[&str], folder: &Path) -> Mounted {
    remount(arguments, folder);
    Mounted(folder.to_owned())
}

/// Changes how something is mounted.
pub fn remount(arguments: &[&str], folder: &Path) {
    let output = Command::new("mount").args(arguments).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
