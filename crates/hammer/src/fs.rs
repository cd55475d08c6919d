//! The file system: mounted volumes, served through `vfs`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{ControlFlow, Range};

use dfly_bio::BlockDevice;
use dfly_hal::Wait;
use dfly_hal::sync::atomic::{AtomicU64, Ordering};
use dfly_vfs as vfs;
use dfly_vfs::{Access, Attr, Call, Entry, Errno, Kind, MountFlags, Name, NodeId, OpenId, Opened, StatFs};

use crate::directory::{self, Entries};
use crate::error::{Error, MountError};
use crate::extension::{self, Extension};
use crate::history::{self, Version};
use crate::inspect::Nodes;
use crate::media::{BATCH, Media};
use crate::object::{InPlaceTimes, Object, ObjectId, View, kind_of};
use crate::ondisk::record::ObjType;
use crate::ondisk::volume::VolumeHeader;
use crate::ondisk::{BIG_BLOCK_SIZE, BUFFER_SIZE, MAX_NAME};
use crate::pages::{CacheStats, Pages};
use crate::pfs::{self, Pfs, Snapshot};
use crate::recovery::{self, Recovery};
use crate::{file, mount};

/// Whether a mount undoes what a crash left half done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryMode {
    /// It does, in memory: what a kernel's read-only mount shows.
    #[default]
    InMemory,
    /// It does not: the bytes as they lie on the disk, for tools. A crashed file system may look damaged.
    Raw,
}

/// How to mount.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MountOptions {
    /// Budget of the page cache, in bytes. At least 1 MiB is used.
    pub cache_bytes: usize,
    /// What to do after a crash.
    pub recovery: RecoveryMode,
    /// The time that the root shows.
    pub view: View,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self { cache_bytes: 32 * 1024 * 1024, recovery: RecoveryMode::default(), view: View::Current }
    }
}

/// A mounted HAMMER file system, read-only.
///
/// Many threads may use it at once. Every operation that takes a waiter may block on the devices; none may be called from
/// an interrupt. Nothing is ever written.
pub struct Hammer {
    media: Media,
    recovery: Recovery,
    view: View,
    in_place_times: InPlaceTimes,
    /// Device number of the root file system.
    fsid: u32,
    /// See [`Self::fsid_of`].
    last_fsid: AtomicU64,
}

impl Hammer {
    /// Mounts the file system on `devices`: all of its volumes, in any order. Blocks.
    ///
    /// # Errors
    /// A [`MountError`] that names the volume and what is wrong with it. Nothing was written in any case.
    pub fn mount(
        devices: &[Arc<dyn BlockDevice>],
        options: MountOptions,
        w: &mut dyn Wait,
    ) -> Result<Self, MountError> {
        let (volumes, header) = mount::open_volumes(devices, w)?;
        let pages = Pages::new((options.cache_bytes / BUFFER_SIZE).max(4 * BATCH))?;
        let mut media = Media::new(volumes, header, pages);
        let mut recovery = Recovery::default();
        if options.recovery == RecoveryMode::InMemory {
            let recovered = recovery::recover(&media, w)?;
            media.recover(recovered.overlay, recovered.header);
            recovery = recovered.found;
        }
        let in_place_times = if recovery.crashed { InPlaceTimes::Untrusted } else { InPlaceTimes::Trusted };
        let (view, last_fsid) = (options.view, AtomicU64::new(0));
        let mut fs = Self { media, recovery, view, in_place_times, fsid: 0, last_fsid };
        // Proves that the tree can be entered.
        if options.recovery == RecoveryMode::InMemory {
            fs.fsid = fs.fsid_of(w, 0)?;
        }
        Ok(fs)
    }

    /// The headers of the volumes, by number; the root volume's as it lies on the disk.
    pub fn volume_headers(&self) -> impl Iterator<Item = &VolumeHeader> {
        self.media.volumes().map(|v| &v.header)
    }

    /// The root volume's header as recovery left it.
    pub fn header(&self) -> &VolumeHeader {
        self.media.header()
    }

