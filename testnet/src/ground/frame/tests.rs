//! Frames divided, translated and damaged, against checksums that are computed anew.

use proptest::prelude::*;

use super::*;

const FROM: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const TO: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);

/// A frame with all its checksums, or with that of its transport left to the device.
fn frame(protocol: u8, payload: &[u8], is_left: bool) -> Vec<u8> {
    let header_bytes = match protocol {
        TCP => 20,
        _ => 8,
    };
    let mut frame = vec![0; OFFLOAD_BYTES + 20 + header_bytes];
    frame.extend_from_slice(payload);
    let ip_bytes = (frame.len() - OFFLOAD_BYTES) as u16;
    let packet = &mut frame[OFFLOAD_BYTES..];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&ip_bytes.to_be_bytes());
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&FROM.octets());
    packet[16..20].copy_from_slice(&TO.octets());
    let sum = !checksum(0, &packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    match protocol {
        TCP => {
            packet[20..24].copy_from_slice(&[0x10, 0x01, 0x10, 0x02]);
            packet[32] = 5 << 4;
            packet[33] = 0x99;
        }
        UDP => packet[20..24].copy_from_slice(&[0x10, 0x01, 0x10, 0x02]),
        _ => packet[20..26].copy_from_slice(&[8, 0, 0, 0, 0x10, 0x01]),
    }
    let layout = layout(&frame).unwrap();
    let at = checksum_at(&layout).unwrap();
    let addresses = if protocol == ICMP { 0 } else { sum_of_addresses(&frame, &layout) };
    if is_left {
        frame[at..at + 2].copy_from_slice(&folded(addresses).to_be_bytes());
        frame[0] = NEEDS_CHECKSUM;
        frame[6..8].copy_from_slice(&20_u16.to_ne_bytes());
        frame[8..10].copy_from_slice(&((at - layout.transport) as u16).to_ne_bytes());
    } else {
        let sum = !checksum(addresses, &frame[layout.transport..]);
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// Whether a receiver that computes all checksums takes it.
fn is_sound(frame: &[u8]) -> bool {
    let mut frame = frame.to_vec();
    complete_checksum(&mut frame);
    let Some(layout) = layout(&frame) else { return false };
    let addresses = if layout.protocol == ICMP { 0 } else { sum_of_addresses(&frame, &layout) };
    checksum(0, &frame[OFFLOAD_BYTES..layout.transport]) == 0xFFFF
        && checksum(addresses, &frame[layout.transport..]) == 0xFFFF
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..200);
    let protocol = prop_oneof![Just(TCP), Just(UDP), Just(ICMP)];
    (protocol, payload, any::<bool>())
        .prop_map(|(protocol, payload, is_left)| frame(protocol, &payload, is_left && protocol != ICMP))
}

proptest! {
    #[test]
    fn a_rewritten_frame_is_sound(frame in any_frame(), address: [u8; 4], port: u16) {
        prop_assert!(is_sound(&frame));
        for end in [End::Source, End::Destination] {
            let mut rewritten = frame.clone();
            let layout = layout(&frame).unwrap();
            rewrite(&mut rewritten, &layout, end, (address.into(), port)).unwrap();
            prop_assert!(is_sound(&rewritten));
            prop_assert_eq!(super::address(&rewritten, end), Some(address.into()));
            prop_assert_eq!(super::port(&rewritten, &layout, end), Some(port));
        }
    }

    #[test]
    fn a_damaged_frame_is_not(frame in any_frame(), random: u64) {
        let mut damaged = frame.clone();
        damage(&mut damaged, random);
        prop_assert!(!is_sound(&damaged));
        prop_assert_eq!(damaged.len(), frame.len());
    }

    #[test]
    fn a_train_becomes_its_packets(payload in proptest::collection::vec(any::<u8>(), 1..9_000), mss in 1_u16..1_500) {
        let mut train = frame(TCP, &payload, true);
        train[1] = GSO_TCP4;
        train[4..6].copy_from_slice(&mss.to_ne_bytes());
        prop_assert!(is_train(&train));
        let packets = packets_of(&train);
        prop_assert_eq!(packets.len(), payload.len().div_ceil(usize::from(mss)));
        let mut carried = Vec::new();
        for (number, packet) in packets.iter().enumerate() {
            prop_assert!(is_sound(packet) && !is_train(packet));
            let tcp = layout(packet).unwrap().transport;
            let sequence = u32::from_be_bytes(packet[tcp + 4..tcp + 8].try_into().unwrap());
            prop_assert_eq!(sequence as usize, carried.len());
            let (is_first, is_last) = (number == 0, number + 1 == packets.len());
            // Of CWR, ACK, PSH and FIN (0x99), ACK is everybody's.
            let flags = 0x10 | if is_first { 0x80 } else { 0 } | if is_last { 0x09 } else { 0 };
            prop_assert_eq!(packet[tcp + 13], flags);
            carried.extend_from_slice(&packet[tcp + 20..]);
        }
        prop_assert_eq!(carried, payload);
    }

    #[test]
    fn no_train_ends_the_switch(mut train in proptest::collection::vec(any::<u8>(), 30..90), mss in 0_u16..40) {
        train[1] = GSO_TCP4;
        train[4..6].copy_from_slice(&mss.to_ne_bytes());
        train[OFFLOAD_BYTES] = 0x45;
        train[OFFLOAD_BYTES + 9] = TCP;
        packets_of(&train);
    }

    #[test]
    fn no_bytes_end_the_switch(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), random: u64) {
        packets_of(&bytes);
        if let Some(layout) = layout(&bytes) {
            for end in [End::Source, End::Destination] {
                let _ = port(&bytes, &layout, end);
                let _ = rewrite(&mut bytes, &layout, end, (TO, 1));
            }
        }
        damage(&mut bytes, random);
    }
}
