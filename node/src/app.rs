//! Wiring: the rooms put together into one node, and the commands.

pub mod calls;
mod choosing;
pub mod cli;
pub mod client;
pub mod commands;
pub mod config;
mod driver;
mod exporting;
mod names;
mod node;
pub mod on_paper;
pub mod owner;
mod plan_table;
mod planning;
pub mod power;

pub use driver::{Driver, Event};
pub use node::{NodeError, run};
