//! A controller behind a register window, for tests, fuzzing, and machines without one.
//!
//! ```text
//!   Model     the window: a register access at a time, then interrupts
//!   engine    the state machine behind it: executes commands when a doorbell is rung
//!   walk      follows PRP entries          -> DeviceMemory: the fake machine's, the process's (`HostMemory`)
//!                                          -> Medium: an image, a file, a file with an overlay
//! ```
//!
//! It executes the driver's real rings, in the memory that the driver told it of, when a doorbell is rung. It believes
//! nothing that it reads there. [`Fault`]s make it behave as broken hardware does.

mod engine;
mod walk;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

#[cfg(all(feature = "std", unix))]
pub use dfly_bio::model::FileMedium;
pub use dfly_bio::model::{Medium, Overlay};
pub use dfly_hal::model::DeviceMemory;
#[cfg(feature = "std")]
pub use dfly_hal::model::HostMemory;
use dfly_hal::regs::Window;
use dfly_hal::sync::Lock;

use crate::spec::IdentifyWhat;
use engine::Engine;
pub use walk::{BadPrp, walk};

/// A namespace: a medium in blocks.
pub struct Disk {
    /// A block has 2^this bytes. What no real namespace has is allowed: a driver must cope with it.
    pub block_shift: u8,
    /// Its bytes; a last partial block is out of reach.
    pub medium: Box<dyn Medium>,
}

impl Disk {
    /// A namespace of `block_bytes`, a power of two, over `medium`.
    pub fn new(block_bytes: u32, medium: impl Medium + 'static) -> Self {
        Self { block_shift: block_bytes.trailing_zeros() as u8, medium: Box::new(medium) }
    }

    /// Whole blocks of it.
    fn blocks(&self) -> u64 {
        self.medium.size_bytes().checked_shr(self.block_shift.into()).unwrap_or(0)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("block_shift", &self.block_shift)
            .field("blocks", &self.blocks())
            .finish_non_exhaustive()
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
    /// Vectors of MSI-X, at most 256. A completion queue with another one than 0 says that they are in use.
    pub vectors: u16,
    /// Identify says that there is a volatile write cache.
    pub vwc: u8,
}

impl Default for Abilities {
    fn default() -> Self {
        Self { mqes_z: 2047, dstrd: 0, to: 15, mdts: 7, queues: 64, vectors: 65, vwc: 1 }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The controller was removed: every register reads as all ones, and nothing is done any more.
    AllOnes,
    /// It will be removed after so many register accesses.
    AllOnesAfter(u64),
    /// It never becomes ready.
    NeverReady,
    /// It reports fatal status, and does nothing any more until it is disabled.
    FatalStatus,
    /// It does nothing any more, and does not let itself be disabled.
    Stuck,
    /// The 32 bits at `offset` read as `value` from now on.
    Register {
        /// Offset in the window.
        offset: usize,
        /// What is read.
        value: u32,
    },
    /// Identify answers with another byte at `offset` from now on.
    Identify {
        /// In which structure.
        what: IdentifyWhat,
        /// Offset in it.
        offset: u16,
        /// The byte.
        value: u8,
    },
    /// Something is wrong with the next I/O command that no other mistake waits for.
    Io(Mistake),
    /// Something is wrong with the next admin command of this opcode.
    Admin(u8, Mistake),
}

/// What a controller gets wrong with one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mistake {
    /// It completes under an identifier that nobody gave.
    UnknownCid,
    /// It completes twice.
    Duplicate,
    /// It completes as a command of a queue that is not there.
    WrongQueue,
    /// It completes, and the controller claims to have read a queue entry that was not shown to it.
    BadHead,
    /// It completes, and the controller says that it has read nothing yet.
    OldHead,
    /// It is not executed, and completes with this code type and code.
    Status(u8, u8),
    /// It is swallowed.
    Drop,
    /// It completes with success and was not executed.
    Nothing,
    /// It is executed and completes, and no interrupt tells of it.
    Silent,
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
    ///
    /// `interrupt` runs in whatever context the driver writes a register in, with the driver's locks held: it may do what
    /// an interrupt handler may.
    pub fn interrupting(mut self, interrupt: OnInterrupt) -> Self {
        self.interrupt = Some(interrupt);
        self
    }

    /// Something goes wrong from now on, or with a command to come.
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

    /// Reads the medium of namespace `nsid` from `at` on; `false` if that cannot be.
    pub fn peek(&self, nsid: u32, at: u64, to: &mut [u8]) -> bool {
        self.engine.lock().disk_mut(nsid).is_some_and(|disk| disk.medium.read(at, to).is_ok())
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
        let raised = core::mem::take(&mut engine.raised);
        drop(engine);
        if let Some(interrupt) = &self.interrupt {
            raised.vectors().for_each(interrupt);
        }
    }
}

impl<M: DeviceMemory> fmt::Debug for Model<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
