//! What this node believes about the mesh: members, deployments and links, from signed records.
//! Pure: the time is handed in, in milliseconds of the node's own monotonic clock.

mod deployments;
mod links;
mod view;

pub use deployments::{Deployments, Wish};
pub use links::{LinkQuality, Links};
pub use view::{Applied, FORGET_MS, FRESH_MS, Known, View};
