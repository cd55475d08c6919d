//! A driver for NVMe controllers, over a register window and a HAL's memory, clock and CPUs.
//!
//! ```text
//!   spec      registers, queue entries, structures, status codes: bytes
//!   prp       a transfer's memory as the controller wants it            | pure
//!   queue     a queue pair as numbers: rings, phase, identifiers        | pure
//!   Nvme      attach, queues, deadlines, the end
//!   model     a controller behind a window, with faults (feature `model`)
//! ```
//!
//! ```
//! # #[cfg(feature = "fake")] {
//! use std::sync::Arc;
//! use dfly_bio::{Bio, Buf, Image};
//! use dfly_hal::{SpinWait, fake::FakeHal};
//! use dfly_nvme::{Config, Nvme, model::{Disk, Model}};
//!
//! let hal = Arc::new(FakeHal::new());
//! let controller = Arc::new(Model::new(hal.clone(), vec![Disk::new(512, Image::new(1 << 20))]));
//! let mut idle = || { hal.advance_to_next(); };
//! let w = &mut SpinWait::new(&mut idle);
//! let nvme = Nvme::attach(controller, hal.clone(), Config::default(), w)?;
//! let disk = nvme.namespace(1).ok_or("no namespace 1")?;
//!
//! let mut poll = || { nvme.poll(); };
//! let mut bio = Bio::new();
//! bio.read(4096, Buf::alloc(8192, 4096)?);
//! bio.call(&disk, &mut SpinWait::new(&mut poll)).result()?;
//! # }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! | | needs alloc? | may block? | from an interrupt handler? | stack use |
//! |---|---|---|---|---|
//! | [`Nvme::attach`] | yes | yes: takes `&mut dyn Wait` | no | a few KiB |
//! | `submit`, `poll` of a namespace | no | no | no | small |
//! | [`Nvme::interrupt`] | no | no | yes | small |
//! | [`Nvme::work`] | no | a future | no | small |
//! | [`Nvme::detach`] | no | yes | no | small |
//! | dropping [`Nvme`] | no | looks at the controller for a while | no | small |
//!
//! Not yet there: retries, aborting a command, resetting and going on (a controller that misbehaves, or is late, is stopped,
//! and everything answered); asynchronous events, logs; discard and write-zeroes; programming MSI-X (the kernel does that,
//! and says so in [`Interrupts`]); SGLs: a block whose own memory is scattered against the rules of PRP lists is refused
//! as [`TooLong`](dfly_bio::Failure::TooLong).
//!
//! Unsafe code is in the module `lend` only.
#![no_std]
#![deny(missing_docs)]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

mod controller;
mod driver;
mod io;
#[expect(unsafe_code, reason = "the promise that the controller is done with memory")]
mod lend;
#[cfg(feature = "model")]
pub mod model;
mod namespace;
mod pair;
pub mod prp;
pub mod queue;
pub mod spec;

use core::time::Duration;

use dfly_bio::{Access, WriteCache};
use dfly_hal::Wait;
use dfly_hal::dma::DmaError;
use dfly_hal::regs::Window;

pub use driver::{Nvme, NvmeHal, State, Stopped, Work};

/// How a controller is driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Entries of an I/O queue, at most; one always stays empty. 2 to 4096.
    pub queue_depth: u16,
    /// I/O queues, at most. There are no more than CPUs either, nor than the controller grants.
    pub max_queues: u16,
    /// Namespaces that are looked at, at most.
    pub max_namespaces: u16,
    /// The longest transfer of one command, at most; the controller's own limit counts too. Longer requests are split.
    pub max_transfer_bytes: u32,
    /// When a request without a deadline is late.
    pub io_timeout: Duration,
    /// How long all admin commands of an attach may take together.
    pub admin_timeout: Duration,
    /// How completions are announced.
    pub interrupts: Interrupts,
}

impl Config {
    /// The limit of [`max_transfer_bytes`](Self::max_transfer_bytes).
    pub const LARGEST_TRANSFER_BYTES: u32 = 32 << 20;
}

impl Default for Config {
    fn default() -> Self {
        Self {
            queue_depth: 64,
            max_queues: 64,
            max_namespaces: 1024,
            max_transfer_bytes: 128 << 10,
            io_timeout: Duration::from_secs(30),
            admin_timeout: Duration::from_secs(60),
            interrupts: Interrupts::None,
        }
    }
}

/// How completions are announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interrupts {
    /// Not at all: somebody polls.
    None,
    /// By the pin, or one MSI: [`Nvme::interrupt`] masks it, and [`Nvme::poll`] unmasks it. It is masked during
    /// [`Nvme::attach`], so it is not asserted before there is somebody to call.
    Pin,
    /// By MSI-X, which the kernel has set up with so many vectors. Vector 0 is the admin queue's, and queue q uses vector
    /// 1 + (q - 1) mod (vectors - 1); a single vector is for all. Those of vector 0 that come during [`Nvme::attach`] may
    /// be ignored: it polls.
    Message {
        /// How many vectors are set up.
        vectors: u16,
    },
}

