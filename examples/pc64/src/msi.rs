//! MSI: a function's one message, which becomes an interrupt vector of a CPU.

use crate::interrupts::Vector;
use crate::pci::{self, Config};

const ID: u8 = 0x05;
/// In the word with the capability's head.
const ENABLE: u32 = 1 << 16;
/// How many messages it may send, as a power of two: one.
const COUNT: u32 = 7 << 20;
const WIDE: u32 = 1 << 23;
/// Where x86 CPUs take messages.
const MESSAGES: u32 = 0xfee0_0000;

/// A function's MSI capability.
#[derive(Clone, Copy, Debug)]
pub struct Msi {
    at: u8,
}

impl Msi {
    /// Finds it, and turns it off.
    pub fn find(function: &impl Config) -> Option<Self> {
        // The data lies twelve bytes behind the head, at most.
        let at = pci::capability(function, ID).filter(|&at| at <= 0xf0)?;
        function.write(at, function.read(at) & !ENABLE);
        Some(Self { at })
    }

    /// Its message becomes `vector` of the CPU with APIC number `to`.
    pub fn enable(self, function: &impl Config, vector: Vector, to: u32) {
        let head = function.read(self.at);
        function.write(self.at + 4, MESSAGES | to << 12);
        let data = if head & WIDE != 0 {
            function.write(self.at + 8, 0);
            self.at + 12
        } else {
            self.at + 8
        };
        // What lies beside the data is reserved.
        function.write(data, u32::from(vector));
        function.write(self.at, head & !COUNT | ENABLE);
    }
}
