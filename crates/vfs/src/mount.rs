//! The mount table: file systems mounted on directories of others, walked as one tree.
//!
//! Source: mount(2), unmount(2), cache_findmount() of DragonFly.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use dfly_hal::Wait;
use dfly_hal::sync::Lock;

use crate::path_text::PathText;
use crate::walk::{Found, Space, readlink, readlink_into, walk_in, walk_parent_in};
use crate::{
    Access, At, Attr, Call, Errno, Error, File, FileSystem, FileSystemExt, Kind, Name, NodeId, Parent,
    Result, Walk,
};

/// File systems, one mounted on a directory of another, and all on one root.
///
/// A path is walked across mounts in both directions: a directory that is covered leads to the root of what is mounted
/// on it, and `..` of that root leads to the parent of the covered directory. What is in use stays mounted: a
/// [`Place`], an [`OpenFile`] and whatever is mounted further below each hold their [`Mounted`] file system.
///
/// Nothing is ever mounted on the root of a file system, so crossing is one step.
///
/// Methods with a [`Call`] may block in the file systems; the table's own short lock is never held across that. Not
/// callable from an interrupt.
///
/// ```
/// # #[cfg(feature = "mem")] {
/// use dfly_hal::SpinWait;
/// use dfly_vfs::{Access, Call, Errno, FileSystemExt, MountTable, Walk, mem::MemFs};
/// use std::sync::Arc;
///
/// let mut nothing = || ();
/// let w = &mut SpinWait::new(&mut nothing);
/// let (root, disk) = (MemFs::new(), MemFs::new());
/// root.at(w).nmkdir("mnt", 0o755)?;
/// disk.at(w).ncreate("notes", 0o644)?.open(Access::Write)?.write_at(w, 0, b"milk")?;
///
/// let table = MountTable::new(Arc::new(root), b"mem");
/// let c = &mut Call::new(w);
/// let how = Walk::default();
/// let mnt = table.walk(c, &table.root(), b"/mnt", &how)?.0;
/// table.mount(c, &mnt, Arc::new(disk), b"mem0", b"/mnt")?;
///
/// let (place, attr) = table.walk(c, &table.root(), b"/mnt/../mnt/notes", &how)?;
/// assert_eq!((place.mounted.from(), attr.size), (&b"mem0"[..], 4));
///
/// let notes = place.open(c, Access::Read)?;
/// drop(place);
/// let mnt = table.walk(c, &table.root(), b"/mnt", &how)?.0;
/// assert_eq!(table.unmount(c, mnt).err().unwrap(), Errno::EBUSY);
/// drop(notes);
/// let mnt = table.walk(c, &table.root(), b"/mnt", &how)?.0;
/// table.unmount(c, mnt)?;
/// # }
/// # Ok::<(), dfly_vfs::Error>(())
/// ```
pub struct MountTable {
    root: Mounted,
    mounts: Lock<Mounts>,
}

struct Mounts {
    /// By the directory that they cover.
    by_covered: BTreeMap<(u64, NodeId), Mounted>,
    next_id: u64,
}

/// A mounted file system: derefs to it, and keeps it mounted as long as it lives.
#[derive(Clone)]
pub struct Mounted(Arc<Mount>);

struct Mount {
    fs: Arc<dyn FileSystem>,
    /// Its number in the table, in the order of mounting.
    id: u64,
    from: Box<[u8]>,
    on: Box<[u8]>,
    covers: Option<Place>,
}

/// A node of a mounted file system. It keeps the file system mounted, and nothing else: see [`NodeId`].
#[derive(Clone, PartialEq)]
pub struct Place {
    /// The file system.
    pub mounted: Mounted,
    /// The node in it.
    pub node: NodeId,
}

/// An open file that keeps its file system mounted.
pub type OpenFile = File<Mounted>;

impl MountTable {
    /// A table with this root, which mount(8) says to come `from` there. The root is never unmounted.
    pub fn new(root: Arc<dyn FileSystem>, from: &[u8]) -> Self {
        let root = Mount { fs: root, id: 0, from: from.into(), on: (*b"/").into(), covers: None };
        let mounts = Mounts { by_covered: BTreeMap::new(), next_id: 1 };
        Self { root: Mounted(Arc::new(root)), mounts: Lock::new(mounts) }
    }

