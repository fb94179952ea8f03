//! The network of one mesh: a namespace for each node, the switch between them, and ways to their APIs.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use super::forward::Forwards;
use super::namespace::Namespace;
use super::pump::Pump;
use super::route;
use super::switch::{Dropped, Switch};
use crate::link::{Counts, LinkSpec};
use crate::topology::Topology;

/// Where a node's API listens in its namespace.
pub(crate) const API_PORT: u16 = 8_000;
/// Where it listens for other nodes: the same after a restart.
pub(crate) const NODE_PORT: u16 = 4_001;

/// A node's place in the network.
#[derive(Debug)]
struct Place {
    label: String,
    address: Ipv4Addr,
    namespace: Arc<Namespace>,
    api: SocketAddr,
}

/// The network of one mesh; ends with it. Its nodes are those of the topology.
#[derive(Debug)]
pub struct Network {
    // In this order: devices go before namespaces.
    pump: Pump,
    places: Vec<Place>,
    _forwards: Forwards,
}

/// Whether this process may make networks; why not.
///
/// # Errors
/// What is missing.
pub fn is_possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("it takes root".to_owned());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err("there is no /dev/net/tun (`modprobe tun`, or give it to the container)".to_owned());
    }
    // Root in a container may lack the right to administer networks.
    let made = Namespace::with_device(Ipv4Addr::new(10, 255, 255, 254));
    made.map(drop).map_err(|error| why_not(&error))
}

fn why_not(error: &io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::ENOTTY | libc::ENODEV | libc::ENXIO | libc::EINVAL) => {
            "/dev/net/tun is not the kernel's: `modprobe tun`, or give it to the container"
        }
        Some(libc::EPERM | libc::EACCES) => {
            "root without the rights CAP_NET_ADMIN and CAP_SYS_ADMIN, as in most containers"
        }
        _ => "does the kernel have namespaces and TUN?",
    };
    format!("no namespace with a TUN device: {error} ({hint})")
}

impl Network {
    /// Makes it; chance follows the seed.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn start(topology: &Topology, seed: u64) -> io::Result<Self> {
        let forwards = Forwards::new()?;
        let (mut places, mut devices) = (Vec::new(), Vec::new());
        for (node, station) in topology.nodes.iter().zip(route::stations(topology)) {
            let (namespace, device) = Namespace::with_device(station.address)?;
            let namespace = Arc::new(namespace);
            let api = forwards.open(namespace.clone(), API_PORT)?;
            places.push(Place { label: node.label.clone(), address: station.address, namespace, api });
            devices.push(device);
        }
        let pump = Pump::start(Switch::new(topology, seed), devices)?;
        Ok(Self { pump, places, _forwards: forwards })
    }

    fn place(&self, label: &str) -> io::Result<usize> {
        let place = self.places.iter().position(|place| place.label == label);
        place.ok_or_else(|| io::Error::other(format!("no place of the network is called `{label}`")))
    }

    /// A node's address among nodes.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn address(&self, label: &str) -> io::Result<Ipv4Addr> {
        Ok(self.places[self.place(label)?].address)
    }

    /// Where a node's API can be reached from this process's own network.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn api(&self, label: &str) -> io::Result<SocketAddr> {
        Ok(self.places[self.place(label)?].api)
    }

    /// Does something on this thread as if on a node's machine: sockets and processes made there are of
    /// its network.
    ///
    /// # Errors
    /// When there is no such node, or the system refuses.
    pub fn at<T>(&self, label: &str, act: impl FnOnce() -> T) -> io::Result<T> {
        self.places[self.place(label)?].namespace.enter(act)
    }

    fn pair(&self, from: &str, to: &str) -> io::Result<(usize, usize)> {
        Ok((self.place(from)?, self.place(to)?))
    }

    /// The link from one node to another as it is now.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn link(&self, from: &str, to: &str) -> io::Result<LinkSpec> {
        let (from, to) = self.pair(from, to)?;
        self.pump.order(move |switch, _| *switch.link(from, to).spec())
    }

    /// Changes the link from one node to another.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn set_link(&self, from: &str, to: &str, spec: LinkSpec) -> io::Result<()> {
        let (from, to) = self.pair(from, to)?;
        self.pump.order(move |switch, now_us| switch.set_link(now_us, from, to, spec))
    }

    /// Mends all links that are cut.
    ///
    /// # Errors
    /// When the switch has ended.
    pub fn heal(&self) -> io::Result<()> {
        self.pump.order(|switch, now_us| switch.heal(now_us))
    }

    /// Changes the rates of all that a node sends and receives, bit/s.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn set_rates(&self, label: &str, up: Option<u64>, down: Option<u64>) -> io::Result<()> {
        let node = self.place(label)?;
        self.pump.order(move |switch, now_us| switch.set_rates(now_us, node, up, down))
    }

    /// Gives a node's machine power, or takes it: then nothing comes from it or reaches it.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn set_power(&self, label: &str, has_power: bool) -> io::Result<()> {
        let node = self.place(label)?;
        self.pump.order(move |switch, _| switch.set_power(node, has_power))
    }

    /// What the link from one node to another has done.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn counts(&self, from: &str, to: &str) -> io::Result<Counts> {
        let (from, to) = self.pair(from, to)?;
        self.pump.order(move |switch, _| switch.counts(from, to))
    }

    /// Time in which a node's uplink and downlink have sent at their rates, nanoseconds; `None` while it has
    /// no power.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn busy_ns(&self, label: &str) -> io::Result<Option<(u64, u64)>> {
        let node = self.place(label)?;
        self.pump.order(move |switch, _| switch.busy_ns(node))
    }

    /// What was dropped beside links.
    ///
    /// # Errors
    /// When the switch has ended.
    pub fn dropped(&self) -> io::Result<Dropped> {
        self.pump.order(|switch, _| switch.dropped())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hinders_is_told_with_what_to_do() {
        let told = |code| why_not(&io::Error::from_raw_os_error(code));
        assert!(told(libc::ENOTTY).contains("/dev/net/tun is not the kernel's"));
        assert!(told(libc::EPERM).contains("CAP_NET_ADMIN"));
        assert!(told(libc::ENOMEM).contains("does the kernel have"));
    }
}
