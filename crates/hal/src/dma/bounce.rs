//! Lending a device a copy.

use core::fmt;
use core::ops::Range;
use core::ptr::NonNull;

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{
    CoherentMem, Constraints, Direction, Dma, DmaError, Mapping, Segment, SegmentSink, Unmappable, segments,
};
use crate::sync::Lock;

/// When [`Bounce`] copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// When the implementation inside cannot lend the memory itself.
    WhenNeeded,
    /// Always: for an implementation that only allocates, and for tests.
    Always,
}

/// A [`Dma`] over a [`Dma`] that copies by way of coherent memory what a device cannot reach where it lies.
///
/// The copies live in slots of one size, allocated when the adapter is made; later it allocates nothing. A mapping that
/// is longer than a slot is [`Unmappable::TooLong`] (the driver splits it); when all slots are in use, it is
/// [`DmaError::Exhausted`] (the driver tries again when a request has come back).
///
/// ```
/// # #[cfg(feature = "std")] {
/// use dfly_hal::dma::{Bounce, Constraints, Policy};
/// use dfly_hal::host::HostDma;
/// // 32 slots of 64 KiB, for a device that wants its data on whole pages.
/// let pages = Constraints { align: 4096, ..Constraints::ANY };
/// let dma = Bounce::new(HostDma::new(), Policy::WhenNeeded, 32, 65536, &pages)?;
/// # }
/// # Ok::<(), dfly_hal::dma::DmaError>(())
/// ```
pub struct Bounce<D: Dma> {
    inner: D,
    policy: Policy,
    slot_len: usize,
    slots: Box<[CoherentMem]>,
    /// The numbers of the free slots.
    free: Lock<Vec<u16>>,
}

/// One more layer of adapters uses the bits above these.
const LAYER_BITS: u32 = 16;

impl<D: Dma> Bounce<D> {
    /// An adapter with `slots` slots of `slot_len` bytes, which satisfy `constraints`: those of the most demanding
    /// device that will use it.
    pub fn new(
        inner: D,
        policy: Policy,
        slots: u16,
        slot_len: usize,
        constraints: &Constraints,
    ) -> Result<Self, DmaError> {
        // The last number would not fit beside the 0 that means "not copied".
        let slots = slots.min(u16::MAX - 1);
        let free = (0..slots).rev().collect();
        let mut mem = Vec::with_capacity(slots.into());
        for _ in 0..slots {
            match inner.alloc_coherent(slot_len, constraints) {
                Ok(slot) => mem.push(slot),
                Err(error) => {
                    for slot in mem {
                        // SAFETY: it came from `inner`, and nobody has used it.
                        unsafe { inner.free_coherent(slot) };
                    }
                    return Err(error);
                }
            }
        }
        Ok(Self { inner, policy, slot_len, slots: mem.into_boxed_slice(), free: Lock::new(free) })
    }

    /// How many slots are free now.
    pub fn free_slots(&self) -> usize {
        self.free.lock().len()
    }

    /// Fills a free slot and reports its segments.
    ///
    /// # Safety
    /// As for [`Dma::map`].
    unsafe fn map_copy(
        &self,
        cpu: NonNull<u8>,
        len: usize,
        direction: Direction,
        constraints: &Constraints,
        sink: &mut SegmentSink<'_>,
    ) -> Result<Mapping, DmaError> {
        if len > self.slot_len {
            return Err(Unmappable::TooLong(self.slot_len).into());
        }
        let number = self.free.lock().pop().ok_or(DmaError::Exhausted)?;
        let mapping = Mapping { cpu, len, direction, cookie: 0, adapter: u64::from(number) + 1 };
        let reported = self.slot(&mapping).ok_or(DmaError::Exhausted).and_then(|slot| {
            let list = segments([(slot.device, len as u64)], constraints)?;
            // In every direction: bytes that the device does not write keep their value.
            // SAFETY: the caller lends the bytes; the slot is as long, ours, and no device has it yet.
            unsafe { slot.cpu.copy_from_nonoverlapping(cpu, len) };
            report(list, sink)
        });
        if let Err(error) = reported {
            self.free.lock().push(number);
            return Err(error);
        }
        Ok(mapping)
    }

    /// The slot of a mapping that is a copy.
    fn slot(&self, mapping: &Mapping) -> Option<&CoherentMem> {
        self.slots.get(usize::from(slot_number(mapping)?))
    }
}

/// The number of the slot of a mapping that is a copy.
fn slot_number(mapping: &Mapping) -> Option<u16> {
    // The lowest layer of bits is this adapter's: the slot's number plus 1.
    (mapping.adapter as u16).checked_sub(1)
}

/// A mapping as the implementation inside returned it.
fn inner_mapping(mapping: &Mapping) -> Mapping {
    Mapping { adapter: mapping.adapter >> LAYER_BITS, ..*mapping }
}

/// What of `range` lies inside the mapping. All of it, by the caller's promise; a broken one must not reach beyond.
fn clamp(mapping: &Mapping, range: &Range<usize>) -> (usize, usize) {
    let end = range.end.min(mapping.len);
    let start = range.start.min(end);
    (start, end - start)
}