    /// The root directory of all.
    pub fn root(&self) -> Place {
        self.root.place()
    }

    /// Mounts `fs` on the directory `at`. What mount(8) and df(1) are to say is told by `from`, the device or the like,
    /// and `on`, the path of the directory (`f_mntfromname` and `f_mntonname` of statfs(2)).
    ///
    /// Errors: `ENOTDIR`; `EBUSY` if something is mounted there already; what `getattr` answers.
    pub fn mount(
        &self,
        c: &mut Call<'_>,
        at: &Place,
        fs: Arc<dyn FileSystem>,
        from: &[u8],
        on: &[u8],
    ) -> Result<()> {
        const TAKEN: Error = Error::new(Errno::EBUSY).because("a file system is mounted there");
        if at.mounted.getattr(c, at.node)?.kind != Kind::Directory {
            return Err(Errno::ENOTDIR.into());
        }
        if at.is_mount_root() {
            return Err(TAKEN);
        }
        let key = at.key();
        let mut mount = Mount { fs, id: 0, from: from.into(), on: on.into(), covers: Some(at.clone()) };
        let mounts = &mut *self.mounts.lock();
        if mounts.by_covered.contains_key(&key) {
            return Err(TAKEN);
        }
        mount.id = mounts.next_id;
        mounts.next_id += 1;
        mounts.by_covered.insert(key, Mounted(Arc::new(mount)));
        Ok(())
    }

    /// Writes out the file system whose root `at` is, unmounts it and gives it back.
    ///
    /// Errors: `EINVAL` if nothing is mounted there; `EBUSY` for the table's root, and while another [`Place`], an open
    /// file, or something mounted below it holds it; what [`FileSystem::sync`] answers. In every case of error it stays
    /// mounted.
    pub fn unmount(&self, c: &mut Call<'_>, at: Place) -> Result<Arc<dyn FileSystem>> {
        if !at.is_mount_root() {
            return Err(Error::new(Errno::EINVAL).because("nothing is mounted there"));
        }
        let Some(covered) = &at.mounted.0.covers else {
            return Err(Error::new(Errno::EBUSY).because("the root stays"));
        };
        at.mounted.sync(c)?;
        let mut mounts = self.mounts.lock();
        if mounts.by_covered.get(&covered.key()) != Some(&at.mounted) {
            return Err(Error::new(Errno::EINVAL).because("it is mounted in another table"));
        }
        // The table's and `at`'s. To make another, one must have one: `at` is ours, and the table's is locked.
        const OURS: usize = 2;
        if Arc::strong_count(&at.mounted.0) > OURS {
            return Err(Error::new(Errno::EBUSY).because("it is in use"));
        }
        mounts.by_covered.remove(&covered.key());
        drop(mounts);
        Ok(at.mounted.0.fs.clone())
    }

    /// All that is mounted, the root first, in the order of mounting.
    pub fn list(&self) -> Vec<Mounted> {
        let mut all = Vec::from([self.root.clone()]);
        all.extend(self.mounts.lock().by_covered.values().cloned());
        all.sort_unstable_by_key(|m| m.0.id);
        all
    }

    /// What is mounted on the directory `at`, if something is. Who removes or renames a directory asks this first.
    pub fn mounted_on(&self, at: &Place) -> Option<Mounted> {
        self.mounts.lock().by_covered.get(&at.key()).cloned()
    }

    /// Finds what is at `path`, from `start` if the path is relative; links to absolute paths begin at the table's root,
    /// or at that of `how`. Errors: see [`walk`](crate::walk()).
    pub fn walk(
        &self,
        c: &mut Call<'_>,
        start: &Place,
        path: &[u8],
        how: &Walk<'_, Place>,
    ) -> Result<(Place, Attr)> {
        let Found { place, attr } = walk_in(self, c, start, path, how)?;
        Ok((place, attr))
    }

