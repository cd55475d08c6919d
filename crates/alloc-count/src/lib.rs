//! Test support: counts what a thread asks of the allocator, so that a test can say "this allocates nothing".
//!
//! A test binary that uses [`allocator_calls`] has the counting allocator installed.
//!
//! ```
//! use dfly_alloc_count::allocator_calls;
//!
//! let mut v = Vec::with_capacity(10);
//! assert_eq!(allocator_calls(|| v.push(1)), 0);
//! assert_eq!(allocator_calls(|| drop(std::hint::black_box(vec![1]))), 2);
//! ```
#![deny(missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counted. What is grown in place counts twice: it is allocated anew and freed.
struct Counting;

// SAFETY: it only counts, and forwards to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How often `f` called the allocator on this thread, for memory or to give it back.
pub fn allocator_calls(f: impl FnOnce()) -> usize {
    let before = CALLS.get();
    f();
    CALLS.get() - before
}
