//! A driver for AHCI host adapters (SATA disks, ATAPI readers), over a register window and a HAL's memory and clock.
//!
//! ```text
//!   spec      registers, memory structures, frames, commands: bytes
//!   prdt      a transfer's memory as the adapter wants it               | pure
//!   slots     a port's command slots as numbers: classes, what came back | pure
//!   Ahci      attach, ports, requests, recovery, the end
//!   sat       SCSI pass-through commands as ATA commands
//!   smart     what a disk says of its health
//!   model     an adapter with disks behind a window, with faults (feature `model`)
//! ```
//!
//! ```
//! # #[cfg(feature = "fake")] {
//! use std::sync::Arc;
//! use dfly_bio::{Bio, Buf, Image};
//! use dfly_hal::{SpinWait, fake::FakeHal};
//! use dfly_ahci::{Ahci, Config, model::{Drive, Model}};
//!
//! let hal = Arc::new(FakeHal::new());
//! let adapter = Arc::new(Model::new(hal.clone(), vec![Some(Drive::disk(512, Image::new(1 << 20)))]));
//! let mut idle = || { hal.advance_to_next(); };
//! let w = &mut SpinWait::new(&mut idle);
//! let ahci = Ahci::attach(adapter, hal.clone(), Config::default(), w)?;
//! let disk = ahci.disk(0).ok_or("no disk at port 0")?;
//!
//! let mut poll = || { ahci.poll(); };
//! let mut bio = Bio::new();
//! bio.read(4096, Buf::alloc(8192, 4096)?);
//! bio.call(&disk, &mut SpinWait::new(&mut poll)).result()?;
//! # }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! | | needs alloc? | may block? | from an interrupt handler? | stack use |
//! |---|---|---|---|---|
//! | [`Ahci::attach`] | yes | yes: takes `&mut dyn Wait` | no | a few KiB |
//! | `submit`, `poll` of a disk | no | no | no | 1 KiB |
//! | [`Ahci::interrupt`] | no | no | yes | small |
//! | [`Ahci::work`] | no | a future | no | small |
//! | [`Ahci::disk`] | once for each device | no | no | small |
//! | [`Ahci::pass_through`], [`Ahci::smart`] | yes | yes | no | 1 KiB |
//! | [`Ahci::detach`] | no | yes | no | small |
//! | dropping [`Ahci`] | no | looks at the adapter for a while | no | small |
//!
//! Unsafe code is in the module `lend` only.
#![no_std]
#![deny(missing_docs)]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

mod device;
mod disk;
mod driver;
mod hba;
#[expect(unsafe_code, reason = "the promise that the adapter is done with memory")]
mod lend;
#[cfg(feature = "model")]
pub mod model;
mod port;
pub mod prdt;
pub mod sat;
pub mod slots;
pub mod smart;
pub mod spec;

use core::time::Duration;

use dfly_bio::WriteCache;
use dfly_hal::Wait;
use dfly_hal::dma::DmaError;
use dfly_hal::regs::Window;

pub use driver::{Ahci, AhciHal, Work};
pub use spec::Transport;

/// How an adapter is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The longest transfer of one command, at most; the device's own limit counts too. Longer requests are split.
    pub max_transfer_bytes: u32,
    /// When a read or write without a deadline is late.
    pub io_timeout: Duration,
    /// When a flush or a discard without a deadline is late.
    pub flush_timeout: Duration,
    /// How long [`Ahci::attach`] waits for devices; who comes later is found all the same.
    pub attach_timeout: Duration,
    /// How completions are announced.
    pub interrupts: Interrupts,
    /// How links save power, where adapter and device can.
    pub link_power: LinkPower,
}

impl Config {
    /// The limit of [`max_transfer_bytes`](Self::max_transfer_bytes).
    pub const LARGEST_TRANSFER_BYTES: u32 = 32 << 20;
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_transfer_bytes: 256 << 10,
            io_timeout: Duration::from_secs(30),
            flush_timeout: Duration::from_secs(60),
            attach_timeout: Duration::from_secs(30),
            interrupts: Interrupts::None,
            link_power: LinkPower::Performance,
        }
    }
}

/// How completions are announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interrupts {
    /// Not at all: somebody polls.
    None,
    /// By the pin, or one message: the handler calls [`Ahci::interrupt`].
    One,
}

/// How links save power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkPower {
    /// They do not.
    Performance,
    /// The adapter lets them go to partial.
    Partial,
    /// The adapter lets them go to slumber, and devices may do so by themselves. A removal is noticed when something is
    /// asked of the device.
    Slumber,
}

