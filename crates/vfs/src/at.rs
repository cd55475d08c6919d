//! The handles of a chain of calls: a place in a file system with a waiter, and an open file.

use core::fmt;
use core::ops::{ControlFlow, Deref};

use dfly_hal::Wait;

use crate::path_text::PathText;
use crate::walk::{self, Walk};
use crate::{
    Access, Attr, Call, Cred, DirSink, Errno, Error, FileSystem, Name, NodeId, Opened, Permit, ReadSink,
    Result, SetAttr, Special, WriteAt,
};

/// What every file system gets for its users: [`at`](Self::at).
pub trait FileSystemExt: FileSystem {
    /// The root directory, for a chain of calls that wait through `wait` and have all permissions (see
    /// [`At::with_cred`]).
    ///
    /// ```
    /// # #[cfg(feature = "mem")] {
    /// # use dfly_vfs::{Access, FileSystemExt, mem::MemFs};
    /// # let fs = MemFs::new();
    /// # let mut nothing = || ();
    /// # let w = &mut dfly_hal::SpinWait::new(&mut nothing);
    /// fs.at(w).nmkdir("etc", 0o755)?.ncreate("motd", 0o644)?.open(Access::Write)?.write_at(w, 0, b"hello")?;
    ///
    /// let motd = fs.at(w).walk("etc/motd")?.open(Access::Read)?;
    /// let mut text = [0; 16];
    /// let len = motd.read_at(w, 0, &mut text)?;
    /// assert_eq!(&text[..len], b"hello");
    /// # }
    /// # Ok::<(), dfly_vfs::Error>(())
    /// ```
    fn at<'f, 'w>(&'f self, wait: &'w mut dyn Wait) -> At<'f, 'w, Self> {
        At { fs: self, call: Call::new(wait), node: self.root(), known: None }
    }
}

impl<F: FileSystem + ?Sized> FileSystemExt for F {}

/// A place in a file system, and who waits there: binds the waiter once for a chain of calls.
///
/// Every method may block, and checks the permissions of [`Call::cred`] before it asks the file system. Not callable
/// from an interrupt. Methods that lead somewhere consume the place and return the new one.
///
/// A file system with places of its own adds them by a trait on `At<'_, '_, ItsType>`, with [`At::to`]: so does
/// HAMMER's `as_of(tid)`.
pub struct At<'f, 'w, F: ?Sized> {
    fs: &'f F,
    call: Call<'w>,
    node: NodeId,
    // Attributes that the last look-up brought along, until something here changes them.
    known: Option<Attr>,
}

impl<'f, 'w, F: FileSystem + ?Sized> At<'f, 'w, F> {
    /// The same place, on behalf of `cred`.
    #[must_use]
    pub fn with_cred(mut self, cred: Cred) -> Self {
        self.call.cred = cred;
        self
    }

    /// Another place of the same file system.
    #[must_use]
    pub fn to(self, node: NodeId) -> Self {
        Self { node, known: None, ..self }
    }

