//! Memory for devices where a device's address is the CPU's.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::alloc::Layout;
use core::ops::Range;
use core::ptr::NonNull;

use super::{
    CoherentMem, Constraints, DevAddr, Direction, Dma, DmaError, Mapping, SegmentSink, Unmappable, report,
    segments,
};

/// Direct memory access where a device sees memory at the address where the CPU sees it: on a machine that is mapped one to
/// one, without an IOMMU, and whose caches devices see. Coherent memory is the global allocator's. Nothing is copied.
///
/// ```no_run
/// use dfly_hal::dma::Identity;
/// // SAFETY: the page tables of this kernel map all memory one to one, and a PC's devices see its caches.
/// static DMA: Identity = unsafe { Identity::new() };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity(());

impl Identity {
    /// For the machine that this runs on.
    ///
    /// # Safety
    /// For all memory that the global allocator gives, and all that is ever lent by [`map`](Dma::map), stacks included:
    /// - a device that is told the CPU's address of a byte reaches that byte, also from one page to the next;
    /// - device and CPU see each other's stores without further instructions than those that order them.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

/// For memory of the allocator that satisfies `c` as one contiguous range.
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

// SAFETY: coherent memory is the allocator's; a mapping is the caller's own bytes, which `segments` has checked. That
// devices see them there is promised to `new`.
unsafe impl Dma for Identity {
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

    #[inline]
    fn wmb(&self) {
        barrier::stores();
    }

    #[inline]
    fn rmb(&self) {
        barrier::loads();
    }
}

/// An x86 CPU keeps stores in order among themselves, and loads, also with regard to registers, which are uncached: the
/// compiler alone has to be told. So it is with a device that is a thread of the process.
#[cfg(any(miri, loom, not(any(target_arch = "aarch64", target_arch = "riscv64"))))]
mod barrier {
    use core::sync::atomic::{Ordering, fence};

    #[inline]
    pub(super) fn stores() {
        fence(Ordering::Release);
    }

    #[inline]
    pub(super) fn loads() {
        fence(Ordering::Acquire);
    }
}

/// Others want to be told that a device is meant, and not another CPU.
#[cfg(not(any(miri, loom, not(any(target_arch = "aarch64", target_arch = "riscv64")))))]
mod barrier {
    use core::arch::asm;

    #[inline]
    pub(super) fn stores() {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: orders stores, also those that devices outside of the inner domain see.
        unsafe {
            asm!("dmb oshst", options(nostack, preserves_flags));
        };
        #[cfg(target_arch = "riscv64")]
        // SAFETY: orders stores to memory before those to memory and to registers.
        unsafe {
            asm!("fence w, ow", options(nostack, preserves_flags));
        };
    }

    #[inline]
    pub(super) fn loads() {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: orders loads before all else.
        unsafe {
            asm!("dmb oshld", options(nostack, preserves_flags));
        };
        #[cfg(target_arch = "riscv64")]
        // SAFETY: orders loads from memory before those from memory and registers.
        unsafe {
            asm!("fence r, ir", options(nostack, preserves_flags));
        };
    }
}
