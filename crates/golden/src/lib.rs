#![doc = include_str!("../README.md")]
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod folder;
mod manifest;
mod suite;
mod unpack;

pub use folder::{Golden, IMAGES, Missing};
pub use manifest::{
    CompactEntry, Entry, FsyncedFile, ImageFile, Kind, Listing, Manifest, ModelEntry, RangeRead,
    RecoveredImage, ShowCheck, Times, ToolChecks, View,
};
pub use suite::{Suite, run};
