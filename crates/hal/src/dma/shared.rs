//! Copying to and from memory that somebody else uses at the same time: a device, or a model of one on another thread.
//!
//! Every access is of a whole aligned word of four bytes, atomic and unordered. So no word is torn, accesses are neither
//! merged nor dropped, and two of them are never a data race, nor one of mixed sizes. Order is for `Dma::wmb` and
//! `Dma::rmb`.

// `core`'s atomics, not the facade's: the other side is a device, which no model checker runs.
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a word.
pub(crate) const WORD: usize = size_of::<u32>();

/// The words that hold `len` bytes from `start` on: how far each lies from `start`, rounded down to a word; which of its
/// bytes belong to the range; and which bytes of the range these are.
fn words(start: NonNull<u8>, len: usize) -> impl Iterator<Item = (usize, Range<usize>, Range<usize>)> {
    let lead = start.addr().get() % WORD;
    (0..(lead + len).div_ceil(WORD)).map(move |i| {
        let (from, to) = ((i * WORD).max(lead), ((i + 1) * WORD).min(lead + len));
        (i * WORD, from - i * WORD..to - i * WORD, from - lead..to - lead)
    })
}

/// Whether the range is made of whole words, as the entries of rings are: then it is copied without looking at each.
fn is_whole(start: NonNull<u8>, len: usize) -> bool {
    start.addr().get().is_multiple_of(WORD) && len.is_multiple_of(WORD)
}

/// The word `offset` bytes behind the one that holds `start`.
///
/// # Safety
/// That word is valid for reads and writes, and only accessed through this module or from outside the program, for `'a`.
unsafe fn word<'a>(start: NonNull<u8>, offset: usize) -> &'a AtomicU32 {
    let lead = start.addr().get() % WORD;
    // SAFETY: the word that holds `start` is valid, so it lies in the same allocation.
    let first = unsafe { start.sub(lead) };
    // SAFETY: as the caller promised.
    let at = unsafe { first.add(offset) };
    // SAFETY: valid, aligned, and accessed atomically only, as the caller promised.
    unsafe { AtomicU32::from_ptr(at.as_ptr().cast()) }
}

/// Copies out of shared memory.
///
/// # Safety
/// The aligned words that hold the `to.len()` bytes at `from` are valid for reads and writes, and nobody accesses them
/// other than through this module or from outside the program.
#[inline]
pub(crate) unsafe fn load(from: NonNull<u8>, to: &mut [u8]) {
    if is_whole(from, to.len()) {
        for (i, to) in to.as_chunks_mut::<WORD>().0.iter_mut().enumerate() {
            // SAFETY: one of the words of the range.
            let value = unsafe { word(from, i * WORD) }.load(Ordering::Relaxed);
            *to = u32::from_le(value).to_le_bytes();
        }
        return;
    }
    for (offset, of_word, of_range) in words(from, to.len()) {
        // SAFETY: one of the words of the range.
        let value = unsafe { word(from, offset) }.load(Ordering::Relaxed);
        // The bytes as they lie in memory, whatever the CPU's byte order.
        let bytes = u32::from_le(value).to_le_bytes();
        if let (Some(to), Some(from)) = (to.get_mut(of_range), bytes.get(of_word)) {
            to.copy_from_slice(from);
        }
    }
}

/// Copies into shared memory. The other bytes of a word that is written in part stay as they are at that moment.
///
/// # Safety
/// As for [`load`].
#[inline]
pub(crate) unsafe fn store(to: NonNull<u8>, from: &[u8]) {
    if is_whole(to, from.len()) {
        for (i, new) in from.as_chunks::<WORD>().0.iter().enumerate() {
            // SAFETY: one of the words of the range.
            unsafe { word(to, i * WORD) }.store(u32::from_le_bytes(*new).to_le(), Ordering::Relaxed);
        }
        return;
    }
    for (offset, of_word, of_range) in words(to, from.len()) {
        let Some(new) = from.get(of_range) else { continue };
        // SAFETY: one of the words of the range.
        let word = unsafe { word(to, offset) };
        if let Ok(whole) = <[u8; WORD]>::try_from(new) {
            word.store(u32::from_le_bytes(whole).to_le(), Ordering::Relaxed);
            continue;
        }
        let with_new = |old: u32| {
            let mut bytes = u32::from_le(old).to_le_bytes();
            bytes.get_mut(of_word.clone())?.copy_from_slice(new);
            Some(u32::from_le_bytes(bytes).to_le())
        };
        // Always succeeds: `with_new` never declines.
        let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_new);
    }
}
