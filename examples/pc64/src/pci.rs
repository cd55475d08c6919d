//! PCI: functions, their registers' places, their capabilities. What a device says is bounded, not believed.

use alloc::vec::Vec;
use core::fmt;

use dfly_hal::sync::Lock;

use crate::port::Port;

/// Configuration space of a function, in words of four bytes, by offset in bytes.
pub trait Config {
    /// Reads the word at `offset`.
    fn read(&self, offset: u8) -> u32;
    /// Writes the word at `offset`.
    fn write(&self, offset: u8, value: u32);
}

/// Where a function is; in the order of buses, devices, functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Function {
    bus: u8,
    device: u8,
    function: u8,
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pci0:{}:{}.{}", self.bus, self.device, self.function)
    }
}

// SAFETY: configuration mechanism 1. Which device may touch which memory is set there; that is for `Function::enable`.
const ADDRESS: Port = unsafe { Port::new(0xcf8) };
// SAFETY: as above.
const DATA: Port = unsafe { Port::new(0xcfc) };

/// Held from the address to the data.
static MECHANISM: Lock<()> = Lock::new(());

impl Function {
    fn address(self, offset: u8) -> u32 {
        let Self { bus, device, function } = self;
        1 << 31
            | u32::from(bus) << 16
            | u32::from(device) << 11
            | u32::from(function) << 8
            | u32::from(offset & 0xfc)
    }
}

impl Config for Function {
    fn read(&self, offset: u8) -> u32 {
        let _held = MECHANISM.lock();
        ADDRESS.write32(self.address(offset));
        DATA.read32()
    }

    fn write(&self, offset: u8, value: u32) {
        let _held = MECHANISM.lock();
        ADDRESS.write32(self.address(offset));
        DATA.write32(value);
    }
}

const ID: u8 = 0x00;
const COMMAND: u8 = 0x04;
const CLASS: u8 = 0x08;
const HEADER: u8 = 0x0c;
const BARS: u8 = 0x10;
const BUSES: u8 = 0x18;
const CAPABILITIES: u8 = 0x34;

/// In the command register, whose upper half clears errors that are written as ones.
const MEMORY: u32 = 1 << 1;
const BUS_MASTER: u32 = 1 << 2;
const NO_PIN: u32 = 1 << 10;
const COMMAND_BITS: u32 = 0xffff;
const HAS_CAPABILITIES: u32 = 1 << 20;

const BRIDGE: u8 = 1;
const MULTIPLE: u8 = 0x80;

/// The functions that can be reached from bus 0, in their order.
pub fn scan() -> Vec<Function> {
    let mut found = Vec::new();
    let mut seen = [false; 256];
    seen[0] = true;
    let mut buses = Vec::from([0]);
    while let Some(bus) = buses.pop() {
        for device in 0..32 {
            for function in 0..8 {
                let here = Function { bus, device, function };
                if here.read(ID) as u16 == u16::MAX {
                    if function == 0 {
                        break;
                    }
                    continue;
                }
                let header = (here.read(HEADER) >> 16) as u8;
                if header & !MULTIPLE == BRIDGE {
                    let behind = (here.read(BUSES) >> 8) as u8;
                    // Each bus once, whatever bridges say.
                    if !core::mem::replace(&mut seen[usize::from(behind)], true) {
                        buses.push(behind);
                    }
                }
                found.push(here);
                if function == 0 && header & MULTIPLE == 0 {
                    break;
                }
            }
        }
    }
    found.sort_unstable();
    found
}

impl Function {
    /// Class, subclass and interface.
    pub fn class(self) -> u32 {
        self.read(CLASS) >> 8
    }

    /// Lets the function answer at its BARs and access memory, and interrupt by messages only.
    ///
    /// What memory a function accesses is up to its driver: see `MmioWindow::new`.
    pub fn enable(self) {
        let command = self.read(COMMAND) & COMMAND_BITS;
        self.write(COMMAND, command | MEMORY | BUS_MASTER | NO_PIN);
    }
}

/// A range of memory addresses at which a function answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Where it begins.
    pub address: u64,
    /// How long it is.
    pub bytes: u64,
}

/// Finds out about memory BAR `index`. The function does not answer meanwhile.
pub fn bar(config: &impl Config, index: u8) -> Option<Bar> {
    const IO: u32 = 1;
    const KIND: u32 = 6;
    const WIDE: u32 = 4;
    if index > 5 {
        return None;
    }
    let at = BARS + 4 * index;
    let low = config.read(at);
    let is_wide = low & KIND == WIDE;
    if low & IO != 0 || low & KIND == 2 || (is_wide && index == 5) {
        return None;
    }
    let command = config.read(COMMAND) & COMMAND_BITS;
    config.write(COMMAND, command & !MEMORY);
    // The bits that keep the ones are above the size.
    let probe = |at| {
        let value = config.read(at);
        config.write(at, u32::MAX);
        let ones = config.read(at);
        config.write(at, value);
        (value, ones)
    };
    let (low, ones) = probe(at);
    let (mut address, mut mask) = (u64::from(low & !0xf), u64::from(ones & !0xf) | u64::from(u32::MAX) << 32);
    if is_wide {
        let (high, ones) = probe(at + 4);
        address |= u64::from(high) << 32;
        mask = mask & u64::from(u32::MAX) | u64::from(ones) << 32;
    }
    config.write(COMMAND, command);
    let bytes = (!mask).wrapping_add(1);
    (address > 0 && bytes >= 16 && bytes.is_power_of_two()).then_some(Bar { address, bytes })
}

/// Where capability `id` is. A list that comes back to itself, or leads into the header, ends.
pub fn capability(config: &impl Config, id: u8) -> Option<u8> {
    /// As many as fit.
    const MOST: usize = (256 - 64) / 4;
    if config.read(COMMAND) & HAS_CAPABILITIES == 0 {
        return None;
    }
    let mut at = config.read(CAPABILITIES) as u8 & 0xfc;
    for _ in 0..MOST {
        if at < 0x40 {
            return None;
        }
        let head = config.read(at);
        if head as u8 == id {
            return Some(at);
        }
        at = (head >> 8) as u8 & 0xfc;
    }
    None
}
