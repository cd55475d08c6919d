//! A host adapter with disks behind a register window, for tests, fuzzing, and machines without one.
//!
//! ```text
//!   Model     the window: a register access at a time, then interrupts
//!   hba       the adapter's registers
//!   port      a port's registers, its link, its command list    -> walk: follows a PRDT
//!   drive     an ATA disk or an ATAPI reader, and its commands  -> Medium: an image, a file, an overlay
//! ```
//!
//! It executes the driver's real command list, in the memory that the driver told it of, when PxCI is written. It believes
//! nothing that it reads there. Time is counted in register accesses: what takes a while is done after so many.
//! [`Fault`]s make it behave as broken hardware does.

mod drive;
mod hba;
mod port;
mod walk;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

#[cfg(all(feature = "std", unix))]
pub use dfly_bio::model::FileMedium;
pub use dfly_bio::model::{Medium, Overlay};
pub use dfly_hal::model::DeviceMemory;
#[cfg(feature = "std")]
pub use dfly_hal::model::HostMemory;
use dfly_hal::regs::Window;
use dfly_hal::sync::Lock;

use crate::spec::{Command, PortInterrupts};
pub use drive::{Drive, Queueing};
use hba::Hba;
pub use walk::{BadPrdt, walk};

/// What an adapter can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Command slots, minus one.
    pub ncs_z: u8,
    /// Queued commands.
    pub sncq: bool,
    /// 64-bit addresses.
    pub s64a: bool,
    /// Command list override.
    pub sclo: bool,
    /// Staggered spin-up: a port's link stays down until PxCMD.SUD.
    pub sss: bool,
    /// Link power management, partial, slumber.
    pub salp: bool,
    /// The BIOS owns the adapter until it is asked.
    pub bios: bool,
    /// Which ports are there; those of the drives at least.
    pub pi: u32,
    /// Register accesses that a link takes to come up, a device to become ready, an engine to stop, an adapter to reset.
    pub settling: u64,
    /// What is in flight when a queued command fails.
    pub queue_errors: QueueErrors,
    /// PxCMD.CCS tells which slot is being issued; some adapters leave it 0.
    pub says_ccs: bool,
}

impl Default for Abilities {
    fn default() -> Self {
        Self {
            ncs_z: 31,
            sncq: true,
            s64a: true,
            sclo: true,
            sss: false,
            salp: true,
            bios: false,
            pi: 0,
            settling: 2,
            queue_errors: QueueErrors::AllSent,
            says_ccs: true,
        }
    }
}

/// What becomes of the other queued commands when one fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueErrors {
    /// They had been sent, and are dropped: PxSACT has them all, PxCI none, and only the log says which one failed.
    AllSent,
    /// They had not been sent: PxSACT and PxCI have them.
    Unsent,
    /// They go on and finish, and only the failed one stays in PxSACT (as in QEMU).
    Finish,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The adapter was removed: every register reads as all ones, and nothing is done any more.
    AllOnes,
    /// It will be removed after so many register accesses.
    AllOnesAfter(u64),
    /// An HBA reset never ends, nor stops anything.
    StuckReset,
    /// The engine of a port never stops, until an HBA reset.
    StuckEngine(u8),
    /// The device of a port stays busy, whatever is done.
    StuckBusy(u8),
    /// The link of a port does not come up for so many resets.
    NoLink(u8, u32),
    /// The 32 bits at `offset` read as `value` from now on.
    Register {
        /// Offset in the window.
        offset: usize,
        /// What is read.
        value: u32,
    },
    /// IDENTIFY answers with another word from now on; the checksum is as it was.
    Identify {
        /// Of the device at this port.
        port: u8,
        /// Which word.
        word: u8,
        /// What it says.
        value: u16,
    },
    /// These interrupts come, for no reason.
    Spurious(u8, PortInterrupts),
    /// Something is wrong with commands of this kind.
    Command(Pattern, Mistake),
}

/// Which commands a mistake is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// At this port; any if `None`.
    pub port: Option<u8>,
    /// With this opcode; any read or write of data if `None`.
    pub command: Option<Command>,
    /// That touch one of these blocks; any if `None`.
    pub lbas: Option<Range<u64>>,
    /// So many of them are passed over.
    pub skip: u32,
    /// Then it happens so often.
    pub times: u32,
}

impl Pattern {
    /// The next read or write of data.
    pub const NEXT: Self = Self { port: None, command: None, lbas: None, skip: 0, times: 1 };

    /// The next command with this opcode.
    pub const fn of(command: Command) -> Self {
        Self { command: Some(command), ..Self::NEXT }
    }

    /// Every read or write that touches one of `lbas`.
    pub const fn at(lbas: Range<u64>) -> Self {
        Self { lbas: Some(lbas), times: u32::MAX, ..Self::NEXT }
    }
}

