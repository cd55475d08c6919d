//! The machine `virt` of `qemu-system-riscv64` without firmware: its CPUs in M mode, the `time` CSR, a CLINT, an ns16550,
//! SiFive's test device.

use core::arch::{asm, global_asm};

use crate::registers::Registers;
use crate::{MOST, STACK_BYTES, boot, clock, panic, platform};

global_asm!(include_str!("asm/riscv64.s"), most = const MOST, stack_bytes = const STACK_BYTES);

// SAFETY: where QEMU's documentation and the device tree say that they are. The same holds for the others.
const UART: Registers = unsafe { Registers::new(0x1000_0000) };
// SAFETY: see above.
const CLINT: Registers = unsafe { Registers::new(0x0200_0000) };
// SAFETY: see above.
const TEST: Registers = unsafe { Registers::new(0x0010_0000) };

/// Where the boot CPU enters, from `riscv64.s`.
#[unsafe(no_mangle)]
extern "C" fn boot_cpu(tree: usize) -> ! {
    boot(tree)
}

/// Where another CPU enters, from `riscv64.s`.
#[unsafe(no_mangle)]
extern "C" fn other_cpu() -> ! {
    crate::other_cpu()
}

/// The calling CPU's number.
#[inline]
pub fn this() -> u32 {
    let id: u32;
    // SAFETY: reads a register.
    unsafe { asm!("csrr {}, mhartid", out(reg) id, options(nomem, nostack, preserves_flags)) };
    id
}

/// Starts another CPU, which waits for an IPI; whether it does.
pub fn start(cpu: u32) -> bool {
    raise_ipi(cpu);
    true
}

/// Lets IPIs and the timer come to this CPU: the assembly has done so. No timer is set yet.
pub fn set_up() {
    set_timer(None);
}

/// Takes interrupts from here on.
pub fn interrupts_on() {
    // SAFETY: the vector is in place.
    unsafe { asm!("csrsi mstatus, 8", options(nostack)) };
}

/// Takes none from here on.
pub fn interrupts_off() {
    // SAFETY: whoever wants them has them on again.
    unsafe { asm!("csrci mstatus, 8", options(nostack)) };
}

/// Whether this CPU takes none: in a handler it does not either.
pub fn are_interrupts_off() -> bool {
    let status: u64;
    // SAFETY: reads a register.
    unsafe { asm!("csrr {}, mstatus", out(reg) status, options(nomem, nostack, preserves_flags)) };
    status & 8 == 0
}

/// Halts until an interrupt, unless `ready`. Nothing that makes it ready is missed in between: an interrupt ends the halt
/// also where it is not taken yet.
pub fn halt(ready: &dyn Fn() -> bool) {
    interrupts_off();
    if !ready() {
        // SAFETY: waits.
        unsafe { asm!("wfi", options(nostack)) };
    }
    interrupts_on();
}

/// Interrupts `cpu`, which sees what was written before.
pub fn raise_ipi(cpu: u32) {
    // SAFETY: orders the caller's accesses to memory before that to the register.
    unsafe { asm!("fence rw, o", options(nostack)) };
    CLINT.write(4 * cpu as usize, 1_u32);
}

/// How fast the counter counts, per second.
pub fn frequency(tree: &fdt::Fdt<'_>) -> u64 {
    tree.cpus().next().map_or(1, |cpu| cpu.timebase_frequency() as u64)
}

/// The counter: the same on every CPU. Read after every load before it: else what another CPU did by then could seem to
/// be in the future.
pub fn counter() -> u64 {
    let count: u64;
    // SAFETY: reads a register, which is a device for the fence.
    unsafe { asm!("fence r, i", "rdtime {}", out(reg) count, options(nostack, preserves_flags)) };
    count
}

/// Interrupts this CPU when the counter is at `count`; `None`: not at all.
pub fn set_timer(count: Option<u64>) {
    CLINT.write(0x4000 + 8 * this() as usize, count.unwrap_or(u64::MAX));
}

/// Where the trap enters.
#[unsafe(no_mangle)]
extern "C" fn interrupt_entry(cause: u64, at: u64) {
    const INTERRUPT: u64 = 1 << 63;
    const IPI: u64 = INTERRUPT | 3;
    const TIMER: u64 = INTERRUPT | 7;
    match cause {
        IPI => {
            CLINT.write(4 * this() as usize, 0_u32);
            // SAFETY: orders that before looking for what the sender wrote: a later IPI is another one.
            unsafe { asm!("fence o, rw", options(nostack)) };
            platform::ipi();
        }
        TIMER => {
            set_timer(None);
            clock::interrupt();
        }
        _ => {
            let address: u64;
            // SAFETY: reads a register.
            unsafe { asm!("csrr {}, mtval", out(reg) address, options(nomem, nostack, preserves_flags)) };
            panic::exception(cause, at, address)
        }
    }
    crate::interrupt_exit();
}

/// Writes a byte to the serial line.
pub fn put(byte: u8) {
    const EMPTY: u8 = 1 << 5;
    while UART.read::<u8>(5) & EMPTY == 0 {}
    UART.write(0, byte);
}

/// Ends the machine: QEMU exits with `status`.
pub fn exit(status: u32) -> ! {
    const PASS: u32 = 0x5555;
    const FAIL: u32 = 0x3333;
    TEST.write(0, if status == 0 { PASS } else { status << 16 | FAIL });
    loop {
        // SAFETY: waits.
        unsafe { asm!("wfi", options(nomem, nostack)) };
    }
}
