//! Interrupt controllers: the local APIC of each CPU (interrupts between CPUs, the timer), and the I/O APIC (ISA
//! interrupts). The old 8259 is silenced.

use core::hint::spin_loop;
use core::ptr::{self, NonNull};

use dfly_hal::regs::{MmioWindow, ReadWrite, Reg, Window, WriteOnly};
use x86_64::instructions::interrupts::without_interrupts;

use crate::acpi::Madt;
use crate::interrupts::{SPURIOUS, TIMER, Vector};
use crate::memory;
use crate::port::Port;

const ID: Reg<u32, ReadWrite> = Reg::at(0x20);
const TASK_PRIORITY: Reg<u32, ReadWrite> = Reg::at(0x80);
const EOI: Reg<u32, WriteOnly> = Reg::at(0xb0);
const SPURIOUS_VECTOR: Reg<u32, ReadWrite> = Reg::at(0xf0);
const COMMAND: Reg<u32, ReadWrite> = Reg::at(0x300);
const COMMAND_TO: Reg<u32, ReadWrite> = Reg::at(0x310);
const LVT_TIMER: Reg<u32, ReadWrite> = Reg::at(0x320);
const TIMER_COUNT: Reg<u32, ReadWrite> = Reg::at(0x380);
const TIMER_LEFT: Reg<u32, ReadWrite> = Reg::at(0x390);
const TIMER_DIVIDER: Reg<u32, ReadWrite> = Reg::at(0x3e0);

const PENDING: u32 = 1 << 12;
const ASSERT: u32 = 1 << 14;
const NMI: u32 = 4 << 8;
const INIT: u32 = 5 << 8;
const STARTUP: u32 = 6 << 8;
const MASKED: u32 = 1 << 16;
/// Divides the timer's clock by 16.
const BY_16: u32 = 3;
/// The number that means every CPU; those above it are x2APIC's.
pub const BROADCAST: u32 = 0xff;
/// Looks at a command that is not delivered, before the next one is given anyway.
const PATIENCE: u32 = 100_000;

/// The registers of whichever CPU asks.
// SAFETY: where every PC has them after reset; mapped as device memory, by the boot's tables and by `memory`'s. An APIC
// command names no memory but the startup IPI's page, which `cpu` answers for.
static LOCAL: MmioWindow = unsafe { MmioWindow::new(LOCAL_AT, 0x1000) };
const LOCAL_AT: NonNull<u8> = NonNull::new(ptr::without_provenance_mut(0xfee0_0000)).expect("not zero");

// SAFETY: the mask of the first 8259, which touches no memory.
const OLD_MASK_1: Port = unsafe { Port::new(0x21) };
// SAFETY: the mask of the second.
const OLD_MASK_2: Port = unsafe { Port::new(0xa1) };

/// Turns this CPU's controller on.
pub fn enable() {
    OLD_MASK_1.write8(0xff);
    OLD_MASK_2.write8(0xff);
    TASK_PRIORITY.write(&LOCAL, 0);
    SPURIOUS_VECTOR.write(&LOCAL, 0x100 | u32::from(SPURIOUS));
    TIMER_DIVIDER.write(&LOCAL, BY_16);
    LVT_TIMER.write(&LOCAL, TIMER.into());
}

/// This CPU's number.
pub fn id() -> u32 {
    ID.read(&LOCAL) >> 24
}

/// The interrupt that this CPU handles is done.
#[inline]
pub fn end_of_interrupt() {
    EOI.write(&LOCAL, 0);
}

/// Interrupts the CPU with number `to`.
pub fn interrupt(to: u32, vector: Vector) {
    command(to, ASSERT | u32::from(vector));
}

/// Interrupts the CPU with number `to`, whether or not it takes interrupts.
pub fn interrupt_at_once(to: u32) {
    command(to, ASSERT | NMI);
}

/// Resets the CPU with number `to`.
pub fn init(to: u32) {
    command(to, ASSERT | INIT);
}

/// Lets the CPU with number `to` start at `page`, below 1 MiB.
pub fn start(to: u32, page: u64) {
    command(to, ASSERT | STARTUP | (page >> 12) as u32);
}

/// One command is two writes, which no interrupt handler with its own command may part.
fn command(to: u32, command: u32) {
    without_interrupts(|| {
        let mut looks = 0;
        while COMMAND.read(&LOCAL) & PENDING != 0 && looks < PATIENCE {
            looks += 1;
            spin_loop();
        }
        COMMAND_TO.write(&LOCAL, to << 24);
        COMMAND.write(&LOCAL, command);
    });
}

/// Sets this CPU's timer: one interrupt after `count` ticks, none for 0.
pub fn set_timer(count: u32) {
    TIMER_COUNT.write(&LOCAL, count);
}

/// Ticks that are left of what the timer was set to.
pub fn timer_left() -> u32 {
    TIMER_LEFT.read(&LOCAL)
}

/// The I/O APICs: they turn ISA interrupts into messages to CPUs.
pub struct IoApic {
    window: MmioWindow,
    first: u32,
}

impl IoApic {
    /// The one that serves interrupt `number`, by the firmware's word and by its own.
    pub fn serving(madt: &Madt, number: u32) -> Option<Self> {
        let &(at, first) =
            madt.io_apics.iter().filter(|(_, first)| *first <= number).max_by_key(|(_, first)| *first)?;
        let at = memory::device(at.into(), 0x20)?;
        // SAFETY: device memory, by the firmware's word; an I/O APIC touches none.
        let found = Self { window: unsafe { MmioWindow::new(at, 0x20) }, first };
        (number - first <= found.last()).then_some(found)
    }

    /// The last of its entries.
    fn last(&self) -> u32 {
        const VERSION: u32 = 1;
        self.window.write32(0, VERSION);
        self.window.read32(0x10) >> 16 & 0xff
    }

    /// Sends interrupt `number` as `vector` to the CPU with APIC number `to`: edge triggered, active high, as on ISA.
    pub fn route(&self, number: u32, vector: Vector, to: u32) {
        let register = 0x10 + 2 * (number - self.first);
        for (register, value) in [(register, MASKED), (register + 1, to << 24), (register, u32::from(vector))]
        {
            self.window.write32(0, register);
            self.window.write32(0x10, value);
        }
    }
}
