//! A mounted file system, and whoever waits for its devices: the calling thread.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;

use anyhow::{Context, Result};
use dfly_bio::{BlockDevice, FileDisk};
use dfly_hal::ThreadWait;
use dfly_hammer::ondisk::BIG_BLOCK_SIZE;
use dfly_hammer::{Hammer, MountOptions, RecoveryMode};
use dfly_vfs::{Attr, Call, FileSystem, Last, NodeId, PathText, Walk, readlink, walk};

use crate::cli::VolumeArgs;
use crate::text::printable;

/// Entries that are read from a directory at once, by whoever does not need all of them.
pub(crate) const BATCH: usize = 512;

/// Entries of a directory, in its order.
pub(crate) struct Entries {
    pub(crate) found: Vec<(Vec<u8>, NodeId)>,
    /// Where to go on, if there is more; or what is in the way, behind those that were found.
    pub(crate) next: dfly_vfs::Result<Option<u64>>,
}

pub(crate) struct Disk<F = Hammer> {
    pub(crate) fs: F,
    pub(crate) wait: ThreadWait,
}

impl Disk {
    /// Mounts read-only. After a crash, what a kernel would show.
    pub(crate) fn mount(volumes: &VolumeArgs) -> Result<Self> {
        Self::mount_with(volumes, MountOptions::default())
    }

    /// Mounts the bytes as they lie on the volumes.
    pub(crate) fn mount_raw(volumes: &VolumeArgs) -> Result<Self> {
        let mut options = MountOptions::default();
        options.recovery = RecoveryMode::Raw;
        Self::mount_with(volumes, options)
    }

    fn mount_with(volumes: &VolumeArgs, options: MountOptions) -> Result<Self> {
        let devices = open_volumes(volumes)?;
        let mut wait = ThreadWait::new();
        let fs = Hammer::mount(&devices, options, &mut wait).with_context(|| names(volumes))?;
        Ok(Self { fs, wait })
    }

    /// Bytes of all volumes.
    pub(crate) fn size(&self) -> u64 {
        let big_blocks = u64::try_from(self.fs.header().vol0_stat_bigblocks.get()).unwrap_or(0);
        big_blocks.saturating_mul(BIG_BLOCK_SIZE)
    }
}

impl<F: FileSystem> Disk<F> {
    /// Where `path` leads.
    pub(crate) fn find(&mut self, path: &OsStr, last: Last) -> Result<Attr> {
        let how = Walk { last, ..Walk::default() };
        let call = &mut Call::new(&mut self.wait);
        walk(&self.fs, call, self.fs.root(), path.as_bytes(), &how)
            .with_context(|| printable(path.as_bytes()).to_string())
    }

    pub(crate) fn attr(&mut self, node: NodeId) -> dfly_vfs::Result<Attr> {
        self.fs.getattr(&mut Call::new(&mut self.wait), node)
    }

    /// At most `most` entries of a directory, from `cookie` on.
    pub(crate) fn entries(&mut self, dir: NodeId, cookie: u64, most: usize) -> Entries {
        let mut found = Vec::new();
        let mut next = None;
        let read = self.fs.readdir(&mut Call::new(&mut self.wait), dir, cookie, &mut |e| {
            found.push((e.name.to_vec(), e.node));
            if found.len() < most {
                return ControlFlow::Continue(());
            }
            next = Some(e.next);
            ControlFlow::Break(())
        });
        Entries { found, next: read.map(|()| next) }
    }

    pub(crate) fn readlink(&mut self, link: NodeId) -> dfly_vfs::Result<PathText> {
        readlink(&self.fs, &mut Call::new(&mut self.wait), link)
    }
}

/// Opens the files or devices, read-only.
pub(crate) fn open_volumes(volumes: &VolumeArgs) -> Result<Vec<Arc<dyn BlockDevice>>> {
    let mut devices: Vec<Arc<dyn BlockDevice>> = Vec::new();
    for path in &volumes.volumes.0 {
        let name = || format!("volume {}", printable(path.as_os_str().as_bytes()));
        let kind = std::fs::metadata(path).with_context(name)?.file_type();
        anyhow::ensure!(!kind.is_dir(), "{}: is a directory", name());
        let is_device = kind.is_block_device() || kind.is_char_device();
        // A pipe would be waited for.
        anyhow::ensure!(kind.is_file() || is_device, "{}: neither a file nor a device", name());
        devices.push(Arc::new(FileDisk::open(path).with_context(name)?));
    }
    Ok(devices)
}

/// The volumes, as they are given on the command line.
pub(crate) fn names(volumes: &VolumeArgs) -> String {
    let names: Vec<_> =
        volumes.volumes.0.iter().map(|p| printable(p.as_os_str().as_bytes()).to_string()).collect();
    names.join(":")
}
