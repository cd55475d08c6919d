//! Names and inodes: each object has the names that its inode counts, and each name leads to an inode.

use alloc::vec::Vec;

use dfly_hal::Wait;

use super::records::newest_inode;
use super::{Finding, Kind, Log, ObjectRef};
use crate::error::Error;
use crate::media::Media;
use crate::ondisk::Offset;
use crate::ondisk::node::Tid;
use crate::ondisk::record::{OBJ_ROOT, ObjType};

/// A live inode, or a live entry that names an object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) object: ObjectRef,
    /// Where its record lies.
    pub(super) at: Offset,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Inode {
        parent: i64,
        nlinks: u32,
        obj_type: u8,
    },
    /// One name, or several of a file: then the first is told of.
    Name {
        dir: i64,
        count: u32,
        obj_type: u8,
    },
}

impl Link {
    /// Orders as the tree does.
    fn order(&self) -> u128 {
        u128::from(self.object.pfs) << 64 | u128::from(self.object.obj_id as u64 ^ 1 << 63)
    }
}

/// Names and inodes within a window of objects. What does not fit is left to the next window.
pub(super) struct Links {
    found: Vec<Link>,
    capacity: usize,
    begin: u128,
    end: u128,
    overflowed: bool,
}

const END: u128 = 1 << 80;

impl Links {
    /// A window that begins at the first object, with room for `bytes` of memory.
    pub(super) fn new(bytes: usize) -> Result<Self, Error> {
        let capacity = bytes / size_of::<Link>();
        let mut found = Vec::new();
        found.try_reserve_exact(capacity).map_err(|_| Error::NoMemory)?;
        Ok(Self { found, capacity, begin: 0, end: END, overflowed: false })
    }

    pub(super) fn is_done(&self) -> bool {
        self.begin >= END
    }

    pub(super) fn add(&mut self, link: Link) {
        if !(self.begin..self.end).contains(&link.order()) {
            return;
        }
        if self.found.len() >= self.capacity && !self.overflowed {
            self.shrink();
            if link.order() >= self.end {
                return;
            }
        }
        match self.found.len() < self.capacity {
            true => self.found.push(link),
            false => self.overflowed = true,
        }
    }

    /// Makes room: counts the names of each file together, and if that is not enough leaves the upper half to the next
    /// window.
    fn shrink(&mut self) {
        self.found.sort_unstable_by_key(Link::order);
        self.found.dedup_by(|next, first| {
            next.object == first.object
                && match (&mut first.what, next.what) {
                    (What::Name { count, obj_type, .. }, What::Name { count: more, obj_type: other, .. })
                        if *obj_type == other && other != ObjType::DIRECTORY.0 =>
                    {
                        *count = count.saturating_add(more);
                        true
                    }
                    _ => false,
                }
        });
        if self.found.len() <= self.capacity / 2 {
            return;
        }
        let first = self.found.first().map_or(0, Link::order);
        let Some(middle) = self.found.get(self.found.len() / 2).map(Link::order) else { return };
        self.end = middle.max(first + 1);
        let kept = self.found.partition_point(|l| l.order() < self.end);
        self.found.truncate(kept);
    }

    /// Compares names with inodes, and goes on to the next window.
    pub(super) fn finish(&mut self, media: &Media, w: &mut dyn Wait, log: &mut Log<'_>) {
        if self.overflowed {
            let object = self.found.first().map_or(ObjectRef { pfs: 0, obj_id: 0 }, |l| l.object);
            log.found(Finding::new(Kind::LimitReached, Offset::NONE).of(object));
        } else {
            self.found.sort_unstable_by_key(|l| (l.order(), matches!(l.what, What::Name { .. })));
            for links in self.found.chunk_by(|a, b| a.object == b.object) {
                compare(media, w, links, log);
            }
        }
        (self.begin, self.end) = (self.end, END);
        self.found.clear();
        self.overflowed = false;
    }
}

/// All of one object: its inode first, if there is one, then its names.
fn compare(media: &Media, w: &mut dyn Wait, links: &[Link], log: &mut Log<'_>) {
    let Some(Link { object, at, what: What::Inode { parent, nlinks, obj_type } }) = links.first().copied()
    else {
        for name in links {
            log.found(Finding::new(Kind::DirentTarget, name.at).of(name.object));
        }
        return;
    };
    let inode = |kind| Finding::new(kind, at).of(object);
    let names = links.get(1..).unwrap_or_default();
    let mut count = 0;
    for name in names {
        let What::Name { dir, count: these, obj_type: named } = name.what else {
            // Two live inodes: two versions that overlap, which was found in the tree.
            continue;
        };
        count += u64::from(these);
        if named != obj_type {
            let finding = Finding::new(Kind::DirentType, name.at).of(object);
            log.found(finding.values(named.into(), obj_type.into()));
        }
        if obj_type == ObjType::DIRECTORY.0 && parent != dir && object.obj_id != OBJ_ROOT {
            log.found(inode(Kind::InodeParent).values(parent as u64, dir as u64));
        }
    }
    let is_root = object.obj_id == OBJ_ROOT;
    let expected = count + u64::from(is_root);
    match (u64::from(nlinks), expected) {
        (0, 0) => log.found(inode(Kind::InodeUnlinked)),
        (_, 0) => log.found(inode(Kind::InodeOrphan)),
        (stored, expected) if stored != expected => {
            log.found(inode(Kind::InodeLinks).values(stored, expected));
        }
        _ => {}
    }
    if obj_type != ObjType::DIRECTORY.0 {
        return;
    }
    if expected > 1 {
        log.found(inode(Kind::DirectoryLinks).values(expected, 1));
    }
    // In a circle the directory with the smallest id lies in one with a greater id, or in itself.
    if !is_root && parent >= object.obj_id && is_below_itself(media, w, object, parent) {
        log.found(inode(Kind::DirectoryLoop));
    }
}

/// Whether the way up from `parent` does not lead to the root, but in a circle.
fn is_below_itself(media: &Media, w: &mut dyn Wait, object: ObjectRef, parent: i64) -> bool {
    let (mut slow, mut steps, mut leap) = (object.obj_id, 0u64, 1);
    let mut here = parent;
    loop {
        if here == slow {
            return true;
        }
        if here == OBJ_ROOT || here == 0 {
            return false;
        }
        // Brent's: the mark moves up at ever larger distances, until the way comes back to it.
        steps += 1;
        if steps == leap {
            (slow, steps, leap) = (here, 0, leap.saturating_mul(2));
        }
        match newest_inode(media, w, ObjectRef { obj_id: here, ..object }) {
            Ok(Some((e, inode))) if e.base.visible_at(Tid::MAX) => here = inode.parent_obj_id.get(),
            // Found elsewhere.
            _ => return false,
        }
    }
}

const _: () = assert!(size_of::<Link>() == 40);
