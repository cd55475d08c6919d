//! The file system: mounted volumes, served through `vfs`.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::{ControlFlow, Range};

use dfly_bio::BlockDevice;
use dfly_hal::Wait;
use dfly_hal::sync::WaitGuard;
use dfly_hal::sync::atomic::{AtomicU64, Ordering};
use dfly_vfs as vfs;
use dfly_vfs::{
    Access, Attr, Call, DeviceNumber, Entry, Errno, FileFlags, Kind, MountFlags, Name, NodeId, OpenId,
    Opened, SetAttr, Special, StatFs, WriteAt,
};

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
use crate::recovery::{self, Recovered, Recovery};
use crate::write::{self, Birth, Engine, Farewell, Live, Op, WallClock, WriteStats, Writer};
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

/// A mounted HAMMER file system.
///
/// Many threads may use it at once. Every operation that takes a waiter may block on the devices; none may be called from
/// an interrupt. One that changes something happens as a whole or not at all, and later operations see it at once; what a
/// power cut leaves is a state that was there, not older than the last [`sync`](vfs::FileSystem::sync) that returned.
///
/// Sinks of [`read`](vfs::FileSystem::read), `readdir` and `readlink` run while writers are kept out: they must not call the
/// file system, and should not wait.
pub struct Hammer {
    media: Media,
    recovery: Recovery,
    view: View,
    in_place_times: InPlaceTimes,
    /// Device number of the root file system.
    fsid: u32,
    /// See [`Self::fsid_of`].
    last_fsid: AtomicU64,
    /// `None` in a read-only mount.
    writer: Option<Writer>,
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
        let (mut fs, _) = Self::look(devices, options, w)?;
        // Proves that the tree can be entered.
        if options.recovery == RecoveryMode::InMemory {
            fs.fsid = fs.fsid_of(w, 0)?;
        }
        Ok(fs)
    }

    /// Mounts the file system on `devices` for reading and writing; `clock` tells the time of day. Blocks.
    ///
    /// What a crash left half done is undone on the disk. Of `options`, recovery is always done, and the view is the current
    /// one. Nothing but [`sync`](vfs::FileSystem::sync), [`fsync`](vfs::FileSystem::fsync), [`unmount`](Self::unmount)
    /// and a full group of changes makes this file system write.
    ///
    /// # Errors
    /// As [`Self::mount`]; [`MountError::NotWritable`] for what can only be read.
    pub fn mount_writable(
        devices: &[Arc<dyn BlockDevice>],
        options: MountOptions,
        clock: Box<dyn WallClock>,
        w: &mut dyn Wait,
    ) -> Result<Self, MountError> {
        let options = MountOptions { recovery: RecoveryMode::InMemory, view: View::Current, ..options };
        let (mut fs, recovered) = Self::look(devices, options, w)?;
        let recovered = recovered.ok_or(Error::NoMemory)?;
        let version = fs.media.header().vol_version.get();
        if !write::VERSIONS.contains(&version) {
            return Err(MountError::NotWritable { why: "its version is not 6 or 7" });
        }
        if recovered.found.redo_pending {
            return Err(MountError::NotWritable {
                why: "changes wait in the REDO log, which only reading can do without",
            });
        }
        fs.fsid = fs.fsid_of(w, 0)?;
        let dirty = fs.cache_stats().capacity_pages / 4;
        let engine = Engine::start(&mut fs.media, w, &recovered, dirty)?;
        fs.in_place_times = InPlaceTimes::Trusted;
        fs.writer = Some(Writer::new(engine, clock));
        Ok(fs)
    }

    /// Makes everything durable and ends the mount. Without it, what was not synced may be lost. May block.
    ///
    /// # Errors
    /// As [`sync`](vfs::FileSystem::sync): the mount ends all the same.
    pub fn unmount(self, w: &mut dyn Wait) -> Result<(), Error> {
        match &self.writer {
            Some(writer) => {
                writer.reap(&self.media, w)?;
                writer.sync(&self.media, w)
            }
            None => Ok(()),
        }
    }

    fn look(
        devices: &[Arc<dyn BlockDevice>],
        options: MountOptions,
        w: &mut dyn Wait,
    ) -> Result<(Self, Option<Recovered>), MountError> {
        let (volumes, header) = mount::open_volumes(devices, w)?;
        let pages = Pages::new((options.cache_bytes / BUFFER_SIZE).max(4 * BATCH))?;
        let mut media = Media::new(volumes, header, pages);
        let mut recovered = None;
        if options.recovery == RecoveryMode::InMemory {
            let mut found = recovery::recover(&media, w)?;
            media.recover(core::mem::take(&mut found.overlay), found.header.clone());
            recovered = Some(found);
        }
        let recovery = recovered.as_ref().map(|r| r.found).unwrap_or_default();
        let in_place_times = if recovery.crashed { InPlaceTimes::Untrusted } else { InPlaceTimes::Trusted };
        let (view, last_fsid) = (options.view, AtomicU64::new(0));
        let fs = Self { media, recovery, view, in_place_times, fsid: 0, last_fsid, writer: None };
        Ok((fs, recovered))
    }

    /// Keeps writers out while a reader is on its way through the tree. May block.
    fn share(&self, w: &mut dyn Wait) -> Option<WaitGuard<'_, ()>> {
        Some(self.writer.as_ref()?.gate.share(w))
    }

    /// Who changes things, if this mount may.
    fn writer(&self) -> vfs::Result<&Writer> {
        Ok(self.writer.as_ref().ok_or(Errno::EROFS)?)
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

    /// What was written; `None` in a read-only mount. May block.
    pub fn write_stats(&self, w: &mut dyn Wait) -> Option<WriteStats> {
        self.writer.as_ref().map(|writer| writer.stats(w))
    }

    /// The nodes of the B-tree, with verdicts. In a writable mount: after a sync, and while nobody writes.
    pub fn nodes(&self) -> Nodes<'_> {
        Nodes::new(&self.media)
    }

    /// All pseudo file systems, destroyed ones included. May block.
    pub fn pseudo_file_systems(&self, w: &mut dyn Wait) -> Result<Vec<Pfs>, Error> {
        let _shared = self.share(w);
        pfs::list(&self.media, w)
    }

    /// The snapshots of a pseudo file system, oldest first. May block.
    pub fn snapshots(&self, w: &mut dyn Wait, pfs: u16) -> Result<Vec<Snapshot>, Error> {
        let _shared = self.share(w);
        pfs::snapshots(&self.media, w, pfs)
    }

    /// The configuration text of a pseudo file system, if it has one. May block.
    pub fn config(&self, w: &mut dyn Wait, pfs: u16) -> Result<Option<Vec<u8>>, Error> {
        let _shared = self.share(w);
        pfs::config(&self.media, w, pfs)
    }

    /// Hands every version of every record of `node` to `out`. May block.
    pub fn versions(
        &self,
        w: &mut dyn Wait,
        node: NodeId,
        out: &mut dyn FnMut(Version),
    ) -> Result<(), Error> {
        let _shared = self.share(w);
        history::versions(&self.media, w, node.into(), out)
    }

    /// The object behind a node. Nothing goes away here, so one without an inode is what an entry led to; all but roots
    /// have an entry.
    fn object(&self, w: &mut dyn Wait, node: NodeId) -> vfs::Result<Object> {
        let id = ObjectId::from(node);
        match Object::load(&self.media, w, id)? {
            Some(object) => Ok(object),
            None if id.is_root() || self.writer.is_some() => Err(Errno::ESTALE.into()),
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

    fn statfs(&self, c: &mut Call<'_>) -> vfs::Result<StatFs> {
        let header = self.media.header();
        let (free, inodes) = match &self.writer {
            Some(writer) => writer.figures(c.wait),
            None => (header.vol0_stat_freebigblocks.get(), header.vol0_stat_inodes.get()),
        };
        let buffers = |big_blocks: i64| {
            u64::try_from(big_blocks).unwrap_or(0).saturating_mul(BIG_BLOCK_SIZE / BUFFER_SIZE as u64)
        };
        let mut figures = StatFs::new("hammer");
        figures.block_bytes = BUFFER_SIZE as u32;
        figures.blocks = buffers(header.vol0_stat_bigblocks.get());
        figures.blocks_free = buffers(free);
        figures.blocks_available = figures.blocks_free;
        figures.files = u64::try_from(inodes).unwrap_or(0);
        figures.name_max_bytes = MAX_NAME as u32;
        figures.fsid = self.fsid.into();
        figures.flags = MountFlags::NO_ATIME;
        if self.writer.is_none() {
            figures.flags |= MountFlags::READ_ONLY;
        }
        Ok(figures)
    }

    fn getattr(&self, c: &mut Call<'_>, node: NodeId) -> vfs::Result<Attr> {
        let _shared = self.share(c.wait);
        let object = self.object(c.wait, node)?;
        self.attr(c.wait, &object)
    }

    fn nresolve(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>) -> vfs::Result<Attr> {
        let _shared = self.share(c.wait);
        let object = self.resolve(c.wait, dir, name.as_bytes())?;
        self.attr(c.wait, &object)
    }

    fn nlookupdotdot(&self, c: &mut Call<'_>, dir: NodeId) -> vfs::Result<Attr> {
        let _shared = self.share(c.wait);
        let dir = self.directory(c.wait, dir)?;
        let parent = Object::load(&self.media, c.wait, self.parent(&dir))?.ok_or(Errno::ENOENT)?;
        self.attr(c.wait, &parent)
    }

    fn readlink(&self, c: &mut Call<'_>, node: NodeId, out: &mut vfs::LinkSink<'_>) -> vfs::Result<()> {
        let _shared = self.share(c.wait);
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
        let _shared = self.share(c.wait);
        let object = self.object(c.wait, node)?;
        if how != Access::Read {
            if self.writer.is_none() || object.id.view != View::Current {
                return Err(Errno::EROFS.into());
            }
            if object.obj_type() == ObjType::DIRECTORY {
                return Err(Errno::EISDIR.into());
            }
        }
        // In a read-only mount nothing can go away while it is open.
        let open = self.writer.as_ref().map_or(0, |writer| writer.open(object.id));
        Ok(Opened { open: OpenId(open), node })
    }

    fn close(&self, open: OpenId) {
        if let Some(writer) = &self.writer {
            writer.close(open.0);
        }
    }

    fn read(
        &self,
        c: &mut Call<'_>,
        node: NodeId,
        offset: u64,
        len: u64,
        out: &mut vfs::ReadSink<'_>,
    ) -> vfs::Result<u64> {
        let _shared = self.share(c.wait);
        let file = self.file(c.wait, node)?;
        let end = file.inode.size.get().min(offset.saturating_add(len));
        if offset >= end {
            return Ok(0);
        }
        Ok(file::read(&self.media, c.wait, &file, offset..end, out)?)
    }

    fn next_data(&self, c: &mut Call<'_>, node: NodeId, offset: u64) -> vfs::Result<Option<Range<u64>>> {
        let _shared = self.share(c.wait);
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
        let _shared = self.share(c.wait);
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

    fn ncreate(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>, mode: u16) -> vfs::Result<Attr> {
        self.create(c, dir, name, ObjType::REGULAR, mode, DeviceNumber::default(), &[])
    }

    fn nmkdir(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>, mode: u16) -> vfs::Result<Attr> {
        self.create(c, dir, name, ObjType::DIRECTORY, mode, DeviceNumber::default(), &[])
    }

    fn nmknod(
        &self,
        c: &mut Call<'_>,
        dir: NodeId,
        name: Name<'_>,
        what: Special,
        mode: u16,
    ) -> vfs::Result<Attr> {
        let (obj_type, device) = match what {
            Special::Fifo => (ObjType::FIFO, DeviceNumber::default()),
            Special::Socket => (ObjType::SOCKET, DeviceNumber::default()),
            Special::CharDevice(device) => (ObjType::CHAR_DEVICE, device),
            Special::BlockDevice(device) => (ObjType::BLOCK_DEVICE, device),
        };
        self.create(c, dir, name, obj_type, mode, device, &[])
    }

    fn nsymlink(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>, target: &[u8]) -> vfs::Result<Attr> {
        if target.len() >= vfs::PATH_MAX {
            return Err(Errno::ENAMETOOLONG.into());
        }
        self.create(c, dir, name, ObjType::SYMLINK, 0o777, DeviceNumber::default(), target)
    }

    fn nlink(&self, c: &mut Call<'_>, node: NodeId, dir: NodeId, name: Name<'_>) -> vfs::Result<Attr> {
        let id = ObjectId::from(node);
        let linked = self.change(c.wait, |op, w| {
            op.link(w, id, dir.into(), name.as_bytes())?;
            op.living(w, id)
        })?;
        self.attr_of(c.wait, &linked)
    }

    fn nremove(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>) -> vfs::Result<()> {
        self.part(c.wait, |op, w, is_open| op.unlink(w, dir.into(), name.as_bytes(), is_open))
    }

    fn nrmdir(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>) -> vfs::Result<()> {
        self.part(c.wait, |op, w, is_open| op.remove_directory(w, dir.into(), name.as_bytes(), is_open))
    }

    fn nrename(&self, c: &mut Call<'_>, from: (NodeId, Name<'_>), to: (NodeId, Name<'_>)) -> vfs::Result<()> {
        let place = |(dir, name): (NodeId, Name<'_>)| (ObjectId::from(dir), Vec::from(name.as_bytes()));
        let (from, to) = (place(from), place(to));
        self.part(c.wait, |op, w, is_open| op.rename(w, (from.0, &from.1), (to.0, &to.1), is_open))
    }

    fn setattr(&self, c: &mut Call<'_>, node: NodeId, change: &SetAttr) -> vfs::Result<Attr> {
        let id = ObjectId::from(node);
        let cred = c.cred;
        loop {
            let (times, fsid) = (self.in_place_times, self.fsid);
            let done = self.change(c.wait, |op, w| {
                let live = op.living(w, id)?;
                let now = vfs::Timestamp::from_micros(i64::try_from(op.now_us).unwrap_or(i64::MAX));
                let old = Object::of(id, live.inode).attr(fsid.into(), times);
                let new = change.apply(&old, &cred, now)?;
                // The size first, then the rest of what it leads to.
                if let Some(size) = change.size {
                    let file = op.file(w, id)?;
                    if !op.truncate(w, &file, size)? {
                        return Ok(None);
                    }
                }
                let live = op.living(w, id)?;
                op.set_attributes(w, &live, change, &new)?;
                Ok(Some(op.living(w, id)?))
            })?;
            if let Some(changed) = done {
                return self.attr_of(c.wait, &changed);
            }
        }
    }

    fn write(&self, c: &mut Call<'_>, node: NodeId, at: WriteAt, data: &[u8]) -> vfs::Result<usize> {
        let id = ObjectId::from(node);
        self.change(c.wait, |op, w| {
            let file = op.file(w, id)?;
            let flags = file.flags();
            let start = match at {
                WriteAt::Offset(offset) => offset,
                WriteAt::End => file.inode.size.get(),
            };
            let appends = start >= file.inode.size.get();
            if flags.intersects(FileFlags::IMMUTABLE) || flags.intersects(FileFlags::APPEND) && !appends {
                return Err(Errno::EPERM.into());
            }
            if data.is_empty() {
                return Ok(0);
            }
            op.write_file(w, &file, start, data)
        })
    }

    fn fsync(&self, c: &mut Call<'_>, _: NodeId) -> vfs::Result<()> {
        self.sync(c)
    }

    fn sync(&self, c: &mut Call<'_>) -> vfs::Result<()> {
        let Some(writer) = &self.writer else { return Ok(()) };
        writer.reap(&self.media, c.wait)?;
        Ok(writer.sync(&self.media, c.wait)?)
    }
}

impl Hammer {
    /// The attributes that an operation has left. May block.
    fn attr_of(&self, w: &mut dyn Wait, object: &Live) -> vfs::Result<Attr> {
        let _shared = self.share(w);
        self.attr(w, &Object::of(object.id, object.inode))
    }

    /// One operation of a writable mount. May block.
    fn change<R>(
        &self,
        w: &mut dyn Wait,
        work: impl FnOnce(&mut Op<'_, '_>, &mut dyn Wait) -> vfs::Result<R>,
    ) -> vfs::Result<R> {
        let writer = self.writer()?;
        writer.reap(&self.media, w)?;
        writer.operate(&self.media, w, work)
    }

    /// One that may leave an object without a name. May block.
    fn part(
        &self,
        w: &mut dyn Wait,
        work: impl FnOnce(&mut Op<'_, '_>, &mut dyn Wait, &dyn Fn(ObjectId) -> bool) -> vfs::Result<Farewell>,
    ) -> vfs::Result<()> {
        let writer = self.writer()?;
        match self.change(w, |op, w| work(op, w, &|id| writer.is_open(id)))? {
            Farewell::Done => Ok(()),
            Farewell::Nameless(id) => {
                writer.leave(id);
                Ok(writer.reap(&self.media, w)?)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what there is to say about a new object")]
    fn create(
        &self,
        c: &mut Call<'_>,
        dir: NodeId,
        name: Name<'_>,
        obj_type: ObjType,
        mode: u16,
        device: DeviceNumber,
        target: &[u8],
    ) -> vfs::Result<Attr> {
        let birth = Birth { obj_type, mode, uid: c.cred.uid, device, target };
        let made = self.change(c.wait, |op, w| {
            let id = op.create(w, dir.into(), name.as_bytes(), &birth)?;
            op.living(w, id)
        })?;
        self.attr_of(c.wait, &made)
    }

    fn file(&self, w: &mut dyn Wait, node: NodeId) -> vfs::Result<Object> {
        let file = self.object(w, node)?;
        match file.obj_type() {
            ObjType::REGULAR | ObjType::DBFILE => Ok(file),
            ObjType::DIRECTORY => Err(Errno::EISDIR.into()),
            _ => Err(Errno::EINVAL.into()),
        }
    }
}
