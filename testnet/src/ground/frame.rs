//! What a TUN device hands over and takes: a short header about offloaded work, then an IPv4 packet.
//! Reading and changing it, as pure functions on bytes; whatever does not fit is `None`, never a panic.

use std::net::Ipv4Addr;

/// The header of `virtio_net` in front of each packet, bytes.
pub(super) const OFFLOAD_BYTES: usize = 10;
/// Longest packet that a TUN device hands over, with that header, bytes.
pub(super) const FRAME_BYTES_MAX: usize = OFFLOAD_BYTES + 65_535;
/// Flag of that header: the checksum is yet to be completed.
const NEEDS_CHECKSUM: u8 = 1;
/// Kinds of packets to be divided, in that header.
const GSO_NONE: u8 = 0;
const GSO_TCP4: u8 = 1;

pub(super) const ICMP: u8 = 1;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// Where the parts of a frame are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Begin of what IP carries.
    pub(super) transport: usize,
    /// What that is.
    pub(super) protocol: u8,
    /// Whether it is a piece of a packet other than its first.
    pub(super) is_later_fragment: bool,
}

pub(super) fn layout(frame: &[u8]) -> Option<Layout> {
    let packet = frame.get(OFFLOAD_BYTES..)?;
    let header_bytes = usize::from(packet.first()? & 0x0F) * 4;
    let is_whole = packet[0] >> 4 == 4 && header_bytes >= 20 && packet.len() >= header_bytes;
    is_whole.then(|| Layout {
        transport: OFFLOAD_BYTES + header_bytes,
        protocol: packet[9],
        is_later_fragment: u16::from_be_bytes([packet[6], packet[7]]) & 0x1FFF != 0,
    })
}

/// Which address or port of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

impl End {
    fn address_at(self) -> usize {
        OFFLOAD_BYTES + if self == Self::Source { 12 } else { 16 }
    }
}

/// An address of a frame that has a [`layout`].
pub(super) fn address(frame: &[u8], end: End) -> Option<Ipv4Addr> {
    let at = end.address_at();
    let octets: [u8; 4] = frame.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

/// The port of one end, or what stands for it: the identifier of an ICMP echo for both.
pub(super) fn port(frame: &[u8], layout: &Layout, end: End) -> Option<u16> {
    let at = port_at(frame, layout, end)?;
    Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}

fn port_at(frame: &[u8], layout: &Layout, end: End) -> Option<usize> {
    if layout.is_later_fragment {
        return None;
    }
    match layout.protocol {
        TCP | UDP => Some(layout.transport + if end == End::Source { 0 } else { 2 }),
        // Echo request and reply only: errors carry the packet that they are about.
        ICMP if matches!(frame.get(layout.transport), Some(0 | 8)) => Some(layout.transport + 4),
        _ => None,
    }
}

/// Writes another address and port into one end, and keeps the checksums right.
pub(super) fn rewrite(frame: &mut [u8], layout: &Layout, end: End, to: (Ipv4Addr, u16)) -> Option<()> {
    let old = address(frame, end)?.octets();
    let (new, port_at) = (to.0.octets(), port_at(frame, layout, end)?);
    let old_port = [*frame.get(port_at)?, *frame.get(port_at + 1)?];
    let at = end.address_at();
    frame[at..at + 4].copy_from_slice(&new);
    frame[port_at..port_at + 2].copy_from_slice(&to.1.to_be_bytes());
    update(frame, OFFLOAD_BYTES + 10, &old, &new, Sum::Whole)?;
    let Some(sum_at) = checksum_at(layout) else { return Some(()) };
    let sum = if frame[0] & NEEDS_CHECKSUM != 0 { Sum::OfAddresses } else { Sum::Whole };
    if layout.protocol == UDP && sum == Sum::Whole && frame.get(sum_at..sum_at + 2)? == [0, 0] {
        return Some(());
    }
    if layout.protocol != ICMP {
        update(frame, sum_at, &old, &new, sum)?;
    }
    if sum == Sum::Whole {
        update(frame, sum_at, &old_port, &to.1.to_be_bytes(), sum)?;
    }
    Some(())
}

fn checksum_at(layout: &Layout) -> Option<usize> {
    let offset = match layout.protocol {
        TCP => 16,
        UDP => 6,
        ICMP => 2,
        _ => return None,
    };
    Some(layout.transport + offset)
}

/// What a checksum field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sum {
    /// The complement of the sum of everything.
    Whole,
    /// The sum of the addresses and the length, the rest being left to the device.
    OfAddresses,
}

/// Changes a checksum as RFC 1624 says, for bytes of it that changed.
fn update(frame: &mut [u8], at: usize, old: &[u8], new: &[u8], kind: Sum) -> Option<()> {
    let field = frame.get_mut(at..at + 2)?;
    let held = u16::from_be_bytes([field[0], field[1]]);
    let sum = if kind == Sum::Whole { !held } else { held };
    let removed: u32 = words(old).map(|word| u32::from(!word)).sum();
    let added: u32 = words(new).map(u32::from).sum();
    let sum = folded(u32::from(sum) + removed + added);
    let sum = if kind == Sum::Whole { !sum } else { sum };
    field.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
}

fn folded(mut sum: u32) -> u16 {
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum as u16
}

