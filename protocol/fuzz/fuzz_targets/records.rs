//! What is gossiped: node records, deployments, and the envelopes that carry them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stormo_protocol::state::{Deployment, NodeRecord, Signed};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = NodeRecord::from_bytes(bytes) {
        assert_eq!(record.machine.speeds, record.machine.speeds.sane());
        assert!(NodeRecord::from_bytes(&record.to_bytes()).is_ok());
    }
    if let Ok(deployment) = Deployment::from_bytes(bytes) {
        let _ = deployment.id();
        assert_eq!(Deployment::from_bytes(&deployment.to_bytes()), Ok(deployment));
    }
    if let Ok(signed) = Signed::from_bytes(bytes) {
        assert_eq!(Signed::from_bytes(&signed.to_bytes()), Ok(signed));
    }
});