/// Why an adapter could not be attached. It was stopped, as far as it could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// Its registers read as all ones.
    #[error("no adapter answers")]
    Gone,
    /// It did not end a reset within a second.
    #[error("the adapter does not end its reset (GHC {ghc:#x})")]
    NotReset {
        /// GHC, read last.
        ghc: u32,
    },
    /// It has no ports.
    #[error("the adapter has no ports")]
    NoPorts,
    /// No memory for ports.
    #[error("no memory for the adapter's ports: {0}")]
    Memory(#[from] DmaError),
}

/// What an adapter says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdapterInfo {
    /// The version register: major and minor in 16 bits each, binary-coded.
    pub version: u32,
    /// Command slots of a port.
    pub slots: u8,
    /// A bit for each port.
    pub ports: u32,
    /// It can do native command queueing.
    pub queueing: bool,
    /// It reaches memory above 4 GiB.
    pub wide_addresses: bool,
}

/// Where the adapter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Requests are served.
    Live,
    /// It is reset, because nothing less helped; what is under way will be issued again.
    Resetting,
    /// It is reset for the last time; requests under way are kept until that is over.
    Stopping(Stopped),
    /// It is stopped and everything is answered. New requests are answered as [`dfly_bio::Failure::Gone`].
    Dead(Stopped),
}

/// Why an adapter was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// It was detached.
    #[error("detached")]
    Detached,
    /// It was detached, and a disk could not write down what it had cached.
    #[error("detached, but a disk was not flushed")]
    NotFlushed,
    /// Its registers read as all ones.
    #[error("the adapter is gone")]
    Gone,
    /// It did not end a reset.
    #[error("the adapter did not end its reset")]
    Stuck,
}

/// Where a port stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PortState {
    /// Nobody is there.
    Empty,
    /// Somebody is being brought up.
    Coming,
    /// Requests are served.
    Live,
    /// Something went wrong and is being put right; requests wait.
    Recovering,
    /// Somebody is there who is of no use.
    Unusable(Unusable),
    /// It was given up until something is plugged in.
    Dead(PortFailure),
}

/// Why a device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// It is a port multiplier.
    #[error("port multipliers are not supported")]
    Multiplier,
    /// It is an enclosure.
    #[error("enclosures are not supported")]
    Enclosure,
    /// It does not say what it is.
    #[error("the device does not identify itself (status {status:#x}, error {error:#x})")]
    Refused {
        /// Its status register.
        status: u8,
        /// Its error register.
        error: u8,
    },
    /// What it says of itself makes no sense.
    #[error("{0}")]
    Identify(spec::IdentifyError),
    /// Its blocks are not of 512 to 65536 bytes, a power of two, or longer than one command may transfer.
    #[error("blocks of {bytes} bytes are not supported")]
    BlockBytes {
        /// What it says.
        bytes: u32,
    },
    /// A reader has no disc in it, or none that it can read.
    #[error("no medium (sense key {key:#x}, code {asc:#x})")]
    NoMedium {
        /// Sense key.
        key: u8,
        /// Additional sense code.
        asc: u8,
    },
}

impl From<spec::IdentifyError> for Unusable {
    fn from(error: spec::IdentifyError) -> Self {
        Self::Identify(error)
    }
}

/// Why a port was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PortFailure {
    /// The engine did not stop.
    #[error("the engine does not stop")]
    NotStopped,
    /// Somebody is there, and no link comes up.
    #[error("the link does not come up")]
    NoLink,
    /// The device stays busy after a reset.
    #[error("the device stays busy")]
    Busy,
    /// The device does not answer.
    #[error("the device does not answer")]
    NoAnswer,
    /// The interface or the host's bus fails again and again.
    #[error("the interface fails")]
    Interface,
}

/// A port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortInfo {
    /// Its number.
    pub number: u8,
    /// Where it stands.
    pub state: PortState,
    /// Who is there and usable.
    pub disk: Option<DiskInfo>,
    /// What it did so far.
    pub stats: PortStats,
}

/// What kind of device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiskKind {
    /// An ATA disk.
    Disk,
    /// An ATAPI reader with a disc in it.
    Disc,
}

