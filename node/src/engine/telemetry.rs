//! Keeps ONNX Runtime from reporting to its makers.

/// Read by ONNX Runtime when its library is loaded.
const SWITCH: &str = "ORT_DISABLE_TELEMETRY";

/// Since 1.29, ONNX Runtime's official Linux builds start a reporting thread and keep a device id and
/// a database under the user's cache as soon as an environment is made, before the interface's own
/// switch can be used; only this variable prevents it (and saves 2.5 MB and a thread).
///
/// To be called first thing in `main`: the environment can only be changed safely while the process
/// has one thread. Says whether that was so; if not, nothing is changed.
pub fn forbid_telemetry() -> bool {
    if thread_count() != Some(1) {
        return false;
    }
    // SAFETY: this is the only thread, so nobody else reads the environment meanwhile.
    #[allow(unsafe_code, reason = "no other switch works before the library is loaded")]
    unsafe {
        std::env::set_var(SWITCH, "1");
    }
    true
}

fn thread_count() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_nothing_beside_other_threads() {
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(!forbid_telemetry()));
        });
    }
}
