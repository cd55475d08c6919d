//! A consistency check of a whole file system, and of all of its history.
//!
//! [`check`] reads the volumes, writes nothing, and hands out each [`Finding`] as it is made. After a crash the UNDO log
//! is applied in memory first, as a mount would. It looks at what DragonFly's own tools look at, and at what they do not:
//! space that is shared or would be overwritten by the next allocation, checksums and counters of the header and the
//! freemap, and whether names, inodes and data fit together.
//!
//! Memory is bounded by [`Options::memory_bytes`], whatever the size of the file system: what must be compared across the
//! tree (places in use; names with inodes) is collected for a window of addresses and one of objects, as large as the
//! budget allows, and the tree is walked again for the next window. A record in use takes 24 bytes, a name or an inode
//! 40; the budget is divided evenly between both. Besides it the check uses [`Options::cache_bytes`], the UNDO log's
//! bytes, and 16 bytes for each pseudo file system.
//!
//! What it does not do: compare the past's names with the past's inodes (pruning may remove either), replay REDO records,
//! repair.

mod fifo;
mod finding;
mod header;
mod links;
mod records;
mod space;
mod tree;

use alloc::sync::Arc;

use dfly_bio::BlockDevice;
use dfly_hal::Wait;

pub use finding::{Finding, Kind, ObjectRef, Severity, Values};

use crate::error::{Error, MountError, Structure};
use crate::media::{BATCH, Media};
use crate::mount;
use crate::ondisk::{BUFFER_SIZE, Offset};
use crate::pages::Pages;
use crate::recovery::{self, Recovery};

/// How much is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// Everything.
    #[default]
    Full,
    /// Not: file data, entries of the freemap without space behind them, records of the FIFO that are not needed now.
    Quick,
}

/// How to check.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How much is looked at.
    pub depth: Depth,
    /// Budget for what is compared across the tree, in bytes. At least 1 MiB is used. All records that share one place by
    /// deduplication must fit at once; where they do not, [`Kind::LimitReached`] says so.
    pub memory_bytes: usize,
    /// Budget of the page cache, in bytes. At least 1 MiB is used.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { depth: Depth::Full, memory_bytes: 64 << 20, cache_bytes: 32 << 20 }
    }
}

/// What happens while a check runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Something was found.
    Found(Finding),
    /// A leaf was looked at.
    Progress(Report),
}

/// What was looked at, and how much was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// What a crash left behind.
    pub recovery: Recovery,
    /// Nodes of the tree.
    pub nodes: u64,
    /// Records of the tree.
    pub records: u64,
    /// Inodes that live.
    pub inodes: u64,
    /// Bytes of records whose checksums were compared.
    pub checked_bytes: u64,
    /// How often the tree was walked.
    pub passes: u32,
    /// Findings of [`Severity::Note`].
    pub notes: u64,
    /// Findings of [`Severity::Warning`].
    pub warnings: u64,
    /// Findings of [`Severity::Error`].
    pub errors: u64,
}

impl Report {
    /// Whether nothing is wrong; notes may have been made.
    pub const fn is_clean(&self) -> bool {
        self.warnings == 0 && self.errors == 0
    }
}

/// Checks the file system on `devices`: all of its volumes, in any order. Nobody may write to it meanwhile. May block.
///
/// # Errors
/// A [`MountError`] where the volumes do not make up a file system at all. Everything else is a finding, a device's
/// failure to read included.
pub fn check(
    devices: &[Arc<dyn BlockDevice>],
    options: &Options,
    w: &mut dyn Wait,
    out: &mut dyn FnMut(Event),
) -> Result<Report, MountError> {
    let (volumes, root_header) = mount::open_volumes(devices, w)?;
    let pages = Pages::new((options.cache_bytes / BUFFER_SIZE).max(4 * BATCH))?;
    let mut media = Media::new(volumes, root_header, pages);
    let mut log = Log { out, report: Report::default(), freemap_unknown: false };
    match recovery::recover(&media, w) {
        Ok(recovered) => {
            log.report.recovery = recovered.found;
            media.recover(recovered.overlay, recovered.header);
        }
        Err(e) => log.found(Finding::new(Kind::FifoDamaged, place(&e))),
    }
    header::as_they_lie(&media, &mut log);
    header::recovered(&media, &mut log);
    fifo::ring(&media, w, options.depth, &mut log);
    tree::walk_all(&media, w, options, &mut log)?;
    Ok(log.report)
}

/// Where findings go, and how many there are.
struct Log<'o> {
    out: &'o mut dyn FnMut(Event),
    report: Report,
    /// Parts of the freemap are not known: what is counted there cannot be compared.
    freemap_unknown: bool,
}

impl Log<'_> {
    fn found(&mut self, finding: Finding) {
        let count = match finding.kind.severity() {
            Severity::Note => &mut self.report.notes,
            Severity::Warning => &mut self.report.warnings,
            Severity::Error => &mut self.report.errors,
        };
        *count += 1;
        (self.out)(Event::Found(finding));
    }

    fn progress(&mut self) {
        (self.out)(Event::Progress(self.report));
    }
}

/// The place that an error speaks of.
fn place(e: &Error) -> Offset {
    match *e {
        Error::Checksum { at, .. } | Error::Corrupt { at, .. } | Error::OutOfRange { at, .. } => at,
        Error::Device { volume, .. } => Offset::new(crate::ondisk::Zone::RAW_VOLUME, volume, 0),
        _ => Offset::NONE,
    }
}

/// Whether an address is that of a readable buffer.
fn is_readable(media: &Media, at: Offset) -> bool {
    media.buffer(at, Structure::Record).is_ok()
}
