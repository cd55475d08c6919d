//! Memory for devices, without an IOMMU, on a machine whose caches they see: a device's address is the CPU's.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ops::{ControlFlow, Range};
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, fence};

use dfly_hal::dma::{
    CoherentMem, Constraints, DevAddr, Direction, Dma, DmaError, Mapping, SegmentSink, Unmappable, segments,
};

use crate::platform::Pc;

/// For memory that satisfies `c` as one contiguous range.
fn layout(len: usize, c: &Constraints) -> Result<Layout, DmaError> {
    c.check()?;
    if len == 0 {
        return Err(DmaError::Empty);
    }
    // What is aligned to its own length, rounded up, crosses no boundary of that length or above.
    let whole = len.checked_next_power_of_two().ok_or(DmaError::Exhausted)?;
    let align = match c.boundary {
        0 => 8,
        boundary if len as u64 <= boundary => whole,
        _ => return Err(Unmappable::TooManySegments(1).into()),
    };
    Layout::from_size_align(len, align.max(c.align as usize).max(8)).map_err(|_| DmaError::Exhausted)
}

// SAFETY: coherent memory is the heap's; a mapping is the caller's own bytes, which `segments` has checked. All of it is
// mapped one to one, in one piece.
unsafe impl Dma for Pc {
    fn alloc_coherent(&self, len: usize, constraints: &Constraints) -> Result<CoherentMem, DmaError> {
        let layout = layout(len, constraints)?;
        // SAFETY: the length is not 0.
        let cpu = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(DmaError::Exhausted)?;
        let device = DevAddr(cpu.as_ptr().expose_provenance() as u64);
        let mem = CoherentMem { cpu, device, len, cookie: layout.align() as u64 };
        if (device.0 + (len as u64 - 1)) & !constraints.addr_mask != 0 {
            // SAFETY: allocated just now.
            unsafe { self.free_coherent(mem) };
            return Err(Unmappable::Unreachable(device).into());
        }
        Ok(mem)
    }

    unsafe fn free_coherent(&self, mem: CoherentMem) {
        // SAFETY: length and alignment (the cookie) are those of the layout that it was allocated with.
        let layout = unsafe { Layout::from_size_align_unchecked(mem.len, mem.cookie as usize) };
        // SAFETY: allocated by `alloc_coherent` with this layout, as the caller promised.
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
        let device = DevAddr(cpu.as_ptr().expose_provenance() as u64);
        match segments([(device, len as u64)], constraints)?.try_for_each(sink) {
            ControlFlow::Continue(()) => Ok(Mapping { cpu, len, direction, cookie: 0, adapter: 0 }),
            ControlFlow::Break(()) => Err(DmaError::Refused),
        }
    }

    unsafe fn unmap(&self, _mapping: Mapping) {}

    unsafe fn sync_for_device(&self, _mapping: &Mapping, _range: Range<usize>) {}

    unsafe fn sync_for_cpu(&self, _mapping: &Mapping, _range: Range<usize>) {}

    // The CPU keeps stores in order among themselves, and loads, also with regard to registers, which are uncached. So the
    // compiler alone has to be told.
    fn wmb(&self) {
        fence(Ordering::Release);
    }

    fn rmb(&self) {
        fence(Ordering::Acquire);
    }
}
