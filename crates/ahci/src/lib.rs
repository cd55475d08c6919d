//! An AHCI driver.
#![no_std]
#![deny(missing_docs)]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

#[cfg(feature = "model")]
pub mod model;
pub mod prdt;
pub mod spec;
