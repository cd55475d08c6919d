//! MSI-X: a function's table of messages, each of which becomes an interrupt vector of a CPU.

use dfly_hal::regs::{MmioWindow, Window};

use crate::interrupts::Vector;
use crate::memory;
use crate::pci::{self, Config};

const ID: u8 = 0x11;
const ENABLE: u32 = 1 << 31;
const MASK_ALL: u32 = 1 << 30;
const ENTRY_BYTES: u32 = 16;
/// In an entry.
const CONTROL: usize = 12;
const MASKED: u32 = 1;
/// Where x86 CPUs take messages.
const MESSAGES: u32 = 0xfee0_0000;

/// A function's MSI-X capability and table.
#[derive(Debug)]
pub struct MsiX {
    at: u8,
    table: MmioWindow,
    len: u16,
}

impl MsiX {
    /// Finds it. `None` if there is none, or if the table is not where one can be.
    pub fn find(function: &impl Config) -> Option<Self> {
        let at = pci::capability(function, ID)?;
        let len = (function.read(at) >> 16 & 0x7ff) as u16 + 1;
        let place = function.read(at.checked_add(4)?);
        let (bar, offset) = (pci::bar(function, (place & 7) as u8)?, u64::from(place & !7));
        let bytes = u64::from(ENTRY_BYTES) * u64::from(len);
        if offset.checked_add(bytes)? > bar.bytes {
            return None;
        }
        let table = memory::device(bar.address + offset, bytes)?;
        // SAFETY: device memory, by the BAR, aligned to 8 bytes; the one to drive it is this. What is written there makes
        // the device write a message to a CPU and nothing else.
        let table = unsafe { MmioWindow::new(table, bytes as usize) };
        let found = Self { at, table, len };
        found.mask_all(function);
        Some(found)
    }

    /// No message comes until [`enable`](Self::enable), nor after it from an entry that was not routed, whatever the
    /// firmware left.
    fn mask_all(&self, function: &impl Config) {
        let control = function.read(self.at);
        function.write(self.at, control & !ENABLE | MASK_ALL);
        (0..self.len).for_each(|index| self.table.write32(entry(index) + CONTROL, MASKED));
    }

    /// How many messages there are.
    pub fn len(&self) -> u16 {
        self.len
    }

    /// Message `index` becomes `vector` of the CPU with APIC number `to`.
    pub fn route(&self, index: u16, vector: Vector, to: u32) {
        for (offset, value) in
            [(CONTROL, MASKED), (0, MESSAGES | to << 12), (4, 0), (8, vector.into()), (CONTROL, 0)]
        {
            self.table.write32(entry(index) + offset, value);
        }
    }

    /// Lets the function send the messages that were routed.
    pub fn enable(&self, function: &impl Config) {
        let control = function.read(self.at);
        function.write(self.at, control & !MASK_ALL | ENABLE);
    }
}

/// Where entry `index` of a table is.
fn entry(index: u16) -> usize {
    (u32::from(index) * ENTRY_BYTES) as usize
}
