//! What only the tests do to the machine.

use core::ptr;

/// Calls `f` while every register that a call preserves holds a number of its own, from `seed` on, and floating point
/// rounds in the way that the last two bits of `seed` say; whether all of it was kept.
pub fn registers_are_kept(seed: u64, mut f: &mut dyn FnMut()) -> bool {
    unsafe extern "C" {
        fn hold_registers(f: extern "C" fn(*mut ()), argument: *mut (), seed: u64) -> u64;
    }
    extern "C" fn call(f: *mut ()) {
        // SAFETY: what is passed to `hold_registers` below, and lives there.
        let f: &mut &mut dyn FnMut() = unsafe { &mut *f.cast() };
        f();
    }
    // SAFETY: it calls the function with the argument, once.
    unsafe { hold_registers(call, (&raw mut f).cast(), seed) == 0 }
}

/// Reads from where nothing is.
pub fn touch_nothing() {
    const NOWHERE: usize = 0xf0_0000_0000;
    // SAFETY: not at all: it is for seeing the fault.
    let _ = unsafe { ptr::with_exposed_provenance::<u8>(NOWHERE).read_volatile() };
}
