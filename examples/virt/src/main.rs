//! The scheduler on QEMU's `virt` machines. This file is the order of the boot; `selftest` is what they are for.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "riscv64", path = "riscv64.rs")]
#[expect(unsafe_code, reason = "instructions and registers of the machine")]
mod arch;
mod clock;
mod console;
#[expect(unsafe_code, reason = "the allocator")]
mod heap;
mod panic;
#[expect(unsafe_code, reason = "a promise about CPUs")]
mod platform;
#[expect(unsafe_code, reason = "every register at once, deliberate faults")]
mod probe;
#[expect(unsafe_code, reason = "registers of devices")]
mod registers;
mod selftest;
#[expect(unsafe_code, reason = "a table that the firmware left")]
mod tree;

use core::sync::atomic::{AtomicU32, Ordering};

use alloc::boxed::Box;
use alloc::sync::Arc;
use dfly_hal::CpuId;
use dfly_lwkt::{Config, Priority, RunError, Scheduler, Spec, enable_preemption};
use once_cell::race::OnceBox;

use panic::{Exit, exit};
use platform::Virt;
use tree::Machine;

/// More CPUs have no stack to boot on.
const MOST: usize = 8;
/// The stack on which a CPU boots and idles.
const STACK_BYTES: usize = 32 << 10;

static SCHEDULER: OnceBox<&'static Scheduler> = OnceBox::new();
/// How many of the other CPUs have left the scheduler.
static LEFT: AtomicU32 = AtomicU32::new(0);

/// The boot CPU, with the device tree at `tree`.
fn boot(tree: usize) -> ! {
    let machine = Machine::read(tree);
    heap::give(machine.free.clone());
    clock::init(machine.hertz);
    platform::init(machine.cpus);
    assert!(machine.cpus as usize <= MOST, "{} CPUs, of which {MOST} have a stack", machine.cpus);

    enable_preemption().expect("nobody else has hooks");
    let scheduler = Scheduler::new(Arc::new(Virt), Config::default()).expect("a scheduler");
    let timer = Spec::new("timer").priority(Priority::INT_HIGH);
    drop(scheduler.spawn(CpuId(0), timer, |cx| clock::serve(cx)).expect("a thread for timers"));
    let verdict = selftest::start(scheduler, machine.options);
    let _ = SCHEDULER.set(Box::new(scheduler));
    for cpu in 1..machine.cpus {
        assert!(arch::start(cpu), "CPU {cpu} does not start");
    }
    run();
    // The others are told of the stop, too; each leaves at its next switch.
    while LEFT.load(Ordering::Acquire) + 1 < machine.cpus {
        core::hint::spin_loop();
    }
    println!("every CPU has left the scheduler: ok");
    exit(if verdict() { Exit::Success } else { Exit::Failure })
}

/// Each other CPU.
fn other_cpu() -> ! {
    run();
    LEFT.fetch_add(1, Ordering::Release);
    loop {
        arch::halt(&|| false);
    }
}

/// Where each interrupt ends, on the stack of the thread that it has interrupted: another may run first.
fn interrupt_exit() {
    if let Some(scheduler) = SCHEDULER.get()
        && scheduler.needs_interrupt_exit()
    {
        scheduler.interrupt_exit(arch::interrupts_on, arch::interrupts_off);
    }
}

/// Runs threads on this CPU, until the scheduler is stopped.
fn run() {
    arch::set_up();
    arch::interrupts_on();
    match SCHEDULER.get().expect("set before a CPU is started").run() {
        // A CPU may come when all is over.
        Ok(()) | Err(RunError::Stopped) => {}
        Err(why) => panic!("{why}"),
    }
}
