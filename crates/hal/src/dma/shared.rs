//! Copying to and from memory that somebody else uses at the same time: a device, or a model of one on another thread.
//!
//! Every access is atomic and unordered, in pieces of four bytes where address and length allow it and of one where not.
//! So a piece is never torn, accesses are neither merged nor dropped, and a device that is a thread of this process is no
//! data race, provided that what both touch unordered is accessed in whole aligned words: an access by bytes over one by
//! words is a race of mixed sizes. Order is for `Dma::wmb` and `Dma::rmb`.

// `core`'s atomics, not the facade's: the other side is a device, which no model checker runs.
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Copies out of shared memory.
///
/// # Safety
/// `from` is valid for reads of `to.len()` bytes, which nobody else accesses other than atomically or from outside the
/// program.
#[inline]
pub(crate) unsafe fn load(from: NonNull<u8>, to: &mut [u8]) {
    if (from.addr().get() | to.len()).is_multiple_of(4) {
        for (i, piece) in to.chunks_exact_mut(4).enumerate() {
            // SAFETY: inside the range.
            let at = unsafe { from.add(4 * i) };
            // SAFETY: valid and aligned, and accessed as `load`'s caller promised.
            let word = unsafe { AtomicU32::from_ptr(at.as_ptr().cast()) }.load(Ordering::Relaxed);
            // The bytes as they lie in memory, whatever the CPU's byte order.
            piece.copy_from_slice(&u32::from_le(word).to_le_bytes());
        }
    } else {
        for (i, piece) in to.iter_mut().enumerate() {
            // SAFETY: inside the range.
            let at = unsafe { from.add(i) };
            // SAFETY: valid, and accessed as `load`'s caller promised.
            *piece = unsafe { AtomicU8::from_ptr(at.as_ptr()) }.load(Ordering::Relaxed);
        }
    }
}

/// Copies into shared memory.
///
/// # Safety
/// As for [`load`], and `to` is valid for writes.
#[inline]
pub(crate) unsafe fn store(to: NonNull<u8>, from: &[u8]) {
    if (to.addr().get() | from.len()).is_multiple_of(4) {
        for (i, piece) in from.as_chunks::<4>().0.iter().enumerate() {
            // SAFETY: inside the range.
            let at = unsafe { to.add(4 * i) };
            // SAFETY: valid and aligned, and accessed as `store`'s caller promised.
            let word = unsafe { AtomicU32::from_ptr(at.as_ptr().cast()) };
            word.store(u32::from_le_bytes(*piece).to_le(), Ordering::Relaxed);
        }
    } else {
        for (i, piece) in from.iter().enumerate() {
            // SAFETY: inside the range.
            let at = unsafe { to.add(i) };
            // SAFETY: valid, and accessed as `store`'s caller promised.
            unsafe { AtomicU8::from_ptr(at.as_ptr()) }.store(*piece, Ordering::Relaxed);
        }
    }
}
