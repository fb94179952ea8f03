//! What hosts send each other, and the connections that it takes.

use stormo::mesh::MemberEvent;

use super::{What, World};
use crate::simulate::gossip::{self, Rpc, Sends};
use crate::simulate::host::{self, Kind};
use crate::simulate::pipes::{GivenUp, HostIndex, Parcel, PipeIndex, Pipes, Sent};
use crate::simulate::talk::{Payload, Talk};
use crate::simulate::wire;

/// What is no gossip waits as long as its connection stands.
const PATIENT: u64 = u64::MAX;
/// `OPEN_TIMEOUT` of `net.rs`: a stream waits so long for a connection, microseconds.
const OPEN_US: u64 = 3_000_000;

impl World {
    pub(in crate::simulate) fn gossip(&mut self, now_us: u64, sends: Sends, waits_us: u64) {
        for (pipe, rpc) in sends {
            if self.is_silenced(pipe) || !self.pipes.pipe(pipe).open {
                continue;
            }
            let bytes = rpc.bytes(self.sizes, &self.messages);
            let kind = if matches!(rpc, Rpc::Publish(_)) { Kind::Gossip } else { Kind::Control };
            let until_us =
                if matches!(rpc, Rpc::Publish(_) | Rpc::Have(_)) { now_us + waits_us } else { PATIENT };
            self.send_until(now_us, pipe, Payload::Rpc(rpc), bytes, kind, until_us);
        }
    }

    pub(super) fn is_silenced(&self, pipe: PipeIndex) -> bool {
        self.refused.get(pipe as usize / 2).is_some_and(|refused| *refused + 1 >= gossip::STREAMS_MAX)
    }

    /// Says something to a peer, if there is a connection.
    pub(in crate::simulate) fn talk(
        &mut self,
        now_us: u64,
        from: HostIndex,
        to: HostIndex,
        talk: Talk,
        bytes: u64,
    ) -> bool {
        let Some(pipe) = self.hosts[usize::from(from)].peers.get(&to).copied() else { return false };
        let kind = talk.kind();
        self.send(now_us, pipe, Payload::Talk(Box::new(talk)), bytes, kind);
        true
    }

    /// The same; to a peer without a connection one is made, as a stream to it would.
    pub(in crate::simulate) fn talk_or_dial(
        &mut self,
        now_us: u64,
        from: HostIndex,
        to: HostIndex,
        talk: Talk,
        bytes: u64,
    ) -> bool {
        let host = &self.hosts[usize::from(from)];
        if host.peers.contains_key(&to) {
            return self.talk(now_us, from, to, talk, bytes);
        }
        let is_known = host.member.view().get(self.hosts[usize::from(to)].id).is_some();
        if is_known {
            let waiting = self.waiting.entry((from, to)).or_default();
            waiting.retain(|(until_us, ..)| *until_us > now_us);
            waiting.push((now_us + OPEN_US, talk, bytes));
            self.dial(now_us, from, host::address(to));
        }
        is_known
    }

    /// Tells a peer that the connection will be closed, which it is once that is answered; after so long at the latest, if
    /// it does not wait for that.
    pub(super) fn part(&mut self, now_us: u64, from: HostIndex, to: HostIndex, within_us: Option<u64>) {
        let Some(pipe) = self.hosts[usize::from(from)].peers.get(&to).copied() else { return };
        self.talk(now_us, from, to, Talk::Parting, wire::asked(1));
        if let Some(within_us) = within_us {
            self.queue.push(now_us + within_us, What::Shut(pipe));
        }
    }

    /// Closes a connection on purpose, at both ends.
    pub(in crate::simulate) fn close(&mut self, now_us: u64, from: HostIndex, to: HostIndex) {
        if let Some(pipe) = self.hosts[usize::from(from)].peers.get(&to).copied() {
            self.shut(now_us, pipe);
        }
    }

    /// The same, if it is still open.
    pub(super) fn shut(&mut self, now_us: u64, pipe: PipeIndex) {
        if self.pipes.pipe(pipe).open {
            self.reset(now_us, Pipes::<Payload>::back(pipe));
            self.disconnect(now_us, pipe);
        }
    }

    pub(super) fn send(&mut self, now_us: u64, pipe: PipeIndex, payload: Payload, bytes: u64, kind: Kind) {
        self.send_until(now_us, pipe, payload, bytes, kind, PATIENT);
    }

    pub(super) fn send_until(
        &mut self,
        now_us: u64,
        pipe: PipeIndex,
        payload: Payload,
        bytes: u64,
        kind: Kind,
        until_us: u64,
    ) {
        let (from, to) = (self.pipes.pipe(pipe).from, self.pipes.pipe(pipe).to);
        self.hosts[usize::from(from)].sent_bytes[kind as usize] += bytes;
        self.hosts[usize::from(to)].received_bytes += bytes;
        match self.pipes.send(now_us, pipe, Parcel { bytes, payload, until_us }) {
            Sent::Arrives(at_us, payload) => self.queue.push(at_us, What::Arrive(pipe, payload)),
            Sent::Repeat(at_us) => self.queue.push(at_us, What::Repeat(pipe)),
            Sent::Waits => {}
        }
    }

    pub(super) fn repeat(&mut self, now_us: u64, pipe: PipeIndex) {
        let queue = &mut self.queue;
        match self.pipes.repeat(now_us, pipe, |at_us, payload| queue.push(at_us, What::Arrive(pipe, payload)))
        {
            Ok(None) => {}
            Ok(Some(at_us)) => self.queue.push(at_us, What::Repeat(pipe)),
            Err(GivenUp) => {
                self.reset(now_us, Pipes::<Payload>::back(pipe));
                self.disconnect(now_us, pipe);
            }
        }
    }

    /// Tells the end that holds `pipe` that the other one is gone, if that gets through.
    pub(in crate::simulate) fn reset(&mut self, now_us: u64, pipe: PipeIndex) {
        let (holder, gone) = (self.pipes.pipe(pipe).from, self.pipes.pipe(pipe).to);
        if let Some(at_us) = self.pipes.datagram(now_us, gone, holder, 1) {
            self.queue.push(at_us, What::Reset(pipe));
        }
    }

    /// The end that holds `pipe` lets go of the connection.
    pub(super) fn disconnect(&mut self, now_us: u64, pipe: PipeIndex) {
        let (from, to, open) = {
            let pipe = self.pipes.pipe(pipe);
            (pipe.from, pipe.to, pipe.open)
        };
        if !open {
            return;
        }
        self.pipes.close(pipe);
        let host = &mut self.hosts[usize::from(from)];
        host.peers.remove(&to);
        host.gossip.disconnected(pipe);
        self.work_disconnected(now_us, from, to);
        let peer = self.hosts[usize::from(to)].id;
        self.member_event(now_us, from, MemberEvent::Disconnected(peer));
    }
}
