//! What a node's machine spent since its start, for those who count energy.

use std::io;

use super::Mesh;
use crate::battery::Spent;
use crate::process_stat;

impl Mesh {
    /// Processor time of a running node, and the time that its uplink and downlink were busy, where links are emulated;
    /// the clock is the caller's.
    ///
    /// # Errors
    /// When the node has ended, or the switch.
    pub fn spent(&self, label: &str) -> io::Result<Spent> {
        let gone = || io::Error::other(format!("`{label}` has ended"));
        let stat = process_stat::of(self.node(label).pid()).ok_or_else(gone)?;
        let busy_ns = match self.network() {
            Some(network) => network.busy_ns(label)?.unwrap_or_default(),
            None => (0, 0),
        };
        Ok(Spent {
            time_us: 0,
            compute_us: stat.cpu_us,
            send_us: busy_ns.0 / 1_000,
            receive_us: busy_ns.1 / 1_000,
        })
    }
}
