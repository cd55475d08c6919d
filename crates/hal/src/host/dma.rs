//! The process's memory as a device sees it.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, fence};

use crate::dma::{
    CoherentMem, Constraints, DevAddr, Direction, Dma, DmaError, Mapping, SegmentSink, Unmappable, report,
    segments,
};

/// Direct memory access by devices that are part of the process: a device's address is the CPU's. Nothing is copied, and
/// nothing guards: [`FakeHal`](crate::fake) is the one that finds mistakes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostDma;

impl HostDma {
    /// The one there is.
    pub const fn new() -> Self {
        Self
    }
}

/// For memory of the process that satisfies `c` as one contiguous range.
fn layout(len: usize, c: &Constraints) -> Result<Layout, DmaError> {
    c.check()?;
    if len == 0 {
        return Err(DmaError::Empty);
    }
    // What is aligned to its own length, rounded up, crosses no boundary of that length or above.
    let whole = len.checked_next_power_of_two().ok_or(DmaError::Exhausted)?;
    let align = match usize::try_from(c.boundary) {
        Ok(0) | Err(_) => 8,
        Ok(boundary) if len <= boundary => whole,
        Ok(_) => return Err(Unmappable::TooManySegments(1).into()),
    };
    Layout::from_size_align(len, align.max(c.align as usize).max(8)).map_err(|_| DmaError::Exhausted)
}

// SAFETY: coherent memory is the allocator's; a mapping is the caller's own bytes, which `segments` has checked.
unsafe impl Dma for HostDma {
    fn alloc_coherent(&self, len: usize, constraints: &Constraints) -> Result<CoherentMem, DmaError> {
        let layout = layout(len, constraints)?;
        // SAFETY: the length is not 0.
        let cpu = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(DmaError::Exhausted)?;
        let device = DevAddr(cpu.as_ptr().expose_provenance() as u64);
        let mem = CoherentMem { cpu, device, len, cookie: layout.align() as u64 };
        if device.checked_add(len as u64 - 1).is_none_or(|last| last.0 & !constraints.addr_mask != 0) {
            // SAFETY: allocated just now.
            unsafe { self.free_coherent(mem) };
            return Err(Unmappable::Unreachable(device).into());
        }
        Ok(mem)
    }

    unsafe fn free_coherent(&self, mem: CoherentMem) {
        // SAFETY: length and alignment (the cookie) are those of the layout that it was allocated with.
        let layout = unsafe { Layout::from_size_align_unchecked(mem.len, mem.cookie as usize) };
        // SAFETY: allocated by `alloc_coherent` with that layout, and not used any more.
        unsafe { dealloc(mem.cpu.as_ptr(), layout) };
    }

    unsafe fn map(
        &self,
        cpu: NonNull<u8>,
        len: usize,
        direction: Direction,
        constraints: &Constraints,
        sink: &mut SegmentSink<'_>,
    ) -> Result<Mapping, DmaError> {
        // Exposed, so that a device model may make a pointer of it.
        let device = DevAddr(cpu.as_ptr().expose_provenance() as u64);
        report(segments([(device, len as u64)], constraints)?, sink)?;
        Ok(Mapping { cpu, len, direction, cookie: 0, adapter: 0 })
    }

    unsafe fn unmap(&self, _mapping: Mapping) {}

    unsafe fn sync_for_device(&self, _mapping: &Mapping, _range: Range<usize>) {}

    unsafe fn sync_for_cpu(&self, _mapping: &Mapping, _range: Range<usize>) {}

    fn wmb(&self) {
        fence(Ordering::Release);
    }

    fn rmb(&self) {
        fence(Ordering::Acquire);
    }
}
