//! A kernel assembled from the dfly crates, for whatever platform boots it.
//!
//! A platform finds its CPUs, clock, memory, console and controllers, puts them into a [`Machine`], calls
//! [`Kernel::boot`] on its first CPU, and [`Kernel::run`] on every one:
//!
//! ```text
//!   platform     vkernel: a Linux process            pc64: a machine
//!                      \                               /
//!   Machine             CPUs, time, memory, terminal, NVMe and AHCI functions
//!                                    |
//!   boot         scheduler, kernel messages, the init thread
//!   init         nvme, ahci: attach, reaper threads -> disks: nvme0, ahci0, ...
//!   shell        mount: hammer over disks -> vfs: one tree of names
//! ```
//!
//! Everything here runs in threads and may block by the waiter that is passed along, but for [`Irq::raise`], which
//! interrupt handlers call.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod ahci;
mod boot;
mod controller;
mod disks;
mod irq;
mod log;
mod nvme;
mod platform;
mod shell;

pub use boot::{BootError, Kernel, Verdict};
pub use controller::Controller;
pub use disks::{Disk, Disks};
pub use irq::Irq;
pub use log::{Line, Log};
pub use platform::{AhciFunction, Machine, NvmeFunction, Platform, Session, Terminal};
