//! A file system in memory: for tests, for examples, and as the proof that the interface can be served whole.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::ops::ControlFlow;

use dfly_hal::sync::{Lock, LockGuard};

use crate::{
    Access, Attr, Call, DirSink, Entry, Errno, Error, FIRST_COOKIE, FileSystem, Kind, LinkSink, Name, NodeId,
    OpenId, Opened, PATH_MAX, ReadSink, Result, SetAttr, Special, StatFs, Timestamp, WriteAt,
};

const ROOT: u64 = 1;
const BLOCK_BYTES: u32 = 4096;

/// A file system in memory, bounded, with both halves of the interface.
///
/// Operations never block but for one spinning lock, which is held for as long as they take, sinks included: good for
/// tests, not for a busy machine. Its clock starts at the epoch and moves by one microsecond with
/// each change, so that tests repeat.
pub struct MemFs {
    state: Lock<State>,
    capacity_bytes: u64,
}

struct State {
    nodes: BTreeMap<u64, Node>,
    /// Open files: their node.
    open: BTreeMap<u64, u64>,
    next_node: u64,
    next_open: u64,
    clock_us: i64,
    used_bytes: u64,
}

struct Node {
    attr: Attr,
    body: Body,
    opens: u32,
}

enum Body {
    File(Vec<u8>),
    Directory(Directory),
    Link(Box<[u8]>),
    Special,
}

struct Directory {
    parent: u64,
    by_name: BTreeMap<Box<[u8]>, u64>,
    /// By cookie, which is never used again: so a reader who goes on finds neither twice nor too few.
    by_cookie: BTreeMap<u64, (Box<[u8]>, u64)>,
    next_cookie: u64,
}

impl Default for MemFs {
    fn default() -> Self {
        Self::new()
    }
}

impl MemFs {
    /// An empty one, of at most 64 MiB.
    pub fn new() -> Self {
        Self::with_capacity_bytes(64 << 20)
    }

    /// An empty one, of at most so many bytes of file contents and link targets.
    pub fn with_capacity_bytes(capacity_bytes: u64) -> Self {
        let attr = Attr { mode: 0o755, ..new_attr(ROOT, Kind::Directory) };
        let root = Node { attr, body: Body::Directory(Directory::below(ROOT)), opens: 0 };
        let state = State {
            nodes: BTreeMap::from([(ROOT, root)]),
            open: BTreeMap::new(),
            next_node: ROOT + 1,
            next_open: 1,
            clock_us: 0,
            used_bytes: 0,
        };
        Self { state: Lock::new(state), capacity_bytes }
    }

    /// How many files are open.
    pub fn open_files(&self) -> usize {
        self.lock().open.len()
    }

    fn lock(&self) -> LockGuard<'_, State> {
        self.state.lock()
    }

    /// Takes `old` bytes back and gives `new` ones out.
    fn charge(&self, state: &mut State, old: u64, new: u64) -> Result<()> {
        let used = state.used_bytes.saturating_sub(old).saturating_add(new);
        if new > old && used > self.capacity_bytes {
            return Err(Errno::ENOSPC.into());
        }
        state.used_bytes = used;
        Ok(())
    }

    /// Makes a node with a name.
    fn make(
        &self,
        c: &Call<'_>,
        dir: NodeId,
        name: Name<'_>,
        kind: Kind,
        body: Body,
        finish: impl FnOnce(&mut Attr),
    ) -> Result<Attr> {
        let state = &mut *self.lock();
        let parent = state.directory(dir)?;
        if parent.by_name.contains_key(name.as_bytes()) {
            return Err(Errno::EEXIST.into());
        }
        let number = state.next_node;
        let mut attr = new_attr(number, kind);
        attr.uid = c.cred.uid;
        attr.gid = state.node(dir)?.attr.gid;
        let now = state.tick();
        (attr.mtime, attr.ctime, attr.atime) = (now, now, now);
        finish(&mut attr);
        self.charge(state, 0, attr.bytes)?;
        state.next_node += 1;
        state.nodes.insert(number, Node { attr, body, opens: 0 });
        state.enter(dir, name, number)?;
        Ok(attr)
    }

    fn unlink(&self, dir: NodeId, name: Name<'_>, what: Unlink) -> Result<()> {
        let state = &mut *self.lock();
        let number = state.entry(dir, name)?;
        match (&state.node(NodeId([number, 0, 0]))?.body, what) {
            (Body::Directory(_), Unlink::File) => Err(Errno::EISDIR.into()),
            (Body::Directory(d), Unlink::Directory) if !d.by_name.is_empty() => Err(Errno::ENOTEMPTY.into()),
            (Body::Directory(_), Unlink::Directory) | (_, Unlink::File) => state.leave(dir, name),
            (_, Unlink::Directory) => Err(Errno::ENOTDIR.into()),
        }
    }
}

