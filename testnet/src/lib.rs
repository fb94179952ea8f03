//! Local meshes of real stormo nodes, each a process of its own: what the commands of `cargo mesh`
//! and the tests of several processes stand on. Nothing here prints.

pub mod arrays;
pub mod battery;
pub mod binary;
pub mod chaos;
pub mod client;
pub mod clock;
pub mod commands;
pub mod counted;
pub mod detector;
pub mod digits;
pub mod folder;
pub mod generator;
pub mod ground;
pub mod history;
pub mod interrupt;
pub mod judge;
pub mod link;
pub mod load;
pub mod machine;
pub mod memory;
pub mod mesh;
pub mod oip;
pub mod onnx_files;
mod own_group;
pub(crate) mod owner;
pub mod play;
pub mod printable;
pub mod process;
mod process_stat;
pub mod random;
pub mod raw_http;
pub mod raw_peer;
pub mod reference;
pub mod report;
mod rules;
mod run_lock;
pub mod scenario;
pub mod simulate;
pub mod surroundings;
pub mod topology;
pub mod traffic;
pub mod trial;
pub mod wait;
pub mod whole;

mod signals;
