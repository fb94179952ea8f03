//! Manifests: what passed the check must answer every question without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stormo_protocol::codec::decode;
use stormo_protocol::limits::MANIFEST_BYTES_MAX;
use stormo_protocol::model::Manifest;

fuzz_target!(|bytes: &[u8]| {
    let Ok(manifest) = decode::<Manifest, { MANIFEST_BYTES_MAX as usize }>(bytes) else { return };
    if manifest.check().is_err() {
        return;
    }
    for cut in 0..=manifest.block_count() {
        let raw_bytes = manifest.cut_bytes(cut);
        let codecs = &manifest.cuts[usize::from(cut)].codecs;
        assert!(codecs.iter().all(|figures| figures.coded_bytes < raw_bytes));
    }
    for first in 0..manifest.block_count() {
        let _ = manifest.range_memory_bytes(first..manifest.block_count());
    }
    for branch in manifest.regions.iter().flat_map(|region| &region.branches) {
        let _ = manifest.made_by(branch.first..branch.end);
    }
    let _ = manifest.input_specs().chain(manifest.output_specs()).count();
});
