//! Does a HAL keep its promises? A suite to run against your own (feature `conformance`).
//!
//! Each check returns the first broken promise as a [`Violation`] that names it. Most reports of "the device does not
//! become ready" are one of these. Run it on the machine, early in the boot: it allocates, and does not need `std`.
//!
//! ```
//! # #[cfg(feature = "std")] {
//! use core::time::Duration;
//! use dfly_hal::conformance::{check_clock, check_dma};
//! use dfly_hal::host::{HostClock, HostDma};
//! check_clock(&HostClock::new(), &mut || std::thread::sleep(Duration::from_micros(50)))?;
//! check_dma(&HostDma::new(), None)?;
//! # }
//! # Ok::<(), dfly_hal::conformance::Violation>(())
//! ```

mod clock;
mod cpus;
mod dma;

use crate::dma::{Constraints, DevAddr, Direction, DmaError};
use crate::{CpuId, Instant};

pub use clock::check_clock;
pub use cpus::check_cpus;
pub use dma::{Device, check_dma};

/// A promise that a HAL broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// `Clock::now` went backwards.
    #[error("Clock::now: went back from {from:?} to {to:?}")]
    ClockWentBack {
        /// What it said first.
        from: Instant,
        /// What it said then.
        to: Instant,
    },
    /// `Clock::now` does not move while the caller idles.
    #[error("Clock::now: stands at {at:?}")]
    ClockStands {
        /// What it says.
        at: Instant,
    },
    /// `Clock::wake_at` did not wake its waker.
    #[error("Clock::wake_at: due {at:?}, not woken at {now:?}")]
    TimerLost {
        /// When it was due.
        at: Instant,
        /// When it was given up.
        now: Instant,
    },
    /// `Clock::wake_at` woke its waker more than once.
    #[error("Clock::wake_at: woken {times} times")]
    WokenAgain {
        /// How often.
        times: usize,
    },
    /// `Cpus::count` is zero, or changed.
    #[error("Cpus::count: {first}, then {then}")]
    CpuCount {
        /// What it said first.
        first: u32,
        /// What it said then.
        then: u32,
    },
    /// `Cpus::this` named no CPU, or changed while the caller stayed.
    #[error("Cpus::this: {this} of {count}, on what should be {expected:?}")]
    WrongCpu {
        /// What it said.
        this: CpuId,
        /// How many CPUs there are.
        count: u32,
        /// What it had said before.
        expected: Option<CpuId>,
    },
    /// An IPI did not arrive.
    #[error("Cpus::raise_ipi: {to} did not handle it")]
    IpiLost {
        /// Where it should have arrived.
        to: CpuId,
    },
    /// `Dma::alloc_coherent` or `Dma::map` failed where nothing was in the way.
    #[error("{call}: {len} bytes under {constraints:?}: {error}")]
    Failed {
        /// Which method.
        call: &'static str,
        /// How many bytes.
        len: usize,
        /// What was demanded.
        constraints: Constraints,
        /// What it said.
        error: DmaError,
    },
    /// `Dma::alloc_coherent` or `Dma::map` did what cannot be done.
    #[error("{call}: accepted {what}")]
    Accepted {
        /// Which method.
        call: &'static str,
        /// What should have been refused.
        what: &'static str,
    },
    /// Coherent memory was not zeroed.
    #[error("Dma::alloc_coherent: byte {offset} is not zero")]
    NotZeroed {
        /// Which byte.
        offset: usize,
    },
    /// A constraint was broken.
    #[error("{call}: {constraint} does not hold for {addr:#x}+{len:#x}")]
    Constraint {
        /// Which method.
        call: &'static str,
        /// Which constraint.
        constraint: &'static str,
        /// Where the range starts.
        addr: DevAddr,
        /// Its length.
        len: u64,
    },
    /// Two things that are alive at the same time share memory.
    #[error("{call}: {addr:#x}+{len:#x} is in use twice")]
    Overlap {
        /// Which method.
        call: &'static str,
        /// The device address of the second.
        addr: DevAddr,
        /// Its length.
        len: u64,
    },
    /// A mapping's segments cover more or less than was asked for, or it describes something else.
    #[error("Dma::map: {asked} bytes asked for, {covered} covered")]
    Coverage {
        /// How many bytes were to be mapped.
        asked: usize,
        /// How many the segments cover.
        covered: u64,
    },
    /// More than one segment was reported after the callback had said stop, or the mapping was made nevertheless.
    #[error("Dma::map: went on after the caller's stop")]
    StopIgnored,
    /// Segments were reported by a call that failed.
    #[error("Dma::map: reported {segments} segments, then failed")]
    ReportedThenFailed {
        /// How many.
        segments: usize,
    },
    /// A byte did not arrive on the other side.
    #[error("{call}, {direction:?}: byte {offset} did not arrive")]
    Lost {
        /// Which method should have brought it.
        call: &'static str,
        /// The direction of the mapping.
        direction: Direction,
        /// Which byte.
        offset: usize,
    },
    /// A byte that is not part of the mapping changed, or one that should not.
    #[error("{call}, {direction:?}: byte {offset}, counted from the buffer's start, was overwritten")]
    Overwritten {
        /// Which method did it.
        call: &'static str,
        /// The direction of the mapping.
        direction: Direction,
        /// Which byte; negative before the buffer.
        offset: isize,
    },
    /// The device cannot access what was handed out.
    #[error("{call}: the device cannot reach {addr:#x}")]
    Unreachable {
        /// Which method.
        call: &'static str,
        /// Where.
        addr: DevAddr,
    },
    /// Doing and undoing the same thing over and over comes to an end: something is not given back.
    #[error("{call}: failed at round {round} of doing and undoing the same: {error}")]
    Leak {
        /// Which method.
        call: &'static str,
        /// When it failed.
        round: usize,
        /// How.
        error: DmaError,
    },
}
