//! `stormo init` and `stormo invite`: a mesh's key, and how others get it.

use serde_json::json;
use stormo_protocol::ids::MeshKey;

use super::{here, say, say_json};
use crate::app::cli::{InitArgs, InviteArgs};
use crate::app::client::{Client, CommandError};
use crate::app::config::{ConfigError, MESH_KEY_FILE, read_mesh_key, write_mesh_key};
use crate::net::Ticket;
use crate::serve::json::NodeView;

pub(super) fn init(args: &InitArgs) -> Result<(), CommandError> {
    let path = args.data.path().join(MESH_KEY_FILE);
    let mesh = match read_mesh_key(&path) {
        Err(ConfigError::NoMeshKey(_)) => {
            let mut secret = [0; 32];
            getrandom::fill(&mut secret).map_err(here)?;
            let key = MeshKey(secret);
            write_mesh_key(&path, &key).map_err(here)?;
            key.mesh_id()
        }
        Ok(key) => {
            return Err(CommandError::Here(format!(
                "`{}` already holds the key of mesh {}; start a node with it, or choose another --data",
                path.display(),
                key.mesh_id()
            )));
        }
        Err(error) => return Err(here(error)),
    };
    if args.json {
        return say_json(&json!({ "mesh": mesh.to_string(), "key_file": path }));
    }
    say(format!("mesh {mesh}\nIts key is in `{}`: whoever holds it may join.", path.display()));
    let data = args.data.data.as_ref().map(|data| format!(" --data {}", data.display())).unwrap_or_default();
    say(format!(
        "Next: `stormo node{data}` here, then `stormo invite{data}` prints a ticket for other machines."
    ));
    Ok(())
}

pub(super) fn invite(args: &InviteArgs) -> Result<(), CommandError> {
    let key = read_mesh_key(&args.data.path().join(MESH_KEY_FILE)).map_err(|error| match error {
        ConfigError::NoMeshKey(path) => CommandError::Here(format!(
            "no mesh key in `{}`; give the folder of a node of the mesh by --data, or run `invite` where one is",
            path.display()
        )),
        error => here(error),
    })?;
    let node: NodeView = Client::new(&args.api)?.get("/v1/node")?;
    if node.mesh != Some(key.mesh_id().to_string()) {
        return Err(CommandError::Here(format!(
            "the node at {} is in another mesh than the key in `{}`",
            args.api.node.api,
            args.data.path().display()
        )));
    }
    let ticket = Ticket { mesh: key, addresses: reachable(node.addresses) }.to_string();
    if args.api.json {
        return say_json(&json!({ "ticket": ticket }));
    }
    say(ticket);
    Ok(())
}

/// Without those that lead other machines to themselves, unless there are no others.
fn reachable(addresses: Vec<String>) -> Vec<String> {
    let is_own = |address: &String| address.starts_with("/ip4/127.") || address.starts_with("/ip6/::1/");
    let (own, others): (Vec<String>, Vec<String>) = addresses.into_iter().partition(is_own);
    if others.is_empty() { own } else { others }
}

#[cfg(test)]
mod tests {
    use super::reachable;

    #[test]
    fn a_ticket_leads_no_other_machine_to_itself() {
        let [own, other] = ["/ip4/127.0.0.1/tcp/1", "/ip4/192.0.2.1/tcp/1"].map(str::to_owned);
        assert_eq!(reachable(vec![own.clone(), other.clone()]), [other]);
        assert_eq!(reachable(vec![own.clone()]), [own]);
    }
}
