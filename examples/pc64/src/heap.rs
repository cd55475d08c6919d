//! The heap: all ordinary memory that is not used otherwise.
//!
//! Interrupt handlers neither allocate nor free: it is said to whoever tries, because the lock may be held by the thread that
//! was interrupted. Once the machine is ending there is no more memory, because the lock may be held by a CPU that was stopped.

use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::ptr::{self, NonNull};

use dfly_hal::sync::Lock;
use talc::base::Talc;
use talc::base::binning::DefaultBinning;
use talc::source::Manual;

use crate::boot::BootInfo;
use crate::firmware::overlaps;
use crate::{cpu, memory, panic};

/// What is given to the heap begins and ends at multiples of this.
const UNIT: u64 = 4096;
const MOST_RANGES: usize = 80;

#[global_allocator]
static HEAP: Heap = Heap { memory: Lock::new(Talc::new(Manual)), ranges: Lock::new([(0, 0); MOST_RANGES]) };

/// Takes the ordinary memory of `window`, which is mapped, except for what is used.
pub fn claim(info: &BootInfo, window: Range<u64>) {
    HEAP.claim(info, window);
}

/// Whether any of `range` belongs to the heap.
pub fn holds(range: &Range<u64>) -> bool {
    HEAP.ranges.lock().iter().any(|&(start, end)| overlaps(range, &(start..end)))
}

/// Whether all of `range` does, for who follows a stack in a panic: a lock that is taken is left alone, and means no.
pub fn holds_all_in_panic(range: &Range<u64>) -> bool {
    let inside = |&(start, end): &(u64, u64)| start <= range.start && range.end <= end;
    HEAP.ranges.try_lock().is_some_and(|ranges| ranges.iter().any(inside))
}

struct Heap {
    memory: Lock<Talc<Manual, DefaultBinning>>,
    ranges: Lock<[(u64, u64); MOST_RANGES]>,
}

impl Heap {
    /// Takes the ordinary memory of `window`, except for the image, the command line and the module.
    fn claim(&self, info: &BootInfo, window: Range<u64>) {
        let slice = |bytes: &[u8]| {
            let start = bytes.as_ptr().addr() as u64;
            start..start + bytes.len() as u64
        };
        let mut used =
            [memory::image(), slice(info.command_line.as_bytes()), slice(info.module.unwrap_or(&[]))];
        used.sort_by_key(|range| range.start);
        for ram in info.ram() {
            let (mut start, end) = (ram.start.max(window.start), ram.end.min(window.end));
            for hole in used.iter().filter(|hole| overlaps(hole, &ram)) {
                self.add(start, hole.start.min(end));
                start = start.max(hole.end);
            }
            self.add(start, end);
        }
    }

    fn add(&self, start: u64, end: u64) {
        let (start, end) = (start.next_multiple_of(UNIT), end & !(UNIT - 1));
        // A loader that names memory twice gives it once.
        if start >= end || holds(&(start..end)) {
            return;
        }
        if let Some(free) = self.ranges.lock().iter_mut().find(|range| range.1 == 0) {
            *free = (start, end);
            let base = ptr::with_exposed_provenance_mut(start as usize);
            // SAFETY: ordinary memory, mapped, that nobody else uses and that was not claimed before. (What comes back is where
            // the range ends.)
            let _ = unsafe { self.memory.lock().claim(base, (end - start) as usize) };
        }
    }
}

// SAFETY: what Talc hands out, under a lock.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if panic::is_ending() {
            return ptr::null_mut();
        }
        assert!(!cpu::in_interrupt(), "an interrupt handler allocates");
        // SAFETY: the length is not 0, as the caller promised.
        unsafe { self.memory.lock().allocate(layout) }.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if panic::is_ending() {
            return;
        }
        assert!(!cpu::in_interrupt(), "an interrupt handler frees");
        // SAFETY: allocated here with this layout, as the caller promised.
        unsafe { self.memory.lock().deallocate(at, layout) };
    }
}
