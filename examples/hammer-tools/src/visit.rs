//! A walk over everything below a directory, in the order of the directories, without recursion.

use std::collections::{HashSet, VecDeque};
use std::mem;

use dfly_vfs::{Attr, Errno, Error, FIRST_COOKIE, FileSystem, Kind, Name, NodeId};

use crate::disk::{BATCH, Disk};

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
    /// What follows `ahead`: entries to read, nothing, or an error to report once.
    next: dfly_vfs::Result<Option<u64>>,
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

    pub(crate) fn next<F: FileSystem>(&mut self, disk: &mut Disk<F>) -> Option<Visit> {
        if let Some(attr) = self.start.take() {
            self.enter(&attr);
            return Some(Visit::Node { attr, last: Place::Last });
        }
        let frame = self.stack.last_mut()?;
        self.path.truncate(frame.path_len);
        frame.read_ahead(disk);
        let Some((name, node)) = frame.ahead.pop_front() else {
            if let Err(error) = mem::replace(&mut frame.next, Ok(None)) {
                return Some(Visit::Failed { error });
            }
            let attr = self.stack.pop()?.dir;
            return Some(Visit::Leave { attr });
        };
        self.path.push(b'/');
        self.path.extend_from_slice(&name);
        // Reading ahead tells whether another entry follows.
        frame.read_ahead(disk);
        let last = if frame.ahead.is_empty() { Place::Last } else { Place::Within };
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
        self.stack.push(Frame { dir: *attr, path_len, ahead: VecDeque::new(), next: Ok(Some(FIRST_COOKIE)) });
        true
    }
}

impl Frame {
    /// Makes sure that the next entry is in `ahead`, if there is one.
    fn read_ahead<F: FileSystem>(&mut self, disk: &mut Disk<F>) {
        if let (true, Ok(Some(cookie))) = (self.ahead.is_empty(), &self.next) {
            let entries = disk.entries(self.dir.node, *cookie, BATCH);
            self.ahead = entries.found.into();
            self.next = entries.next;
        }
    }
}
