//! Signs of life: what a receiver says while it has the work.

use super::{BadFrame, Cursor};
use crate::refusal::Refusal;

/// Bytes of one sign of life.
pub const SIGN_BYTES: usize = 12;

/// What the receiver of a frame says while it has the work: the newest every 100 ms, the last at
/// once. What lies between is life, and no news that the sender waits for.
///
/// As sent: kind (u8), zero (u8), stage (u16), value (u64).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Payload bytes that came so far.
    Receiving(u64),
    /// The tensors are all there, and came within so many microseconds from the first byte to the last. Told
    /// together with the sign that follows; the sender still keeps them.
    Taken(u32),
    /// Waiting for the partition; the expected wait in milliseconds.
    Queued(u32),
    /// The partition runs.
    Working,
    /// Its output is on its way to the next stage.
    Sending,
    /// The next stage has the output: the sender may let go of its tensors. The last sign.
    Passed,
    /// The stage (this one or a later one) will not do it, and why. The last sign.
    Refused {
        /// The stage that failed.
        stage: u16,
        /// Why.
        reason: Refusal,
    },
    /// A join has these tensors, and waits for those of so many other senders.
    Waiting(u16),
}

impl Sign {
    /// Whether no sign follows this one.
    pub fn is_last(self) -> bool {
        matches!(self, Self::Passed | Self::Refused { .. })
    }

    /// As sent.
    pub fn to_bytes(self) -> [u8; SIGN_BYTES] {
        let (kind, stage, value) = match self {
            Self::Receiving(bytes) => (1, 0, bytes),
            Self::Taken(receive_us) => (2, 0, u64::from(receive_us)),
            Self::Queued(wait_ms) => (3, 0, u64::from(wait_ms)),
            Self::Working => (4, 0, 0),
            Self::Sending => (5, 0, 0),
            Self::Passed => (6, 0, 0),
            Self::Refused { stage, reason } => (7, stage, reason as u64),
            Self::Waiting(missing) => (8, 0, u64::from(missing)),
        };
        let mut bytes = [0; SIGN_BYTES];
        bytes[0] = kind;
        bytes[2..4].copy_from_slice(&u16::to_le_bytes(stage));
        bytes[4..12].copy_from_slice(&value.to_le_bytes());
        bytes
    }

    /// Reads a sign.
    ///
    /// # Errors
    /// When the kind is unknown.
    pub fn from_bytes(bytes: &[u8; SIGN_BYTES]) -> Result<Self, BadFrame> {
        let stage = u16::from_le_bytes([bytes[2], bytes[3]]);
        let mut cursor = Cursor(&bytes[4..]);
        let value = cursor.u64().ok_or(BadFrame::Sign)?;
        Ok(match bytes[0] {
            1 => Self::Receiving(value),
            2 => Self::Taken(u32::try_from(value).unwrap_or(u32::MAX)),
            3 => Self::Queued(u32::try_from(value).unwrap_or(u32::MAX)),
            4 => Self::Working,
            5 => Self::Sending,
            6 => Self::Passed,
            7 => {
                let number = u16::try_from(value).map_err(|_| BadFrame::Sign)?;
                Self::Refused { stage, reason: Refusal::from_number_of_any_version(number) }
            }
            8 => Self::Waiting(u16::try_from(value).unwrap_or(u16::MAX)),
            _ => return Err(BadFrame::Sign),
        })
    }
}
