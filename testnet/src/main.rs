//! The commands of `cargo mesh`.

/// As `eprint`, but without a panic where nobody reads any more: what goes on has to end in order.
macro_rules! note_part {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stderr(), $($part)*);
    }};
}

/// As `eprintln`, likewise.
macro_rules! note {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($part)*);
    }};
}

mod bench;
mod compare;
mod demo;
mod disturb;
mod listing;
mod median;
mod narrator;
mod options;
mod planning;
mod run;
mod simulating;
mod table;
mod told;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use stormo_testnet::ground::leftovers;
use stormo_testnet::interrupt;
use stormo_testnet::printable::printable;

use crate::options::Misuse;
use crate::run::Ended;

/// What shells report for a command that Ctrl-C ended: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// A command with values that it cannot mean, as clap ends it.
const WRONG_USAGE: u8 = 2;

/// A scenario that this machine, or this user, cannot play.
const SKIPPED: u8 = 3;

/// Local meshes of real stormo nodes, each a process of its own.
#[derive(Debug, Parser)]
#[command(name = "cargo mesh", bin_name = "cargo mesh")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Five nodes, a real network divided over them, real images sent through; ends by itself
    Demo {
        /// Print one JSON document at the end; what happens is told on standard error
        #[arg(long)]
        json: bool,
    },
    /// Measure something, beside what it is to be compared with
    Bench {
        #[command(subcommand)]
        what: bench::Bench,
    },
    /// Set the figures of two results side by side
    Compare(compare::CompareArgs),
    /// Play a scenario under faults drawn from a seed; what breaks is made smaller and written as a scenario
    Chaos(disturb::ChaosArgs),
    /// What the planner makes of a mesh and a model that are only written down; exit code 0 with every answer, also if no
    /// plan meets the limits (`feasible` tells)
    Plan(planning::PlanArgs),
    /// Play a scenario (topology, load, faults) and judge it; exit code 0 only if all that it demands holds
    Run(run::RunArgs),
    /// List the scenarios that `run` plays by name, with purpose and duration
    Scenarios(listing::ScenariosArgs),
    /// Start the nodes of a topology and keep them until Ctrl-C; then exit code 0 if all nodes left when asked (130 if
    /// it came before they were up)
    Up(up::UpArgs),
    /// A mesh in virtual time: many nodes on one thread, faults and all, from one seed; exit code 0 only if all aims are
    /// reached
    Simulate(simulating::SimulateArgs),
    /// One process of those that `bench chain` compares with
    #[command(hide = true)]
    BareStreams(bench::bare::BareArgs),
}

fn main() -> ExitCode {
    // Before any thread is started: references run in this process, and ONNX Runtime reads this from the environment.
    stormo::engine::forbid_telemetry();
    let arguments = Arguments::parse();
    leftovers::clean();
    let done =
        interrupt::note_instead_of_ending().map_err(anyhow::Error::from).and_then(|()| {
            match arguments.command {
                Command::Demo { json } => demo::run(json).map(|()| Ended::Well),
                Command::Bench { what } => bench::run(&what).map(|()| Ended::Well),
                Command::Compare(args) => compare::run(&args).map(|()| Ended::Well),
                Command::BareStreams(args) => bench::bare::run(&args).map(|()| Ended::Well),
                Command::Chaos(args) => disturb::run(&args),
                Command::Plan(args) => planning::run(&args).map(|()| Ended::Well),
                Command::Run(args) => run::run(&args),
                Command::Scenarios(args) => listing::run(&args),
                Command::Up(args) => up::run(&args),
                Command::Simulate(args) => simulating::run(&args),
            }
        });
    let unwritten = told::failed().filter(|_| done.is_ok());
    if let Some(error) = unwritten {
        note!("error: what was to be printed could not be: {error}; free some room, or let it go elsewhere");
        return ExitCode::FAILURE;
    }
    match done {
        Ok(Ended::Well) => ExitCode::SUCCESS,
        Ok(Ended::Badly) => ExitCode::FAILURE,
        Ok(Ended::Skipped) => ExitCode::from(SKIPPED),
        Err(_) if interrupt::is_noted() => {
            note!("interrupted; all nodes are ended and their files removed");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) if error.is::<Misuse>() => {
            note!("error: {}\n\nFor more information, try '--help'.", printable(&error.to_string()));
            ExitCode::from(WRONG_USAGE)
        }
        Err(error) => {
            note!("error: {}", printable(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}
