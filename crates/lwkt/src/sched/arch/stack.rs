//! A thread's stack: how much of it was used, and whether that was too much.

use core::ops::Range;
use core::ptr::NonNull;

use crate::platform::Platform;
use crate::sched::stack_size::StackSize;
use crate::stack::StackMemory;

/// What unused stack is painted with, and what guards its lower end where no page does.
const PAINT: u64 = 0x5afe_57ac_5afe_57ac;

/// How many words at the lower end are looked at, at each switch.
const GUARD_WORDS: usize = 8;

/// A stack, which is never freed: its thread may be suspended on it for ever, and whoever looks at how much of it was
/// used needs no lock.
pub(crate) struct Stack {
    bottom: NonNull<u64>,
    size: StackSize,
    guard_bytes: usize,
}

// SAFETY: the memory is written by the thread on it and by `paint`, whose caller owns it; all else only looks, with
// volatile reads, at words of any value.
unsafe impl Send for Stack {}
// SAFETY: as above.
unsafe impl Sync for Stack {}

impl Stack {
    /// Not painted yet. `None` if there is no memory.
    pub(crate) fn new(size: StackSize, platform: &dyn Platform) -> Option<Self> {
        let StackMemory { bottom, bytes, guard_bytes } = platform.stack(size.bytes())?;
        (bytes >= size.bytes()).then_some(Self { bottom: bottom.cast(), size, guard_bytes })
    }

    pub(crate) fn size(&self) -> StackSize {
        self.size
    }

    fn words(&self) -> usize {
        self.size.bytes() / size_of::<u64>()
    }

    /// Whether an overflow faults, so that nothing is written to by it.
    pub(crate) fn is_guarded(&self) -> bool {
        self.guard_bytes > 0
    }

    /// Where it does.
    pub(crate) fn guard(&self) -> Range<usize> {
        let end = self.bottom.addr().get();
        end.saturating_sub(self.guard_bytes)..end
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

    /// Whether the lower end is as it was painted: a thread that has overflowed its stack has most likely changed it. One
    /// that is guarded by a page could not.
    #[inline]
    pub(crate) fn is_whole(&self) -> bool {
        self.is_guarded() || (0..GUARD_WORDS).all(|word| self.is_painted(word))
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
    use core::alloc::Layout;

    use super::*;

    #[test]
    fn what_was_written_to_is_found_and_a_broken_end_too() {
        let layout = Layout::from_size_align(StackSize::MIN_BYTES, 4096).unwrap();
        // SAFETY: the size is not 0.
        let bottom = NonNull::new(unsafe { alloc::alloc::alloc(layout) }).unwrap().cast();
        let size = StackSize::for_bytes(StackSize::MIN_BYTES).unwrap();
        let stack = Stack { bottom, size, guard_bytes: 0 };
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
        assert!(Stack { guard_bytes: 4096, ..stack }.is_whole());
        // SAFETY: as it was allocated; a stack is never freed but here.
        unsafe { alloc::alloc::dealloc(bottom.as_ptr().cast(), layout) };
    }
}
