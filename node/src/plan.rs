//! The planner: from what a node knows of the mesh to the plan with the least latency, and a list
//! of other plans to choose from. Works on indices (node 0 is the origin) and on times and sizes
//! that were estimated elsewhere; it knows no node ids, measures nothing and sends nothing.
//!
//! Other goals (energy, the period of a stream, limits of these) are planned for by [`Planner`]s.
//!
//! How: a backward dynamic programme over (cut, node), exact as long as each run's memory may be
//! looked at alone; where one node's runs compete for its memory, a label search takes over. Between two
//! nodes, each cut goes by the coding that takes least, or as it is.

mod alternatives;
mod backups;
mod best;
mod bounds;
mod candidates;
mod claims;
mod coding;
mod costs;
mod effort;
mod forks;
mod front;
mod goal;
mod hunt;
mod ilp;
pub mod instance;
mod labels;
mod losses;
mod nearby;
mod parts;
mod periods;
mod price;
mod problem;
mod question;
mod ranges;
mod replicated;
mod runs;
mod solve;
mod split;
mod streams;
#[cfg(test)]
mod tests;
mod through;
mod wanted;

pub use alternatives::{Alternative, Kind, alternatives};
pub use backups::backups;
pub use best::{Best, NoPlan, best};
pub use coding::Coding;
pub use forks::{Forked, ForkedShape, Forks, Part, PricedForked, Scope, Share, Strips, best_forked};
pub use goal::{Binding, Found, Goal, Method, Missed, Objective, Planner, Search};
pub use ilp::Ilp;
pub use parts::parts;
pub use price::{Infeasible, PlanShape, Priced, PricedEdge, PricedStage, StageShape};
pub use problem::{Extra, Factors, KnownRange, Link, Links, Node, Problem, ProblemError, Watts};
pub use question::{Answer, NoAnswer, Question, Variant};
pub use replicated::{PricedReplicated, Replica, Replicated, ReplicatedShape, best_replicated};
pub use split::{Branch, PricedSplit, Region, SPLIT_GAIN_MIN, Split, SplitRun, SplitShape, best_split};
pub use wanted::{Wanted, While};

/// Labels that a planning call may look at to improve and prove its answer where memory or
/// distinctness couples the stages: about 10 ms on one core. Measured on random meshes so tight
/// that runs compete for memory: with 200 times as much, plans got 0 to 1.7 % better on average,
/// 18 % at worst. Elsewhere the dynamic programme needs none of it.
pub const EXPANSIONS_DEFAULT: usize = 1_000_000;

/// Most stages that a listed chain has. A guess: longer chains lose to shorter ones wherever one
/// was measured, and `best` is not bound by it.
pub const CHAIN_STAGES_MAX: usize = 8;

/// Most nodes that are planned over; up to this many, the answer is exact.
pub const CANDIDATES_MAX: usize = 32;

/// Most nodes that are planned over when the first [`CANDIDATES_MAX`] cannot hold the model.
pub const CANDIDATES_RETRY_MAX: usize = 128;
