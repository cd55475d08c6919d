//! The kernel on a PC. This file is the order of the boot.
#![no_std]
#![no_main]

extern crate alloc;

mod acpi;
mod apic;
mod boot;
mod clock;
mod cpu;
mod dma;
mod firmware;
mod interrupts;
mod memory;
mod msix;
mod panic;
mod pci;
mod port;
mod serial;

use acpi::Madt;
use boot::BootInfo;
use panic::{Exit, exit};

/// Where the boot CPU enters, from `entry.s`.
#[unsafe(no_mangle)]
extern "C" fn boot_cpu_main(start_info: u32) -> ! {
    cpu::init();
    serial::init();
    let Some(info) = BootInfo::read(start_info.into()) else { panic!("no start info at {start_info:#x}") };
    memory::init(&info);
    cpu::set_up();
    clock::init();
    let madt = Madt::read(info.rsdp).unwrap_or_default();
    cpu::start_others(&madt.cpus);
    println!("hello {} cpus {:?}", cpu::count(), clock::now());
    for f in pci::scan() {
        println!("{f} {:06x} {:?} {:?}", f.class(), pci::bar(&f, 0), msix::MsiX::find(&f));
    }
    if info.has_option("panic") {
        panic!("asked for")
    }
    if info.has_option("fault") {
        unsafe {
            core::ptr::with_exposed_provenance::<u8>(8).read_volatile();
        }
    }
    exit(Exit::Success)
}

/// What each other CPU does once it is set up.
fn other_cpu() -> ! {
    loop {
        cpu::halt(&|| false);
    }
}
