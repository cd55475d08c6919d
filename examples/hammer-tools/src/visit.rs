//! A walk over everything below a directory, in the order of the directories, without recursion.

use std::collections::{HashSet, VecDeque};
use std::ops::ControlFlow;

use dfly_vfs::{Attr, Call, Errno, Error, FIRST_COOKIE, FileSystem, Kind, Name, NodeId};

use crate::disk::Disk;

/// Entries that are read from a directory at once.
const BATCH: usize = 512;

/// What the walk comes to next.
pub(crate) enum Visit {
    /// A node: each directory before what is in it.
    Node {
        attr: Attr,
        /// Whether nothing comes after it in its directory.
        last: Place,
    },
    /// A directory, after all that is in it.
    Leave { attr: Attr },
    /// Something that could not be looked at, and is left out.
    Failed { error: Error },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Within,
    Last,
}

/// The walk. Ends, whatever the disk holds: no directory is entered twice.
pub(crate) struct Visitor {
    start: Option<Attr>,
    stack: Vec<Frame>,
    /// Path of the last visit, relative to the start: empty, or `/` and names.
    path: Vec<u8>,
    entered: HashSet<NodeId>,
}

struct Frame {
    dir: Attr,
    path_len: usize,
    ahead: VecDeque<(Vec<u8>, NodeId)>,
    /// The next entry to read; `None` when all have been.
    cookie: Option<u64>,
}

impl Visitor {
    pub(crate) fn new(start: Attr) -> Self {
        Self { start: Some(start), stack: Vec::new(), path: Vec::new(), entered: HashSet::new() }
    }

    /// Path of the last visit from the start, which is `/`.
    pub(crate) fn path(&self) -> &[u8] {
        if self.path.is_empty() { b"/" } else { &self.path }
    }

    /// The name of the last visit in its directory; empty for the start.
    pub(crate) fn name(&self) -> &[u8] {
        self.path.rsplit(|&b| b == b'/').next().unwrap_or_default()
    }

    pub(crate) fn next(&mut self, disk: &mut Disk) -> Option<Visit> {
        if let Some(attr) = self.start.take() {
            self.enter(&attr);
            return Some(Visit::Node { attr, last: Place::Last });
        }
        let frame = self.stack.last_mut()?;
        self.path.truncate(frame.path_len);
        if let Err(error) = frame.read_ahead(disk) {
            frame.cookie = None;
            return Some(Visit::Failed { error });
        }
        let Some((name, node)) = frame.ahead.pop_front() else {
            let attr = self.stack.pop()?.dir;
            return Some(Visit::Leave { attr });
        };
        self.path.push(b'/');
        self.path.extend_from_slice(&name);
        // Reading ahead tells whether another entry follows. Its errors come again with the next call.
        let last = match frame.read_ahead(disk) {
            Ok(()) if frame.ahead.is_empty() => Place::Last,
            _ => Place::Within,
        };
        // A name that is none would change what the path means.
        let found = Name::new(&name)
            .map_err(|_| Error::new(Errno::EIO).because("an impossible name in a directory"))
            .and_then(|_| disk.attr(node));
        let attr = match found {
            Ok(attr) => attr,
            Err(error) => return Some(Visit::Failed { error }),
        };
        if attr.kind == Kind::Directory && !self.enter(&attr) {
            let error = Error::new(Errno::EIO).because("a directory that is in the tree twice");
            return Some(Visit::Failed { error });
        }
        Some(Visit::Node { attr, last })
    }

    /// Goes into a directory next, unless that was done already. What is no directory is not entered.
    fn enter(&mut self, attr: &Attr) -> bool {
        if attr.kind != Kind::Directory || !self.entered.insert(attr.node) {
            return false;
        }
        let path_len = self.path.len();
        self.stack.push(Frame { dir: *attr, path_len, ahead: VecDeque::new(), cookie: Some(FIRST_COOKIE) });
        true
    }
}

impl Frame {
    /// Makes sure that the next entry is in `ahead`, if there is one.
    fn read_ahead(&mut self, disk: &mut Disk) -> dfly_vfs::Result<()> {
        let Some(cookie) = self.cookie.filter(|_| self.ahead.is_empty()) else { return Ok(()) };
        let mut next = None;
        let ahead = &mut self.ahead;
        disk.fs.readdir(&mut Call::new(&mut disk.wait), self.dir.node, cookie, &mut |e| {
            ahead.push_back((e.name.to_vec(), e.node));
            if ahead.len() < BATCH {
                return ControlFlow::Continue(());
            }
            next = Some(e.next);
            ControlFlow::Break(())
        })?;
        self.cookie = next;
        Ok(())
    }
}
