//! The window over real registers: the one place that touches them.

use core::fmt;
use core::ptr::NonNull;

use safe_mmio::UniqueMmioPointer;
use safe_mmio::fields::ReadWrite;

use super::Window;

/// Memory-mapped registers.
///
/// The accesses are those of the crate `safe-mmio`: single instructions that a hypervisor can emulate. A platform that
/// must not use plain loads and stores (a confidential guest) turns on that crate's feature `custom-mmio` and supplies
/// them; nothing changes here.
pub struct MmioWindow {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: `new`'s caller promised that the registers may be accessed from every CPU, also at the same time.
unsafe impl Send for MmioWindow {}
// SAFETY: as for `Send`.
unsafe impl Sync for MmioWindow {}

impl MmioWindow {
    /// A window over `len` bytes of registers at `base`.
    ///
    /// # Safety
    /// - `base` is aligned to 8 bytes, and the `len` bytes there are mapped, as device memory, for as long as the window
    ///   is used, by whichever CPU.
    /// - They are the registers of one device (or ordinary memory set aside for a test), and nobody else drives that
    ///   device. No Rust reference to them exists. Accesses by several CPUs at the same time do no harm other than to
    ///   the device's state.
    /// - Every access that a driver makes is harmless to the rest of the machine, with one exception: a register write
    ///   can tell the device to read or write any memory that the driver names. This is where that is agreed to; the
    ///   `unsafe` methods of [`Dma`](crate::dma::Dma) are where a driver says which memory.
    pub const unsafe fn new(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len }
    }

    /// The length of the window in bytes. A driver compares it with the registers that it needs before it begins.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the window holds no register at all.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The register of type `T` at `offset`, if the window holds it.
    #[inline]
    fn register<T>(&self, offset: usize) -> Option<UniqueMmioPointer<'_, ReadWrite<T>>> {
        let end = offset.checked_add(size_of::<T>())?;
        if end > self.len || !offset.is_multiple_of(size_of::<T>()) {
            return None;
        }
        // SAFETY: `offset` is inside the window, which is one mapped region.
        let at = unsafe { self.base.add(offset) };
        // SAFETY: mapped and accessible by `new`'s promise; aligned, because the base is to 8 and the offset to its size.
        // "Unique" is meant for the device: it is ours alone, and this pointer lives for one access.
        Some(unsafe { UniqueMmioPointer::new(at.cast()) })
    }
}

impl Window for MmioWindow {
    #[inline]
    fn read32(&self, offset: usize) -> u32 {
        self.register::<u32>(offset).map_or(u32::MAX, |mut reg| u32::from_le(reg.read()))
    }

    #[inline]
    fn write32(&self, offset: usize, value: u32) {
        if let Some(mut reg) = self.register(offset) {
            reg.write(value.to_le());
        }
    }

    #[inline]
    fn read64(&self, offset: usize) -> u64 {
        self.register::<u64>(offset).map_or(u64::MAX, |mut reg| u64::from_le(reg.read()))
    }

    #[inline]
    fn write64(&self, offset: usize, value: u64) {
        if let Some(mut reg) = self.register(offset) {
            reg.write(value.to_le());
        }
    }
}

impl fmt::Debug for MmioWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MmioWindow({:p}, {:#x} bytes)", self.base, self.len)
    }
}
