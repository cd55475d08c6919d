//! The tree as it lies on the disk, node by node with a verdict on each: for tools that show or check a file system.
//!
//! Unlike the rest of the crate this goes on where something is wrong, and says what.

use alloc::vec::Vec;

use dfly_hal::Wait;

use crate::btree::{MAX_DEPTH, NodeRef};
use crate::crc::Flavor;
use crate::error::Error;
use crate::media::Media;
use crate::ondisk::node::{Element, Key, Node, TYPE_DELETED, TYPE_INTERNAL, TYPE_LEAF, TYPE_RECORD};
use crate::ondisk::record::RecType;
use crate::ondisk::{Offset, Zone};
use crate::record::{Extent, Record};

/// A node, and what is wrong with it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeReport {
    /// Where it lies.
    pub at: Offset,
    /// Levels below the root.
    pub depth: usize,
    /// Its left bound, inclusive, as its parent gives it.
    pub left: Key,
    /// Its right bound, exclusive, as its parent gives it.
    pub right: Key,
    /// The node.
    pub node: Node,
    /// Under which flavor its checksum is right, if it is.
    pub checksum: Option<Flavor>,
    /// The first thing that is wrong with it, checksum aside.
    pub fault: Option<NodeFault>,
}

/// What can be wrong with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeFault {
    /// Its transaction id is above its parent's.
    MirrorTid,
    /// Its type is unknown.
    Type,
    /// Its count is impossible.
    Count,
    /// It has children, and lies as deep as any tree can be: they are not visited.
    Depth,
}

impl NodeReport {
    /// The elements that count, an internal node's right bound included.
    pub fn elements(&self) -> &[Element] {
        let n = if self.node.is_leaf() { self.node.len() } else { self.node.len() + 1 };
        self.node.elements.get(..n).unwrap_or_default()
    }

    /// What is wrong with element `index` by itself: its place between the bounds, its type.
    pub fn element_fault(&self, index: usize) -> Option<ElementFault> {
        let e = self.node.elements.get(index)?;
        let key = e.base.key();
        if key < self.left {
            return Some(ElementFault::LeftOfBounds);
        }
        // Only the right bound of an internal node may be equal to its parent's.
        let is_bound = !self.node.is_leaf() && index == self.node.len();
        if key > self.right || (key == self.right && !is_bound) {
            return Some(ElementFault::RightOfBounds);
        }
        let fits = match (self.node.node_type, e.base.btype) {
            (TYPE_INTERNAL, 0) => is_bound,
            (TYPE_INTERNAL, TYPE_INTERNAL | TYPE_LEAF) => !is_bound,
            (TYPE_LEAF, TYPE_RECORD) => true,
            _ => false,
        };
        (!fits).then_some(ElementFault::Type)
    }
}

/// What can be wrong with an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ElementFault {
    /// It lies left of its node's bounds.
    LeftOfBounds,
    /// It lies right of its node's bounds.
    RightOfBounds,
    /// Its type does not belong into this node.
    Type,
    /// The child that it points to names another parent.
    ChildParent,
    /// The child that it points to has a higher transaction id.
    MirrorTid,
}

/// What can be wrong with a record's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DataFault {
    /// It lies in a zone that does not hold such data, or outside of the file system.
    Place(Error),
    /// It could not be read.
    Unreadable(Error),
    /// Its checksum is wrong.
    Checksum,
}

/// The data of a record, and what is wrong with it.
pub struct DataReport {
    record: Option<Record>,
    /// Under which flavor its checksum is right, if it is.
    pub checksum: Option<Flavor>,
    /// What is wrong with it.
    pub fault: Option<DataFault>,
}

impl DataReport {
    /// The bytes, if they could be read and lie in one piece.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.record.as_ref()?.bytes().ok()
    }
}

/// All nodes of the tree, each before its children, from left to right.
///
/// Ends, whatever the disk holds: a node whose parent pointer is wrong is reported and not entered, and the depth is
/// bounded.
pub struct Nodes<'m> {
    media: &'m Media,
    /// What is still to be visited, the next one last.
    stack: Vec<Visit>,
    /// What lies left of it is not visited.
    from: Key,
}

struct Visit {
    at: Offset,
    depth: usize,
    left: Key,
    right: Key,
    mirror_tid: u64,
}

impl<'m> Nodes<'m> {
    pub(crate) fn new(media: &'m Media) -> Self {
        let root = Visit {
            at: media.btree_root(),
            depth: 0,
            left: Key::BEGIN,
            right: Key::END,
            mirror_tid: u64::MAX,
        };
        Self { media, stack: alloc::vec![root], from: Key::BEGIN }
    }

    /// The same walk, without the subtrees that end before `key`.
    pub fn starting_at(self, key: Key) -> Self {
        Self { from: key, ..self }
    }

