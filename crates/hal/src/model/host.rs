//! The process's memory as the model's: the other side of [`HostDma`](crate::host::HostDma).
//!
//! Both sides of a ring touch it at the same time, from different threads, so every access here is atomic: whole words
//! where the range holds them, as [`Coherent`](crate::dma::Coherent) does on the driver's side, and single bytes at
//! crooked ends, because the rest of such a word is somebody else's. Order comes from the doorbell, which is a call.

use core::ptr::with_exposed_provenance_mut;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use super::DeviceMemory;
use crate::dma::DevAddr;

/// Bytes of a word.
const WORD: usize = size_of::<u32>();

/// The process's memory, for a model whose driver has [`HostDma`](crate::host::HostDma): a device's address is the
/// CPU's.
///
/// ```
/// use dfly_hal::dma::{Coherent, Constraints};
/// use dfly_hal::host::HostDma;
/// use dfly_hal::model::{DeviceMemory, HostMemory};
/// let mut ring = Coherent::<u32, _>::alloc(HostDma::new(), 4, &Constraints::ANY)?;
/// ring.set(1, 7)?;
/// // SAFETY: this "device" is told of memory that `HostDma` handed out, and of no other.
/// let memory = unsafe { HostMemory::new() };
/// let mut seen = [0; 4];
/// assert!(memory.read(ring.device_addr(1).ok_or("no element 1")?, &mut seen));
/// assert_eq!(seen, 7_u32.to_le_bytes());
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct HostMemory(());

impl HostMemory {
    /// The process's memory, in the model's hand.
    ///
    /// # Safety
    /// Whoever drives the model's registers is a driver that keeps to what [`MmioWindow::new`] asks of one: every address
    /// that it gives the model, in a register, a ring or a list, is one that `HostDma` handed out, and stays lent for as
    /// long as the model may use it. A driver of this family over a HAL whose [`Dma`](crate::dma::Dma) is `HostDma` is such
    /// a driver; safe code that writes to the registers itself is not.
    ///
    /// [`MmioWindow::new`]: crate::regs::MmioWindow::new
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

/// What an access of `len` bytes at `at` consists of: each place and how many bytes, 1 or a whole aligned word.
fn accesses(at: usize, len: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let left = len.checked_sub(done).filter(|&left| left != 0)?;
        let place = at.wrapping_add(done);
        let now = if place.is_multiple_of(WORD) && left >= WORD { WORD } else { 1 };
        done += now;
        Some((place, now))
    })
}

/// Whether the range lies in the address space, and not at null.
fn is_there(at: DevAddr, len: usize) -> Option<usize> {
    let start = usize::try_from(at.0).ok().filter(|&start| start != 0)?;
    start.checked_add(len)?;
    Some(start)
}

impl DeviceMemory for HostMemory {
    fn read(&self, at: DevAddr, to: &mut [u8]) -> bool {
        let Some(start) = is_there(at, to.len()) else { return false };
        let mut rest = to;
        for (place, len) in accesses(start, rest.len()) {
            let (now, later) = rest.split_at_mut(len);
            let from = with_exposed_provenance_mut::<u8>(place);
            if len == WORD {
                // SAFETY: aligned; lent to the device, says whoever made this; accessed atomically by both sides, or only
                // read.
                let word = unsafe { AtomicU32::from_ptr(from.cast()) }.load(Ordering::Relaxed);
                // The bytes as they lie in memory, whatever the CPU's byte order.
                now.copy_from_slice(&u32::from_le(word).to_le_bytes());
            } else {
                // SAFETY: as above.
                now.fill(unsafe { AtomicU8::from_ptr(from) }.load(Ordering::Relaxed));
            }
            rest = later;
        }
        true
    }

    fn write(&self, at: DevAddr, from: &[u8]) -> bool {
        let Some(start) = is_there(at, from.len()) else { return false };
        let mut rest = from;
        for (place, len) in accesses(start, rest.len()) {
            let (now, later) = rest.split_at(len);
            let to = with_exposed_provenance_mut::<u8>(place);
            if let Ok(word) = <[u8; WORD]>::try_from(now) {
                // SAFETY: aligned; lent to the device for writing, says whoever made this; accessed atomically by both
                // sides, or by the device alone.
                unsafe { AtomicU32::from_ptr(to.cast()) }
                    .store(u32::from_le_bytes(word).to_le(), Ordering::Relaxed);
            } else if let &[byte] = now {
                // SAFETY: as above.
                unsafe { AtomicU8::from_ptr(to) }.store(byte, Ordering::Relaxed);
            }
            rest = later;
        }
        true
    }
}
