//! The one binary: every machine runs it.

use std::process::ExitCode;

use clap::Parser;
use stormo::app::cli::Cli;
use stormo::app::commands;

fn main() -> ExitCode {
    // Before any thread is started: ONNX Runtime reads this from the environment.
    stormo::engine::forbid_telemetry();
    match commands::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(1)
        }
    }
}
