//! How a request ended: [`Status`], [`Failure`], [`BioError`].

use crate::Op;

/// How a request ended.
pub type Status = Result<(), Failure>;

/// Why a request failed, in the words of a block layer: one byte, the same for every driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u8)]
#[non_exhaustive]
pub enum Failure {
    /// The medium could not be read or written there. Retrying rarely helps; a mirror does.
    #[error("medium error")]
    Media = 1,
    /// An end-to-end check (protection information, a checksum on the way) failed.
    #[error("data integrity check failed")]
    Integrity,
    /// The deadline passed and the driver gave up on the request; the memory is no longer in the device's reach.
    #[error("timed out")]
    Timeout,
    /// Aborted on request, or because the queue was torn down.
    #[error("aborted")]
    Aborted,
    /// Offset and length reach beyond the device.
    #[error("out of range")]
    OutOfRange,
    /// Offset, length or memory is not aligned as the device's limits ask.
    #[error("misaligned")]
    Misaligned,
    /// Longer, of more segments, or across another boundary than the device's limits allow; a splitter helps.
    #[error("beyond the limits of one request")]
    TooLong,
    /// The device cannot do this operation.
    #[error("unsupported operation")]
    Unsupported,
    /// The device is read-only.
    #[error("write-protected")]
    WriteProtected,
    /// The space behind a thin device is used up.
    #[error("no space left on the medium")]
    NoSpace,
    /// The device went away, or never answered.
    #[error("device gone")]
    Gone,
    /// A device took the request and dropped it unanswered: a defect of that device.
    #[error("dropped by the device unanswered")]
    Orphaned,
    /// The device could not be stopped; the request's memory was given up for lost and does not come back.
    #[error("lost in the device together with its memory")]
    Lost,
    /// More layers remapped the request than it has frames for ([`MAX_DEPTH`](crate::MAX_DEPTH)).
    #[error("too many layers of devices")]
    TooDeep,
    /// Memory that the request needs could not be had, or was taken out of it before it was sent.
    #[error("out of memory")]
    NoMemory,
    /// The device reported an error of none of these kinds.
    #[error("device error")]
    Device,
}

impl Failure {
    /// Every kind, for tables and tests.
    pub const ALL: [Self; 16] = [
        Self::Media,
        Self::Integrity,
        Self::Timeout,
        Self::Aborted,
        Self::OutOfRange,
        Self::Misaligned,
        Self::TooLong,
        Self::Unsupported,
        Self::WriteProtected,
        Self::NoSpace,
        Self::Gone,
        Self::Orphaned,
        Self::Lost,
        Self::TooDeep,
        Self::NoMemory,
        Self::Device,
    ];

    /// The kind's number, never zero.
    pub(crate) const fn code(self) -> u8 {
        self as u8
    }

    /// The way back from [`Self::code`]; zero is success.
    pub(crate) fn status_of(code: u8) -> Status {
        match code {
            0 => Ok(()),
            n => Err(Self::ALL.get(usize::from(n) - 1).copied().unwrap_or(Self::Device)),
        }
    }
}

/// A failed request: what was asked, where, and why it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op} of {len} bytes at {offset}: {failure}")]
#[non_exhaustive]
pub struct BioError {
    /// What was asked.
    pub op: Op,
    /// Where, in bytes from the start of the device that it was asked of.
    pub offset: u64,
    /// How much, in bytes.
    pub len: u64,
    /// Why it failed. Part of the message, so it is not the error's source too.
    pub failure: Failure,
}
