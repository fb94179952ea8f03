//! A sound division, then some bytes of its skeleton and manifest are other ones: refused, or extracted.
//! The input ends with the changes, six bytes each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stormo_protocol::codec::{decode, encode};
use stormo_protocol::limits::MANIFEST_BYTES_MAX;
use stormo_protocol::model::Manifest;

mod divided;
#[path = "../../src"]
#[allow(dead_code, unused_imports, reason = "one target uses a part of the room")]
mod node {
    pub mod model;
}

use node::model;

fuzz_target!(|bytes: &[u8]| {
    let Some((count, rest)) = bytes.split_last() else { return };
    let changes = usize::from(count % 8) * 6;
    let Some(length) = rest.len().checked_sub(changes) else { return };
    let (file, changes) = rest.split_at(length);
    let Some((division, manifest)) = divided::divided(file) else { return };
    let (mut skeleton, mut described) = (division.skeleton, encode(&manifest));
    for change in changes.chunks_exact(6) {
        let &[which, a, b, c, value, _] = change else { continue };
        let bytes = if which % 2 == 0 { &mut skeleton } else { &mut described };
        let place = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let length = bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(place % length) {
            *byte = value;
        }
    }
    let Ok(manifest) = decode::<Manifest, { MANIFEST_BYTES_MAX as usize }>(&described) else { return };
    if manifest.check().is_err() {
        return;
    }
    let Ok(skeleton) = model::Skeleton::parse(&skeleton, &manifest) else { return };
    for first in 0..manifest.block_count() {
        let _ = model::extract(&skeleton, &manifest, first..first + 1);
        let _ = model::extract(&skeleton, &manifest, first..manifest.block_count());
    }
});
