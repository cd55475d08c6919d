//! What the crates of the family use in place of `core::sync` and `core::cell`.

/// Shared ownership: `alloc::sync::Arc`, or loom's, which finds leaks.
#[cfg(not(loom))]
pub use alloc::sync::Arc;
#[cfg(loom)]
pub use loom::sync::Arc;

/// Atomic types and fences.
pub mod atomic {
    #[cfg(all(feature = "count", not(loom)))]
    pub use super::super::count::atomic::*;
    #[cfg(all(not(any(feature = "count", loom)), target_has_atomic = "64"))]
    pub use core::sync::atomic::AtomicU64;
    #[cfg(not(any(feature = "count", loom)))]
    pub use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicUsize, fence};
    #[cfg(loom)]
    pub use loom::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, fence,
    };

    pub use core::sync::atomic::Ordering;
}

/// A cell whose accesses loom can watch.
pub mod cell {
    #[cfg(loom)]
    pub use loom::cell::UnsafeCell;

    /// `core::cell::UnsafeCell` with loom's interface: the pointer is lent to a closure, so a model checker knows when
    /// the access begins and ends.
    #[cfg(not(loom))]
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub struct UnsafeCell<T: ?Sized>(core::cell::UnsafeCell<T>);

    #[cfg(not(loom))]
    impl<T> UnsafeCell<T> {
        /// A cell that holds `value`.
        pub const fn new(value: T) -> Self {
            Self(core::cell::UnsafeCell::new(value))
        }

        /// The value, with the cell taken apart.
        pub fn into_inner(self) -> T {
            self.0.into_inner()
        }
    }

    #[cfg(not(loom))]
    impl<T: ?Sized> UnsafeCell<T> {
        /// Lends a pointer for reading. Dereferencing it is for the caller to justify.
        #[inline(always)]
        pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// Lends a pointer for writing. Dereferencing it is for the caller to justify.
        #[inline(always)]
        pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

/// What a loop does that waits for another CPU.
pub mod hint {
    /// Tells the CPU, or the model checker, that this loop waits for somebody else.
    #[inline(always)]
    pub fn spin_loop() {
        #[cfg(loom)]
        loom::thread::yield_now();
        #[cfg(not(loom))]
        core::hint::spin_loop();
    }

    /// Waits a little longer at each turn of a loop, so that many waiters do not fight over one cache line. On a host
    /// (feature `std`) it gives the processor away after a while, because there the holder may be off its processor.
    #[derive(Debug, Default)]
    pub struct Backoff {
        #[cfg(not(loom))]
        inner: crossbeam_utils::Backoff,
    }

    impl Backoff {
        /// The shortest wait comes first.
        #[inline]
        pub fn new() -> Self {
            Self::default()
        }

        /// One turn of the loop.
        #[inline]
        pub fn snooze(&self) {
            #[cfg(loom)]
            loom::thread::yield_now();
            #[cfg(not(loom))]
            self.inner.snooze();
        }
    }
}
