//! [`Payload`]: the memory of one request, as its originator gives it and gets it back.

use super::owned::Buf;
use super::scatter::{BufVec, FrozenVec};
use super::shared::Frozen;

/// The memory of one request.
#[derive(Debug, Default)]
#[non_exhaustive]
pub enum Payload {
    /// None: a flush, a discard, a request whose memory was taken.
    #[default]
    None,
    /// One buffer.
    One(Buf),
    /// Several buffers, filled or written front to back.
    Many(BufVec),
    /// A frozen page: writes only.
    Frozen(Frozen),
    /// Several frozen pages: writes only.
    ManyFrozen(FrozenVec),
}

impl Payload {
    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(b) => b.len(),
            Self::Many(v) => v.bytes(),
            Self::Frozen(f) => f.len(),
            Self::ManyFrozen(v) => v.bytes(),
        }
    }

    /// The buffer, if it is a single one.
    pub fn into_buf(self) -> Option<Buf> {
        match self {
            Self::One(b) => Some(b),
            _ => None,
        }
    }
}

/// What a read can fill: [`Buf`] or [`BufVec`]. Frozen memory cannot be, and the type says so.
pub trait ReadTarget: Into<Payload> + sealed::Sealed {}

impl ReadTarget for Buf {}
impl ReadTarget for BufVec {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Buf {}
    impl Sealed for super::BufVec {}
}

impl From<Buf> for Payload {
    fn from(b: Buf) -> Self {
        Self::One(b)
    }
}

impl From<BufVec> for Payload {
    fn from(v: BufVec) -> Self {
        Self::Many(v)
    }
}

impl From<Frozen> for Payload {
    fn from(f: Frozen) -> Self {
        Self::Frozen(f)
    }
}

impl From<FrozenVec> for Payload {
    fn from(v: FrozenVec) -> Self {
        Self::ManyFrozen(v)
    }
}
