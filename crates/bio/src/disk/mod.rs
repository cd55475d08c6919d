//! Devices that are their own medium: memory, and files of the host.

#[cfg(all(feature = "std", unix))]
mod file;
mod image;
mod mem;

#[cfg(all(feature = "std", unix))]
pub use file::{FileDisk, FileDiskOptions};
pub use image::Image;
pub use mem::{Completion, MemDisk};
