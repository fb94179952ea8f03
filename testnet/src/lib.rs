//! Local meshes of real stormo nodes, each a process of its own: what the commands of `cargo mesh`
//! and the tests of several processes stand on. Nothing here prints.

pub mod binary;
pub mod client;
pub mod commands;
pub mod folder;
pub mod interrupt;
pub mod memory;
pub mod mesh;
pub mod oip;
pub mod process;
pub mod topology;
pub mod wait;

mod signals;