// SAFETY: coherent memory is the inner implementation's. A mapping is either the inner's, or a slot that was free, is ours
// until `unmap`, and is copied in and out there. Constraints were checked by `segments`.
unsafe impl<D: Dma> Dma for Bounce<D> {
    fn alloc_coherent(&self, len: usize, constraints: &Constraints) -> Result<CoherentMem, DmaError> {
        self.inner.alloc_coherent(len, constraints)
    }

    unsafe fn free_coherent(&self, mem: CoherentMem) {
        // SAFETY: passed on.
        unsafe { self.inner.free_coherent(mem) };
    }

    unsafe fn map(
        &self,
        cpu: NonNull<u8>,
        len: usize,
        direction: Direction,
        constraints: &Constraints,
        sink: &mut SegmentSink<'_>,
    ) -> Result<Mapping, DmaError> {
        if self.policy == Policy::WhenNeeded {
            // SAFETY: passed on.
            match unsafe { self.inner.map(cpu, len, direction, constraints, sink) } {
                Ok(mapping) if mapping.adapter.leading_zeros() >= LAYER_BITS => {
                    return Ok(Mapping { adapter: mapping.adapter << LAYER_BITS, ..mapping });
                }
                Ok(too_many_layers) => {
                    // SAFETY: it was made just now, and no device has been told of it: we return an error.
                    unsafe { self.inner.unmap(too_many_layers) };
                    return Err(DmaError::Exhausted);
                }
                // Nothing has been reported yet: a copy may do.
                Err(DmaError::Unmappable(_) | DmaError::Exhausted) => {}
                Err(error) => return Err(error),
            }
        }
        // SAFETY: passed on.
        unsafe { self.map_copy(cpu, len, direction, constraints, sink) }
    }

    unsafe fn unmap(&self, mapping: Mapping) {
        let Some(number) = slot_number(&mapping) else {
            // SAFETY: passed on.
            return unsafe { self.inner.unmap(inner_mapping(&mapping)) };
        };
        // SAFETY: passed on.
        unsafe { self.sync_for_cpu(&mapping, 0..mapping.len) };
        self.free.lock().push(number);
    }

    unsafe fn sync_for_device(&self, mapping: &Mapping, range: Range<usize>) {
        let Some(slot) = self.slot(mapping) else {
            // SAFETY: passed on.
            return unsafe { self.inner.sync_for_device(&inner_mapping(mapping), range) };
        };
        let (start, len) = clamp(mapping, &range);
        // SAFETY: inside the mapped bytes.
        let from = unsafe { mapping.cpu.add(start) };
        // SAFETY: a slot is at least as long as its mapping.
        let to = unsafe { slot.cpu.add(start) };
        // SAFETY: both are valid for `len` bytes; the caller keeps the device and other CPUs away.
        unsafe { to.copy_from_nonoverlapping(from, len) };
    }

    unsafe fn sync_for_cpu(&self, mapping: &Mapping, range: Range<usize>) {
        let Some(slot) = self.slot(mapping) else {
            // SAFETY: passed on.
            return unsafe { self.inner.sync_for_cpu(&inner_mapping(mapping), range) };
        };
        if !mapping.direction.device_writes() {
            // The CPU's bytes may be shared or constant, and have not changed.
            return;
        }
        let (start, len) = clamp(mapping, &range);
        // SAFETY: a slot is at least as long as its mapping.
        let from = unsafe { slot.cpu.add(start) };
        // SAFETY: inside the mapped bytes.
        let to = unsafe { mapping.cpu.add(start) };
        // SAFETY: both are valid for `len` bytes, and `to` for writes, because the device writes; the caller keeps the
        // device and other CPUs away.
        unsafe { to.copy_from_nonoverlapping(from, len) };
    }

    fn wmb(&self) {
        self.inner.wmb();
    }

    fn rmb(&self) {
        self.inner.rmb();
    }
}

/// Reports each segment, until the caller refuses one.
pub(crate) fn report(
    list: impl Iterator<Item = Segment>,
    sink: &mut SegmentSink<'_>,
) -> Result<(), DmaError> {
    for segment in list {
        if sink(segment).is_break() {
            return Err(DmaError::Refused);
        }
    }
    Ok(())
}

impl<D: Dma> Drop for Bounce<D> {
    fn drop(&mut self) {
        let free = core::mem::take(self.free.get_mut());
        for (number, slot) in core::mem::take(&mut self.slots).into_iter().enumerate() {
            // A slot that is still mapped leaks: a device may be using it.
            if free.iter().any(|&f| usize::from(f) == number) {
                // SAFETY: it came from `inner`, and no mapping uses it.
                unsafe { self.inner.free_coherent(slot) };
            }
        }
    }
}

impl<D: Dma> fmt::Debug for Bounce<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bounce")
            .field("policy", &self.policy)
            .field("slots", &self.slots.len())
            .field("slot_len", &self.slot_len)
            .finish_non_exhaustive()
    }
}