#[derive(Clone, Copy)]
enum Unlink {
    File,
    Directory,
}

fn new_attr(number: u64, kind: Kind) -> Attr {
    Attr { fileid: number, io_bytes: BLOCK_BYTES, ..Attr::new(NodeId([number, 0, 0]), kind) }
}

impl Directory {
    fn below(parent: u64) -> Self {
        Self { parent, by_name: BTreeMap::new(), by_cookie: BTreeMap::new(), next_cookie: FIRST_COOKIE }
    }
}

impl State {
    fn tick(&mut self) -> Timestamp {
        self.clock_us += 1;
        Timestamp::from_micros(self.clock_us)
    }

    fn node(&self, node: NodeId) -> Result<&Node> {
        let NodeId([number, 0, 0]) = node else { return Err(Errno::ESTALE.into()) };
        self.nodes.get(&number).ok_or(Error::new(Errno::ESTALE).at(number))
    }

    fn node_mut(&mut self, node: NodeId) -> Result<&mut Node> {
        let NodeId([number, 0, 0]) = node else { return Err(Errno::ESTALE.into()) };
        self.nodes.get_mut(&number).ok_or(Error::new(Errno::ESTALE).at(number))
    }

    fn directory(&self, dir: NodeId) -> Result<&Directory> {
        match &self.node(dir)?.body {
            Body::Directory(d) => Ok(d),
            _ => Err(Errno::ENOTDIR.into()),
        }
    }

    fn directory_mut(&mut self, dir: NodeId) -> Result<(&mut Attr, &mut Directory)> {
        match self.node_mut(dir)? {
            Node { attr, body: Body::Directory(d), .. } => Ok((attr, d)),
            _ => Err(Errno::ENOTDIR.into()),
        }
    }

    fn entry(&self, dir: NodeId, name: Name<'_>) -> Result<u64> {
        let dir = self.directory(dir)?;
        let cookie = dir.by_name.get(name.as_bytes());
        cookie.and_then(|c| dir.by_cookie.get(c)).map(|(_, number)| *number).ok_or(Errno::ENOENT.into())
    }

    /// Adds a name to a directory that does not have it.
    fn enter(&mut self, dir: NodeId, name: Name<'_>, number: u64) -> Result<()> {
        let now = self.tick();
        let (attr, d) = self.directory_mut(dir)?;
        let cookie = d.next_cookie;
        d.next_cookie += 1;
        d.by_name.insert(name.as_bytes().into(), cookie);
        d.by_cookie.insert(cookie, (name.as_bytes().into(), number));
        (attr.mtime, attr.ctime) = (now, now);
        Ok(())
    }

    /// Takes a name out of a directory, and a link off its node.
    fn leave(&mut self, dir: NodeId, name: Name<'_>) -> Result<()> {
        let number = self.entry(dir, name)?;
        self.strike(dir, name)?;
        let now = self.tick();
        let node = self.node_mut(NodeId([number, 0, 0]))?;
        node.attr.nlink = node.attr.nlink.saturating_sub(1);
        node.attr.ctime = now;
        self.reap(number);
        Ok(())
    }

