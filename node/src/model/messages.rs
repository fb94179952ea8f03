//! ONNX's own messages, generated from `onnx.proto` by the build script. Nothing by hand.
#![allow(unreachable_pub, missing_docs, clippy::all, clippy::pedantic, reason = "generated")]

include!(concat!(env!("OUT_DIR"), "/onnx/mod.rs"));
pub(super) use self::onnx::*;
