//! The machine `virt` of `qemu-system-aarch64`: its CPUs, the generic timer, a GICv2, a PL011, PSCI by `hvc`.

use core::arch::{asm, global_asm};

use crate::registers::Registers;
use crate::{MOST, STACK_BYTES, boot, clock, panic, platform};

global_asm!(include_str!("asm/aarch64.s"), most = const MOST, stack_bytes = const STACK_BYTES);

// SAFETY: where QEMU's documentation and the device tree say that they are. The same holds for the others.
const UART: Registers = unsafe { Registers::new(0x0900_0000) };
// SAFETY: see above.
const DISTRIBUTOR: Registers = unsafe { Registers::new(0x0800_0000) };
// SAFETY: see above. (Each CPU sees its own.)
const INTERRUPTS: Registers = unsafe { Registers::new(0x0801_0000) };

/// The interrupt that is the IPI, and that of the virtual timer.
const IPI: u32 = 0;
const TIMER: u32 = 27;
/// No interrupt is pending.
const NONE: u32 = 1020;

/// Where the boot CPU enters, from `aarch64.s`.
#[unsafe(no_mangle)]
extern "C" fn boot_cpu(tree: usize) -> ! {
    const TRANSMIT: u32 = 0x101;
    UART.write(0x30, TRANSMIT);
    DISTRIBUTOR.write(0, 1_u32);
    boot(tree)
}

/// Where another CPU enters, from `aarch64.s`.
#[unsafe(no_mangle)]
extern "C" fn other_cpu() -> ! {
    crate::other_cpu()
}

/// The calling CPU's number.
#[inline]
pub fn this() -> u32 {
    let id: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, mpidr_el1", out(reg) id, options(nomem, nostack, preserves_flags)) };
    (id & 0xff) as u32
}

/// Starts another CPU; whether it does.
pub fn start(cpu: u32) -> bool {
    const CPU_ON: u64 = 0xc400_0003;
    unsafe extern "C" {
        fn other_entry();
    }
    let entry = other_entry as *const () as usize;
    let mut result = CPU_ON;
    // SAFETY: a call of the firmware (PSCI), after what was written so far is there for the other CPU. It changes
    // registers that a call may change.
    unsafe {
        asm!("dsb ish", "hvc #0", inout("x0") result, in("x1") u64::from(cpu), in("x2") entry, in("x3") u64::from(cpu),
            clobber_abi("C"));
    }
    result == 0
}

/// Lets IPIs and the timer come to this CPU.
pub fn set_up() {
    DISTRIBUTOR.write(0x100, 1_u32 << IPI | 1 << TIMER);
    INTERRUPTS.write(4, 0xff_u32);
    INTERRUPTS.write(0, 1_u32);
}

/// Takes interrupts from here on.
pub fn interrupts_on() {
    // SAFETY: the vectors are in place.
    unsafe { asm!("msr daifclr, #2", options(nostack)) };
}

/// Takes none from here on.
pub fn interrupts_off() {
    // SAFETY: whoever wants them has them on again.
    unsafe { asm!("msr daifset, #2", options(nostack)) };
}

/// Whether this CPU takes none: in a handler it does not either.
pub fn are_interrupts_off() -> bool {
    let masks: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, daif", out(reg) masks, options(nomem, nostack, preserves_flags)) };
    masks & 1 << 7 != 0
}

/// Halts until an interrupt, unless `ready`. Nothing that makes it ready is missed in between: an interrupt ends the halt
/// also where it is not taken yet.
pub fn halt(ready: &dyn Fn() -> bool) {
    interrupts_off();
    if !ready() {
        // SAFETY: waits.
        unsafe { asm!("dsb ish", "wfi", options(nostack, preserves_flags)) };
    }
    interrupts_on();
}

/// Interrupts `cpu`, which sees what was written before.
pub fn raise_ipi(cpu: u32) {
    // SAFETY: orders the caller's stores before that to the register.
    unsafe { asm!("dsb ishst", options(nostack, preserves_flags)) };
    DISTRIBUTOR.write(0xf00, 1_u32 << (16 + cpu) | IPI);
}

/// How fast the counter counts, per second.
pub fn frequency(_tree: &fdt::Fdt<'_>) -> u64 {
    let hertz: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, cntfrq_el0", out(reg) hertz, options(nomem, nostack, preserves_flags)) };
    hertz
}

/// The counter: the same on every CPU. Read after every load before it: else what another CPU did by then could seem to
/// be in the future.
pub fn counter() -> u64 {
    let count: u64;
    // SAFETY: reads a register, after what came before.
    unsafe {
        asm!("dsb ishld", "isb", "mrs {}, cntvct_el0", out(reg) count, options(nostack, preserves_flags));
    }
    count
}

/// Interrupts this CPU when the counter is at `count`; `None`: not at all.
pub fn set_timer(count: Option<u64>) {
    let (count, control) = count.map_or((u64::MAX, 0_u64), |count| (count, 1));
    // SAFETY: the timer's registers.
    unsafe {
        asm!("msr cntv_cval_el0, {}", "msr cntv_ctl_el0, {}", "isb", in(reg) count, in(reg) control,
            options(nostack, preserves_flags));
    }
}

/// Where the vectors enter.
#[unsafe(no_mangle)]
extern "C" fn interrupt_entry(vector: u64) {
    /// Of this exception level, on its own stack.
    const IRQ: u64 = 5;
    if vector != IRQ {
        let (cause, at, address): (u64, u64, u64);
        // SAFETY: reads registers.
        unsafe {
            asm!("mrs {}, esr_el1", "mrs {}, elr_el1", "mrs {}, far_el1", out(reg) cause, out(reg) at,
                out(reg) address, options(nomem, nostack, preserves_flags));
        }
        panic::exception(cause, at, address);
    }
    loop {
        let taken: u32 = INTERRUPTS.read(0xc);
        match taken & 0x3ff {
            NONE.. => return crate::interrupt_exit(),
            IPI => platform::ipi(),
            TIMER => {
                set_timer(None);
                clock::interrupt();
            }
            _ => {}
        }
        INTERRUPTS.write(0x10, taken);
    }
}

/// Writes a byte to the serial line.
pub fn put(byte: u8) {
    const FULL: u32 = 1 << 5;
    while UART.read::<u32>(0x18) & FULL != 0 {}
    UART.write(0, u32::from(byte));
}

/// Ends the machine: QEMU exits with `status`. By semihosting, which says so in two words: "the application ends", and how.
pub fn exit(status: u32) -> ! {
    const EXIT_EXTENDED: u64 = 0x20;
    let words: [u64; 2] = [0x2_0026, status.into()];
    loop {
        // SAFETY: QEMU reads the two words.
        unsafe { asm!("hlt #0xf000", in("x0") EXIT_EXTENDED, in("x1") words.as_ptr(), options(nostack)) };
    }
}
