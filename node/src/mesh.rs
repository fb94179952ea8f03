//! What this node believes about the mesh, and its part in it: members, deployments and links, from
//! signed records. Pure: the time is handed in, in milliseconds of the node's own monotonic clock.

mod chance;
mod contacts;
mod copies;
mod deployments;
mod heard;
mod keeping;
mod life;
mod links;
mod member;
mod neighbours;
mod speaking;
mod stewardship;
mod telling;
mod view;
mod vivaldi;

pub use deployments::{Deployments, Given, Next, Wish};
pub use heard::{Heard, Said};
pub use keeping::{Around, Held, KeepAction, Keeping, PartitionKey, is_hosted};
pub use life::{Belief, FORGET_MS};
pub use links::{LinkQuality, Links};
pub use member::{About, Member, MemberAction, MemberEvent, News, SYNC_TIMEOUT_MS};
pub use stewardship::{
    Costs, Origin, Part, Proposal, Situation, Steward, StewardAction, Stewardship, Tier, propose,
};
pub use view::{Applied, Known, View};
