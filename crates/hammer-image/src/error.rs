//! What can be wrong with a description, or with an image that is to be changed.

use dfly_hammer::ondisk::Offset;

/// A result of this crate.
pub type Result<T> = core::result::Result<T, Error>;

/// Why an image could not be built or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The volumes have no room left for this zone.
    #[error("no space left for {bytes} bytes in zone {zone}")]
    NoSpace {
        /// The zone, 8 to 11.
        zone: u8,
        /// What was asked for.
        bytes: usize,
    },
    /// A range of a volume does not exist.
    #[error("bytes {at}+{len} lie outside the volume")]
    OutsideVolume {
        /// First byte.
        at: u64,
        /// Number of bytes.
        len: usize,
    },
    /// An address leads nowhere.
    #[error("address {0} leads nowhere")]
    BadOffset(Offset),
    /// The description contradicts itself or a limit of the format.
    #[error("{0}")]
    Description(String),
    /// The image has no place where this could be done.
    #[error("the image has no {0}")]
    NotThere(&'static str),
    /// The records do not fit between the FIFO's append position and its first record.
    #[error("the FIFO is full")]
    FifoFull,
    /// A host file could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