    /// The file system.
    pub fn fs(&self) -> &'f F {
        self.fs
    }

    /// The call that this chain makes, for operations that have no method here.
    pub fn call(&mut self) -> &mut Call<'w> {
        &mut self.call
    }

    /// The key of the place.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The attributes of the place. Errors: see [`FileSystem::getattr`].
    pub fn attr(&mut self) -> Result<Attr> {
        match self.known {
            Some(attr) => Ok(attr),
            None => Ok(*self.known.insert(self.fs.getattr(&mut self.call, self.node)?)),
        }
    }

    fn found(self, attr: Attr) -> Self {
        Self { node: attr.node, known: Some(attr), ..self }
    }

    /// One name further down; a symbolic link is not followed. Errors: see [`FileSystem::nresolve`], `EACCES`.
    pub fn nresolve(mut self, name: impl AsRef<[u8]>) -> Result<Self> {
        let name = Name::new(&name)?;
        self.attr()?.check_search(&self.call.cred)?;
        let attr = self.fs.nresolve(&mut self.call, self.node, name)?;
        Ok(self.found(attr))
    }

    /// Where `path` leads from here, links followed. Errors: see [`walk`](crate::walk()).
    pub fn walk(self, path: impl AsRef<[u8]>) -> Result<Self> {
        self.walk_as(path, &Walk::default())
    }

    /// Where `path` leads from here. Errors: see [`walk`](crate::walk()).
    pub fn walk_as(mut self, path: impl AsRef<[u8]>, how: &Walk<'_>) -> Result<Self> {
        let attr = walk::walk(self.fs, &mut self.call, self.node, path.as_ref(), how)?;
        Ok(self.found(attr))
    }

    /// Opens this node. Errors: see [`FileSystem::open`], `EACCES`, `EPERM`.
    pub fn open(mut self, how: Access) -> Result<File<&'f F>> {
        let attr = self.attr()?;
        File::open(self.fs, &mut self.call, &attr, how)
    }

    /// The entries of this directory. Errors: see [`FileSystem::readdir`], `EACCES`.
    pub fn readdir(&mut self, cookie: u64, out: &mut DirSink<'_>) -> Result<()> {
        self.attr()?.check(&self.call.cred, Permit::READ)?;
        self.fs.readdir(&mut self.call, self.node, cookie, out)
    }

    /// The target of this symbolic link. Errors: see [`readlink`](crate::readlink()).
    pub fn readlink(&mut self) -> Result<PathText> {
        walk::readlink(self.fs, &mut self.call, self.node)
    }

    /// Changes attributes of this node. Errors: see [`FileSystem::setattr`]; `EACCES` for the size.
    pub fn setattr(&mut self, change: &SetAttr) -> Result<Attr> {
        if change.size.is_some() {
            self.attr()?.check(&self.call.cred, Permit::WRITE)?;
        }
        self.known = None;
        let attr = self.fs.setattr(&mut self.call, self.node, change)?;
        Ok(*self.known.insert(attr))
    }

    /// Makes a regular file here and goes to it. Errors: see [`FileSystem::ncreate`], `EACCES`, `EPERM`.
    pub fn ncreate(self, name: impl AsRef<[u8]>, mode: u16) -> Result<Self> {
        self.add(name, |fs, c, dir, name| fs.ncreate(c, dir, name, mode))
    }

    /// Makes a directory here and goes to it. Errors: see [`FileSystem::nmkdir`], `EACCES`, `EPERM`.
    pub fn nmkdir(self, name: impl AsRef<[u8]>, mode: u16) -> Result<Self> {
        self.add(name, |fs, c, dir, name| fs.nmkdir(c, dir, name, mode))
    }

    /// Makes a special node here and goes to it. Errors: see [`FileSystem::nmknod`], `EACCES`, `EPERM`; `EPERM` for a
    /// device unless it is the super-user who asks.
    pub fn nmknod(self, name: impl AsRef<[u8]>, what: Special, mode: u16) -> Result<Self> {
        let device = matches!(what, Special::CharDevice(_) | Special::BlockDevice(_));
        if device && !self.call.cred.is_superuser() {
            return Err(Errno::EPERM.into());
        }
        self.add(name, |fs, c, dir, name| fs.nmknod(c, dir, name, what, mode))
    }

    /// Makes a symbolic link here and goes to it. Errors: see [`FileSystem::nsymlink`], `EACCES`, `EPERM`.
    pub fn nsymlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Result<Self> {
        self.add(name, |fs, c, dir, name| fs.nsymlink(c, dir, name, target.as_ref()))
    }

    /// Gives `node` a name here and goes to it. Errors: see [`FileSystem::nlink`], `EACCES`, `EPERM`.
    pub fn nlink(self, node: NodeId, name: impl AsRef<[u8]>) -> Result<Self> {
        self.add(name, |fs, c, dir, name| fs.nlink(c, node, dir, name))
    }

    fn add(
        mut self,
        name: impl AsRef<[u8]>,
        make: impl FnOnce(&F, &mut Call<'_>, NodeId, Name<'_>) -> Result<Attr>,
    ) -> Result<Self> {
        let name = Name::new(&name)?;
        self.attr()?.check_add(&self.call.cred)?;
        let attr = make(self.fs, &mut self.call, self.node, name)?;
        Ok(self.found(attr))
    }

    /// Removes a name here. Errors: see [`FileSystem::nremove`], `EACCES`, `EPERM`.
    pub fn nremove(&mut self, name: impl AsRef<[u8]>) -> Result<()> {
        let name = self.may_take(&name)?;
        self.fs.nremove(&mut self.call, self.node, name)
    }

    /// Removes an empty directory here. Errors: see [`FileSystem::nrmdir`], `EACCES`, `EPERM`.
    pub fn nrmdir(&mut self, name: impl AsRef<[u8]>) -> Result<()> {
        let name = self.may_take(&name)?;
        self.fs.nrmdir(&mut self.call, self.node, name)
    }

    /// Renames `from` here to `to` in the directory `to_dir`. Errors: see [`FileSystem::nrename`], `EACCES`, `EPERM`.
    pub fn nrename(&mut self, from: impl AsRef<[u8]>, to_dir: NodeId, to: impl AsRef<[u8]>) -> Result<()> {
        let from = self.may_take(&from)?;
        let to = Name::new(&to)?;
        let target = self.fs.getattr(&mut self.call, to_dir)?;
        target.check_add(&self.call.cred)?;
        match self.fs.nresolve(&mut self.call, to_dir, to) {
            Ok(victim) => target.check_take(&self.call.cred, &victim)?,
            Err(e) if e == Errno::ENOENT => {}
            Err(e) => return Err(e),
        }
        self.known = None;
        self.fs.nrename(&mut self.call, (self.node, from), (to_dir, to))
    }

    /// The checked name of an entry here that `cred` may take away.
    fn may_take<'n>(&mut self, name: &'n impl AsRef<[u8]>) -> Result<Name<'n>> {
        let name = Name::new(name)?;
        let dir = self.attr()?;
        dir.check_search(&self.call.cred)?;
        let victim = self.fs.nresolve(&mut self.call, self.node, name)?;
        dir.check_take(&self.call.cred, &victim)?;
        self.known = None;
        Ok(name)
    }
}