    /// Finds the directory in which `path`'s last component is, or is to be. Errors: see
    /// [`walk_parent`](crate::walk_parent).
    pub fn walk_parent(
        &self,
        c: &mut Call<'_>,
        start: &Place,
        path: &[u8],
        how: &Walk<'_, Place>,
    ) -> Result<(Place, Parent)> {
        walk_parent_in(self, c, start, path, how)
    }

    /// Where `attr`, found in `mounted`, leads: to the root of what is mounted on it, or to itself.
    fn cross(&self, c: &mut Call<'_>, mounted: &Mounted, attr: Attr) -> Result<Found<Place>> {
        let place = Place { mounted: mounted.clone(), node: attr.node };
        // Only directories carry anything: the others need not be looked for.
        match Some(&place).filter(|_| attr.kind == Kind::Directory).and_then(|dir| self.mounted_on(dir)) {
            Some(above) => {
                let place = above.place();
                Ok(Found { attr: place.attr(c)?, place })
            }
            None => Ok(Found { place, attr }),
        }
    }
}

impl Space for MountTable {
    type Place = Place;

    fn top(&self) -> Place {
        self.root()
    }

    fn attr(&self, c: &mut Call<'_>, at: &Place) -> Result<Attr> {
        at.attr(c)
    }

    fn down(&self, c: &mut Call<'_>, dir: &Place, name: Name<'_>) -> Result<Found<Place>> {
        let attr = dir.mounted.nresolve(c, dir.node, name)?;
        self.cross(c, &dir.mounted, attr)
    }

    fn up(&self, c: &mut Call<'_>, dir: &Place) -> Result<Found<Place>> {
        let dir = match &dir.mounted.0.covers {
            Some(covered) if dir.is_mount_root() => covered,
            _ => dir,
        };
        let attr = dir.mounted.nlookupdotdot(c, dir.node)?;
        self.cross(c, &dir.mounted, attr)
    }

    fn target(&self, c: &mut Call<'_>, link: &Place, target: &mut PathText) -> Result<()> {
        readlink_into(&*link.mounted, c, link.node, target)
    }
}

impl Mounted {
    /// What it was mounted from: a device or the like.
    pub fn from(&self) -> &[u8] {
        &self.0.from
    }

    /// The path that it was mounted on.
    pub fn on(&self) -> &[u8] {
        &self.0.on
    }

    /// Its root directory.
    pub fn place(&self) -> Place {
        Place { mounted: self.clone(), node: self.root() }
    }
}

impl Deref for Mounted {
    type Target = dyn FileSystem;
    fn deref(&self) -> &Self::Target {
        &*self.0.fs
    }
}

impl PartialEq for Mounted {
    /// Whether both are the same mount.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" on \"{}\"", self.from().escape_ascii(), self.on().escape_ascii())
    }
}

impl Place {
    /// The attributes of the node. Errors: see [`FileSystem::getattr`].
    pub fn attr(&self, c: &mut Call<'_>) -> Result<Attr> {
        self.mounted.getattr(c, self.node)
    }

    /// Opens the node. Errors: see [`FileSystem::open`], `EACCES`, `EPERM`.
    pub fn open(&self, c: &mut Call<'_>, how: Access) -> Result<OpenFile> {
        let attr = self.attr(c)?;
        File::open(self.mounted.clone(), c, &attr, how)
    }

    /// The target of this symbolic link. Errors: see [`readlink`](crate::readlink()).
    pub fn readlink(&self, c: &mut Call<'_>) -> Result<PathText> {
        readlink(&*self.mounted, c, self.node)
    }

    /// The place for a chain of calls in its own file system, which crosses no mounts.
    pub fn at<'w>(&self, wait: &'w mut dyn Wait) -> At<'_, 'w, dyn FileSystem> {
        self.mounted.at(wait).to(self.node)
    }

    fn is_mount_root(&self) -> bool {
        self.node == self.mounted.root()
    }

    fn key(&self) -> (u64, NodeId) {
        (self.mounted.0.id, self.node)
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("mounted", &self.mounted).field("node", &self.node).finish()
    }
}

#[cfg(test)]
#[path = "mount_tests.rs"]
mod tests;