    /// The next node, or why it could not be read (the walk goes on behind it). May block.
    pub fn next(&mut self, w: &mut dyn Wait) -> Option<Result<NodeReport, (Offset, Error)>> {
        let Visit { at, depth, left, right, mirror_tid } = self.stack.pop()?;
        let node = match NodeRef::load_unchecked(self.media, w, at) {
            Ok(node) => node,
            Err(e) => return Some(Err((at, e))),
        };
        let count = node.count.get();
        let fault = match node.node_type {
            TYPE_LEAF | TYPE_INTERNAL if count as i64 != node.len() as i64 => Some(NodeFault::Count),
            TYPE_LEAF if node.mirror_tid.get() > mirror_tid => Some(NodeFault::MirrorTid),
            TYPE_INTERNAL if count == 0 => Some(NodeFault::Count),
            TYPE_INTERNAL if depth + 1 >= MAX_DEPTH => Some(NodeFault::Depth),
            TYPE_INTERNAL if node.mirror_tid.get() > mirror_tid => Some(NodeFault::MirrorTid),
            TYPE_LEAF | TYPE_INTERNAL | TYPE_DELETED => None,
            _ => Some(NodeFault::Type),
        };
        let checksum = self.media.checksum().check(node.crc.get(), node.crc_bytes());
        let report = NodeReport { at, depth, left, right, node: Node::clone(&node), checksum, fault };
        if node.node_type == TYPE_INTERNAL && depth + 1 < MAX_DEPTH {
            let bounds = report.elements().windows(2);
            // Children are pushed in reverse, so that the leftmost is visited first.
            for (slot, pair) in bounds.enumerate().rev() {
                let [child, next] = pair else { continue };
                if next.base.key() >= self.from && self.enters(w, &report, slot) {
                    self.stack.push(Visit {
                        at: Offset(child.as_internal().subtree_offset.get()),
                        depth: depth + 1,
                        left: child.base.key(),
                        right: next.base.key(),
                        mirror_tid: child.as_internal().mirror_tid.get(),
                    });
                }
            }
        }
        Some(Ok(report))
    }

    /// Whether the walk goes on to the child in `slot`: not where that could lead in circles.
    fn enters(&self, w: &mut dyn Wait, report: &NodeReport, slot: usize) -> bool {
        let Some(e) = report.node.elements.get(slot) else { return false };
        let at = Offset(e.as_internal().subtree_offset.get());
        let again =
            report.node.elements.iter().take(slot).any(|o| o.as_internal().subtree_offset.get() == at.0);
        !again
            && match NodeRef::load_unchecked(self.media, w, at) {
                Ok(child) => child.parent.get() == report.at.0,
                Err(_) => true,
            }
    }

    /// What is wrong with element `index` of a node, its child included. May block.
    pub fn element_fault(&self, w: &mut dyn Wait, report: &NodeReport, index: usize) -> Option<ElementFault> {
        if let Some(fault) = report.element_fault(index) {
            return Some(fault);
        }
        let e = report.node.elements.get(index)?;
        if !matches!(e.base.btype, TYPE_INTERNAL | TYPE_LEAF) {
            return None;
        }
        let tail = e.as_internal();
        let child = NodeRef::load_unchecked(self.media, w, Offset(tail.subtree_offset.get())).ok();
        match child {
            Some(child) if child.parent.get() == report.at.0 => {
                (child.mirror_tid.get() > tail.mirror_tid.get()).then_some(ElementFault::MirrorTid)
            }
            _ => Some(ElementFault::ChildParent),
        }
    }

    /// The data of a leaf's element. May block.
    pub fn data(&self, w: &mut dyn Wait, e: &Element) -> DataReport {
        let fault = |fault| DataReport { record: None, checksum: None, fault: Some(fault) };
        if let Err(e) = Extent::of(e).and_then(|extent| extent.check_range(self.media)) {
            return fault(DataFault::Place(e));
        }
        match Record::load_unchecked(self.media, w, e) {
            Ok(record) => {
                let checksum = record.flavor(self.media);
                let fault = checksum.is_none().then_some(DataFault::Checksum);
                DataReport { record: Some(record), checksum, fault }
            }
            Err(e) => fault(DataFault::Unreadable(e)),
        }
    }

    /// How full the big-block that holds `at` is, in percent; `None` where the freemap does not say. May block.
    pub fn fill_percent(&self, w: &mut dyn Wait, at: Offset) -> Option<i64> {
        let layer2 = crate::freemap::layer2(self.media, w, at.in_zone(Zone::RAW_BUFFER)).ok()??;
        let size = crate::ondisk::BIG_BLOCK_SIZE as i64;
        // Rounded up, so that only an empty one has 0: so the real tool counts.
        Some(100 - i64::from(layer2.bytes_free.get()) * 100 / size)
    }
}

/// Whether the real tools know this type of record.
pub fn is_known(rec_type: RecType) -> bool {
    rec_type == RecType::INODE || (RecType::DATA..=RecType::CONFIG).contains(&rec_type)
}
