//! What the embedding kernel supplies to the dfly crates, one small trait per concern.
//!
//! | concern | trait | ready-made |
//! |---|---|---|
//! | registers of a device | [`regs::Window`] | [`regs::MmioWindow`]; [`regs::Traced`] and [`regs::Halves`] over another |
//! | memory that devices use | [`dma::Dma`] | [`dma::Identity`], `host::HostDma`; [`dma::Bounce`] over another |
//! | time | [`Clock`] | `host::HostClock` |
//! | CPUs and their interrupts | [`Cpus`] | `host::HostCpus` |
//! | waiting | [`Wait`] | [`SpinWait`], `ThreadWait` |
//! | locks, and a facade for model checkers | - | [`sync::Lock`], [`sync::WaitLock`], [`sync::atomic`] |
//!
//! A kernel implements memory, time and CPUs for its machine, makes windows of its devices' registers, and hands all of
//! these to drivers as values: `&'static P`, `Arc<P>`, or `Arc<dyn Dma>`; [`dma::WithDma`] makes one of two. A driver names only the concerns that it uses. Nothing here is a static, so two machines live in one
//! process; the one exception is the pair of [preemption hooks](sync::register_preemption).
//!
//! ```
//! use dfly_hal::dma::{Coherent, Constraints, Dma};
//! use dfly_hal::regs::{NotYet, Patience, ReadOnly, ReadWrite, Reg, Window, WriteOnly};
//!
//! const CONTROL: Reg<u32, ReadWrite> = Reg::at(0x00);
//! const STATUS: Reg<u32, ReadOnly> = Reg::at(0x04);
//! const RING: Reg<u64, WriteOnly> = Reg::at(0x08);
//!
//! /// A driver is generic over what it uses, and forbids unsafe code.
//! struct Driver<W: Window, D: Dma> {
//!     window: W,
//!     ring: Coherent<[u8; 64], D>,
//! }
//!
//! impl<W: Window, D: Dma> Driver<W, D> {
//!     fn attach(window: W, dma: D, patience: Patience<'_>) -> Result<Self, Box<dyn core::error::Error>> {
//!         let ring = Coherent::alloc(dma, 64, &Constraints { align: 4096, ..Constraints::ANY })?;
//!         RING.write(&window, ring.device_addr(0).ok_or("no ring")?.0);
//!         CONTROL.update(&window, |control| control | 1);
//!         STATUS.poll_until(&window, patience, |status| status & 1 != 0)?;
//!         Ok(Self { window, ring })
//!     }
//! }
//!
//! # #[cfg(feature = "fake")] {
//! // The machine for tests, and a device model that is ready at once.
//! use dfly_hal::{Clock, SpinWait, fake::FakeHal};
//! struct Model;
//! impl Window for Model {
//!     fn read32(&self, _: usize) -> u32 { 1 }
//!     fn write32(&self, _: usize, _: u32) {}
//! }
//! let hal = FakeHal::new();
//! let mut idle = || { hal.advance_to_next(); };
//! let deadline = hal.now().saturating_add(core::time::Duration::from_secs(1));
//! let patience = Patience { clock: &hal, wait: &mut SpinWait::new(&mut idle), deadline };
//! let driver = Driver::attach(Model, &hal, patience)?;
//! drop(driver);
//! assert!(hal.leaks().is_empty() && hal.faults().is_empty());
//! # }
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```
//!
//! # Requirements
//!
//! | part | needs `alloc`? | may block? | from an interrupt? | stack |
//! |---|---|---|---|---|
//! | [`regs`], [`Reg::poll_until`](regs::Reg::poll_until) | no | only `poll_until` | yes, except `poll_until` | small |
//! | [`dma`]: `map`, `sync`, `unmap` | no | no | no | small |
//! | [`dma`]: [`Coherent`](dma::Coherent) access, barriers | no | no | yes | one element |
//! | [`dma`]: `alloc_coherent`, [`Bounce::new`](dma::Bounce::new) | yes | no | no | small |
//! | [`Clock`], [`Cpus`] | no | no | yes | implementation |
//! | [`sync::Lock`] | no | spins | no | small |
//! | [`sync::WaitLock`] | no | `lock`, `lock_until` | no | small, a node of some 5 words while it waits |
//! | [`Wait`], [`block_on`] | no (making a `ThreadWait`: yes) | yes | no | the future |
//! | `host`, `fake`, `conformance` | yes | as the trait | no | some hundred bytes |
//!
//! Nothing recurses, and nothing puts a buffer on the stack.
//!
//! # Features
//!
//! All are off by default, and each only adds: `std` (the host implementation), `fake` (a machine for tests that bounces,
//! poisons and counts), `conformance` (a suite to run against your own HAL), `count` (the facade's atomics count what is
//! done to them), `model` (for models of devices: how they reach memory). The MMIO accesses are the crate `safe-mmio`'s; a platform that supplies its own turns on the feature
//! `custom-mmio` there.
#![no_std]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(any(feature = "std", loom))]
extern crate std;

#[cfg(feature = "conformance")]
pub mod conformance;
mod cpu;
pub mod dma;
#[cfg(feature = "fake")]
pub mod fake;
mod forward;
#[cfg(feature = "std")]
pub mod host;
#[cfg(feature = "model")]
pub mod model;
pub mod regs;
pub mod sync;
mod time;
mod wait;

use forward::forward;

pub use cpu::{CpuId, Cpus};
pub use time::{Clock, Instant, SleepUntil, sleep_until};
#[cfg(any(feature = "std", loom))]
pub use wait::ThreadWait;
pub use wait::{SpinWait, TimedOut, Wait, block_on};

/// The example of the README is a test.
#[cfg(all(doctest, feature = "fake", feature = "conformance"))]
#[doc = include_str!("../README.md")]
struct Readme;
