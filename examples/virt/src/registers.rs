//! A device's registers, at a place that the machine has for them.

use core::ptr;

/// Where they begin.
#[derive(Clone, Copy, Debug)]
pub struct Registers(usize);

/// What a register holds: any number.
pub trait Number: Copy {}
impl Number for u8 {}
impl Number for u32 {}
impl Number for u64 {}

impl Registers {
    /// # Safety
    /// From `at` on there are registers of a device that does nothing to memory, mapped one to one, as far as
    /// they are asked for.
    pub const unsafe fn new(at: usize) -> Self {
        Self(at)
    }

    /// Reads the register at `offset`.
    pub fn read<N: Number>(self, offset: usize) -> N {
        // SAFETY: a register, as promised to `new`; it may hold any number.
        unsafe { ptr::with_exposed_provenance::<N>(self.0 + offset).read_volatile() }
    }

    /// Writes the register at `offset`.
    pub fn write<N: Number>(self, offset: usize, value: N) {
        // SAFETY: a register, as promised to `new`.
        unsafe { ptr::with_exposed_provenance_mut::<N>(self.0 + offset).write_volatile(value) };
    }
}
