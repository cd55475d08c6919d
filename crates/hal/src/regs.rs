//! Device registers: typed constants over a window.
//!
//! ```text
//!   const CC: Reg<Cc, ReadWrite> = Reg::at(0x14);        what a driver writes: offset, type, access
//!   CC.read(&window)                                     safe: the window's maker made the promise
//!        |
//!   Window  <-  Traced<W>, Halves<W>                     windows over windows
//!        |
//!   MmioWindow | a device model | a fuzzer               where the access ends
//! ```
//!
//! No pointer and no reference to a register exists outside [`MmioWindow`], so a driver cannot hold one. A device that
//! has been unplugged answers all-ones; that is a value like any other, and the driver looks for it.

mod mmio;
mod reg;
mod trace;

pub use mmio::MmioWindow;
pub use reg::{NotYet, Patience, ReadOnly, ReadWrite, Readable, Reg, RegValue, Width, Writable, WriteOnly};
pub use trace::{Access, Kind, Traced};

/// A window onto a device's registers.
///
/// Values are what the CPU sees: a PCI device is little-endian, and a window on a big-endian machine swaps. Accesses
/// reach the device in program order and are neither merged nor repeated. Callable from every context, interrupts
/// included; never blocks. An offset that the window does not hold reads as all-ones and swallows writes, as a bus does
/// where nobody answers: nothing panics because a device named a strange offset.
///
/// Nothing unsafe may rely on what a window answers.
pub trait Window: Send + Sync {
    /// Reads the 32-bit register at `offset` bytes, a multiple of 4.
    fn read32(&self, offset: usize) -> u32;

    /// Writes the 32-bit register at `offset` bytes, a multiple of 4.
    fn write32(&self, offset: usize, value: u32);

    /// Reads the 64-bit register at `offset` bytes, a multiple of 8: here as two halves, the low one first.
    fn read64(&self, offset: usize) -> u64 {
        let low = self.read32(offset);
        let high = self.read32(offset.wrapping_add(4));
        u64::from(high) << 32 | u64::from(low)
    }

    /// Writes the 64-bit register at `offset` bytes, a multiple of 8: here as two halves, the low one first.
    fn write64(&self, offset: usize, value: u64) {
        self.write32(offset, value as u32);
        self.write32(offset.wrapping_add(4), (value >> 32) as u32);
    }
}

crate::forward! {
    impl Window for &T, Box<T>, Arc<T> {
        fn read32(&self, offset: usize) -> u32;
        fn write32(&self, offset: usize, value: u32);
        fn read64(&self, offset: usize) -> u64;
        fn write64(&self, offset: usize, value: u64);
    }
}

/// A window that reaches 64-bit registers by two 32-bit accesses, the low half first: for a bus or a device that takes
/// no others.
#[derive(Clone, Copy, Debug)]
pub struct Halves<W>(pub W);

impl<W: Window> Window for Halves<W> {
    fn read32(&self, offset: usize) -> u32 {
        self.0.read32(offset)
    }

    fn write32(&self, offset: usize, value: u32) {
        self.0.write32(offset, value);
    }
}
