//! Memory that a device reads and writes.
//!
//! ```text
//!   a ring, a queue, a table            a request's buffer                     a buffer the device cannot reach
//!   Coherent<T, D>                      Streaming<ToDevice, B, D>              Bounce<D>, or the HAL's own
//!     both sides, all the time            the CPU's, then the device's,          copied by way of memory that
//!                                         then the CPU's again                   the device can reach
//!        |                                    |                                      |
//!   Dma::alloc_coherent / free          Dma::map / sync / unmap  <------------------ (is a Dma over a Dma)
//! ```
//!
//! Not every buffer must come from `alloc_coherent`: any memory can be lent to a device by [`Dma::map`], which finds
//! out how the device sees it. That may be an address in an IOMMU, several pieces, or a copy elsewhere.
//!
//! A device's needs are its [`Constraints`]; [`segments`] cuts memory to them, for whoever writes a HAL.

mod bounce;
mod coherent;
mod constraints;
mod identity;
pub(crate) mod shared;
mod streaming;
mod with_dma;

use core::fmt;
use core::ops::{ControlFlow, Range};
use core::ptr::NonNull;

pub(crate) use bounce::report;
pub use bounce::{Bounce, Policy};
pub use coherent::{Coherent, OutOfRange, Pod};
pub use constraints::{BadConstraints, Constraints, Segment, Segments, Unmappable, segments};
pub use identity::Identity;
pub use streaming::{
    Bidirectional, DeviceReads, DeviceWrites, DmaBuffer, DmaBufferMut, FromDevice, MapFailed, Streaming,
    StreamingDirection, ToDevice,
};
pub use with_dma::WithDma;

/// An address as a device puts it on its bus. Not the CPU's: neither virtual nor, behind an IOMMU, physical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct DevAddr(pub u64);

impl DevAddr {
    /// The address `bytes` further on, if there is one.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }
}

impl fmt::LowerHex for DevAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who writes and who reads the memory of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The device reads what the CPU wrote.
    ToDevice,
    /// The device writes what the CPU will read.
    FromDevice,
    /// Both.
    Bidirectional,
}

impl Direction {
    /// Whether the device may read.
    pub const fn device_reads(self) -> bool {
        matches!(self, Self::ToDevice | Self::Bidirectional)
    }

    /// Whether the device may write.
    pub const fn device_writes(self) -> bool {
        matches!(self, Self::FromDevice | Self::Bidirectional)
    }
}