    /// What mounting found to recover.
    pub fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// What the page cache did.
    pub fn cache_stats(&self) -> CacheStats {
        self.media.pages().stats()
    }

    /// The nodes of the B-tree, with verdicts.
    pub fn nodes(&self) -> Nodes<'_> {
        Nodes::new(&self.media)
    }

    /// All pseudo file systems, destroyed ones included. May block.
    pub fn pseudo_file_systems(&self, w: &mut dyn Wait) -> Result<Vec<Pfs>, Error> {
        pfs::list(&self.media, w)
    }

    /// The snapshots of a pseudo file system, oldest first. May block.
    pub fn snapshots(&self, w: &mut dyn Wait, pfs: u16) -> Result<Vec<Snapshot>, Error> {
        pfs::snapshots(&self.media, w, pfs)
    }

    /// The configuration text of a pseudo file system, if it has one. May block.
    pub fn config(&self, w: &mut dyn Wait, pfs: u16) -> Result<Option<Vec<u8>>, Error> {
        pfs::config(&self.media, w, pfs)
    }

    /// Hands every version of every record of `node` to `out`. May block.
    pub fn versions(
        &self,
        w: &mut dyn Wait,
        node: NodeId,
        out: &mut dyn FnMut(Version),
    ) -> Result<(), Error> {
        history::versions(&self.media, w, node.into(), out)
    }

    /// The object behind a node. Nothing goes away here, so one without an inode is what an entry led to; all but roots
    /// have an entry.
    fn object(&self, w: &mut dyn Wait, node: NodeId) -> vfs::Result<Object> {
        let id = ObjectId::from(node);
        match Object::load(&self.media, w, id)? {
            Some(object) => Ok(object),
            None if id.is_root() => Err(Errno::ESTALE.into()),
            None => Ok(Object::missing(id)),
        }
    }

    fn directory(&self, w: &mut dyn Wait, node: NodeId) -> vfs::Result<Object> {
        let dir = self.object(w, node)?;
        if dir.obj_type() == ObjType::DIRECTORY { Ok(dir) } else { Err(Errno::ENOTDIR.into()) }
    }

    fn attr(&self, w: &mut dyn Wait, object: &Object) -> vfs::Result<Attr> {
        let fsid = match object.id.pfs {
            0 => self.fsid,
            id => self.fsid_of(w, id)?,
        };
        // Views of different times are different file systems to programs that compare device and inode numbers.
        let fsid = match object.id.view {
            View::Current => u64::from(fsid),
            View::AsOf(tid) => u64::from(fsid) ^ tid.0,
        };
        Ok(object.attr(fsid, self.in_place_times))
    }

    /// The device number of a pseudo file system. That of the one asked for last is at hand.
    fn fsid_of(&self, w: &mut dyn Wait, pfs: u16) -> Result<u32, Error> {
        let key = 1 << 31 | u32::from(pfs);
        // Relaxed: one word that says all.
        let last = self.last_fsid.load(Ordering::Relaxed);
        if last >> 32 == u64::from(key) {
            return Ok(last as u32);
        }
        let found = pfs::load(&self.media, w, pfs)?;
        let uuid = found.map_or(self.media.header().vol_fsid, |pfs| pfs.data.shared_uuid);
        let fsid = crate::crc::iso(&uuid);
        self.last_fsid.store(u64::from(key) << 32 | u64::from(fsid), Ordering::Relaxed);
        Ok(fsid)
    }

    /// What a symlink that stands for a pseudo file system expands to. Only the current root file system has such; one
    /// that was destroyed has none any more. The link's size stays that of the stored text, as the original reports it,
    /// even where the expansion is longer.
    fn pfs_target(&self, w: &mut dyn Wait, link: &Object) -> vfs::Result<Option<PfsTarget>> {
        const LEN: u64 = 10;
        let is_candidate = link.obj_type() == ObjType::SYMLINK
            && link.inode.size.get() == LEN
            && link.id.pfs == 0
            && link.id.view == View::Current;
        if !is_candidate {
            return Ok(None);
        }
        let Some(id) = link.inode.symlink.get(..LEN as usize).and_then(extension::pfs_link) else {
            return Ok(None);
        };
        Ok(pfs::load(&self.media, w, id)?.filter(|pfs| !pfs.is_deleted()).map(|pfs| PfsTarget::new(&pfs)))
    }

    /// The directory that a directory lies in. The roots of pseudo file systems and of other times are entered through
    /// the mounted root, and left to there.
    fn parent(&self, dir: &Object) -> ObjectId {
        if dir.id.is_root() { ObjectId::root(0, self.view) } else { dir.parent() }
    }

    /// The object that a path component leads to.
    fn resolve(&self, w: &mut dyn Wait, dir: NodeId, component: &[u8]) -> vfs::Result<Object> {
        let dir = self.directory(w, dir)?;
        let (name, view, pfs) = match Extension::split(component) {
            Some((name, Extension { view, pfs })) => (name, view, pfs),
            None => (component, dir.id.view, None),
        };
        let itself = match (name, pfs) {
            (b"", Some(pfs)) => Some(ObjectId::root(pfs, view)),
            (b"" | b".", _) => Some(ObjectId { view, ..dir.id }),
            _ => None,
        };
        if let Some(id) = itself {
            return Object::load(&self.media, w, id)?.ok_or(Errno::ENOENT.into());
        }
        let found = directory::lookup(&self.media, w, &dir, view.tid(), name)?.ok_or(Errno::ENOENT)?;
        let id = ObjectId { view, ..found };
        Ok(Object::load(&self.media, w, id)?.unwrap_or_else(|| Object::missing(id)))
    }
}

