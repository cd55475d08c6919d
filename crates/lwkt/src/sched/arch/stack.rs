//! The memory of a thread's stack.

use core::alloc::Layout;
use core::ptr::NonNull;

use alloc::alloc::alloc;

use crate::sched::stack_size::StackSize;

/// What unused stack is painted with, and what guards its lower end.
const PAINT: u64 = 0x5afe_57ac_5afe_57ac;

/// How many words at the lower end are looked at, at each switch.
const GUARD_WORDS: usize = 8;

/// A stack, which is never freed: its thread may be suspended on it for ever, and whoever looks at how much of it was
/// used needs no lock.
pub(crate) struct Stack {
    bottom: NonNull<u64>,
    size: StackSize,
}

// SAFETY: the memory is written by the thread on it and by `paint`, whose caller owns it; all else only looks, with
// volatile reads, at words of any value.
unsafe impl Send for Stack {}
// SAFETY: as above.
unsafe impl Sync for Stack {}

impl Stack {
    /// Not painted yet. `None` if there is no memory.
    pub(crate) fn new(size: StackSize) -> Option<Self> {
        let layout = Layout::from_size_align(size.bytes(), 4096).ok()?;
        // SAFETY: the size is not 0.
        let bottom = NonNull::new(unsafe { alloc(layout) })?.cast();
        Some(Self { bottom, size })
    }

    pub(crate) fn size(&self) -> StackSize {
        self.size
    }

    fn words(&self) -> usize {
        self.size.bytes() / size_of::<u64>()
    }

    /// The end that a thread starts from, aligned to a page.
    pub(crate) fn top(&self) -> *mut u8 {
        // SAFETY: one past the end of the allocation.
        unsafe { self.bottom.as_ptr().add(self.words()).cast() }
    }

    /// Makes all of it unused.
    ///
    /// # Safety
    /// No thread is on it.
    pub(crate) unsafe fn paint(&self) {
        for word in 0..self.words() {
            // SAFETY: inside the allocation.
            let at = unsafe { self.bottom.as_ptr().add(word) };
            // SAFETY: valid and aligned, and nobody else writes to it. Volatile, as it is read so by others.
            unsafe { at.write_volatile(PAINT) };
        }
    }

    fn is_painted(&self, word: usize) -> bool {
        debug_assert!(word < self.words());
        // SAFETY: inside the allocation.
        let at = unsafe { self.bottom.as_ptr().add(word) };
        // SAFETY: valid and aligned. It may be written at this moment by the thread on the stack, whose memory is
        // outside of what the compiler reasons about.
        unsafe { at.read_volatile() == PAINT }
    }

    /// Whether the lower end is as it was painted: a thread that has overflowed its stack has most likely changed it.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        (0..GUARD_WORDS).all(|word| self.is_painted(word))
    }

    /// How much was used at the most, as far as the paint tells. Looks at all of what was not.
    pub(crate) fn used_bytes(&self) -> Option<usize> {
        let words = self.words();
        let unused = (0..words).take_while(|&word| self.is_painted(word)).count();
        Some((words - unused) * size_of::<u64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_to_is_found_and_a_broken_end_too() {
        let stack = Stack::new(StackSize::for_bytes(StackSize::MIN_BYTES).unwrap()).unwrap();
        assert_eq!(stack.size().bytes(), StackSize::MIN_BYTES);
        // SAFETY: no thread is on it.
        unsafe { stack.paint() };
        assert_eq!((stack.used_bytes(), stack.is_whole()), (Some(0), true));
        let write = |bytes_from_top: usize| {
            // SAFETY: inside the stack.
            let at = unsafe { stack.top().sub(bytes_from_top) };
            // SAFETY: valid, and no thread is on it.
            unsafe { at.write_volatile(1) };
        };
        write(1);
        assert_eq!(stack.used_bytes(), Some(8));
        write(1000);
        write(500);
        assert_eq!((stack.used_bytes(), stack.is_whole()), (Some(1000), true));
        write(StackSize::MIN_BYTES - 8 * GUARD_WORDS);
        assert!(stack.is_whole());
        write(StackSize::MIN_BYTES - 8 * GUARD_WORDS + 1);
        assert!(!stack.is_whole());
        write(StackSize::MIN_BYTES);
        assert_eq!(stack.used_bytes(), Some(StackSize::MIN_BYTES));
        let layout = Layout::from_size_align(StackSize::MIN_BYTES, 4096).unwrap();
        // SAFETY: as it was allocated; a stack is never freed but here.
        unsafe { alloc::alloc::dealloc(stack.bottom.as_ptr().cast(), layout) };
    }
}
