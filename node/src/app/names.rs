//! Whose a deployed name is: its publisher's, until that takes it back or is gone.

use stormo_protocol::ids::NodeId;

use crate::serve::json::NodeState;

/// Whoever is silent for longer is gone, for all that one can tell, milliseconds.
const GONE_MS: u64 = 5_000;

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

/// Why another node may not do something with the name, such as `deploy`; `None` if it may: the publisher is gone, and the
/// name is to be taken over.
pub(super) fn why_not(name: &str, publisher: Publisher, deed: &str, take_over: bool) -> Option<String> {
    let Publisher { node, label, is_there } = publisher;
    let whose = format!("`{name}` was published by `{label}` ({node})");
    match (is_there, take_over) {
        (false, true) => None,
        (false, false) => Some(format!(
            "{whose}, which is not there now; if it will not come back, `stormo {deed} {name} --take-over` makes the name \
             this node's"
        )),
        (true, true) => Some(format!("{whose}, which is there: `stormo {deed}` at that node, by --api")),
        (true, false) if deed == "deploy" => {
            Some(format!("{whose}; `stormo deploy` at that node, by --api, or choose another name"))
        }
        (true, false) => Some(format!("{whose}; `stormo {deed}` at that node, by --api")),
    }
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
            why_not("digits", publisher, "deploy", take_over)
        };
        assert_eq!(why(false, true), None);
        for (is_there, take_over, advice) in
            [(false, false, "--take-over"), (true, true, "at that node"), (true, false, "another name")]
        {
            let told = why(is_there, take_over).expect("it is refused");
            assert!(told.contains(advice) && told.contains("`laptop`"), "{told}");
        }
    }
}
