//! Any bytes as a model. What passes the pre-scan must divide, and every block of it come out again.
#![no_main]

use libfuzzer_sys::fuzz_target;

mod divided;
#[path = "../../src"]
#[allow(dead_code, unused_imports, reason = "one target uses a part of the room")]
mod node {
    pub mod model;
}

use node::model;

fuzz_target!(|bytes: &[u8]| {
    let _ = model::import_external(bytes, |part| Ok(vec![0; part.bytes.min(4096) as usize]));
    let Some((division, manifest)) = divided::divided(bytes) else { return };
    let skeleton = model::Skeleton::parse(&division.skeleton, &manifest).expect("one's own skeleton");
    for block in 0..manifest.block_count() {
        let part = model::extract(&skeleton, &manifest, block..block + 1).expect("one's own block");
        let weights = division.weights_by_id();
        part.inlined(|id| weights.get(&id).copied()).expect("all weights are there");
    }
});
