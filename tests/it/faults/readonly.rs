//! A store that is read-only: what is there is served, what is missing fails and says why.

use super::namespace::{inside, mount, remount};
use super::{artifacts, clean, files, store, twin};

#[test]
fn a_read_only_store_serves_what_it_has() {
    if !inside("faults::readonly::a_read_only_store_serves_what_it_has") {
        return;
    }
    let project = twin();
    project.ok(&["run", "-q", "twin.yaml", "--set", "params.seed=21"]);
    project.ok(&["run", "-q", "twin.yaml"]);
    project.write("more.yaml", "name: more\nextends: twin.yaml\nparams: {seed: 22}\n");
    let damaged = project.result("twin.yaml", "kto_scores.scores").join("scores.txt");
    let text = std::fs::read_to_string(&damaged).unwrap();
    let disk = store(&project);
    let _mounted = mount(&["--bind", disk.to_str().unwrap()], &disk);
    remount(&["-o", "remount,bind,ro"], &disk);
    assert!(std::fs::write(disk.join("x"), "").is_err(), "the store must be read-only");
    let before: Vec<_> = files(&disk);

    let ran = project.thresh(&["run", "twin.yaml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("0 computed, 30 fresh"), "{}", ran.stderr);
    assert_eq!(project.thresh(&["show", "twin.yaml", "rows_scores.summary"]).code, Some(0));
    assert_eq!(artifacts(&project), *clean(20));
    assert!(project.ok(&["plan", "twin.yaml"]).lines().all(|line| line.contains("fresh")));
    assert!(project.ok(&["why", "more.yaml", "comparison"]).contains("`corpus`"));
    let compared = project.ok(&["compare", "latest~1", "latest", "--format", "csv"]);
    assert!(compared.contains("parameter,corpus,with.command,latest"), "{compared}");
    project.ok(&["export", "twin.yaml", "--to", "out"]);
    assert!(project.ok(&["gc", "--dry-run"]).contains("would be freed"));

    let missing = project.thresh(&["run", "more.yaml"]);
    assert_eq!(missing.code, Some(1), "{}", missing.stderr);
    assert!(
        missing.stderr.contains("corpus: failed:") && missing.stderr.contains("Read-only file system"),
        "{}",
        missing.stderr
    );
    assert!(missing.stderr.contains(".thresh/work/"), "{}", missing.stderr);
    let collected = project.thresh(&["gc", "--keep", "0"]);
    assert_eq!(collected.code, Some(1), "{}{}", collected.stdout, collected.stderr);
    assert!(collected.stderr.contains("Read-only file system"), "{}", collected.stderr);
    assert_eq!(files(&disk), before);

    // Damage that cannot be thrown away is still the damage that is told.
    remount(&["-o", "remount,bind,rw"], &disk);
    std::fs::write(&damaged, text.replace(' ', "_")).unwrap();
    remount(&["-o", "remount,bind,ro"], &disk);
    let told = project.thresh(&["show", "twin.yaml", "kto_scores.scores"]);
    assert_eq!(told.code, Some(1), "{}", told.stderr);
    assert!(told.stderr.contains("scores.txt` is not what was written"), "{}", told.stderr);
    assert!(told.stderr.contains("Read-only file system"), "{}", told.stderr);
}
