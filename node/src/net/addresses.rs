//! Where nodes can be reached, for streams to those that there is no connection to: libp2p asks its behaviours for
//! addresses before it dials.

use std::collections::HashMap;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use stormo_protocol::limits::{ADDRESSES_MAX, VIEW_RECORDS_MAX};

/// Addresses by node.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    of: HashMap<PeerId, Vec<Multiaddr>>,
}

impl Addresses {
    /// Where a node is from now on; nowhere if there are none.
    pub(super) fn set(&mut self, peer: PeerId, mut addresses: Vec<Multiaddr>) {
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() {
            self.of.remove(&peer);
        } else if self.of.len() < VIEW_RECORDS_MAX || self.of.contains_key(&peer) {
            self.of.insert(peer, addresses);
        }
    }
}

impl NetworkBehaviour for Addresses {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = std::convert::Infallible;

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        Ok(peer.and_then(|peer| self.of.get(&peer)).cloned().unwrap_or_default())
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}
