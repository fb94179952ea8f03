//! What arrives at hosts, and connections that stand from now on.

use stormo::mesh::{Heard, MemberEvent, News, Said};

use super::{FORWARD_US, PING_BYTES, PING_US, What, World};
use crate::simulate::gossip::Rpc;
use crate::simulate::host::{self, Kind};
use crate::simulate::pipes::{HostIndex, PipeIndex, Pipes};
use crate::simulate::talk::Payload;
use crate::simulate::wire;

impl World {
    pub(super) fn arrive(&mut self, now_us: u64, pipe: PipeIndex, payload: Payload) {
        let back = Pipes::<Payload>::back(pipe);
        let (from, to) = (self.pipes.pipe(pipe).from, self.pipes.pipe(pipe).to);
        if !self.pipes.pipe(back).open {
            // The kernel there says so.
            return self.reset(now_us, pipe);
        }
        match payload {
            Payload::Rpc(Rpc::Publish(id)) => {
                let host = &mut self.hosts[usize::from(to)];
                let mut sends = Vec::new();
                let is_new = host.gossip.received(&mut self.messages, self.sizes, back, id, &mut sends);
                let Some(heard) =
                    self.messages.get(id).filter(|_| is_new).map(|message| message.heard.clone())
                else {
                    return;
                };
                self.gossip(now_us, sends, FORWARD_US);
                self.hears(now_us, to, MemberEvent::Heard(vec![heard]));
            }
            Payload::Rpc(rpc) if rpc.is_too_long(self.sizes) => {
                let connection = pipe as usize / 2;
                self.refused.resize(self.refused.len().max(connection + 1), 0);
                self.refused[connection] += 1;
                self.figures.refused(self.is_silenced(pipe));
            }
            Payload::Rpc(rpc) => {
                let sends = self.hosts[usize::from(to)].gossip.told(now_us, &self.messages, back, rpc);
                self.gossip(now_us, sends, FORWARD_US);
            }
            Payload::Ping(sent_us) => {
                self.send(now_us, back, Payload::Pong(sent_us), wire::framed(PING_BYTES), Kind::Ping);
            }
            Payload::Pong(sent_us) => {
                let (peer, micros) = (self.hosts[usize::from(from)].id, (now_us - sent_us) as f64);
                self.member_event(now_us, to, MemberEvent::RoundTrip { peer, micros });
            }
            Payload::Talk(talk) => self.hear_talk(now_us, from, to, *talk),
        }
    }

    /// A member hears what others say of themselves.
    pub(in crate::simulate) fn hears(&mut self, now_us: u64, index: HostIndex, event: MemberEvent) {
        let heard: &[Heard] = match &event {
            MemberEvent::Heard(heard)
            | MemberEvent::Answered { news: Some(News { heard, .. }), .. }
            | MemberEvent::Told { news: News { heard, .. }, .. } => heard,
            _ => &[],
        };
        let authors: Vec<HostIndex> = heard
            .iter()
            .filter_map(|heard| match heard.said() {
                Said::Node(record) => Some(host::index_of(record.node)),
                Said::Deployment(_) | Said::Order(_) => None,
            })
            .filter(|author| self.figures.awaits(*author))
            .collect();
        self.member_event(now_us, index, event);
        for author in authors {
            let id = self.hosts[usize::from(author)].id;
            let known = self.hosts[usize::from(index)].member.view().get(id);
            if let Some(stamp) = known.map(|known| known.record.stamp) {
                self.figures.knows(now_us, &self.hosts[usize::from(index)], author, stamp);
            }
        }
    }

    /// A connection stands: both ends take it up.
    pub(in crate::simulate) fn connected(&mut self, now_us: u64, from: HostIndex, to: HostIndex) {
        let pipe = self.pipes.open(from, to);
        for (pipe, outbound) in [(pipe, true), (Pipes::<Payload>::back(pipe), false)] {
            let (own, peer) = (self.pipes.pipe(pipe).from, self.pipes.pipe(pipe).to);
            let host = &mut self.hosts[usize::from(own)];
            let before = host.peers.insert(peer, pipe);
            // The other end was started anew, and this one had not noticed: libp2p does not tell of a second
            // connection.
            if let Some(before) = before {
                self.pipes.close(before);
                host.gossip.disconnected(before);
            }
            let sends = host.gossip.connected(pipe, peer, outbound);
            self.gossip(now_us, sends, FORWARD_US);
            let spread_us = self.random.bits() % PING_US;
            self.queue.push(now_us + spread_us, What::Ping(pipe));
            let id = self.hosts[usize::from(peer)].id;
            if before.is_none() {
                self.member_event(now_us, own, MemberEvent::Connected(id));
            }
            for (until_us, talk, bytes) in self.waiting.remove(&(own, peer)).unwrap_or_default() {
                if now_us < until_us {
                    self.talk(now_us, own, peer, talk, bytes);
                }
            }
        }
    }
}
