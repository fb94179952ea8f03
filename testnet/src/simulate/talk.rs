//! What hosts say to each other beside gossip: questions and their answers.

use stormo::mesh::{MemberEvent, News, SYNC_TIMEOUT_MS};
use stormo_protocol::exchange::Exchange;
use stormo_protocol::limits::PROBE_BYTES_MAX;

use super::gossip::Rpc;
use super::host::Kind;
use super::pipes::HostIndex;
use super::wire;
use super::work::WorkMessage;
use super::world::World;

/// What travels over a connection.
#[derive(Debug)]
pub(super) enum Payload {
    Rpc(Rpc),
    /// With the time it was sent.
    Ping(u64),
    Pong(u64),
    Talk(Box<Talk>),
}

/// A question, or an answer to one, with the time of the question or of its own sending.
#[derive(Debug)]
pub(super) enum Talk {
    Exchange(u64, Exchange),
    News(u64, News),
    Tell(News),
    Parting,
    Parted,
    Probe,
    Zeros(u64),
    Work(WorkMessage),
}

impl Talk {
    /// A question for a part of an object.
    pub(super) const PROBE_ASKED_BYTES: u64 = 48;

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Exchange(..) | Self::News(..) | Self::Tell(_) | Self::Parting | Self::Parted => Kind::Sync,
            Self::Probe | Self::Zeros(_) => Kind::Probe,
            Self::Work(_) => Kind::Work,
        }
    }
}

impl World {
    pub(super) fn hear_talk(&mut self, now_us: u64, from: HostIndex, to: HostIndex, talk: Talk) {
        match talk {
            Talk::Exchange(asked_us, exchange) => {
                let peer = self.hosts[usize::from(from)].id;
                let host = &mut self.hosts[usize::from(to)];
                let clock_ms = host.clock_ms(now_us);
                let news = host.member.answer(clock_ms, peer, &exchange);
                let bytes = wire::asked(wire::news(&news));
                self.talk(now_us, to, from, Talk::News(asked_us, news), bytes);
            }
            Talk::News(asked_us, news) => {
                let peer = self.hosts[usize::from(from)].id;
                let is_late = now_us >= asked_us + SYNC_TIMEOUT_MS * 1_000;
                let news = (!is_late).then_some(news);
                self.hears(now_us, to, MemberEvent::Answered { peer, news });
            }
            Talk::Tell(news) => {
                let peer = self.hosts[usize::from(from)].id;
                self.hears(now_us, to, MemberEvent::Told { peer, news });
            }
            Talk::Parting => {
                let peer = self.hosts[usize::from(from)].id;
                self.member_event(now_us, to, MemberEvent::Parting(peer));
                self.talk(now_us, to, from, Talk::Parted, wire::asked(1));
            }
            Talk::Parted => self.close(now_us, to, from),
            Talk::Probe => {
                self.talk(now_us, to, from, Talk::Zeros(now_us), wire::framed(PROBE_BYTES_MAX));
            }
            Talk::Zeros(sent_us) => {
                let (peer, one_way_us) = (self.hosts[usize::from(from)].id, self.pipes.latency_us(from, to));
                let took_us = (now_us - sent_us).saturating_sub(one_way_us).max(1);
                let bytes_per_second = Some(PROBE_BYTES_MAX * 1_000_000 / took_us);
                self.member_event(now_us, to, MemberEvent::Probed { peer, bytes_per_second });
            }
            Talk::Work(message) => self.hear_work(now_us, from, to, message),
        }
    }
}
