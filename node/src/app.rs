//! Wiring: the rooms put together into one node, and the commands.

pub mod calls;
pub mod cli;
pub mod client;
pub mod commands;
pub mod config;
mod driver;
mod node;
pub mod owner;
mod planning;

pub use driver::{Driver, Event};
pub use node::{NodeError, run};
