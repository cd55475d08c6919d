//! The heap: all memory behind the image. Interrupt handlers neither allocate nor free.

use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::ptr::{self, NonNull};

use dfly_hal::sync::Lock;
use talc::base::Talc;
use talc::base::binning::DefaultBinning;
use talc::source::Manual;

#[global_allocator]
static HEAP: Heap = Heap(Lock::new(Talc::new(Manual)));

struct Heap(Lock<Talc<Manual, DefaultBinning>>);

/// Gives the heap its memory, as the device tree has named it. Once.
pub fn give(memory: Range<usize>) {
    let base = ptr::with_exposed_provenance_mut(memory.start);
    // SAFETY: memory behind the image, which nobody uses. (What comes back is where it ends.)
    let _ = unsafe { HEAP.0.lock().claim(base, memory.len()) };
}

// SAFETY: what Talc hands out, under a lock.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the length is not 0, as the caller promised.
        unsafe { self.0.lock().allocate(layout) }.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: allocated here with this layout, as the caller promised.
        unsafe { self.0.lock().deallocate(at, layout) };
    }
}
