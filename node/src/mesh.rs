//! What this node believes about the mesh, and its part in it: members, deployments and links, from
//! signed records. Pure: the time is handed in, in milliseconds of the node's own monotonic clock.

mod contacts;
mod deployments;
mod heard;
mod links;
mod member;
mod view;

pub use deployments::{Deployments, Wish};
pub use heard::{Heard, Said};
pub use links::{LinkQuality, Links};
pub use member::{About, Member, MemberAction, MemberEvent, News, SYNC_TIMEOUT_MS};
pub use view::{Applied, FORGET_MS, FRESH_MS, Known, View};
