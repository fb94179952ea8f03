//! stormo: one neural network across the machines that are there. The rooms of one node.

pub mod app;
pub mod card;
pub mod deploy;
pub mod ends;
pub mod engine;
pub mod files;
pub mod flow;
pub mod mesh;
pub mod model;
pub mod monitor;
pub mod net;
pub mod plan;
pub mod pool;
pub mod profile;
pub mod quantise;
pub mod sample;
pub mod serve;
pub mod traces;
