//! The memory of a thread's stack, and whether an overflow faults.

#[cfg(all(unix, feature = "std"))]
mod mapped;

use core::ptr::NonNull;

/// Memory for a thread's stack: what [`Platform::stack`](crate::Platform::stack) gives. It belongs to the scheduler for
/// ever, which puts one thread after the other on it.
#[derive(Debug)]
pub struct StackMemory {
    pub(crate) bottom: NonNull<u8>,
    pub(crate) bytes: usize,
    pub(crate) guard_bytes: usize,
}

// SAFETY: it owns the memory, which anybody may use.
unsafe impl Send for StackMemory {}
// SAFETY: to share it is to share an address and two numbers.
unsafe impl Sync for StackMemory {}

impl StackMemory {
    /// The `bytes` from `bottom` on. A stack grows down: with the last of them it begins, and below `bottom` there are
    /// `guard_bytes` that fault.
    ///
    /// # Safety
    /// The memory is valid for reads and writes, aligned to 4096 bytes, and nobody else's for ever. So are the
    /// `guard_bytes` below it, and each access to them is a fault of which nobody goes on; 0 if it is not so.
    pub const unsafe fn new(bottom: NonNull<u8>, bytes: usize, guard_bytes: usize) -> Self {
        Self { bottom, bytes, guard_bytes }
    }

    /// What can be had without a kernel's help, `bytes` long; `None` if there is no memory. On Unix with the feature `std`
    /// that comes from the system, with a guard page below it. Elsewhere it is the heap's, without.
    pub fn allocate(bytes: usize) -> Option<Self> {
        #[cfg(all(unix, feature = "std"))]
        return mapped::allocate(bytes);
        #[cfg(not(all(unix, feature = "std")))]
        return from_heap(bytes);
    }

    /// Where it ends: the lowest address.
    pub fn bottom(&self) -> NonNull<u8> {
        self.bottom
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many bytes below it fault: 0 if there is no guard.
    pub fn guard_bytes(&self) -> usize {
        self.guard_bytes
    }
}

#[cfg(not(all(unix, feature = "std")))]
fn from_heap(bytes: usize) -> Option<StackMemory> {
    let layout = core::alloc::Layout::from_size_align(bytes, 4096).ok().filter(|layout| layout.size() > 0)?;
    // SAFETY: the size is not 0.
    let bottom = NonNull::new(unsafe { alloc::alloc::alloc(layout) })?;
    // SAFETY: allocated just now, and leaked. There is no guard.
    Some(unsafe { StackMemory::new(bottom, bytes, 0) })
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn memory_for_a_stack_can_be_written_to_its_ends() {
        let memory = StackMemory::allocate(8 << 10).unwrap();
        assert_eq!(memory.bytes(), 8 << 10);
        assert!(memory.bottom.addr().get().is_multiple_of(4096));
        // SAFETY: inside of it.
        let last = unsafe { memory.bottom.add(memory.bytes() - 1) };
        for at in [memory.bottom, last] {
            // SAFETY: valid, and nobody else's.
            unsafe { at.write_volatile(1) };
        }
        let has_guard = cfg!(all(unix, feature = "std"));
        assert_eq!(memory.guard_bytes() > 0, has_guard);
        assert!(StackMemory::allocate(usize::MAX).is_none());
    }
}
