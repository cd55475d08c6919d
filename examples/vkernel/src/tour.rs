//! What `vkernel` shows when it has no disk: a file system of the project's own, and a walk through it.

use dfly_hammer_image::{Format, Result, Volume, demo};

/// A disk with the file system of `hammer-image`'s demonstration: files of all kinds, history over three transactions, a
/// pseudo file system with a slave. In memory, so nothing is left behind.
///
/// # Errors
/// None, as far as the demonstration is one.
pub fn disk() -> Result<Volume> {
    Ok(demo(Format { label: "TOUR".into(), ..Format::default() }).finish()?.volumes.swap_remove(0))
}

/// What is typed on the tour.
pub const SCRIPT: &str = include_str!("tour.sh");
