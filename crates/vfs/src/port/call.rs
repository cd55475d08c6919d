//! The operations of a file system as messages.

use alloc::vec::Vec;
use core::ops::{ControlFlow, Range};

use dfly_hal::Wait;
use dfly_msgport::{Body, Unanswered};

use super::{ENTRIES_MAX, PIECE_BYTES, Slot};
use crate::{
    Access, Attr, Call, Cred, Entry, Errno, Error, FileSystem, Kind, NameBuf, NodeId, OpenId, Opened, Result,
    SetAttr, Special, StatFs, WriteAt,
};

/// An operation with all it needs, owned. Bytes to write, and the target of a link, are in [`VfsCall::bytes`].
#[expect(
    clippy::large_enum_variant,
    reason = "it is in a message, which is made once and used again and again"
)]
pub(super) enum Op {
    Idle,
    Statfs,
    Getattr(NodeId),
    Nresolve(NodeId, NameBuf),
    Nlookupdotdot(NodeId),
    Readlink(NodeId),
    Open(NodeId, Access),
    Close(OpenId),
    Read { node: NodeId, offset: u64, len: u64 },
    NextData(NodeId, u64),
    Readdir { dir: NodeId, cookie: u64 },
    Ncreate(NodeId, NameBuf, u16),
    Nmkdir(NodeId, NameBuf, u16),
    Nmknod(NodeId, NameBuf, Special, u16),
    Nsymlink(NodeId, NameBuf),
    Nlink(NodeId, NodeId, NameBuf),
    Nremove(NodeId, NameBuf),
    Nrmdir(NodeId, NameBuf),
    Nrename { from: (NodeId, NameBuf), to: (NodeId, NameBuf) },
    Setattr(NodeId, SetAttr),
    Write(NodeId, WriteAt),
    Fsync(NodeId),
    Sync,
}

/// What an operation gives. Bytes that were read are in [`VfsCall::bytes`], entries in [`VfsCall::entries`].
#[derive(Clone)]
pub(super) enum Reply {
    Nothing,
    StatFs(StatFs),
    Attr(Attr),
    Opened(Opened),
    Count(usize),
    Range(Option<Range<u64>>),
    /// Whether the file system had more entries than fit.
    More(ControlFlow<()>),
}

/// An [`Entry`] whose name is a range of [`VfsCall::bytes`].
pub(super) struct Listed {
    name: Range<usize>,
    node: NodeId,
    kind: Kind,
    fileid: u64,
    next: u64,
}

impl Listed {
    pub(super) fn entry<'a>(&self, bytes: &'a [u8]) -> Entry<'a> {
        let name = bytes.get(self.name.clone()).unwrap_or_default();
        Entry { name, node: self.node, kind: self.kind, fileid: self.fileid, next: self.next }
    }
}

/// One call of a file system, on its way there and back.
pub(super) struct VfsCall {
    pub(super) op: Op,
    pub(super) cred: Cred,
    pub(super) bytes: Vec<u8>,
    pub(super) entries: Vec<Listed>,
    pub(super) reply: Result<Reply>,
    /// Goes back when the call does, or ends.
    pub(super) slot: Option<Slot>,
}

impl VfsCall {
    pub(super) fn new(op: Op) -> Self {
        Self {
            op,
            cred: Cred::ROOT,
            bytes: Vec::new(),
            entries: Vec::new(),
            reply: Ok(Reply::Nothing),
            slot: None,
        }
    }

    /// Does what is asked for, on `fs`; `wait` is who waits there.
    pub(super) fn dispatch(&mut self, fs: &dyn FileSystem, wait: &mut dyn Wait) {
        self.reply = self.answer(fs, &mut Call::on_behalf_of(self.cred, wait));
    }

