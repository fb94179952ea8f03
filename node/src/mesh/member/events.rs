//! What happens to a member, what it wants done, and what members tell each other.

use stormo_protocol::coordinate::Coordinate;
use stormo_protocol::exchange::{Exchange, Held, ShortId};
use stormo_protocol::ids::NodeId;
use stormo_protocol::state::{Demand, Domain, Hosted, HostingGoal, Load, Machine, Offer};

use crate::mesh::Heard;

/// What happens to a member.
#[derive(Debug, Clone)]
pub enum MemberEvent {
    /// The node begins.
    Started,
    /// How the node is now. It comes before the start, then each second and when something changed.
    Is(About),
    /// A first connection to a node stands.
    Connected(NodeId),
    /// A dial of an address led to a node.
    Found {
        /// Whom.
        peer: NodeId,
        /// Where.
        address: String,
    },
    /// The last connection to a node is gone.
    Disconnected(NodeId),
    /// A neighbour closes its connections, and lives on.
    Parting(NodeId),
    /// A dial failed.
    DialFailed {
        /// What was dialled.
        address: String,
        /// Why it failed.
        reason: String,
    },
    /// A round trip was measured.
    RoundTrip {
        /// To whom.
        peer: NodeId,
        /// How long it took.
        micros: f64,
    },
    /// Bytes came over a connection to a node, be they part of a message that takes long: of those that
    /// [`Member::quiet`] names.
    ///
    /// [`Member::quiet`]: super::Member::quiet
    Carried {
        /// From whom.
        peer: NodeId,
        /// How long ago the last of them came, milliseconds.
        ago_ms: u64,
    },
    /// Bytes went to a node.
    Transferred {
        /// To whom.
        peer: NodeId,
        /// How many.
        bytes: u64,
        /// How long it took, the way back of the receipt included.
        micros: f64,
    },
    /// A probe ended; without a rate, it failed.
    Probed {
        /// Of whom.
        peer: NodeId,
        /// Bytes a second.
        bytes_per_second: Option<u64>,
    },
    /// Others spoke, by gossip.
    Heard(Vec<Heard>),
    /// A neighbour answered, or did not.
    Answered {
        /// Who.
        peer: NodeId,
        /// What is newer there.
        news: Option<News>,
    },
    /// A neighbour tells what it was asked for.
    Told {
        /// Who.
        peer: NodeId,
        /// What.
        news: News,
    },
    /// Time passes.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberAction {
    /// Sign this node's record as it is now ([`Member::next_record`]) and hand it back ([`Member::signed`]).
    Sign,
    /// Gossip the record that was signed last.
    Gossip,
    /// Ask a neighbour for what is newer than this.
    Exchange {
        /// Whom.
        peer: NodeId,
        /// What is known here.
        exchange: Exchange,
    },
    /// Tell a neighbour the records that it asked for ([`Member::told`]).
    Tell {
        /// Whom.
        peer: NodeId,
        /// Whose.
        wanted: Vec<ShortId>,
    },
    /// Connect to an address.
    Dial(String),
    /// Tell a neighbour that its connections are closed on purpose, and close them once it has heard that: who has not
    /// takes this node for dead.
    Part(NodeId),
    /// The same, whether or not it hears: they carry nothing.
    Close(NodeId),
    /// A node can be reached at these addresses.
    Reachable {
        /// Who.
        node: NodeId,
        /// Where; nowhere any more if empty.
        addresses: Vec<String>,
    },
    /// Measure the rate from a neighbour.
    Probe(NodeId),
    /// Nothing that goes over this node is to be waited for.
    Lost(NodeId),
    /// The deployments or the orders for them are others than before.
    Wished,
    /// The owner should hear that the mesh cannot be joined there yet.
    CannotJoin {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// The owner should hear that others know a newer record of this node than it ever said.
    Outdone,
    /// A name that this node published is another's now.
    NameTaken {
        /// The name.
        model: String,
        /// Whose.
        publisher: NodeId,
    },
    /// A copy of this node's data folder runs elsewhere, and this one has to end.
    Copied,
}

/// What a node says of itself that its member does not know.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    /// What it is.
    pub machine: Machine,
    /// What it does.
    pub load: Load,
    /// What others may have of it.
    pub offer: Offer,
    /// What it has loaded.
    pub hosted: Vec<Hosted>,
    /// What it was ordered to host and does not yet.
    pub goals: Vec<HostingGoal>,
    /// What may take it away together with others.
    pub domains: Vec<Domain>,
    /// What is asked at it.
    pub demands: Vec<Demand>,
}

/// What one node tells another in an exchange.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// Records and deployments.
    pub heard: Vec<Heard>,
    /// Heartbeats, in the order of the short ids.
    pub beats: Vec<Held>,
    /// What is asked for in turn.
    pub wanted: Vec<ShortId>,
    /// Whether there is more.
    pub more: bool,
    /// Where the one that tells is in the space of round trips.
    pub coordinate: Option<Coordinate>,
}
