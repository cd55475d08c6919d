//! Memory from the operating system, with a page below it that nobody may touch.

use core::ptr::{self, NonNull};

use super::StackMemory;

/// Memory of `bytes`, and a guard page.
pub(super) fn allocate(bytes: usize) -> Option<StackMemory> {
    // SAFETY: asks for a number.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    let whole = bytes.checked_next_multiple_of(page)?.checked_add(page)?;
    // SAFETY: a new mapping, where the system likes.
    let guard = unsafe {
        libc::mmap(ptr::null_mut(), whole, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    };
    if guard == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: inside of the mapping, which is longer than a page.
    let bottom = unsafe { guard.byte_add(page) };
    // SAFETY: the rest of the mapping, which nobody else knows.
    if unsafe { libc::mprotect(bottom, whole - page, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
        // SAFETY: the mapping of above. (If even that fails, it is lost.)
        let _ = unsafe { libc::munmap(guard, whole) };
        return None;
    }
    // SAFETY: mapped just now, never unmapped, aligned to a page of at least 4096 bytes; the page below is mapped so that
    // each access is a signal.
    Some(unsafe { StackMemory::new(NonNull::new(bottom.cast())?, bytes, page) })
}
