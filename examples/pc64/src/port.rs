//! I/O ports.

use core::arch::asm;

/// An I/O port of a byte or of four.
#[derive(Clone, Copy, Debug)]
pub struct Port(u16);

impl Port {
    /// The port `number`.
    ///
    /// # Safety
    /// No access to it, of any width and value that the holder makes, does harm to memory.
    pub const unsafe fn new(number: u16) -> Self {
        Self(number)
    }

    /// Reads a byte.
    #[inline]
    pub fn read8(self) -> u8 {
        let value: u8;
        // SAFETY: harmless, as `new`'s caller promised.
        unsafe {
            asm!("in al, dx", in("dx") self.0, out("al") value, options(nomem, nostack, preserves_flags))
        };
        value
    }

    /// Writes a byte.
    #[inline]
    pub fn write8(self, value: u8) {
        // SAFETY: harmless, as `new`'s caller promised. (It may touch what is in memory before: no `nomem`.)
        unsafe { asm!("out dx, al", in("dx") self.0, in("al") value, options(nostack, preserves_flags)) };
    }

    /// Reads four bytes.
    #[inline]
    pub fn read32(self) -> u32 {
        let value: u32;
        // SAFETY: harmless, as `new`'s caller promised.
        unsafe {
            asm!("in eax, dx", in("dx") self.0, out("eax") value, options(nomem, nostack, preserves_flags))
        };
        value
    }

    /// Writes four bytes.
    #[inline]
    pub fn write32(self, value: u32) {
        // SAFETY: harmless, as `new`'s caller promised.
        unsafe { asm!("out dx, eax", in("dx") self.0, in("eax") value, options(nostack, preserves_flags)) };
    }
}
