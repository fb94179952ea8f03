//! The one binary: every machine runs it.

use std::io::{Write, stdout};

use clap::Parser;
use stormo::app::cli::Cli;
use stormo::app::commands;

fn main() {
    // Before any thread is started: ONNX Runtime reads this from the environment.
    stormo::engine::forbid_telemetry();
    let code = match commands::run(Cli::parse()) {
        Ok(()) => 0,
        Err(error) => {
            // Without a panic where nobody reads any more.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            1
        }
    };
    end(code)
}

/// Ends the process without its exit handlers: those of ONNX Runtime free what its threads still use. A
/// node that was told to leave while it built a session crashed.
fn end(code: i32) -> ! {
    // What cannot be written has no reader any more.
    let _ = stdout().flush();
    // SAFETY: the call takes a number, and nothing runs after it.
    #[allow(unsafe_code, reason = "std ends a process with its exit handlers only")]
    unsafe {
        libc::_exit(code)
    }
}
