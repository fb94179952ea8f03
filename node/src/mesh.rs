//! What this node believes about the mesh, and its part in it: members, deployments and links, from
//! signed records. Pure: the time is handed in, in milliseconds of the node's own monotonic clock.

mod contacts;
mod deployments;
mod heard;
mod keeping;
mod links;
mod member;
mod stewardship;
mod view;

pub use deployments::{Deployments, Given, Wish};
pub use heard::{Heard, Said};
pub use keeping::{Around, Held, KeepAction, Keeping, PartitionKey, is_hosted};
pub use links::{LinkQuality, Links};
pub use member::{About, Member, MemberAction, MemberEvent, News, SYNC_TIMEOUT_MS};
pub use stewardship::{Situation, Steward, StewardAction, Stewardship, Tier};
pub use view::{Applied, FORGET_MS, FRESH_MS, Known, View};
