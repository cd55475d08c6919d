//! The kernel on a PC. This file is the order of the boot.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod acpi;
#[expect(unsafe_code, reason = "registers of devices")]
mod ahci;
#[expect(unsafe_code, reason = "registers of the interrupt controllers")]
mod apic;
#[expect(unsafe_code, reason = "where the boot loader enters")]
mod boot;
#[expect(unsafe_code, reason = "registers of the timer")]
mod clock;
#[expect(unsafe_code, reason = "descriptor tables, starting CPUs")]
mod cpu;
mod disktest;
#[expect(unsafe_code, reason = "tables that the firmware left")]
mod firmware;
#[expect(unsafe_code, reason = "the allocator")]
mod heap;
#[expect(unsafe_code, reason = "the gates")]
mod interrupts;
#[expect(unsafe_code, reason = "page tables")]
mod memory;
mod msi;
#[expect(unsafe_code, reason = "registers of devices")]
mod msix;
#[expect(unsafe_code, reason = "registers of devices")]
mod nvme;
#[expect(unsafe_code, reason = "following a stack")]
mod panic;
#[expect(unsafe_code, reason = "ports of the configuration mechanism")]
mod pci;
#[expect(unsafe_code, reason = "promises about CPUs and memory")]
mod platform;
#[expect(unsafe_code, reason = "I/O instructions")]
mod port;
#[expect(unsafe_code, reason = "deliberate faults")]
mod probe;
mod selftest;
#[expect(unsafe_code, reason = "registers of the serial line")]
mod serial;
mod terminal;

use alloc::boxed::Box;
use alloc::sync::Arc;

use dfly_hal::CpuId;
use dfly_lwkt::{Priority, Scheduler, Spec};
use kernel::{Kernel, Machine, Session, Verdict};
use once_cell::race::OnceBox;

use acpi::Madt;
use boot::BootInfo;
use panic::{Exit, exit};
use platform::MACHINE;
use terminal::SerialTerminal;

/// What every CPU does once the kernel is booted.
type Run = Box<dyn Fn() -> Verdict + Send + Sync>;
static RUN: OnceBox<Run> = OnceBox::new();

/// The boot CPU, from [`boot`] on.
fn boot_cpu(info: &BootInfo) -> ! {
    memory::init(info);
    dfly_lwkt::enable_preemption().expect("nobody else's hooks");
    cpu::set_up();
    clock::init();
    let madt = Madt::read(info.rsdp).unwrap_or_else(|| {
        println!("no MADT: one CPU");
        Madt::default()
    });
    cpu::start_others(&madt.cpus);
    if !serial::connect(&madt) {
        println!("no interrupt for the serial line: nothing can be typed");
    }

    let (scheduler, run) = if selftest::is_wanted(info.command_line) {
        selftest::boot(info.command_line)
    } else {
        boot_kernel(info)
    };
    let timer = Spec::new("timer").priority(Priority::INT_HIGH);
    drop(scheduler.spawn(CpuId(0), timer, |cx| clock::serve(cx)).expect("a thread for timers"));
    interrupts::serve(scheduler);
    let _ = RUN.set(Box::new(run));
    cpu::wake_others();
    clock::start_ticking();
    cpu::interrupts_on();
    exit(match RUN.get().map(|run| run()) {
        Some(Verdict::Success) => Exit::Success,
        _ => Exit::Failure,
    })
}

/// The kernel, with what there is on this machine.
fn boot_kernel(info: &BootInfo) -> (&'static Scheduler, Run) {
    let machine = Machine {
        name: "pc64",
        platform: Arc::new(MACHINE),
        terminal: Arc::new(SerialTerminal::default()),
        nvme: nvme::scan().into_iter().filter_map(nvme::function).collect(),
        ahci: ahci::scan().into_iter().filter_map(ahci::function).collect(),
        session: info.module.map_or(Session::Interactive, |script| Session::Script(script.into())),
    };
    let kernel = Kernel::boot(machine).expect("the kernel boots");
    (kernel.scheduler(), Box::new(|| kernel.run().expect("a CPU runs threads")))
}

/// Each other CPU, from [`cpu`] on.
fn other_cpu() -> ! {
    while RUN.get().is_none() {
        cpu::halt(&|| RUN.get().is_some());
    }
    clock::start_ticking();
    // It may have been there all along.
    cpu::interrupts_on();
    RUN.get().map(|run| run());
    loop {
        cpu::halt(&|| false);
    }
}