/// Why a controller could not be attached. It was disabled, as far as it could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// Its registers read as all ones.
    #[error("no controller answers")]
    Gone,
    /// It has no NVM command set.
    #[error("the controller has no NVM command set")]
    NoNvmCommands,
    /// Its pages are larger than 64 KiB, or its limits contradict each other.
    #[error("the controller's page sizes cannot be used (MPSMIN {mpsmin}, MPSMAX {mpsmax})")]
    PageSize {
        /// CAP.MPSMIN.
        mpsmin: u8,
        /// CAP.MPSMAX.
        mpsmax: u8,
    },
    /// Its queues have room for no command.
    #[error("the controller's queues hold a single entry (CAP.MQES 0)")]
    QueueSize,
    /// It did not become ready, or not ready, in the time that it named itself.
    #[error("the controller did not start or stop in time (CSTS {csts:#x})")]
    NotInTime {
        /// CSTS, read last.
        csts: u32,
    },
    /// It reported fatal status.
    #[error("the controller reported fatal status")]
    Fatal,
    /// An admin command was not answered in time.
    #[error("{} was not answered in time", spec::Opcode::admin_name(*.opcode))]
    AdminTimeout {
        /// The command.
        opcode: u8,
    },
    /// An admin command failed.
    #[error("{} failed: {status}", spec::Opcode::admin_name(*.opcode))]
    Refused {
        /// The command.
        opcode: u8,
        /// How it failed.
        status: spec::StatusCode,
    },
    /// It wants queue entries that the specification does not have.
    #[error("the controller wants queue entries of 2^{} and 2^{} bytes", .sqes & 15, .cqes & 15)]
    EntrySizes {
        /// Submission queue.
        sqes: u8,
        /// Completion queue.
        cqes: u8,
    },
    /// It did what no controller does.
    #[error("{0}")]
    Broken(queue::Broken),
    /// No memory for queues.
    #[error("no memory for the controller's queues: {0}")]
    Memory(#[from] DmaError),
}

/// What a controller says of itself, and what was agreed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControllerInfo {
    /// Serial number: what the device says, padded with blanks, perhaps not ASCII.
    pub serial: [u8; 20],
    /// Model, as above.
    pub model: [u8; 40],
    /// Firmware revision, as above.
    pub firmware: [u8; 8],
    /// PCI vendor.
    pub vendor: u16,
    /// The version register: major, minor, tertiary in 16, 8, 8 bits.
    pub version: u32,
    /// I/O queues in use.
    pub queues: u16,
    /// Commands under way in each, at most.
    pub queue_depth: u16,
    /// The longest transfer of one command.
    pub max_transfer_bytes: u32,
    /// Namespaces that cannot be used: see [`Nvme::skipped`].
    pub namespaces_skipped: u32,
}

/// Why a namespace cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unusable {
    /// It has no blocks.
    #[error("it has no blocks")]
    Inactive,
    /// Its blocks are shorter than 512 bytes, or longer than 64 KiB or than one command may transfer.
    #[error("blocks of 2^{shift} bytes are not supported")]
    BlockSize {
        /// LBADS.
        shift: u8,
    },
    /// Its blocks come with metadata.
    #[error("blocks with {bytes} bytes of metadata are not supported")]
    Metadata {
        /// MS.
        bytes: u16,
    },
    /// It claims more bytes than can be counted.
    #[error("{blocks} blocks are more than can be")]
    Size {
        /// NSZE.
        blocks: u64,
    },
    /// The controller does not describe it.
    #[error("the controller does not describe it: {status}")]
    Refused {
        /// How Identify failed.
        status: spec::StatusCode,
    },
}

/// A namespace that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("namespace {nsid} is not used: {why}")]
#[non_exhaustive]
pub struct SkippedNamespace {
    /// Its identifier.
    pub nsid: u32,
    /// Why not. Part of the message, so it is not the error's source too.
    pub why: Unusable,
}

/// A namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceInfo {
    /// Its identifier.
    pub nsid: u32,
    /// Blocks that it has.
    pub blocks: u64,
    /// A block has 2^this bytes.
    pub block_shift: u8,
    /// Transfers stay between multiples of so many blocks; 0: they need not.
    pub boundary_blocks: u16,
    /// Whether writes need a flush.
    pub write_cache: WriteCache,
    /// Whether it can be written.
    pub access: Access,
}

/// What queues did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Commands sent.
    pub submitted: u64,
    /// Commands completed.
    pub completed: u64,
    /// Commands that completed with an error.
    pub errors: u64,
    /// Submission doorbells written.
    pub doorbells: u64,
}

impl Stats {
    const fn plus(self, other: Self) -> Self {
        Self {
            submitted: self.submitted + other.submitted,
            completed: self.completed + other.completed,
            errors: self.errors + other.errors,
            doorbells: self.doorbells + other.doorbells,
        }
    }
}

impl<H: NvmeHal + Clone, W: Window> Nvme<H, W> {
    /// Brings up the controller behind `window`, and finds its namespaces. The PCI function must be a bus master. May
    /// block; each wait has a deadline.
    ///
    /// # Errors
    /// See [`AttachError`]. The controller is disabled, and what it may still use is leaked.
    pub fn attach(window: W, hal: H, config: Config, w: &mut dyn Wait) -> Result<Self, AttachError> {
        controller::attach(window, hal, config, w)
    }
}

/// The example of the README is a test.
#[cfg(all(doctest, feature = "fake"))]
#[doc = include_str!("../README.md")]
struct Readme;
