//! The end: panics and exceptions, which say what, where and by whom before it.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use dfly_hal::{CpuId, Cpus};

use crate::platform::Virt;
use crate::{arch, console, print, println};

/// How the machine ends, as QEMU's exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Exit {
    /// All went well.
    Success = 0,
    /// A test failed.
    Failure = 1,
    /// A panic.
    Panic = 101,
    /// The CPU ran into an exception.
    Exception = 102,
}

/// Ends the machine.
pub fn exit(how: Exit) -> ! {
    arch::exit(how as u32)
}

/// Who comes first has the word; a panic within it ends at once.
fn begin(how: Exit) {
    static BEGUN: AtomicBool = AtomicBool::new(false);
    static BY: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(CpuId::NONE.0);
    let this = Virt.this().0;
    if BEGUN.swap(true, Ordering::AcqRel) {
        if BY.load(Ordering::Relaxed) == this {
            exit(how);
        }
        // That one ends the machine.
        loop {
            core::hint::spin_loop();
        }
    }
    BY.store(this, Ordering::Relaxed);
    console::seize();
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    begin(Exit::Panic);
    println!("\npanic: {}", info.message());
    if let Some(place) = info.location() {
        println!("  at {place}");
    }
    whereabouts();
    exit(Exit::Panic)
}

/// The CPU cannot go on: for `cause`, as it says, at an instruction, because of an address.
pub fn exception(cause: u64, at: u64, address: u64) -> ! {
    begin(Exit::Exception);
    println!("\nexception: cause {cause:#x}, address {address:#x}");
    println!("  at {at:#x}");
    whereabouts();
    exit(Exit::Exception)
}

fn whereabouts() {
    print!("  on {} of {}", Virt.this(), Virt.count());
    if let Some(thread) = dfly_lwkt::current() {
        print!(", thread {} ({})", thread.id, thread.name);
    }
    println!("");
}
