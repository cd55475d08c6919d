//! Status codes [4.6.1.2], and what they mean to a block layer.

use core::fmt;

use dfly_bio::Failure;

use super::StatusField;
use super::command::open_enum;

open_enum! {
    /// Status codes of type 0 [4.6.1.2.1].
    Generic: u8 {
        /// Done.
        SUCCESS = 0x00,
        /// No such opcode.
        INVALID_OPCODE = 0x01,
        /// A field is wrong.
        INVALID_FIELD = 0x02,
        /// The identifier is in use.
        CID_CONFLICT = 0x03,
        /// The data did not get through.
        DATA_TRANSFER = 0x04,
        /// Power is about to go.
        POWER_LOSS = 0x05,
        /// Defect of the controller.
        INTERNAL = 0x06,
        /// An Abort command asked for it.
        ABORTED = 0x07,
        /// The queue was deleted.
        SQ_DELETED = 0x08,
        /// No such namespace, or no such format.
        INVALID_NAMESPACE = 0x0b,
        /// An offset into a page is wrong.
        PRP_OFFSET = 0x13,
        /// Write protected.
        WRITE_PROTECTED = 0x20,
        /// Beyond the end of the namespace.
        LBA_RANGE = 0x80,
        /// A thin namespace is full.
        CAPACITY = 0x81,
        /// Not now.
        NOT_READY = 0x82,
        /// Somebody holds a reservation.
        RESERVATION = 0x83,
    }
}

open_enum! {
    /// Status codes of type 2: media and data integrity [4.6.1.2.3].
    Media: u8 {
        /// The medium did not take it.
        WRITE_FAULT = 0x80,
        /// The medium could not be read.
        UNRECOVERED_READ = 0x81,
        /// End-to-end guard.
        GUARD = 0x82,
        /// End-to-end application tag.
        APP_TAG = 0x83,
        /// End-to-end reference tag.
        REF_TAG = 0x84,
        /// Compare found a difference.
        COMPARE = 0x85,
        /// Not permitted.
        ACCESS_DENIED = 0x86,
        /// Nothing is there.
        DEALLOCATED = 0x87,
    }
}

/// A status code with its type: zero is success, and nothing else is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StatusCode {
    /// Type 0.
    Generic(Generic),
    /// Type 1: the meaning depends on the command.
    Specific(u8),
    /// Type 2.
    Media(Media),
    /// Type 3: the path to the medium.
    Path(u8),
    /// Any other type, and the code.
    Other(u8, u8),
}

impl StatusCode {
    /// The way the block layer says it; `None` for success.
    pub fn failure(self) -> Option<Failure> {
        Some(match self {
            Self::Generic(Generic::SUCCESS) => return None,
            Self::Generic(Generic::INVALID_OPCODE) => Failure::Unsupported,
            Self::Generic(Generic::ABORTED | Generic::SQ_DELETED | Generic::POWER_LOSS) => Failure::Aborted,
            Self::Generic(Generic::LBA_RANGE) => Failure::OutOfRange,
            Self::Generic(Generic::CAPACITY) => Failure::NoSpace,
            Self::Generic(Generic::WRITE_PROTECTED) | Self::Specific(0x82) => Failure::WriteProtected,
            Self::Generic(Generic::INVALID_NAMESPACE) => Failure::Gone,
            Self::Media(Media::GUARD | Media::APP_TAG | Media::REF_TAG | Media::COMPARE) => {
                Failure::Integrity
            }
            Self::Media(_) => Failure::Media,
            _ => Failure::Device,
        })
    }
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Generic(code) => write!(f, "status 0/{:02x} {code:?}", code.0),
            Self::Specific(code) => write!(f, "status 1/{code:02x}"),
            Self::Media(code) => write!(f, "status 2/{:02x} {code:?}", code.0),
            Self::Path(code) => write!(f, "status 3/{code:02x}"),
            Self::Other(kind, code) => write!(f, "status {kind}/{code:02x}"),
        }
    }
}

impl From<StatusField> for StatusCode {
    fn from(status: StatusField) -> Self {
        match status.sct() {
            0 => Self::Generic(Generic(status.sc())),
            1 => Self::Specific(status.sc()),
            2 => Self::Media(Media(status.sc())),
            3 => Self::Path(status.sc()),
            other => Self::Other(other, status.sc()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "many cases of safe and pure code")]
    fn only_type_zero_code_zero_is_success() {
        for bits in 0..=u16::MAX {
            let field = StatusField::from_bits(bits);
            let ok = field.sc() == 0 && field.sct() == 0;
            assert_eq!(StatusCode::from(field).failure().is_none(), ok, "{bits:#x}");
        }
    }
}
