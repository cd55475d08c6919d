//! This process as a machine: threads for CPUs, its clock, its memory for devices.
#![expect(unsafe_code, reason = "memory for the models")]

use dfly_hal::dma::WithDma;
use dfly_hal::host::HostDma;
use dfly_hal::model::HostMemory;
use dfly_lwkt::host::HostPlatform;

/// The parts of a machine that `lwkt` and `hal` have for a process, as one.
pub(crate) type Host = WithDma<HostPlatform, HostDma>;

/// A machine of `cpus` CPUs.
pub(crate) fn host(cpus: u32) -> Host {
    WithDma::new(HostPlatform::new(cpus), HostDma::new())
}

/// What the models of this crate reach.
///
/// Not to be had outside: a model over it goes to a kernel on a [`Host`], and to nobody who could write to its registers.
pub(crate) fn device_memory() -> HostMemory {
    // SAFETY: `Drive` and `Adapter` give their models to the driver of one kernel only, on a `Host`, whose memory is `HostDma`.
    unsafe { HostMemory::new() }
}