    fn answer(&mut self, fs: &dyn FileSystem, c: &mut Call<'_>) -> Result<Reply> {
        let attr = |result: Result<Attr>| result.map(Reply::Attr);
        let nothing = |result: Result<()>| result.map(|()| Reply::Nothing);
        match &self.op {
            Op::Idle => Ok(Reply::Nothing),
            Op::Statfs => fs.statfs(c).map(Reply::StatFs),
            Op::Getattr(node) => attr(fs.getattr(c, *node)),
            Op::Nresolve(dir, name) => attr(fs.nresolve(c, *dir, name.as_name())),
            Op::Nlookupdotdot(dir) => attr(fs.nlookupdotdot(c, *dir)),
            Op::Open(node, how) => fs.open(c, *node, *how).map(Reply::Opened),
            Op::Close(open) => {
                fs.close(*open);
                Ok(Reply::Nothing)
            }
            Op::NextData(node, offset) => fs.next_data(c, *node, *offset).map(Reply::Range),
            Op::Ncreate(dir, name, mode) => attr(fs.ncreate(c, *dir, name.as_name(), *mode)),
            Op::Nmkdir(dir, name, mode) => attr(fs.nmkdir(c, *dir, name.as_name(), *mode)),
            Op::Nmknod(dir, name, what, mode) => attr(fs.nmknod(c, *dir, name.as_name(), *what, *mode)),
            Op::Nsymlink(dir, name) => attr(fs.nsymlink(c, *dir, name.as_name(), &self.bytes)),
            Op::Nlink(node, dir, name) => attr(fs.nlink(c, *node, *dir, name.as_name())),
            Op::Nremove(dir, name) => nothing(fs.nremove(c, *dir, name.as_name())),
            Op::Nrmdir(dir, name) => nothing(fs.nrmdir(c, *dir, name.as_name())),
            Op::Nrename { from, to } => {
                nothing(fs.nrename(c, (from.0, from.1.as_name()), (to.0, to.1.as_name())))
            }
            Op::Setattr(node, change) => attr(fs.setattr(c, *node, change)),
            Op::Write(node, at) => fs.write(c, *node, *at, &self.bytes).map(Reply::Count),
            Op::Fsync(node) => nothing(fs.fsync(c, *node)),
            Op::Sync => nothing(fs.sync(c)),
            &Op::Readlink(node) => self.readlink(fs, c, node),
            &Op::Read { node, offset, len } => self.read(fs, c, node, offset, len),
            &Op::Readdir { dir, cookie } => self.readdir(fs, c, dir, cookie),
        }
    }

    fn readlink(&mut self, fs: &dyn FileSystem, c: &mut Call<'_>, node: NodeId) -> Result<Reply> {
        let mut fits = Ok(());
        fs.readlink(c, node, &mut |part| {
            fits = fits.and_then(|()| append(&mut self.bytes, part, PIECE_BYTES))
        })?;
        fits.map(|()| Reply::Nothing)
    }

    fn read(
        &mut self,
        fs: &dyn FileSystem,
        c: &mut Call<'_>,
        node: NodeId,
        offset: u64,
        len: u64,
    ) -> Result<Reply> {
        let max = usize::try_from(len).map_or(PIECE_BYTES, |len| len.min(PIECE_BYTES));
        self.bytes.try_reserve_exact(max).map_err(|_| NO_MEMORY)?;
        fs.read(c, node, offset, max as u64, &mut |part| match append(&mut self.bytes, part, max) {
            Ok(()) => ControlFlow::Continue(()),
            // More than was asked for: a defect below, which is told by the count.
            Err(_) => ControlFlow::Break(()),
        })?;
        Ok(Reply::Count(self.bytes.len()))
    }

    fn readdir(&mut self, fs: &dyn FileSystem, c: &mut Call<'_>, dir: NodeId, cookie: u64) -> Result<Reply> {
        self.entries.try_reserve(ENTRIES_MAX).map_err(|_| NO_MEMORY)?;
        let mut fits = Ok(());
        let mut more = ControlFlow::Continue(());
        fs.readdir(c, dir, cookie, &mut |entry| {
            let start = self.bytes.len();
            fits = append(&mut self.bytes, entry.name, usize::MAX);
            if fits.is_ok() {
                self.entries.push(Listed {
                    name: start..self.bytes.len(),
                    node: entry.node,
                    kind: entry.kind,
                    fileid: entry.fileid,
                    next: entry.next,
                });
            }
            if fits.is_err() || self.entries.len() >= ENTRIES_MAX || self.bytes.len() >= PIECE_BYTES {
                more = ControlFlow::Break(());
            }
            more
        })?;
        fits.map(|()| Reply::More(more))
    }
}

const NO_MEMORY: Error = Error::new(Errno::ENOMEM);

/// Appends `part`, unless that makes more than `max`.
pub(super) fn append(bytes: &mut Vec<u8>, part: &[u8], max: usize) -> Result<()> {
    if part.len() > max.saturating_sub(bytes.len()) {
        return Err(Error::new(Errno::ENAMETOOLONG));
    }
    bytes.try_reserve(part.len()).map_err(|_| NO_MEMORY)?;
    bytes.extend_from_slice(part);
    Ok(())
}

impl Body for VfsCall {
    type Shared = ();
    type Key = ();

    fn orphaned(&mut self) {
        self.reply = Err(Error::new(Errno::EIO).because("the file system's server dropped the call"));
    }

    fn unanswered(&mut self, why: Unanswered) {
        self.reply = Err(match why {
            Unanswered::PortClosed => Error::new(Errno::ENXIO).because("the file system's server is gone"),
            Unanswered::Aborted | Unanswered::Withdrawn => Error::new(Errno::ECANCELED),
            _ => return self.orphaned(),
        });
    }
}