impl<F: ?Sized> fmt::Debug for At<'_, '_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("At").field("node", &self.node).finish_non_exhaustive()
    }
}

/// An open file, closed when it is dropped. It keeps no waiter: each operation that may block takes one.
///
/// `R` is how it refers to its file system: by `&F`, or by what keeps it alive and mounted
/// ([`Mounted`](crate::Mounted)).
pub struct File<R>
where
    R: Deref<Target: FileSystem>,
{
    fs: R,
    opened: Opened,
    how: Access,
    cred: Cred,
}

impl<R: Deref<Target: FileSystem>> File<R> {
    /// Opens the node that `attr` was found for, which is in `fs`. Errors: see [`FileSystem::open`], `EACCES`, `EPERM`.
    pub fn open(fs: R, c: &mut Call<'_>, attr: &Attr, how: Access) -> Result<Self> {
        attr.check(&c.cred, how.permit())?;
        let opened = fs.open(c, attr.node, how)?;
        Ok(Self { fs, opened, how, cred: c.cred })
    }

    /// The key of the open node.
    pub fn node(&self) -> NodeId {
        self.opened.node
    }

    fn opened_for(&self, what: Permit) -> Result<()> {
        if self.how.permit().contains(what) {
            Ok(())
        } else {
            Err(Error::new(Errno::EBADF).because("the file is not open for that"))
        }
    }

    /// The attributes of the file now. Errors: see [`FileSystem::getattr`].
    pub fn attr(&self, w: &mut dyn Wait) -> Result<Attr> {
        self.fs.getattr(&mut Call::on_behalf_of(self.cred, w), self.opened.node)
    }

    /// Hands out the file's bytes without a copy. Errors: see [`FileSystem::read`], `EBADF` if it is not open to read.
    pub fn read(&self, w: &mut dyn Wait, offset: u64, len: u64, out: &mut ReadSink<'_>) -> Result<u64> {
        self.opened_for(Permit::READ)?;
        self.fs.read(&mut Call::on_behalf_of(self.cred, w), self.opened.node, offset, len, out)
    }

    /// Copies the file's bytes from `offset` on into `buf`; returns how many, fewer only at the end of the file. Errors
    /// as [`read`](Self::read).
    pub fn read_at(&self, w: &mut dyn Wait, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        self.read(w, offset, buf.len() as u64, &mut |part| {
            let room = buf.get_mut(filled..).unwrap_or_default();
            let len = part.len().min(room.len());
            room[..len].copy_from_slice(&part[..len]);
            filled += len;
            ControlFlow::Continue(())
        })?;
        Ok(filled)
    }

    /// Writes all of `data` at `offset`. Errors: see [`FileSystem::write`], `EBADF` if it is not open to write; what was
    /// written before an error stays.
    pub fn write_at(&self, w: &mut dyn Wait, offset: u64, data: &[u8]) -> Result<()> {
        self.opened_for(Permit::WRITE)?;
        let mut call = Call::on_behalf_of(self.cred, w);
        let (mut at, mut left) = (offset, data);
        while !left.is_empty() {
            let n = self.fs.write(&mut call, self.opened.node, WriteAt::Offset(at), left)?;
            // A file system that takes nothing, or more than it was given, must not make this a loop or a panic.
            left = left.get(n..).filter(|_| n > 0).ok_or(Errno::EIO)?;
            at = at.checked_add(n as u64).ok_or(Errno::EFBIG)?;
        }
        Ok(())
    }

    /// Makes what was written safe from a power cut. Errors: see [`FileSystem::fsync`].
    pub fn fsync(&self, w: &mut dyn Wait) -> Result<()> {
        self.fs.fsync(&mut Call::on_behalf_of(self.cred, w), self.opened.node)
    }
}

impl<R: Deref<Target: FileSystem>> Drop for File<R> {
    fn drop(&mut self) {
        self.fs.close(self.opened.open);
    }
}

impl<R: Deref<Target: FileSystem>> fmt::Debug for File<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("node", &self.opened.node)
            .field("how", &self.how)
            .finish_non_exhaustive()
    }
}
