//! Where commands outside of a run let models compute, and where they keep kernels that are compiled for it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Failure;
use crate::config::Project;
use crate::engine::stage::Profile as _;
use crate::model::device::{Compute, Place, device};

/// The device of this name; kernels compiled for it are kept in [`folder`].
pub(super) fn compute(spec: &str) -> Result<Compute, Failure> {
    let found = device(spec).map_err(|error| Failure::Wrong(error.into()))?;
    if *found.place() == Place::Holder {
        return Ok(found);
    }
    // The pipeline's name does not matter: its folder, the current one, is where the search begins.
    let project = Project::find(Path::new("pipeline.yaml"), None).map_err(|error| Failure::Wrong(error.into()))?;
    let known = project.root.join("thresh.toml").is_file() || project.store().is_dir();
    let store = known.then(|| project.settings.cache().join("cuda"));
    let [cache, home] = ["XDG_CACHE_HOME", "HOME"].map(std::env::var_os);
    Ok(found.keeping(&folder(store, cache, home)))
}

/// The store of the project that the command runs in; without one, the user's cache; without that, a store is begun here.
fn folder(store: Option<PathBuf>, cache: Option<OsString>, home: Option<OsString>) -> PathBuf {
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let user = cache.and_then(absolute).or_else(|| Some(home.and_then(absolute)?.join(".cache")));
    store.or_else(|| Some(user?.join("thresh/cuda"))).unwrap_or_else(|| PathBuf::from(".thresh/cache/cuda"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_kept_in_the_project_else_in_the_users_cache() {
        let (cache, home) = (Some("/var/c".into()), Some("/home/a".into()));
        let store = PathBuf::from("/p/.thresh/cache/cuda");
        assert_eq!(folder(Some(store.clone()), cache.clone(), home.clone()), store);
        assert_eq!(folder(None, cache, home.clone()), Path::new("/var/c/thresh/cuda"));
        // As the XDG base directory specification has it, a relative path counts as none.
        for none in [None, Some("".into()), Some("c".into())] {
            assert_eq!(folder(None, none, home.clone()), Path::new("/home/a/.cache/thresh/cuda"));
        }
        assert_eq!(folder(None, None, None), Path::new(".thresh/cache/cuda"));
    }
}
