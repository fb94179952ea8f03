//! Wiring: the rooms put together into one node, and the commands.

pub mod calls;
pub mod cli;
pub mod client;
pub mod commands;
pub mod config;
mod driver;
mod node;
mod planning;

pub use driver::{Driver, Event};
pub use node::{NodeError, run};
