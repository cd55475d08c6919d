//! AHCI adapters: found on the PCI buses, their registers mapped, a vector for their message.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use dfly_ahci::{Config, Interrupts};
use dfly_hal::CpuId;
use dfly_hal::regs::MmioWindow;
use kernel::{AhciFunction, Irq};

use crate::msi::Msi;
use crate::pci::{self, Function};
use crate::{cpu, interrupts, memory, println};

/// Mass storage, serial ATA, AHCI.
const CLASS: u32 = 0x01_06_01;

/// Where the registers are.
const BAR: u8 = 5;

/// As many as an adapter with 32 ports has, whatever a BAR says.
const MOST_BYTES: u64 = 0x1100;

/// Where the adapters are, bus by bus.
pub fn scan() -> Vec<Function> {
    let mut found = pci::scan();
    found.retain(|function| function.class() == CLASS);
    found
}

/// The adapter at `at`, enabled: registers, and its message, if it has one, as an interrupt of the first CPU. `None` for one
/// whose registers are nowhere, after saying so.
pub fn function(at: Function) -> Option<AhciFunction> {
    at.enable();
    let Some(window) = window(&at) else {
        println!("ahci at {at}: its registers are nowhere");
        return None;
    };
    let irq = Arc::new(Irq::new());
    let interrupts = connect(&at, &irq).unwrap_or_else(|| {
        println!("ahci at {at}: no message or no interrupt vector for it, so it is polled");
        Interrupts::None
    });
    let config = Config { interrupts, ..Config::default() };
    Some(AhciFunction { location: at.to_string(), window: Box::new(window), config, irq })
}

fn window(at: &Function) -> Option<MmioWindow> {
    let bar = pci::bar(at, BAR)?;
    let bytes = bar.bytes.min(MOST_BYTES);
    let registers = memory::device(bar.address, bytes)?;
    // SAFETY: device memory, by the BAR, which is aligned to its size; the driver that gets the window is the only one.
    Some(unsafe { MmioWindow::new(registers, bytes as usize) })
}

fn connect(at: &Function, irq: &Arc<Irq>) -> Option<Interrupts> {
    let message = Msi::find(at)?;
    let (to, irq) = (cpu::get(CpuId(0))?, irq.clone());
    message.enable(at, interrupts::connect(move || irq.raise())?, to.apic());
    Some(Interrupts::One)
}
