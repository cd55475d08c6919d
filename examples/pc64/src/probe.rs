//! What only the tests do to the machine.

use alloc::boxed::Box;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use x86_64::PhysAddr;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

use crate::{heap, memory};

/// Copies memory of the heap as a device does: for the test of memory for devices.
pub fn read_as_device(from: u64, to: &mut [u8]) -> bool {
    let range = from..from + to.len() as u64;
    let from = ptr::with_exposed_provenance::<u8>(from as usize);
    let inside = heap::holds(&range);
    if inside {
        // SAFETY: mapped memory of the heap, which the suite made with zeroes and has lent to its device.
        unsafe { from.copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) };
    }
    inside
}

/// As [`read_as_device`], in the other direction.
pub fn write_as_device(to: u64, from: &[u8]) -> bool {
    let range = to..to + from.len() as u64;
    let to = ptr::with_exposed_provenance_mut::<u8>(to as usize);
    let inside = heap::holds(&range);
    if inside {
        // SAFETY: as above.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
    }
    inside
}

/// Reads from a page of the heap on another CPU, before and after this one takes it away. `there` calls its function on
/// that CPU, and waits.
pub fn use_a_page_that_is_gone(there: &mut dyn FnMut(fn())) {
    static PAGE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
    fn read() {
        // SAFETY: memory of the heap at first. Then not at all: it is for seeing the fault.
        core::hint::black_box(unsafe { PAGE.load(Ordering::Acquire).read_volatile() });
    }
    let Some(page) = memory::own_stack(4096).map(|stack| stack.bottom()) else { return };
    PAGE.store(page.as_ptr(), Ordering::Release);
    there(read);
    // SAFETY: only the test uses it.
    unsafe { memory::take_away(page) };
    memory::forget_everywhere();
    there(read);
}

/// Reads from the page at 0, where nothing is.
pub fn touch_nothing() {
    // SAFETY: not at all: it is for seeing the fault.
    let _ = unsafe { ptr::with_exposed_provenance::<u8>(8).read_volatile() };
}

/// Writes to the kernel's code.
pub fn write_to_code() {
    let code = ptr::with_exposed_provenance_mut::<u8>(memory::text().start as usize);
    // SAFETY: not at all: as above.
    unsafe { code.write_volatile(0) };
}

/// Calls what is in a variable.
pub fn execute_data() {
    static RETURN: [u8; 16] = [0xc3; 16];
    let bytes = core::hint::black_box(Box::new(RETURN));
    // SAFETY: not at all: as above. (Were it executed, it would return.)
    let function = unsafe { core::mem::transmute::<*const u8, extern "C" fn()>(bytes.as_ptr()) };
    function();
}

/// Takes every page away, the gates' and their stubs' too: nothing is left but a triple fault.
pub fn forget_everything() {
    let empty = PhysFrame::containing_address(PhysAddr::new(0xfff0_0000));
    // SAFETY: not at all: it is for seeing the machine end.
    unsafe { Cr3::write(empty, Cr3Flags::empty()) };
}
