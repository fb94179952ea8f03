//! Connections on their way to standing: TCP, noise and yamux are some round trips, each of which may be lost.

use stormo::mesh::MemberEvent;

use super::host::{self, Kind};
use super::pipes::HostIndex;
use super::world::{What, World};

/// Messages to and fro until a connection stands: TCP's three, then the choice of noise, its two and a half
/// trips, the choice of yamux.
const STEPS: u8 = 8;
/// Each of them, and what `identify` says afterwards, in the mean, bytes: about 1.6 kB in each direction.
const STEP_BYTES: u64 = 400;
/// A dial that takes longer has failed (libp2p's transport timeout), microseconds.
const DIAL_US_MAX: u64 = 10_000_000;
/// A lost step is repeated after this, twice as long each time, microseconds: a first packet of TCP, and others.
const FIRST_PAUSE_US: u64 = 1_000_000;
const PAUSE_US: u64 = 200_000;
/// `CONNECTIONS_MAX` of `net/swarm.rs`.
const CONNECTIONS_MAX: usize = 512;

/// A handshake at one of its steps.
#[derive(Debug)]
pub(super) struct Shake {
    pub(super) from: HostIndex,
    pub(super) to: HostIndex,
    /// The starts of both that it is between.
    lives: [u32; 2],
    address: String,
    began_us: u64,
    /// Steps that arrived.
    step: u8,
    tries: u32,
    /// Whether the last step arrives now, or is to be sent again.
    arrives: bool,
}

impl World {
    pub(super) fn dial(&mut self, now_us: u64, from: HostIndex, address: String) {
        let Some(to) = host::at_address(&address).filter(|to| usize::from(*to) < self.hosts.len()) else {
            return;
        };
        let lives = [from, to].map(|host| self.hosts[usize::from(host)].life);
        let host = &mut self.hosts[usize::from(from)];
        // As libp2p has it: no second dial of who is connected or being dialled.
        if to != from && !host.peers.contains_key(&to) && host.dialling.insert(to) {
            let shake =
                Shake { from, to, lives, address, began_us: now_us, step: 0, tries: 0, arrives: false };
            self.send_step(now_us, shake);
        }
    }

    fn send_step(&mut self, now_us: u64, mut shake: Shake) {
        let (sender, receiver) =
            if shake.step.is_multiple_of(2) { (shake.from, shake.to) } else { (shake.to, shake.from) };
        self.hosts[usize::from(sender)].sent_bytes[Kind::Joining as usize] += STEP_BYTES;
        self.hosts[usize::from(receiver)].received_bytes += STEP_BYTES;
        shake.arrives = false;
        let at_us = match self.pipes.datagram(now_us, sender, receiver, STEP_BYTES) {
            Some(at_us) => {
                shake.arrives = true;
                at_us
            }
            None => {
                let pause_us = if shake.step == 0 { FIRST_PAUSE_US } else { PAUSE_US };
                now_us + (pause_us << shake.tries.min(8))
            }
        };
        self.queue.push(at_us, What::Shake(Box::new(shake)));
    }

    pub(super) fn shake(&mut self, now_us: u64, mut shake: Shake) {
        let [dialler, dialled] = [shake.from, shake.to].map(|host| &self.hosts[usize::from(host)]);
        if !dialler.alive || dialler.life != shake.lives[0] {
            return;
        }
        if now_us > shake.began_us + DIAL_US_MAX {
            return self.dial_failed(now_us, &shake, "timed out");
        }
        if !shake.arrives {
            shake.tries += 1;
            return self.send_step(now_us, shake);
        }
        if shake.step == 0 {
            // A machine without the process refuses; it is whoever runs by now that answers.
            if !dialled.alive || dialled.peers.len() >= CONNECTIONS_MAX {
                return self.dial_failed(now_us, &shake, "refused");
            }
            shake.lives[1] = dialled.life;
        } else if !dialled.alive || dialled.life != shake.lives[1] {
            return self.dial_failed(now_us, &shake, "reset");
        }
        shake.step += 1;
        shake.tries = 0;
        if shake.step < STEPS {
            return self.send_step(now_us, shake);
        }
        let [known, known_there] =
            [(dialler, shake.to), (dialled, shake.from)].map(|(host, peer)| host.peers.contains_key(&peer));
        self.hosts[usize::from(shake.from)].dialling.remove(&shake.to);
        let (peer, address) = (self.hosts[usize::from(shake.to)].id, shake.address.clone());
        self.member_event(now_us, shake.from, MemberEvent::Found { peer, address });
        // Both dialled each other: libp2p keeps both connections and speaks of one.
        if !known || !known_there {
            self.connected(now_us, shake.from, shake.to);
        }
    }

    fn dial_failed(&mut self, now_us: u64, shake: &Shake, reason: &str) {
        self.hosts[usize::from(shake.from)].dialling.remove(&shake.to);
        let event = MemberEvent::DialFailed { address: shake.address.clone(), reason: reason.to_owned() };
        self.member_event(now_us, shake.from, event);
    }
}
