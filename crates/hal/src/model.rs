//! The other side of a driver: how a device model reaches the machine's memory (feature `model`).
//!
//! A model of a device is a [`Window`](crate::regs::Window) for its driver, and a reader and writer of [`DeviceMemory`]:
//! the fake machine's, which checks every access, or the process's own ([`HostMemory`]).

#[cfg(feature = "std")]
mod host;

use crate::dma::DevAddr;
#[cfg(feature = "std")]
pub use host::HostMemory;

/// The machine's memory as a device reaches it. `false`: nothing is there, or it may not be touched.
pub trait DeviceMemory: Send + Sync {
    /// Reads from `at` on.
    fn read(&self, at: DevAddr, to: &mut [u8]) -> bool;
    /// Writes from `at` on.
    fn write(&self, at: DevAddr, from: &[u8]) -> bool;
}

crate::forward! {
    impl DeviceMemory for &T, Box<T>, Arc<T> {
        fn read(&self, at: DevAddr, to: &mut [u8]) -> bool;
        fn write(&self, at: DevAddr, from: &[u8]) -> bool;
    }
}

#[cfg(feature = "fake")]
impl DeviceMemory for crate::fake::FakeHal {
    fn read(&self, at: DevAddr, to: &mut [u8]) -> bool {
        self.device_read(at, to).is_ok()
    }
    fn write(&self, at: DevAddr, from: &[u8]) -> bool {
        self.device_write(at, from).is_ok()
    }
}