    /// Takes a name out of a directory.
    fn strike(&mut self, dir: NodeId, name: Name<'_>) -> Result<()> {
        let now = self.tick();
        let (attr, d) = self.directory_mut(dir)?;
        let cookie = d.by_name.remove(name.as_bytes()).ok_or(Errno::ENOENT)?;
        d.by_cookie.remove(&cookie);
        (attr.mtime, attr.ctime) = (now, now);
        Ok(())
    }

    /// Ends a node that has neither a name nor an opener.
    fn reap(&mut self, number: u64) {
        if self.nodes.get(&number).is_some_and(|n| n.attr.nlink == 0 && n.opens == 0)
            && let Some(gone) = self.nodes.remove(&number)
        {
            self.used_bytes = self.used_bytes.saturating_sub(gone.attr.bytes);
        }
    }

    /// Whether `dir` is `ancestor` or somewhere below it.
    fn is_below(&self, dir: NodeId, ancestor: u64) -> Result<bool> {
        let mut at = dir;
        // The directories are a tree, so its height bounds the loop.
        loop {
            let parent = self.directory(at)?.parent;
            if at.0[0] == ancestor {
                return Ok(true);
            }
            if parent == at.0[0] {
                return Ok(false);
            }
            at = NodeId([parent, 0, 0]);
        }
    }
}

impl FileSystem for MemFs {
    fn root(&self) -> NodeId {
        NodeId([ROOT, 0, 0])
    }

    fn statfs(&self, _: &mut Call<'_>) -> Result<StatFs> {
        let free = self.capacity_bytes.saturating_sub(self.lock().used_bytes) / u64::from(BLOCK_BYTES);
        Ok(StatFs {
            block_bytes: BLOCK_BYTES,
            blocks: self.capacity_bytes / u64::from(BLOCK_BYTES),
            blocks_free: free,
            blocks_available: free,
            ..StatFs::new("mem")
        })
    }

    fn getattr(&self, _: &mut Call<'_>, node: NodeId) -> Result<Attr> {
        Ok(self.lock().node(node)?.attr)
    }

    fn nresolve(&self, _: &mut Call<'_>, dir: NodeId, name: Name<'_>) -> Result<Attr> {
        let state = self.lock();
        let number = state.entry(dir, name)?;
        Ok(state.node(NodeId([number, 0, 0]))?.attr)
    }

    fn nlookupdotdot(&self, _: &mut Call<'_>, dir: NodeId) -> Result<Attr> {
        let state = self.lock();
        let parent = state.directory(dir)?.parent;
        state.node(NodeId([parent, 0, 0])).map(|n| n.attr).map_err(|_| Errno::ENOENT.into())
    }

    fn readlink(&self, _: &mut Call<'_>, node: NodeId, out: &mut LinkSink<'_>) -> Result<()> {
        match &self.lock().node(node)?.body {
            Body::Link(target) => {
                out(target);
                Ok(())
            }
            _ => Err(Errno::EINVAL.into()),
        }
    }

    fn open(&self, _: &mut Call<'_>, node: NodeId, how: Access) -> Result<Opened> {
        let state = &mut *self.lock();
        let open = state.next_open;
        let n = state.node_mut(node)?;
        match n.body {
            Body::Directory(_) if how != Access::Read => return Err(Errno::EISDIR.into()),
            Body::Link(_) => return Err(Errno::ELOOP.into()),
            Body::Special => return Err(Errno::ENXIO.into()),
            Body::Directory(_) | Body::File(_) => {}
        }
        n.opens = n.opens.checked_add(1).ok_or(Errno::ENFILE)?;
        state.next_open += 1;
        state.open.insert(open, node.0[0]);
        Ok(Opened { open: OpenId(open), node })
    }

    fn close(&self, open: OpenId) {
        let state = &mut *self.lock();
        if let Some(number) = state.open.remove(&open.0) {
            if let Some(node) = state.nodes.get_mut(&number) {
                node.opens = node.opens.saturating_sub(1);
            }
            state.reap(number);
        }
    }

