//! `stormo work on|off`: whether a node takes work of others.

use serde_json::json;

use super::{say, say_json};
use crate::app::cli::{WorkArg, WorkArgs};
use crate::app::client::{Client, CommandError};
use crate::serve::json::NodeView;

pub(super) fn run(args: &WorkArgs) -> Result<(), CommandError> {
    let take = args.work == WorkArg::On;
    let node: NodeView = Client::new(&args.api)?.put("/v1/node/work", &json!({ "take": take }))?;
    if args.api.json {
        return say_json(&node);
    }
    let name = &node.label;
    say(match (take, node.offer.computes, node.offer.open) {
        (false, ..) => format!(
            "`{name}` takes no work of others until it is told to (`stormo work on`) or started again; what runs ends first."
        ),
        (true, true, true) => format!("`{name}` takes work of others."),
        (true, false, _) => {
            format!("`{name}` is told to take work of others, but its `--roles` let it compute nothing.")
        }
        (true, _, false) => {
            format!("`{name}` takes work of others within its `--hours`, which it is not now.")
        }
    });
    Ok(())
}
