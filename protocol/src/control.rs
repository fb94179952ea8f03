//! Questions that one node asks another, and the answers. One question per exchange; each is
//! length-prefixed (u32, little-endian) bincode, at most `CONTROL_BYTES_MAX` long.

use serde::{Deserialize, Serialize};

use crate::codec::{DecodeError, decode, encode};
use crate::ids::{NodeId, RequestId};
use crate::limits::CONTROL_BYTES_MAX;
use crate::plan::Plan;
use crate::refusal::Refusal;
use crate::state::Signed;

/// Announces a plan to a host that has something to load for one of its stages, so that it gets ready while the
/// stages before run; frames carry the plan in any case. The origin does not wait for the answer; a host
/// answers only to refuse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// The request.
    pub request: RequestId,
    /// Which try at it this is.
    pub attempt: u16,
    /// Who does what.
    pub plan: Plan,
    /// Time left for the whole request, milliseconds.
    pub remaining_ms: u32,
}

/// What a node may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// "This I know; what is newer?" The bytes of an [`Exchange`](crate::exchange::Exchange).
    Exchange(Vec<u8>),
    /// "This you wanted." What an answer to an exchange asked for: the bytes of a [`News`](crate::exchange::News).
    Tell(Vec<u8>),
    /// "I have enough neighbours and close our connections; I live on."
    Parting,
    /// "What is your state now?"
    State,
    /// "You have a part in this plan."
    Prepare(Prepare),
    /// "A stage of your request failed." From the node that saw it to the origin.
    Failed {
        /// The request.
        request: RequestId,
        /// The try.
        attempt: u16,
        /// The stage that failed.
        stage: u16,
        /// Why.
        reason: Refusal,
    },
    /// "Drop this attempt, its answer is no longer wanted."
    Cancel {
        /// The request.
        request: RequestId,
        /// The try.
        attempt: u16,
    },
    /// "A host of your request fell silent; another one does its stage." From the node that saw it to the origin.
    Lost {
        /// The request.
        request: RequestId,
        /// The try.
        attempt: u16,
        /// Who fell silent.
        node: NodeId,
    },
    /// "The join's host is lost, or refuses." From one of those that send it tensors to the origin, who alone moves a
    /// join, so that all senders turn to the same host.
    JoinFailed {
        /// The request.
        request: RequestId,
        /// The try.
        attempt: u16,
        /// The join.
        stage: u16,
        /// Which of its hosts, 0 the primary.
        host: u16,
        /// Why.
        reason: Refusal,
    },
    /// "Send to this host of the join." From the origin to those that send it tensors.
    Rejoin {
        /// The request.
        request: RequestId,
        /// The try.
        attempt: u16,
        /// The join.
        stage: u16,
        /// Which of its hosts: never an earlier one than before.
        host: u16,
    },
}

/// What a node answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Done, or noted.
    Done,
    /// Not done.
    Refused(Refusal),
    /// What is newer here: the bytes of a [`News`](crate::exchange::News).
    News(Vec<u8>),
    /// The node's own record, made for this answer.
    State(Signed),
}

macro_rules! wire {
    ($name:ident) => {
        impl $name {
            /// As sent, without the length.
            pub fn to_bytes(&self) -> Vec<u8> {
                encode(self)
            }

            /// Reads what came.
            ///
            /// # Errors
            /// When too long or malformed.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
                decode::<Self, CONTROL_BYTES_MAX>(bytes)
            }
        }
    };
}

wire!(Request);
wire!(Response);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn questions_and_answers_round_trip() {
        let request = Request::Failed {
            request: RequestId([1; 16]),
            attempt: 2,
            stage: 9,
            reason: Refusal::SuccessorLost,
        };
        assert_eq!(Request::from_bytes(&request.to_bytes()), Ok(request));
        let (request, attempt, stage, host) = (RequestId([1; 16]), 2, 9, 1);
        let reason = Refusal::SuccessorLost;
        for of_join in [
            Request::JoinFailed { request, attempt, stage, host, reason },
            Request::Rejoin { request, attempt, stage, host },
        ] {
            assert_eq!(Request::from_bytes(&of_join.to_bytes()), Ok(of_join));
        }
        let response = Response::Refused(Refusal::NoMemory);
        assert_eq!(Response::from_bytes(&response.to_bytes()), Ok(response));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Request::from_bytes(&bytes);
            let _ = Response::from_bytes(&bytes);
        }
    }
}
