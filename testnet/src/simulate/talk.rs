//! What hosts say to each other beside gossip: questions and their answers.

use stormo::mesh::{MemberEvent, News, SYNC_TIMEOUT_MS};
use stormo_protocol::control::Request;
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
    Sync(u64, Request),
    News(u64, News),
    Probe,
    Zeros(u64),
    Work(WorkMessage),
}

impl Talk {
    /// A question for a part of an object.
    pub(super) const PROBE_ASKED_BYTES: u64 = 48;

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Sync(..) | Self::News(..) => Kind::Sync,
            Self::Probe | Self::Zeros(_) => Kind::Probe,
            Self::Work(_) => Kind::Work,
        }
    }
}

impl World {
    pub(super) fn hear_talk(&mut self, now_us: u64, from: HostIndex, to: HostIndex, talk: Talk) {
        match talk {
            Talk::Sync(asked_us, Request::Sync { known, deployments }) => {
                let host = &self.hosts[usize::from(to)];
                let news = host.member.news(host.heard(), &known, &deployments);
                let bytes = wire::news(news.heard.iter().map(|heard| heard.signed().as_ref()));
                self.talk(now_us, to, from, Talk::News(asked_us, news), bytes);
            }
            Talk::News(asked_us, news) => {
                if now_us < asked_us + SYNC_TIMEOUT_MS * 1_000 {
                    self.heard(now_us, to, news.heard);
                }
            }
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
            Talk::Sync(..) => {}
        }
    }
}