    fn read(
        &self,
        _: &mut Call<'_>,
        node: NodeId,
        offset: u64,
        len: u64,
        out: &mut ReadSink<'_>,
    ) -> Result<u64> {
        let state = self.lock();
        let bytes = match &state.node(node)?.body {
            Body::File(bytes) => bytes,
            Body::Directory(_) => return Err(Errno::EISDIR.into()),
            Body::Link(_) | Body::Special => return Err(Errno::EINVAL.into()),
        };
        let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let rest = usize::try_from(len).ok().and_then(|len| rest.get(..len)).unwrap_or(rest);
        let mut done = 0;
        for part in rest.chunks(BLOCK_BYTES as usize) {
            done += part.len() as u64;
            if out(part).is_break() {
                break;
            }
        }
        Ok(done)
    }

    fn readdir(&self, _: &mut Call<'_>, dir: NodeId, cookie: u64, out: &mut DirSink<'_>) -> Result<()> {
        let state = self.lock();
        let d = state.directory(dir)?;
        let entry = |name, number: u64, next| {
            let node = NodeId([number, 0, 0]);
            let kind = state.node(node).map_or(Kind::Unknown, |n| n.attr.kind);
            Entry { name, node, kind, fileid: number, next }
        };
        for (at, name, number) in [(0, &b"."[..], dir.0[0]), (1, b"..", d.parent)] {
            if cookie <= at && out(entry(name, number, at + 1)).is_break() {
                return Ok(());
            }
        }
        for (&at, (name, number)) in d.by_cookie.range(cookie.max(FIRST_COOKIE)..) {
            if let ControlFlow::Break(()) = out(entry(name, *number, at + 1)) {
                break;
            }
        }
        Ok(())
    }

    fn ncreate(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>, mode: u16) -> Result<Attr> {
        self.make(c, dir, name, Kind::Regular, Body::File(Vec::new()), |a| a.mode = mode & 0o7777)
    }

    fn nmkdir(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>, mode: u16) -> Result<Attr> {
        let body = Body::Directory(Directory::below(dir.0[0]));
        self.make(c, dir, name, Kind::Directory, body, |a| a.mode = mode & 0o7777)
    }

    fn nmknod(
        &self,
        c: &mut Call<'_>,
        dir: NodeId,
        name: Name<'_>,
        what: Special,
        mode: u16,
    ) -> Result<Attr> {
        self.make(c, dir, name, what.kind(), Body::Special, |a| {
            a.mode = mode & 0o7777;
            if let Special::CharDevice(number) | Special::BlockDevice(number) = what {
                a.rdev = number;
            }
        })
    }