/// The checksum of the internet over some bytes and what was summed before.
fn checksum(before: u32, bytes: &[u8]) -> u16 {
    // At most 64 KiB: the sum of 32,768 words fits.
    folded(before + u32::from(folded(words(bytes).map(u32::from).sum())))
}

fn sum_of_addresses(frame: &[u8], layout: &Layout) -> u32 {
    let addresses: u32 = words(&frame[OFFLOAD_BYTES + 12..OFFLOAD_BYTES + 20]).map(u32::from).sum();
    addresses + u32::from(layout.protocol) + (frame.len() - layout.transport) as u32
}

/// Changes one bit, checksums being completed before: the receiver has to notice.
pub(super) fn damage(frame: &mut [u8], random: u64) {
    complete_checksum(frame);
    let bits = (frame.len().saturating_sub(OFFLOAD_BYTES) * 8) as u64;
    if let Some(bit) = random.checked_rem(bits) {
        frame[OFFLOAD_BYTES + (bit / 8) as usize] ^= 1 << (bit % 8);
    }
}

/// Does what the sender left to the device, so that the receiver checks.
fn complete_checksum(frame: &mut [u8]) {
    if frame.len() < OFFLOAD_BYTES || frame[0] & NEEDS_CHECKSUM == 0 {
        return;
    }
    let start = OFFLOAD_BYTES + usize::from(u16::from_ne_bytes([frame[6], frame[7]]));
    let field = start + usize::from(u16::from_ne_bytes([frame[8], frame[9]]));
    if field + 2 > frame.len() {
        return;
    }
    // The field holds the sum of the addresses, which so is part of the whole.
    let sum = !checksum(0, &frame[start..]);
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    frame[..OFFLOAD_BYTES].fill(0);
}

/// Whether a frame stands for several packets, to be divided by the device.
pub(super) fn is_train(frame: &[u8]) -> bool {
    frame.get(1).is_some_and(|kind| *kind != GSO_NONE)
}

/// The packets that a frame stands for, each as long as the sender's connection allows. Empty for what
/// cannot be divided.
pub(super) fn packets_of(frame: &[u8]) -> Vec<Vec<u8>> {
    divided(frame).unwrap_or_default()
}

fn divided(frame: &[u8]) -> Option<Vec<Vec<u8>>> {
    let layout = layout(frame)?;
    let segment_bytes = usize::from(u16::from_ne_bytes([*frame.get(4)?, *frame.get(5)?]));
    if frame[1] != GSO_TCP4 || layout.protocol != TCP || segment_bytes == 0 {
        return None;
    }
    let tcp = layout.transport;
    let header_bytes = usize::from(frame.get(tcp + 12)? >> 4) * 4;
    let payload = tcp + header_bytes;
    let (headers, data) = (frame.get(..payload)?, frame.get(payload..)?);
    if header_bytes < 20 {
        return None;
    }
    let first_id = u16::from_be_bytes([headers[OFFLOAD_BYTES + 4], headers[OFFLOAD_BYTES + 5]]);
    let first_sequence = u32::from_be_bytes(headers[tcp + 4..tcp + 8].try_into().ok()?);
    let count = data.len().div_ceil(segment_bytes);
    let packets = data.chunks(segment_bytes).enumerate().map(|(number, part)| {
        let mut packet = Vec::with_capacity(payload + part.len());
        packet.extend_from_slice(headers);
        packet.extend_from_slice(part);
        let ip_bytes = (packet.len() - OFFLOAD_BYTES) as u16;
        packet[OFFLOAD_BYTES + 2..OFFLOAD_BYTES + 4].copy_from_slice(&ip_bytes.to_be_bytes());
        let id = first_id.wrapping_add(number as u16);
        packet[OFFLOAD_BYTES + 4..OFFLOAD_BYTES + 6].copy_from_slice(&id.to_be_bytes());
        packet[OFFLOAD_BYTES + 10..OFFLOAD_BYTES + 12].fill(0);
        let ip_sum = !checksum(0, &packet[OFFLOAD_BYTES..tcp]);
        packet[OFFLOAD_BYTES + 10..OFFLOAD_BYTES + 12].copy_from_slice(&ip_sum.to_be_bytes());
        let sequence = first_sequence.wrapping_add((number * segment_bytes) as u32);
        packet[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
        // Of the flags, FIN and PSH are for the last packet and CWR for the first.
        let kept =
            (if number + 1 == count { 0xFF } else { !0x09 }) & (if number == 0 { 0xFF } else { !0x80 });
        packet[tcp + 13] &= kept;
        offload_checksum(&mut packet, &layout);
        packet
    });
    Some(packets.collect())
}

/// Leaves the checksum of a packet to the device.
fn offload_checksum(packet: &mut [u8], layout: &Layout) {
    let sum = folded(sum_of_addresses(packet, layout));
    packet[layout.transport + 16..layout.transport + 18].copy_from_slice(&sum.to_be_bytes());
    packet[..OFFLOAD_BYTES].fill(0);
    packet[0] = NEEDS_CHECKSUM;
    packet[6..8].copy_from_slice(&((layout.transport - OFFLOAD_BYTES) as u16).to_ne_bytes());
    packet[8..10].copy_from_slice(&16_u16.to_ne_bytes());
}

#[cfg(test)]
mod tests;
