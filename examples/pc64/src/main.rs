//! The kernel on a PC. This file is the order of the boot.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod acpi;
#[expect(unsafe_code, reason = "registers of the interrupt controllers")]
mod apic;
#[expect(unsafe_code, reason = "where the boot loader enters")]
mod boot;
#[expect(unsafe_code, reason = "registers of the timer")]
mod clock;
#[expect(unsafe_code, reason = "descriptor tables, starting CPUs")]
mod cpu;
mod disktest;
#[expect(unsafe_code, reason = "memory for devices")]
mod dma;
#[expect(unsafe_code, reason = "tables that the firmware left")]
mod firmware;
#[expect(unsafe_code, reason = "the gates")]
mod interrupts;
#[expect(unsafe_code, reason = "the heap, page tables")]
mod memory;
#[expect(unsafe_code, reason = "registers of devices")]
mod msix;
#[expect(unsafe_code, reason = "registers of devices")]
mod nvme;
#[expect(unsafe_code, reason = "following a stack")]
mod panic;
#[expect(unsafe_code, reason = "ports of the configuration mechanism")]
mod pci;
#[expect(unsafe_code, reason = "a promise about CPUs")]
mod platform;
#[expect(unsafe_code, reason = "I/O instructions")]
mod port;
mod selftest;
#[expect(unsafe_code, reason = "registers of the serial line")]
mod serial;

use alloc::boxed::Box;
use alloc::sync::Arc;

use dfly_hal::CpuId;
use dfly_lwkt::{Config, Cx, Priority, Scheduler, Spec};
use once_cell::race::OnceBox;

use acpi::Madt;
use boot::BootInfo;
use panic::{Exit, exit};
use platform::Pc;

/// What every CPU does once the kernel is booted.
static RUN: OnceBox<Box<dyn Fn() + Send + Sync>> = OnceBox::new();

/// The boot CPU, from [`boot`] on.
fn boot_cpu(info: &BootInfo) -> ! {
    memory::init(info);
    cpu::set_up();
    clock::init();
    let madt = Madt::read(info.rsdp).unwrap_or_default();
    cpu::start_others(&madt.cpus);
    serial::connect(&madt);

    let scheduler = Scheduler::new(Arc::new(Pc), Config::default()).expect("a scheduler");
    let timer = Spec::new("timer").priority(Priority::INT_HIGH);
    let _forever = scheduler.spawn(CpuId(0), timer, |cx| clock::serve(cx)).expect("a timer thread");
    let words = info.command_line;
    let _forever = scheduler.spawn(CpuId(0), Spec::new("test"), move |cx| test(words, cx)).expect("a thread");
    let _ = RUN.set(Box::new(Box::new(move || scheduler.run().expect("threads"))));
    cpu::wake_others();
    cpu::interrupts_on();
    RUN.get().into_iter().for_each(|run| run());
    exit(Exit::Success)
}

/// Each other CPU, from [`cpu`] on.
fn other_cpu() -> ! {
    while RUN.get().is_none() {
        cpu::halt(&|| RUN.get().is_some());
    }
    RUN.get().into_iter().for_each(|run| run());
    loop {
        cpu::halt(&|| false);
    }
}

fn test(words: &'static str, cx: &mut Cx<'_>) {
    let mut passed = true;
    for word in words.split_whitespace() {
        match word.split_once('=').unwrap_or((word, "")) {
            ("selftest", _) => passed &= selftest::run(cx),
            ("disktest", _) => passed &= selftest::report("the disk", disktest::run(cx)),
            ("end", how) => selftest::end(how),
            _ => {}
        }
    }
    exit(if passed { Exit::Success } else { Exit::Failure })
}
