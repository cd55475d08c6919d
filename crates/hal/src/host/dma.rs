//! The process's memory as a device sees it.

use core::ops::Range;
use core::ptr::NonNull;

use crate::dma::{
    CoherentMem, Constraints, Direction, Dma, DmaError, Identity, Mapping, SegmentSink, forward_dma,
};

/// Direct memory access by devices that are part of the process: a device's address is the CPU's, as with [`Identity`].
/// Nothing is copied, and nothing guards: [`FakeHal`](crate::fake) is the one that finds mistakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostDma(Identity);

impl HostDma {
    /// The one there is.
    pub const fn new() -> Self {
        // SAFETY: a device of the process reaches all of its memory, and sees it as every thread does.
        Self(unsafe { Identity::new() })
    }
}

impl Default for HostDma {
    fn default() -> Self {
        Self::new()
    }
}

forward_dma! { [] Dma for HostDma, 0 }