/// What goes wrong with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mistake {
    /// It is swallowed.
    Drop,
    /// It is executed, and completes after so many register accesses.
    Delay(u64),
    /// It completes, and a while later so it does again.
    Duplicate,
    /// It is executed, and a byte of the data is wrong.
    Corrupt,
    /// It is not executed, and fails with this status and error.
    Status(u8, u8),
    /// It completes with success and was not executed.
    Nothing,
    /// It is executed and completes, and no interrupt tells of it.
    Silent,
    /// The interface fails: PxIS.IFS, and the port stops.
    Interface,
    /// The host's bus fails: PxIS.HBFS, and the port stops.
    HostBus,
    /// The device is pulled out instead.
    Vanish,
}

/// What a model counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Register reads.
    pub reads: u64,
    /// Register writes.
    pub writes: u64,
    /// Commands executed.
    pub commands: u64,
    /// Queued commands among them.
    pub queued: u64,
    /// Flushes among them.
    pub flushes: u64,
    /// Writes with FUA among them.
    pub fua: u64,
    /// Blocks that were trimmed.
    pub trimmed: u64,
    /// COMRESETs.
    pub resets: u64,
    /// HBA resets.
    pub hba_resets: u64,
    /// Interrupts raised.
    pub interrupts: u64,
    /// What no driver may do: registers written at the wrong time, commands of two classes at a time, a slot used twice.
    pub misuse: u64,
    /// Where the first byte of the latest transfer went to or came from.
    pub last_addr: u64,
}

/// Called when an interrupt is raised. Not under the model's lock.
pub type OnInterrupt = Box<dyn Fn() + Send + Sync>;

/// An adapter. Callable from every thread; allocates as its media do.
pub struct Model<M: DeviceMemory> {
    hba: Lock<Hba>,
    memory: M,
    interrupt: Option<OnInterrupt>,
    accesses: AtomicU64,
}

impl<M: DeviceMemory> Model<M> {
    /// An adapter with `drives` at ports 0 and up.
    pub fn new(memory: M, drives: Vec<Option<Drive>>) -> Self {
        Self::with(memory, drives, Abilities::default())
    }

    /// An adapter.
    pub fn with(memory: M, drives: Vec<Option<Drive>>, abilities: Abilities) -> Self {
        Self {
            hba: Lock::new(Hba::new(drives, abilities)),
            memory,
            interrupt: None,
            accesses: AtomicU64::new(0),
        }
    }

    /// With interrupts.
    ///
    /// `interrupt` runs in whatever context the driver accesses a register in, with the driver's locks held: it may do what
    /// an interrupt handler may.
    #[must_use]
    pub fn interrupting(mut self, interrupt: OnInterrupt) -> Self {
        self.interrupt = Some(interrupt);
        self
    }

    /// Something goes wrong from now on, or with a command to come.
    pub fn inject(&self, fault: Fault) {
        let raised = {
            let mut hba = self.hba.lock();
            hba.inject(fault);
            hba.take_raised()
        };
        self.announce(raised);
    }

    /// Pulls the device of a port out.
    pub fn unplug(&self, port: u8) -> Option<Drive> {
        let (drive, raised) = {
            let mut hba = self.hba.lock();
            (hba.unplug(port), hba.take_raised())
        };
        self.announce(raised);
        drive
    }

    /// Plugs a device into a port, and pulls out what was there.
    pub fn plug(&self, port: u8, drive: Drive) {
        drop(self.unplug(port));
        let raised = {
            let mut hba = self.hba.lock();
            hba.plug(port, drive);
            hba.take_raised()
        };
        self.announce(raised);
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.hba.lock().counts
    }

    /// Register accesses so far.
    pub fn accesses(&self) -> u64 {
        self.accesses.load(Ordering::Relaxed)
    }

    /// Whether the interrupt pin is asserted.
    pub fn pin(&self) -> bool {
        self.hba.lock().is_asserted()
    }

    /// Reads the medium at `port` from `at` on; `false` if that cannot be.
    pub fn peek(&self, port: u8, at: u64, to: &mut [u8]) -> bool {
        self.hba.lock().drive_mut(port).is_some_and(|drive| drive.medium.read(at, to).is_ok())
    }

    fn announce(&self, raised: bool) {
        if let (true, Some(interrupt)) = (raised, &self.interrupt) {
            interrupt();
        }
    }
}

impl<M: DeviceMemory> Window for Model<M> {
    fn read32(&self, offset: usize) -> u32 {
        self.accesses.fetch_add(1, Ordering::Relaxed);
        let (value, raised) = {
            let mut hba = self.hba.lock();
            (hba.read(offset, &self.memory), hba.take_raised())
        };
        self.announce(raised);
        value
    }

    fn write32(&self, offset: usize, value: u32) {
        self.accesses.fetch_add(1, Ordering::Relaxed);
        let raised = {
            let mut hba = self.hba.lock();
            hba.write(offset, value, &self.memory);
            hba.take_raised()
        };
        self.announce(raised);
    }
}

impl<M: DeviceMemory> fmt::Debug for Model<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
