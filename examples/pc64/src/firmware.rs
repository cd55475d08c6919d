//! Tables that the firmware left in memory: read in place, every length checked.

use core::ops::Range;
use core::ptr;
use core::slice;

use crate::{cpu, heap, memory};

/// Memory at and above this address is not looked at: the boot's page tables end here.
const END: u64 = 4 << 30;

/// The `len` bytes at `at`, if firmware may have put something there: not where
/// the kernel or its trampoline is, and never part of the heap.
pub fn bytes(at: u64, len: usize) -> Option<&'static [u8]> {
    let end = at.checked_add(len as u64).filter(|&end| at > 0 && end <= END)?;
    let range = at..end;
    if overlaps(&range, &memory::image()) || overlaps(&range, &cpu::TRAMPOLINE) || heap::holds(&range) {
        return None;
    }
    let start = ptr::with_exposed_provenance(usize::try_from(at).ok()?);
    // SAFETY: mapped one to one. Nobody writes it: the firmware is done, the image's variables are elsewhere, and the heap
    // is set up without what has been handed out here (`heap::claim`), and refused afterwards.
    Some(unsafe { slice::from_raw_parts(start, len) })
}

/// The text at `at` that ends with a zero byte, if that comes within `longest` bytes.
pub fn text(at: u64, longest: usize) -> Option<&'static str> {
    let len = bytes(at, longest)?.iter().position(|&byte| byte == 0)?;
    str::from_utf8(bytes(at, len)?).ok()
}

/// Whether two ranges share anything.
pub fn overlaps(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// The number of four bytes at `offset`.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The number of eight bytes at `offset`.
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}
