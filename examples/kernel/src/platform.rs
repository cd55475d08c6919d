//! What a platform brings.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use dfly_hal::Wait;
use dfly_hal::dma::Dma;
use dfly_hal::regs::Window;
use dfly_nvme::Config;

use crate::Irq;

/// CPUs that run threads, time, and memory for devices.
pub trait Platform: dfly_lwkt::Platform + Dma + 'static {}
impl<P: dfly_lwkt::Platform + Dma + 'static> Platform for P {}

/// Where the shell's person sits, and where kernel messages go.
pub trait Terminal: Send + Sync {
    /// Shows `bytes`; `\n` ends a line. Called from threads with whole lines, which nobody else's may cut. Takes a short
    /// lock at most, and not from interrupt handlers.
    fn write(&self, bytes: &[u8]);

    /// Shows `prompt` and reads a line, without its end; `None` when there will be no more. Blocks through `w`.
    fn read_line(&self, prompt: &str, w: &mut dyn Wait) -> Option<Vec<u8>>;
}

/// An NVMe controller that the platform has found: its registers mapped, allowed to use memory, its interrupts set up.
pub struct NvmeFunction {
    /// Where it is, for people: `pci0:0:4.0`.
    pub location: String,
    /// BAR 0.
    pub window: Box<dyn Window>,
    /// How it is driven; its interrupts, as the platform has set them up, end in `irq`.
    pub config: Config,
    /// What its interrupt handlers call.
    pub irq: Arc<Irq>,
}

/// An AHCI adapter that the platform has found: its registers mapped, allowed to use memory, its interrupt set up.
pub struct AhciFunction {
    /// Where it is, for people: `pci0:0:31.2`.
    pub location: String,
    /// BAR 5.
    pub window: Box<dyn Window>,
    /// How it is driven; its interrupt, as the platform has set it up, ends in `irq`.
    pub config: dfly_ahci::Config,
    /// What its interrupt handler calls.
    pub irq: Arc<Irq>,
}

/// What the shell does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Session {
    /// It reads lines from the terminal.
    Interactive,
    /// It runs these lines, and the machine ends with their verdict.
    Script(Vec<u8>),
}

/// A machine, as [`Kernel::boot`](crate::Kernel::boot) takes it.
pub struct Machine {
    /// What it is: `vkernel`, `pc64`.
    pub name: &'static str,
    /// Its CPUs, clock and memory.
    pub platform: Arc<dyn Platform>,
    /// Its console.
    pub terminal: Arc<dyn Terminal>,
    /// Its NVMe controllers, in the order in which their disks are numbered.
    pub nvme: Vec<NvmeFunction>,
    /// Its AHCI adapters, likewise.
    pub ahci: Vec<AhciFunction>,
    /// What the shell does.
    pub session: Session,
}
