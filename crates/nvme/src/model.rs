//! A controller behind a register window, for tests, fuzzing, and machines without one.
//!
//! It executes the driver's real rings, in the memory that the driver told it of, when a doorbell is rung. It believes
//! nothing that it reads there. [`Fault`]s make it behave as broken hardware does.

mod engine;
mod walk;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use dfly_bio::Image;
use dfly_hal::dma::DevAddr;
use dfly_hal::regs::Window;
use dfly_hal::sync::Lock;

use engine::Engine;
pub use walk::{BadPrp, walk};

/// The machine's memory as the controller reaches it. `false`: nothing is there, or it may not be touched.
pub trait DeviceMemory: Send + Sync {
    /// Reads from `at` on.
    fn read(&self, at: DevAddr, to: &mut [u8]) -> bool;
    /// Writes from `at` on.
    fn write(&self, at: DevAddr, from: &[u8]) -> bool;
}

impl<M: DeviceMemory + ?Sized> DeviceMemory for alloc::sync::Arc<M> {
    fn read(&self, at: DevAddr, to: &mut [u8]) -> bool {
        (**self).read(at, to)
    }
    fn write(&self, at: DevAddr, from: &[u8]) -> bool {
        (**self).write(at, from)
    }
}

#[cfg(feature = "fake")]
impl DeviceMemory for dfly_hal::fake::FakeHal {
    fn read(&self, at: DevAddr, to: &mut [u8]) -> bool {
        self.device_read(at, to).is_ok()
    }
    fn write(&self, at: DevAddr, from: &[u8]) -> bool {
        self.device_write(at, from).is_ok()
    }
}

/// The medium of a namespace.
#[derive(Clone, Debug)]
pub struct Disk {
    /// A block has 2^this bytes.
    pub block_shift: u8,
    /// Its bytes; a last partial block is out of reach.
    pub image: Image,
}

impl Disk {
    /// A namespace of `block_bytes`, a power of two, over `image`.
    pub const fn new(block_bytes: u32, image: Image) -> Self {
        Self { block_shift: block_bytes.trailing_zeros() as u8, image }
    }
}

/// What a model can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// The most entries of a queue, minus one.
    pub mqes_z: u16,
    /// Doorbell stride.
    pub dstrd: u8,
    /// Units of 500 ms.
    pub to: u8,
    /// Longest transfer: 2^this pages; 0: any.
    pub mdts: u8,
    /// I/O queues that are granted, whatever is asked for.
    pub queues: u16,
    /// Identify says that there is a volatile write cache.
    pub vwc: u8,
}

impl Default for Abilities {
    fn default() -> Self {
        Self { mqes_z: 2047, dstrd: 0, to: 15, mdts: 7, queues: 64, vwc: 1 }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The controller was removed: every register reads as all ones, and nothing is done any more.
    AllOnes,
    /// It never becomes ready.
    NeverReady,
    /// It reports fatal status, and does nothing any more until it is disabled.
    FatalStatus,
    /// It does nothing any more, and does not let itself be disabled.
    Stuck,
    /// The next I/O command completes under an identifier that nobody gave.
    UnknownCid,
    /// The next I/O command completes twice.
    Duplicate,
    /// The next I/O command is not executed, and completes with this code type and code.
    Status(u8, u8),
    /// The next I/O command is swallowed.
    Drop,
}

/// What a model counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Writes to submission doorbells of I/O queues.
    pub sq_doorbells: u64,
    /// I/O commands executed.
    pub commands: u64,
    /// Flushes among them.
    pub flushes: u64,
    /// Writes with FUA among them.
    pub fua: u64,
    /// Doorbells and commands that no driver may write.
    pub misuse: u64,
    /// The first data pointer of the latest transfer.
    pub last_prp1: u64,
}

/// Called with the vector when a completion with interrupts was written. Not under the model's lock.
pub type OnInterrupt = Box<dyn Fn(u16) + Send + Sync>;

/// A controller. Callable from every thread; allocates as its disks do.
pub struct Model<M: DeviceMemory> {
    engine: Lock<Engine>,
    memory: M,
    interrupt: Option<OnInterrupt>,
    /// Register accesses of any kind.
    accesses: AtomicU64,
}

impl<M: DeviceMemory> Model<M> {
    /// A controller with `disks` as namespaces 1 and up.
    pub fn new(memory: M, disks: Vec<Disk>) -> Self {
        Self::with(memory, disks, Abilities::default())
    }

    /// A controller.
    pub fn with(memory: M, disks: Vec<Disk>, abilities: Abilities) -> Self {
        let engine = Lock::new(Engine::new(disks, abilities));
        Self { engine, memory, interrupt: None, accesses: AtomicU64::new(0) }
    }

    /// With interrupts.
    #[must_use]
    pub fn interrupting(mut self, interrupt: OnInterrupt) -> Self {
        self.interrupt = Some(interrupt);
        self
    }

    /// From now on, or for the next I/O command that no other fault waits for: `fault`.
    pub fn inject(&self, fault: Fault) {
        self.engine.lock().inject(fault);
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.engine.lock().counts
    }

    /// Register accesses so far.
    pub fn accesses(&self) -> u64 {
        self.accesses.load(Ordering::Relaxed)
    }

    /// The contents of namespace `nsid` now.
    pub fn image(&self, nsid: u32) -> Option<Image> {
        let engine = self.engine.lock();
        Some(engine.disks.get(usize::try_from(nsid.checked_sub(1)?).ok()?)?.image.clone())
    }
}

impl<M: DeviceMemory> Window for Model<M> {
    fn read32(&self, offset: usize) -> u32 {
        self.accesses.fetch_add(1, Ordering::Relaxed);
        self.engine.lock().read(offset)
    }

    fn write32(&self, offset: usize, value: u32) {
        self.accesses.fetch_add(1, Ordering::Relaxed);
        let mut engine = self.engine.lock();
        engine.write(offset, value, &self.memory);
        let vectors = core::mem::take(&mut engine.raised);
        drop(engine);
        if let Some(interrupt) = &self.interrupt {
            (0..64).filter(|vector| vectors >> vector & 1 != 0).for_each(|vector: u16| interrupt(vector));
        }
    }
}
