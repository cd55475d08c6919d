//! NVMe controllers: found on the PCI buses, their registers mapped, a vector for each of their messages.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use dfly_hal::CpuId;
use dfly_hal::regs::MmioWindow;
use dfly_nvme::Interrupts;

use crate::msix::MsiX;
use crate::pci::{self, Function};
use crate::{cpu, interrupts, memory};

/// Mass storage, non-volatile memory, NVMe.
const CLASS: u32 = 0x01_08_02;

/// A controller that is there.
pub struct Found {
    /// Its registers.
    pub window: MmioWindow,
    /// How it interrupts.
    pub interrupts: Interrupts,
}

/// Why a controller that is there cannot be used.
#[derive(Clone, Copy, Debug)]
pub struct NoRegisters(pub Function);

impl fmt::Display for NoRegisters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nvme at {}: its registers are nowhere", self.0)
    }
}

/// Where the controllers are, bus by bus.
pub fn scan() -> Vec<Function> {
    let mut found = pci::scan();
    found.retain(|function| function.class() == CLASS);
    found
}

/// Enables the controller at `at`, and lets its interrupts call `handler`: one message for each CPU beside the one of the
/// admin queue, as far as it has so many.
pub fn set_up(at: Function, handler: Arc<dyn Fn() + Send + Sync>) -> Result<Found, NoRegisters> {
    at.enable();
    let bar = pci::bar(&at, 0).ok_or(NoRegisters(at))?;
    let registers = memory::device(bar.address, bar.bytes).ok_or(NoRegisters(at))?;
    // SAFETY: device memory, by the BAR, which is aligned to its size; the driver that gets the window is the only one.
    // (The table of messages may lie in the same BAR; drivers of this family leave it alone.)
    let window = unsafe { MmioWindow::new(registers, bar.bytes as usize) };
    let interrupts = match MsiX::find(&at) {
        Some(messages) => Interrupts::Message { vectors: connect(&at, &messages, &handler) },
        None => Interrupts::None,
    };
    Ok(Found { window, interrupts })
}

/// Connects messages to CPUs in turn; how many.
fn connect(at: &Function, messages: &MsiX, handler: &Arc<dyn Fn() + Send + Sync>) -> u16 {
    let wanted = (cpu::count() + 1).min(messages.len().into()) as u16;
    let mut connected = 0;
    while connected < wanted {
        // Queue 1 is CPU 0's, and uses message 1.
        let to = cpu::get(CpuId(u32::from(connected.saturating_sub(1)) % cpu::count()));
        let handler = handler.clone();
        let Some((cpu, vector)) = to.zip(interrupts::connect(move || handler())) else { break };
        messages.route(connected, vector, cpu.apic());
        connected += 1;
    }
    messages.enable(at);
    connected
}