/// What a device says of itself, and what was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskInfo {
    /// What it is.
    pub kind: DiskKind,
    /// Serial number: what the device says, padded with blanks, perhaps not ASCII. See [`spec::text_of`].
    pub serial: [u8; 20],
    /// Model, as above.
    pub model: [u8; 40],
    /// Firmware revision, as above.
    pub firmware: [u8; 8],
    /// World wide name.
    pub wwn: Option<u64>,
    /// Blocks that it has.
    pub blocks: u64,
    /// A block has 2^this bytes.
    pub block_shift: u8,
    /// A physical block has 2^this blocks.
    pub physical_shift: u8,
    /// Commands under way, at most.
    pub queue_depth: u8,
    /// They are queued in the device.
    pub queueing: bool,
    /// Whether writes need a flush.
    pub write_cache: WriteCache,
    /// SMART is there and on.
    pub smart: bool,
}

impl DiskInfo {
    /// Bytes of a block.
    pub const fn block_bytes(&self) -> u32 {
        1 << self.block_shift
    }
}

/// What a port did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortStats {
    /// Commands issued, those issued again included.
    pub issued: u64,
    /// Queued commands among them.
    pub queued: u64,
    /// Batches that they were issued in: one register write, two for a queued one.
    pub batches: u64,
    /// Commands completed.
    pub completed: u64,
    /// Requests that ended with an error.
    pub errors: u64,
    /// Requests that were late in the device's hands.
    pub timeouts: u64,
    /// Requests that were tried again.
    pub retries: u64,
    /// Times that a live port was stopped because something went wrong.
    pub recoveries: u64,
    /// Times that the device said that a command failed.
    pub task_errors: u64,
    /// Times that the interface or the host's bus failed.
    pub interface_errors: u64,
    /// Times that something came or went on the link.
    pub link_changes: u64,
    /// COMRESETs.
    pub resets: u64,
    /// Devices that came.
    pub inserted: u64,
    /// Devices that went.
    pub removed: u64,
}

impl PortStats {
    const fn plus(self, other: Self) -> Self {
        Self {
            issued: self.issued + other.issued,
            queued: self.queued + other.queued,
            batches: self.batches + other.batches,
            completed: self.completed + other.completed,
            errors: self.errors + other.errors,
            timeouts: self.timeouts + other.timeouts,
            retries: self.retries + other.retries,
            recoveries: self.recoveries + other.recoveries,
            task_errors: self.task_errors + other.task_errors,
            interface_errors: self.interface_errors + other.interface_errors,
            link_changes: self.link_changes + other.link_changes,
            resets: self.resets + other.resets,
            inserted: self.inserted + other.inserted,
            removed: self.removed + other.removed,
        }
    }
}

/// A command of the embedder's: see [`Ahci::pass_through`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassThrough {
    /// Command and registers. Not a queued one.
    pub taskfile: spec::Taskfile,
    /// A packet, for the command PACKET.
    pub cdb: Option<[u8; 16]>,
    /// Where its data goes.
    pub transport: Transport,
    /// When it is late; then the device is reset.
    pub timeout: Duration,
}

/// What a device's registers hold after a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Returned {
    /// Status.
    pub status: u8,
    /// Error.
    pub error: u8,
    /// LBA; means something only for commands that say something there.
    pub lba: u64,
    /// Count, likewise.
    pub count: u16,
    /// Device, likewise.
    pub device: u8,
}

/// How a command of the embedder's ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PassResult {
    Done(Returned),
    Failed(Returned),
    TimedOut,
    Gone,
}

/// Why a command of the embedder's failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// No such port, or nobody is there.
    #[error("no device there")]
    Gone,
    /// More than 4096 bytes, an odd number of them, or data for a command without.
    #[error("{len} bytes cannot be passed through")]
    Length {
        /// How many.
        len: usize,
    },
    /// Queued commands cannot be passed through.
    #[error("queued commands cannot be passed through")]
    Queued,
    /// The device did not answer in time, and was reset.
    #[error("not answered in time")]
    Timeout,
    /// The device refused it.
    #[error("refused (status {:#x}, error {:#x})", .0.status, .0.error)]
    Failed(Returned),
}

impl<H: AhciHal + Clone, W: Window> Ahci<H, W> {
    /// Brings up the adapter behind `window` (the PCI function's BAR 5), and the devices at its ports, all at the same time.
    /// The PCI function must be a bus master. May block; each wait has a deadline.
    ///
    /// # Errors
    /// See [`AttachError`]. A port that does not come up is none: see [`Ahci::port`].
    pub fn attach(window: W, hal: H, config: Config, w: &mut dyn Wait) -> Result<Self, AttachError> {
        hba::attach(window, hal, config, w)
    }
}

/// The example of the README is a test.
#[cfg(all(doctest, feature = "fake"))]
#[doc = include_str!("../README.md")]
struct Readme;
