//! NVMe controllers: found on the PCI buses, their registers mapped, a vector for each of their messages.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use dfly_hal::CpuId;
use dfly_hal::regs::MmioWindow;
use dfly_nvme::{Config, Interrupts};
use kernel::{Irq, NvmeFunction};

use crate::msix::MsiX;
use crate::pci::{self, Function};
use crate::{cpu, interrupts, memory, println};

/// Mass storage, non-volatile memory, NVMe.
const CLASS: u32 = 0x01_08_02;

/// More than the registers and the doorbells of all queues take, whatever a BAR says.
const MOST_BYTES: u64 = 1 << 20;

/// Where the controllers are, bus by bus.
pub fn scan() -> Vec<Function> {
    let mut found = pci::scan();
    found.retain(|function| function.class() == CLASS);
    found
}

/// The controller at `at`, enabled: registers, and interrupts with one message for each CPU beside the one of the admin
/// queue, as far as it has so many. `None` for one whose registers are nowhere, after saying so.
pub fn function(at: Function) -> Option<NvmeFunction> {
    at.enable();
    let Some(window) = window(&at) else {
        println!("nvme at {at}: its registers are nowhere");
        return None;
    };
    let irq = Arc::new(Irq::new());
    let interrupts = match MsiX::find(&at) {
        Some(messages) => connect(&at, &messages, &irq),
        None => Interrupts::None,
    };
    let config = Config { interrupts, ..Config::default() };
    Some(NvmeFunction { location: at.to_string(), window: Box::new(window), config, irq })
}

fn window(at: &Function) -> Option<MmioWindow> {
    let bar = pci::bar(at, 0)?;
    let bytes = bar.bytes.min(MOST_BYTES);
    let registers = memory::device(bar.address, bytes)?;
    // SAFETY: device memory, by the BAR, which is aligned to its size; the driver that gets the window is the only one.
    // (The table of messages may lie in the same BAR; drivers of this family leave it alone.)
    Some(unsafe { MmioWindow::new(registers, bytes as usize) })
}

/// Connects messages to CPUs in turn, as far as there are vectors. Without any, the controller has to be polled.
fn connect(at: &Function, messages: &MsiX, irq: &Arc<Irq>) -> Interrupts {
    let wanted = (cpu::count() + 1).min(messages.len().into()) as u16;
    let mut connected = 0;
    while connected < wanted {
        // Queue 1 is CPU 0's, and uses message 1.
        let to = cpu::get(CpuId(u32::from(connected.saturating_sub(1)) % cpu::count()));
        let irq = irq.clone();
        let Some((cpu, vector)) = to.zip(interrupts::connect(move || irq.raise())) else { break };
        messages.route(connected, vector, cpu.apic());
        connected += 1;
    }
    if connected == 0 {
        println!("nvme at {at}: no interrupt vector is left for it, so it is polled");
        return Interrupts::None;
    }
    messages.enable(at);
    Interrupts::Message { vectors: connected }
}
