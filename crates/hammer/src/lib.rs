//! DragonFly BSD's HAMMER file system.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod crc;
pub mod namekey;
pub mod ondisk;