/// The expanded target of a pseudo file system's symlink.
struct PfsTarget {
    text: [u8; Self::SLAVE_LEN],
    len: usize,
}

impl PfsTarget {
    const SLAVE_LEN: usize = b"@@0x0123456789abcdef:00000".len();

    fn new(pfs: &Pfs) -> Self {
        use core::fmt::Write;
        let mut target = Self { text: [0; Self::SLAVE_LEN], len: 0 };
        let id = pfs.id;
        // The text has room for the longer of both.
        let _ = if pfs.is_slave() {
            write!(target, "@@{}:{id:05}", pfs.synced())
        } else {
            write!(target, "@@-1:{id:05}")
        };
        target
    }

    fn bytes(&self) -> &[u8] {
        self.text.get(..self.len).unwrap_or_default()
    }
}

impl core::fmt::Write for PfsTarget {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let to = self.text.get_mut(self.len..self.len + s.len()).ok_or(core::fmt::Error)?;
        to.copy_from_slice(s.as_bytes());
        self.len += s.len();
        Ok(())
    }
}

impl vfs::FileSystem for Hammer {
    fn root(&self) -> NodeId {
        ObjectId::root(0, self.view).into()
    }

    fn statfs(&self, _: &mut Call<'_>) -> vfs::Result<StatFs> {
        let header = self.media.header();
        let buffers = |big_blocks: i64| {
            u64::try_from(big_blocks).unwrap_or(0).saturating_mul(BIG_BLOCK_SIZE / BUFFER_SIZE as u64)
        };
        let mut figures = StatFs::new("hammer");
        figures.block_bytes = BUFFER_SIZE as u32;
        figures.blocks = buffers(header.vol0_stat_bigblocks.get());
        figures.blocks_free = buffers(header.vol0_stat_freebigblocks.get());
        figures.blocks_available = figures.blocks_free;
        figures.files = u64::try_from(header.vol0_stat_inodes.get()).unwrap_or(0);
        figures.name_max_bytes = MAX_NAME as u32;
        figures.fsid = self.fsid.into();
        figures.flags = MountFlags::READ_ONLY | MountFlags::NO_ATIME;
        Ok(figures)
    }

    fn getattr(&self, c: &mut Call<'_>, node: NodeId) -> vfs::Result<Attr> {
        let object = self.object(c.wait, node)?;
        self.attr(c.wait, &object)
    }

