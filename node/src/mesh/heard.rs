//! What another node said, read and checked once and shared from then on.

use std::sync::Arc;

use stormo_protocol::state::{Deployment, NodeRecord, Order, Signed, Topic};

/// What a signed message says.
#[derive(Debug, Clone)]
pub enum Said {
    /// A node's record.
    Node(Arc<NodeRecord>),
    /// A wish for a deployment.
    Deployment(Arc<Deployment>),
    /// A steward's order.
    Order(Arc<Order>),
}

/// A signed message that says what its author may say. Whoever makes one has checked the signature.
#[derive(Debug, Clone)]
pub struct Heard {
    signed: Arc<Signed>,
    said: Said,
}

impl Heard {
    /// Reads a message whose signature was checked; `None` if it is malformed, or speaks for another.
    pub fn read(signed: Signed) -> Option<Self> {
        let (said, speaker) = match signed.topic {
            Topic::Node => {
                let record = NodeRecord::from_bytes(&signed.body).ok()?;
                let speaker = record.node;
                (Said::Node(Arc::new(record)), speaker)
            }
            Topic::Deployment => {
                let deployment = Deployment::from_bytes(&signed.body).ok()?;
                let speaker = deployment.publisher;
                (Said::Deployment(Arc::new(deployment)), speaker)
            }
            Topic::Order => {
                let order = Order::from_bytes(&signed.body).ok()?;
                let speaker = order.steward;
                (Said::Order(Arc::new(order)), speaker)
            }
        };
        (speaker == signed.author).then(|| Self { signed: Arc::new(signed), said })
    }

    /// As it was signed, for passing on.
    pub fn signed(&self) -> &Arc<Signed> {
        &self.signed
    }

    /// What it says.
    pub fn said(&self) -> &Said {
        &self.said
    }
}
