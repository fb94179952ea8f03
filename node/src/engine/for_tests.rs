//! An engine for tests of this crate, with the library found or obtained as a node does it.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use super::runtime_library::{self, LibrarySearch};
use super::{Engine, EngineConfig};

/// An engine with permits of its own.
pub(crate) fn engine(permits: usize) -> Engine {
    opened(permits, None)
}

/// The same that lets jobs of several callers run together, if they wait so long for each other.
pub(super) fn joining_engine(permits: usize, within: Duration) -> Engine {
    opened(permits, Some(within))
}

fn opened(permits: usize, batch_within: Option<Duration>) -> Engine {
    let permits = NonZeroUsize::new(permits).expect("a test asks for a permit");
    let library = library();
    Engine::open(&EngineConfig { library, permits, batch_within }).expect("ONNX Runtime opens")
}

fn library() -> PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let home_cache = || variable("HOME").map(|home| home.join(".cache"));
        let search = LibrarySearch {
            explicit: variable("ORT_DYLIB_PATH"),
            system: runtime_library::system_folders(),
            cache: variable("XDG_CACHE_HOME").or_else(home_cache).map(|cache| cache.join("stormo")),
            pip: runtime_library::pip_programs(),
            ..LibrarySearch::default()
        };
        runtime_library::find_or_obtain(&search, &|text| eprintln!("{text}")).expect("ONNX Runtime is found")
    };
    LIBRARY.get_or_init(find).clone()
}
