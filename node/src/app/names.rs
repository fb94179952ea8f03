//! Whom a name means: whose a deployed name is (its publisher's, until that takes it back or is gone), and which node is
//! called so.

use stormo_protocol::ids::NodeId;
use stormo_protocol::refusal::Refusal;

use crate::serve::json::NodeState;

/// Whoever is silent for longer is gone, for all that one can tell, milliseconds.
const GONE_MS: u64 = 5_000;

/// What may be done with a name that another node published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Deploy,
    Undeploy,
}

/// Who published a name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Publisher<'a> {
    /// The node.
    pub(super) node: NodeId,
    /// Its label.
    pub(super) label: &'a str,
    /// Whether it is in the mesh now.
    pub(super) is_there: bool,
}

/// Whether a node is in the mesh, last heard of so long ago: plans may leave it out for a while though it speaks again.
pub(super) fn is_there(state: NodeState, age_ms: u64) -> bool {
    match state {
        NodeState::Usable => true,
        NodeState::Suspected => age_ms < GONE_MS,
        NodeState::Leaving | NodeState::Lost => false,
    }
}

/// Why another node may not do something with the name; `None` if it may: the publisher is gone, and the name is to be
/// taken over.
pub(super) fn why_not(name: &str, publisher: Publisher, deed: Deed, take_over: bool) -> Option<String> {
    let Publisher { node, label, is_there } = publisher;
    let whose = format!("`{name}` was published by `{label}` ({node})");
    let (command, effect) = match deed {
        Deed::Deploy => ("stormo deploy", "makes the name this node's"),
        Deed::Undeploy => ("stormo undeploy", "takes it back all the same"),
    };
    match (is_there, take_over, deed) {
        (false, true, _) => None,
        (false, false, _) => Some(format!(
            "{whose}, which is not there now; if it will not come back, `{command} {name} --take-over` {effect}"
        )),
        (true, true, _) => Some(format!("{whose}, which is there: `{command}` at that node, by --api")),
        (true, false, Deed::Deploy) => {
            Some(format!("{whose}; `{command}` at that node, by --api, or choose another name"))
        }
        (true, false, Deed::Undeploy) => Some(format!("{whose}; `{command}` at that node, by --api")),
    }
}

/// A node that a name may mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Called<'a> {
    /// The node.
    pub(super) node: NodeId,
    /// Its label.
    pub(super) label: &'a str,
    /// Whether plans may use it now.
    pub(super) is_usable: bool,
}

/// The node that is called so: by its label, its peer id, or the end of that as tables show it. Those that plans leave out
/// count only where no other has that name: a dead node's successor may have its label, and a node that has just joined may
/// be asked for before it is heard.
///
/// # Errors
///
/// There is none, or there are several; the text says what to do.
pub(super) fn called<'a>(name: &str, all: impl Iterator<Item = Called<'a>>) -> Result<NodeId, String> {
    let named: Vec<Called> = all
        .filter(|Called { node, label, .. }| {
            *label == name || node.short() == name || node.to_string() == name
        })
        .collect();
    // Nobody hides another by a label.
    if let Some(called) = named.iter().find(|called| called.node.to_string() == name) {
        return Ok(called.node);
    }
    let (usable, left_out): (Vec<Called>, Vec<Called>) =
        named.into_iter().partition(|called| called.is_usable);
    match if usable.is_empty() { left_out } else { usable }[..] {
        [called] => Ok(called.node),
        [] => Err(format!("no node is called `{name}`; see `stormo status`")),
        ref several => {
            let ids: Vec<String> = several.iter().map(|called| called.node.to_string()).collect();
            Err(format!("several nodes are called `{name}`; give the peer id, one of: {}", ids.join(", ")))
        }
    }
}

/// That a node which is named in a placement takes nothing.
pub(super) fn takes_no_work(name: &str) -> String {
    format!("placement on `{name}`: {}", Refusal::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_left_out_for_a_while_is_there_as_long_as_it_speaks() {
        assert!(is_there(NodeState::Suspected, 10) && !is_there(NodeState::Suspected, GONE_MS));
        assert!(!is_there(NodeState::Lost, 10), "its connection broke, as that of a process that was killed");
    }

    #[test]
    fn a_name_is_taken_over_only_if_asked_for_and_from_one_that_is_gone() {
        let why = |is_there, take_over| {
            let publisher = Publisher { node: NodeId([1; 32]), label: "laptop", is_there };
            why_not("digits", publisher, Deed::Deploy, take_over)
        };
        assert_eq!(why(false, true), None);
        for (is_there, take_over, advice) in
            [(false, false, "--take-over"), (true, true, "at that node"), (true, false, "another name")]
        {
            let told = why(is_there, take_over).expect("it is refused");
            assert!(told.contains(advice) && told.contains("`laptop`"), "{told}");
        }
    }

    #[test]
    fn a_node_is_called_by_its_label_or_its_id_and_those_that_are_gone_give_way() {
        let node = |byte: u8| NodeId([byte; 32]);
        let called_so = |name: &str, all: &[(u8, &str, bool)]| {
            let all = all.iter().map(|(byte, label, is_usable)| Called {
                node: node(*byte),
                label,
                is_usable: *is_usable,
            });
            called(name, all)
        };
        let all = [(1, "camera", true), (2, "camera", false), (3, "board", true), (4, "board", true)];
        assert_eq!(called_so("camera", &all), Ok(node(1)));
        assert_eq!(called_so("camera", &all[1..]), Ok(node(2)));
        assert_eq!(called_so(&node(2).to_string(), &all), Ok(node(2)));
        assert_eq!(called_so(&node(4).short(), &all), Ok(node(4)));
        let id = node(1).to_string();
        assert_eq!(called_so(&id, &[(1, "camera", true), (2, &id, true)]), Ok(node(1)));
        let several = called_so("board", &all).expect_err("there are two");
        assert!(
            several.contains(&node(3).to_string()) && several.contains(&node(4).to_string()),
            "{several}"
        );
        assert!(called_so("attic", &all).is_err_and(|told| told.contains("stormo status")));
    }
}