    fn nresolve(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>) -> vfs::Result<Attr> {
        let object = self.resolve(c.wait, dir, name.as_bytes())?;
        self.attr(c.wait, &object)
    }

    fn nlookupdotdot(&self, c: &mut Call<'_>, dir: NodeId) -> vfs::Result<Attr> {
        let dir = self.directory(c.wait, dir)?;
        let parent = Object::load(&self.media, c.wait, self.parent(&dir))?.ok_or(Errno::ENOENT)?;
        self.attr(c.wait, &parent)
    }

    fn readlink(&self, c: &mut Call<'_>, node: NodeId, out: &mut vfs::LinkSink<'_>) -> vfs::Result<()> {
        let link = self.object(c.wait, node)?;
        if link.obj_type() != ObjType::SYMLINK {
            return Err(Errno::EINVAL.into());
        }
        match self.pfs_target(c.wait, &link)? {
            Some(target) => out(target.bytes()),
            None => file::readlink(&self.media, c.wait, &link, out)?.ok_or(Errno::ENOENT)?,
        }
        Ok(())
    }

    fn open(&self, c: &mut Call<'_>, node: NodeId, how: Access) -> vfs::Result<Opened> {
        self.object(c.wait, node)?;
        if how != Access::Read {
            return Err(Errno::EROFS.into());
        }
        // Nothing here can go away while it is open.
        Ok(Opened { open: OpenId(0), node })
    }

    fn close(&self, _: OpenId) {}

    fn read(
        &self,
        c: &mut Call<'_>,
        node: NodeId,
        offset: u64,
        len: u64,
        out: &mut vfs::ReadSink<'_>,
    ) -> vfs::Result<u64> {
        let file = self.file(c.wait, node)?;
        let end = file.inode.size.get().min(offset.saturating_add(len));
        if offset >= end {
            return Ok(0);
        }
        Ok(file::read(&self.media, c.wait, &file, offset..end, out)?)
    }

    fn next_data(&self, c: &mut Call<'_>, node: NodeId, offset: u64) -> vfs::Result<Option<Range<u64>>> {
        let file = self.file(c.wait, node)?;
        Ok(file::next_data(&self.media, c.wait, &file, offset)?)
    }

    fn readdir(
        &self,
        c: &mut Call<'_>,
        dir: NodeId,
        cookie: u64,
        out: &mut vfs::DirSink<'_>,
    ) -> vfs::Result<()> {
        let dir = self.directory(c.wait, dir)?;
        let parent = self.parent(&dir);
        for (i, name, id) in [(0, &b"."[..], dir.id), (1, b"..", parent)] {
            if cookie > i {
                continue;
            }
            let kind = Kind::Directory;
            let entry = Entry { name, node: id.into(), kind, fileid: id.obj_id as u64, next: i + 1 };
            if out(entry).is_break() {
                return Ok(());
            }
        }
        // Cookies of the disk's entries are their keys, which are never small.
        let Ok(from) = i64::try_from(cookie) else { return Ok(()) };
        let mut entries = Entries::new(&self.media, c.wait, &dir, dir.id.view.tid(), from..=i64::MAX)?;
        while let Some(entry) = entries.next(c.wait)? {
            let id = dir.id.sibling(entry.obj_id);
            let next = u64::try_from(entry.key).unwrap_or(0).saturating_add(1);
            let kind = kind_of(entry.obj_type);
            let entry = Entry { name: entry.name(), node: id.into(), kind, fileid: id.obj_id as u64, next };
            if out(entry) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

impl Hammer {
    fn file(&self, w: &mut dyn Wait, node: NodeId) -> vfs::Result<Object> {
        let file = self.object(w, node)?;
        match file.obj_type() {
            ObjType::REGULAR | ObjType::DBFILE => Ok(file),
            ObjType::DIRECTORY => Err(Errno::EISDIR.into()),
            _ => Err(Errno::EINVAL.into()),
        }
    }
}