/// Why memory could not be had or lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DmaError {
    /// The constraints contradict themselves: a defect of the driver.
    #[error("impossible constraints: {0}")]
    BadConstraints(#[from] BadConstraints),
    /// Memory of length zero was asked for: a defect of the caller.
    #[error("no memory of length zero can be mapped or allocated")]
    Empty,
    /// This memory cannot be lent to this device as it is. It will not work later either: split, copy, or use another
    /// way of describing it to the device.
    #[error("the device cannot take this memory: {0}")]
    Unmappable(#[from] Unmappable),
    /// Nothing is left (memory, address space, slots). It may work when something has been given back.
    #[error("out of DMA memory or mappings")]
    Exhausted,
    /// The caller's segment callback said stop.
    #[error("the caller refused a segment")]
    Refused,
}

/// Coherent memory as [`Dma::alloc_coherent`] hands it out. [`Coherent`] owns one and gives it back.
#[derive(Debug)]
#[must_use = "the memory leaks unless it is freed"]
pub struct CoherentMem {
    /// Where the CPU sees it.
    pub cpu: NonNull<u8>,
    /// Where the device sees it: one contiguous range.
    pub device: DevAddr,
    /// Length in bytes, as asked for.
    pub len: usize,
    /// The implementation's own.
    pub cookie: u64,
}

// SAFETY: a description of memory; whoever uses the pointer answers for it.
unsafe impl Send for CoherentMem {}
// SAFETY: as for `Send`.
unsafe impl Sync for CoherentMem {}

/// Memory that is lent to a device, as [`Dma::map`] describes it. [`Streaming`] owns one and its buffer.
#[derive(Debug)]
#[must_use = "the mapping leaks unless it is unmapped"]
pub struct Mapping {
    /// Where the CPU sees it.
    pub cpu: NonNull<u8>,
    /// Length in bytes.
    pub len: usize,
    /// Who may do what.
    pub direction: Direction,
    /// The implementation's own.
    pub cookie: u64,
    /// For adapters over another implementation ([`Bounce`]), 16 bits each; everybody else puts 0 here.
    pub adapter: u64,
}

// SAFETY: a description of memory; whoever uses the pointer answers for it.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapping {}

/// Called with each segment of a mapping, in order; [`ControlFlow::Break`] gives the mapping up.
pub type SegmentSink<'a> = dyn FnMut(Segment) -> ControlFlow<()> + 'a;

/// Direct memory access for the devices behind one bus or IOMMU.
///
/// Thread context; never blocks (memory that is not there is [`DmaError::Exhausted`], at once). `wmb` and `rmb` may be
/// called from every context.
///
/// # Safety
/// Devices are told to read and write what this trait hands out.
///
/// # Implementation safety
/// The conformance suite (`conformance::check_dma`) looks for each of these:
/// - Coherent memory is zeroed, is nobody else's until it is freed, is aligned for the CPU as for the device (at least
///   to 8 bytes), is one range of device addresses, and satisfies `addr_mask`, `align` and `boundary`. Both sides see
///   each other's stores without further calls, ordered by `wmb` and `rmb`.
/// - `map` reports segments that cover exactly the bytes asked for, in order, and satisfy all constraints. It reports
///   none before it knows that it will succeed, unless the callback ends it; then it returns [`DmaError::Refused`] and
///   nothing stays mapped.
/// - While a mapping lives, its segments reach its bytes, or a copy that is nobody else's.
/// - `unmap` and `sync_for_cpu` bring what the device wrote to where the CPU looks; `map` and `sync_for_device` the
///   other way. A byte that the device did not write keeps its value, or holds a filler that says nothing about anybody.
/// - What has been freed or unmapped is used again only by a later call.
pub unsafe trait Dma: Send + Sync {
    /// Zeroed memory that the CPU and a device use at the same time, `len` bytes in whole words of four.
    /// `max_segment` and `max_segments` do not apply.
    fn alloc_coherent(&self, len: usize, constraints: &Constraints) -> Result<CoherentMem, DmaError>;

    /// Takes coherent memory back.
    ///
    /// # Safety
    /// `mem` came from `alloc_coherent` of this implementation, as it was; no device and no CPU uses it any more.
    unsafe fn free_coherent(&self, mem: CoherentMem);

    /// Lends `len` bytes at `cpu` to a device, and tells `sink` where it sees them.
    ///
    /// # Safety
    /// The bytes are valid for reads, and for writes if the device writes, until [`unmap`](Self::unmap). The CPU leaves
    /// them alone meanwhile, except as the `sync` calls allow. A device that only reads may share them with readers.
    unsafe fn map(
        &self,
        cpu: NonNull<u8>,
        len: usize,
        direction: Direction,
        constraints: &Constraints,
        sink: &mut SegmentSink<'_>,
    ) -> Result<Mapping, DmaError>;

    /// Ends a mapping; the bytes are the CPU's again.
    ///
    /// # Safety
    /// `mapping` came from `map` of this implementation, as it was, and the device is done with it for good.
    unsafe fn unmap(&self, mapping: Mapping);

    /// Lets the device see what the CPU wrote to `range` of a living mapping.
    ///
    /// # Safety
    /// As for [`unmap`](Self::unmap), but the device need only be done with `range` until this returns; `range` lies
    /// inside the mapping.
    unsafe fn sync_for_device(&self, mapping: &Mapping, range: Range<usize>);

    /// Lets the CPU see what the device wrote to `range` of a living mapping.
    ///
    /// # Safety
    /// As for [`sync_for_device`](Self::sync_for_device); the device stays away from `range` until the CPU is done.
    unsafe fn sync_for_cpu(&self, mapping: &Mapping, range: Range<usize>);

    /// Stores to memory before this are seen by devices before any store, to memory or to a register, after it: between
    /// a ring entry and its doorbell.
    fn wmb(&self);

    /// Loads from memory before this are done before any load after it: between a completion's phase bit and the rest
    /// of it.
    fn rmb(&self);
}

/// Implements [`Dma`] by calling through.
macro_rules! forward_dma {
    ($($who:tt)*) => {
        $crate::forward! {
            unsafe impl $($who)* {
                fn alloc_coherent(&self, len: usize, constraints: &Constraints) -> Result<CoherentMem, DmaError>;
                unsafe fn free_coherent(&self, mem: CoherentMem);
                unsafe fn map(
                    &self,
                    cpu: NonNull<u8>,
                    len: usize,
                    direction: Direction,
                    constraints: &Constraints,
                    sink: &mut SegmentSink<'_>,
                ) -> Result<Mapping, DmaError>;
                unsafe fn unmap(&self, mapping: Mapping);
                unsafe fn sync_for_device(&self, mapping: &Mapping, range: Range<usize>);
                unsafe fn sync_for_cpu(&self, mapping: &Mapping, range: Range<usize>);
                fn wmb(&self);
                fn rmb(&self);
            }
        }
    };
}
pub(crate) use forward_dma;

forward_dma! { Dma for &T, Box<T>, Arc<T> }