    fn nsymlink(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>, target: &[u8]) -> Result<Attr> {
        if target.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG.into());
        }
        if let Some(at) = target.iter().position(|&b| b == 0) {
            return Err(Error::new(Errno::EINVAL).because("a NUL in a link's target").at(at as u64));
        }
        self.make(c, dir, name, Kind::Symlink, Body::Link(target.into()), |a| {
            a.mode = 0o777;
            (a.size, a.bytes) = (target.len() as u64, target.len() as u64);
        })
    }

    fn nlink(&self, _: &mut Call<'_>, node: NodeId, dir: NodeId, name: Name<'_>) -> Result<Attr> {
        let state = &mut *self.lock();
        if state.directory(dir)?.by_name.contains_key(name.as_bytes()) {
            return Err(Errno::EEXIST.into());
        }
        let now = state.tick();
        let n = state.node_mut(node)?;
        if n.attr.kind == Kind::Directory {
            return Err(Errno::EPERM.into());
        }
        if n.attr.nlink == 0 {
            return Err(Errno::ENOENT.into());
        }
        n.attr.nlink += 1;
        n.attr.ctime = now;
        let attr = n.attr;
        state.enter(dir, name, node.0[0])?;
        Ok(attr)
    }

    fn nremove(&self, _: &mut Call<'_>, dir: NodeId, name: Name<'_>) -> Result<()> {
        self.unlink(dir, name, Unlink::File)
    }

    fn nrmdir(&self, _: &mut Call<'_>, dir: NodeId, name: Name<'_>) -> Result<()> {
        self.unlink(dir, name, Unlink::Directory)
    }

    fn nrename(&self, _: &mut Call<'_>, from: (NodeId, Name<'_>), to: (NodeId, Name<'_>)) -> Result<()> {
        let state = &mut *self.lock();
        let moved = state.entry(from.0, from.1)?;
        let victim = match state.entry(to.0, to.1) {
            Ok(number) if number == moved => return Ok(()),
            Ok(number) => Some(number),
            Err(e) if e == Errno::ENOENT => None,
            Err(e) => return Err(e),
        };
        let is_directory = state.directory(NodeId([moved, 0, 0])).is_ok();
        if is_directory && state.is_below(to.0, moved)? {
            return Err(Error::new(Errno::EINVAL).because("a directory cannot go below itself"));
        }
        if let Some(victim) = victim {
            match (&state.node(NodeId([victim, 0, 0]))?.body, is_directory) {
                (Body::Directory(d), true) if !d.by_name.is_empty() => return Err(Errno::ENOTEMPTY.into()),
                (Body::Directory(_), true) => {}
                (Body::Directory(_), false) => return Err(Errno::EISDIR.into()),
                (_, true) => return Err(Errno::ENOTDIR.into()),
                (_, false) => {}
            }
            state.leave(to.0, to.1)?;
        }
        state.strike(from.0, from.1)?;
        state.enter(to.0, to.1, moved)?;
        let now = state.tick();
        let node = state.node_mut(NodeId([moved, 0, 0]))?;
        node.attr.ctime = now;
        if let Body::Directory(d) = &mut node.body {
            d.parent = to.0.0[0];
        }
        Ok(())
    }

    fn setattr(&self, c: &mut Call<'_>, node: NodeId, change: &SetAttr) -> Result<Attr> {
        let state = &mut *self.lock();
        let now = state.tick();
        let mut attr = change.apply(&state.node(node)?.attr, &c.cred, now)?;
        if let Some(size) = change.size {
            match state.node(node)?.body {
                Body::File(_) => {}
                Body::Directory(_) => return Err(Errno::EISDIR.into()),
                Body::Link(_) | Body::Special => return Err(Errno::EINVAL.into()),
            }
            self.charge(state, attr.bytes, size)?;
            (attr.size, attr.bytes) = (size, size);
            if change.mtime.is_none() {
                attr.mtime = now;
            }
        }
        let n = state.node_mut(node)?;
        n.attr = attr;
        if let Body::File(bytes) = &mut n.body {
            // Not above the capacity, which `charge` has seen to.
            bytes.resize(attr.size as usize, 0);
        }
        Ok(attr)
    }

    fn write(&self, _: &mut Call<'_>, node: NodeId, at: WriteAt, data: &[u8]) -> Result<usize> {
        let state = &mut *self.lock();
        let attr = state.node(node)?.attr;
        match state.node(node)?.body {
            Body::File(_) => {}
            Body::Directory(_) => return Err(Errno::EISDIR.into()),
            Body::Link(_) | Body::Special => return Err(Errno::EINVAL.into()),
        }
        if data.is_empty() {
            return Ok(0);
        }
        let start = match at {
            WriteAt::Offset(offset) => offset,
            WriteAt::End => attr.size,
        };
        let end = start.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?;
        let size = attr.size.max(end);
        self.charge(state, attr.bytes, size)?;
        let now = state.tick();
        let n = state.node_mut(node)?;
        if let Body::File(bytes) = &mut n.body {
            bytes.resize(size as usize, 0);
            bytes[start as usize..end as usize].copy_from_slice(data);
        }
        (n.attr.size, n.attr.bytes, n.attr.mtime, n.attr.ctime) = (size, size, now, now);
        Ok(data.len())
    }
}

#[cfg(test)]
#[path = "mem_tests.rs"]
mod tests;
