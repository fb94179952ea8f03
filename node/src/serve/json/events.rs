//! What happens in the mesh, as one node sees it: an item of `/v1/events` each.

use serde::{Deserialize, Serialize};
use stormo_protocol::ids::NodeId;

use super::{Health, as_text};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// Counts the events of this start of the node.
    pub sequence: u64,
    /// When, by the node's clock: milliseconds since 1970, UTC.
    pub unix_ms: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A node is known that was not.
    NodeJoined(NodeNamed),
    /// What it hosts, offers or is called is another than before.
    NodeChanged(NodeNamed),
    /// It was not heard of for too long.
    NodeSuspected(NodeNamed),
    /// The connection to it broke.
    NodeLost(NodeNamed),
    /// It may be used again.
    NodeReturned(NodeNamed),
    /// It said that it is going away, or was forgotten after a long silence.
    NodeLeft(NodeNamed),
    /// A model is deployed that was not, or another version of it.
    Deployed {
        /// Its name.
        model: String,
        /// The version.
        version: u64,
    },
    /// A model was taken back.
    Undeployed {
        /// Its name.
        model: String,
    },
    /// A name that was published here belongs to another node now, which claimed it last.
    NameTaken {
        /// The name.
        model: String,
        /// Whose it is.
        #[serde(flatten)]
        publisher: NodeNamed,
    },
    /// A deployment is served better or worse than before.
    HealthChanged {
        /// Its name.
        model: String,
        /// How it was.
        before: Health,
        /// How it is.
        now: Health,
    },
    /// A request entered here.
    RequestBegun {
        /// Its id.
        id: String,
        /// The model it asks.
        model: String,
    },
    /// It was answered.
    RequestEnded {
        /// Its id.
        id: String,
        /// The model it asked.
        model: String,
        /// From its arrival to its result.
        latency_ms: f64,
        /// Attempts made.
        attempts: u16,
    },
    /// It was not.
    RequestFailed {
        /// Its id.
        id: String,
        /// The model it asked.
        model: String,
        /// From its arrival to its end.
        latency_ms: f64,
        /// What its caller was told.
        error: String,
    },
}

impl What {
    /// The name that the event has in the stream.
    pub fn topic(&self) -> &'static str {
        match self {
            Self::NodeJoined(_)
            | Self::NodeChanged(_)
            | Self::NodeSuspected(_)
            | Self::NodeLost(_)
            | Self::NodeReturned(_)
            | Self::NodeLeft(_) => "node",
            Self::Deployed { .. }
            | Self::Undeployed { .. }
            | Self::NameTaken { .. }
            | Self::HealthChanged { .. } => "deployment",
            Self::RequestBegun { .. } | Self::RequestEnded { .. } | Self::RequestFailed { .. } => "request",
        }
    }
}

/// Which node an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeNamed {
    /// Peer id.
    #[serde(with = "as_text")]
    pub node: NodeId,
    /// Its label.
    pub label: String,
}

/// Data of the event `missed`: a reader was so slow that events were dropped for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedView {
    /// How many.
    pub missed: u64,
}
