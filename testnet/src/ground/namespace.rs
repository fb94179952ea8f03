//! A network of its own for one node: a namespace without a name, which ends with the last process and
//! descriptor in it, and in it a TUN device that hands this process what the node sends.
//!
//! Nothing of it outlives the processes, however they end.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use rustix::ioctl::{self, Updater};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::route::NETMASK;

/// The device's name within each namespace.
const DEVICE: &str = "mesh0";
/// What ordinary networks carry, bytes.
const MTU_BYTES: libc::c_int = 1_500;
/// Frames that wait in the device for the switch: more than the kernel's 500, so that bursts of several
/// connections wait where the link's own queue counts them, and are not dropped before.
const DEVICE_FRAMES: libc::c_int = 4_000;

/// What `struct ifreq` carries, as far as it is needed.
#[repr(C)]
struct Request {
    name: [libc::c_char; libc::IFNAMSIZ],
    value: Value,
}

#[repr(C)]
union Value {
    flags: libc::c_short,
    number: libc::c_int,
    address: libc::sockaddr_in,
    /// As long as the kernel's union.
    room: [u8; 24],
}

impl Request {
    fn new(device: &str, value: Value) -> Self {
        let mut name = [0; libc::IFNAMSIZ];
        for (to, byte) in name.iter_mut().zip(device.bytes().take(libc::IFNAMSIZ - 1)) {
            *to = byte as libc::c_char;
        }
        Self { name, value }
    }
}

fn of_address(address: Ipv4Addr) -> Value {
    let mut value = Value { room: [0; 24] };
    value.address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
        sin_zero: [0; 8],
    };
    value
}

fn of_number(number: libc::c_int) -> Value {
    let mut value = Value { room: [0; 24] };
    value.number = number;
    value
}

fn of_flags(flags: libc::c_int) -> Value {
    let mut value = Value { room: [0; 24] };
    value.flags = flags as libc::c_short;
    value
}

/// Sets something of a network device.
#[allow(unsafe_code)]
fn set<const OPCODE: ioctl::Opcode>(at: impl AsFd, device: &str, value: Value) -> io::Result<()> {
    let mut request = Request::new(device, value);
    // SAFETY: this function is called with opcodes that take a `struct ifreq`, which `Request` is laid
    // out as: 16 bytes of name, 24 bytes of a union. Some write the device's name into it.
    let update = unsafe { Updater::<OPCODE, Request>::new(&mut request) };
    // SAFETY: the kernel keeps nothing of it.
    Ok(unsafe { ioctl::ioctl(at, update) }?)
}

/// Tells a TUN device what of a packet may be left to be done by us.
#[allow(unsafe_code)]
fn set_offload(tun: &File) -> io::Result<()> {
    const TUNSETOFFLOAD: ioctl::Opcode = 0x4004_54D0;
    const CHECKSUM: usize = 1;
    const TCP4: usize = 2;
    // SAFETY: this opcode takes a number in place of a pointer.
    let request = unsafe { ioctl::IntegerSetter::<TUNSETOFFLOAD>::new_usize(CHECKSUM | TCP4) };
    // SAFETY: the kernel touches no memory of ours.
    Ok(unsafe { ioctl::ioctl(tun, request) }?)
}

/// A network namespace.
#[derive(Debug)]
pub(super) struct Namespace {
    file: OwnedFd,
}

impl Namespace {
    /// A new one with a TUN device of this address; the device is given beside it.
    pub(super) fn with_device(address: Ipv4Addr) -> io::Result<(Self, File)> {
        // On a thread of its own, which alone leaves the namespace of this process.
        let made = thread::spawn(move || {
            leave_namespace()?;
            let file = File::open("/proc/thread-self/ns/net")?.into();
            let device = make_device(address)?;
            Ok((Self { file }, device))
        });
        made.join().unwrap_or_else(|_| Err(io::Error::other("the thread that makes a namespace panicked")))
    }

    /// Does something in it on this thread: sockets and processes made there stay there.
    pub(super) fn enter<T>(&self, act: impl FnOnce() -> T) -> io::Result<T> {
        let home = Return(File::open("/proc/thread-self/ns/net")?.into());
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
        let done = act();
        home.go()?;
        Ok(done)
    }
}

/// The namespace to come back to, also when what is done elsewhere panics.
struct Return(OwnedFd);

impl Return {
    fn go(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?)
    }
}

impl Drop for Return {
    fn drop(&mut self) {
        // Told by `enter` unless it panicked; then the panic is what is told.
        let _ = self.go();
    }
}

#[allow(unsafe_code)]
fn leave_namespace() -> io::Result<()> {
    // SAFETY: only the network is parted from, so descriptors mean the same on all threads.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?)
}

fn make_device(address: Ipv4Addr) -> io::Result<File> {
    const TUNSETIFF: ioctl::Opcode = 0x4004_54CA;
    const SIOCSIFFLAGS: ioctl::Opcode = libc::SIOCSIFFLAGS as ioctl::Opcode;
    const SIOCSIFADDR: ioctl::Opcode = libc::SIOCSIFADDR as ioctl::Opcode;
    const SIOCSIFNETMASK: ioctl::Opcode = libc::SIOCSIFNETMASK as ioctl::Opcode;
    const SIOCSIFMTU: ioctl::Opcode = libc::SIOCSIFMTU as ioctl::Opcode;
    const SIOCSIFTXQLEN: ioctl::Opcode = libc::SIOCSIFTXQLEN as ioctl::Opcode;
    let tun = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    set::<TUNSETIFF>(&tun, DEVICE, of_flags(libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR))?;
    set_offload(&tun)?;
    rustix::io::ioctl_fionbio(&tun, true)?;
    // Any socket of the namespace will do to ask about its devices. IPv6 would only announce itself.
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{DEVICE}/disable_ipv6"), "1");
    set::<SIOCSIFADDR>(&socket, DEVICE, of_address(address))?;
    set::<SIOCSIFNETMASK>(&socket, DEVICE, of_address(NETMASK))?;
    set::<SIOCSIFMTU>(&socket, DEVICE, of_number(MTU_BYTES))?;
    set::<SIOCSIFTXQLEN>(&socket, DEVICE, of_number(DEVICE_FRAMES))?;
    set::<SIOCSIFFLAGS>(&socket, DEVICE, of_flags(libc::IFF_UP))?;
    set::<SIOCSIFFLAGS>(&socket, "lo", of_flags(libc::IFF_UP))?;
    Ok(tun)
}
