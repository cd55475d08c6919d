//! The B-tree: nodes that were checked, and a cursor that seeks and steps through them.
//!
//! A node is checked once, when it enters the cache: checksum, type, count, strict order of its elements. On the way
//! down each child's type, parent and bounds are checked against its parent. So a search in a node is a binary search,
//! a walk never meets a node twice, and no damage leads into a loop: the depth is bounded, and keys only ever grow.

use arrayvec::ArrayVec;
use dfly_hal::Wait;

use crate::error::{Error, Structure};
use crate::media::{Media, Page};
use crate::ondisk::node::{
    Element, INTERNAL_ELEMENTS, Key, LEAF_ELEMENTS, NODE_SIZE, Node, TYPE_INTERNAL, TYPE_LEAF, TYPE_RECORD,
    Tid,
};
use crate::ondisk::{Offset, Zone};

/// Levels that a tree can have. A level is added only when the root is full, so even 2^60 records need fewer.
pub(crate) const MAX_DEPTH: usize = 16;

/// Where a walk gets its nodes from: the cache, or an operation that has changed some of them.
pub(crate) trait Source {
    /// A node that was checked.
    type Node<'s>: core::ops::Deref<Target = Node>
    where
        Self: 's;

    /// The address of the root.
    fn root(&self) -> Offset;

    /// The node at `at`, checked for everything that can be seen in it alone. May block.
    fn node(&self, w: &mut dyn Wait, at: Offset) -> Result<Self::Node<'_>, Error>;
}

impl Source for Media {
    type Node<'s> = NodeRef;

    fn root(&self) -> Offset {
        self.btree_root()
    }

    fn node(&self, w: &mut dyn Wait, at: Offset) -> Result<NodeRef, Error> {
        NodeRef::load(self, w, at)
    }
}

/// The child in slot `index` of `parent`, which lies at `parent_at`, checked against its slot. May block.
pub(crate) fn child<'s, S: Source>(
    source: &'s S,
    w: &mut dyn Wait,
    (parent, parent_at): (&Node, Offset),
    index: usize,
) -> Result<(Offset, S::Node<'s>), Error> {
    let Some([slot, next]) = parent.elements.get(index..).and_then(|e| e.first_chunk()) else {
        return Err(Error::corrupt(Structure::Node, parent_at, "no such child"));
    };
    let at = Offset(slot.as_internal().subtree_offset.get());
    let child = source.node(w, at)?;
    let wrong = |what| Error::corrupt(Structure::Node, at, what);
    let node: &Node = &child;
    if node.node_type != slot.base.btype {
        return Err(wrong("node is of another type than its parent says"));
    }
    if node.parent.get() != parent_at.0 {
        return Err(wrong("node has another parent"));
    }
    if node.keys().next().is_some_and(|first| first < slot.base.key()) {
        return Err(wrong("node begins left of its parent's bound"));
    }
    let right = next.base.key();
    let fits = |last: Key| if node.is_leaf() { last < right } else { last <= right };
    if node.keys().next_back().is_some_and(|last| !fits(last)) {
        return Err(wrong("node ends right of its parent's bound"));
    }
    Ok((at, child))
}

/// A node in the cache.
pub(crate) struct NodeRef {
    page: Page,
    at: Offset,
}

impl core::ops::Deref for NodeRef {
    type Target = Node;
    fn deref(&self) -> &Node {
        self.page.node(self.at)
    }
}

impl NodeRef {
    /// Reads and checks the node at `at`.
    pub(crate) fn load(media: &Media, w: &mut dyn Wait, at: Offset) -> Result<Self, Error> {
        let node = Self::load_unchecked(media, w, at)?;
        if !media.node_is_verified(&node.page, at) {
            media.checksum().check(node.crc.get(), node.crc_bytes()).ok_or(Error::Checksum {
                structure: Structure::Node,
                at,
                stored: node.crc.get(),
            })?;
            node.check().map_err(|what| Error::corrupt(Structure::Node, at, what))?;
            media.set_node_verified(&node.page, at);
        }
        Ok(node)
    }

    /// Reads the node at `at` without looking at it.
    pub(crate) fn load_unchecked(media: &Media, w: &mut dyn Wait, at: Offset) -> Result<Self, Error> {
        if at.zone() != Zone::BTREE || !at.0.is_multiple_of(NODE_SIZE as u64) {
            return Err(Error::OutOfRange { structure: Structure::Node, at });
        }
        Ok(Self { page: media.page(w, at, Structure::Node)?, at })
    }
}

impl Node {
    /// The bytes that the checksum covers.
    pub(crate) fn crc_bytes(&self) -> &[u8] {
        zerocopy::IntoBytes::as_bytes(self).get(4..).unwrap_or_default()
    }

    pub(crate) fn is_leaf(&self) -> bool {
        self.node_type == TYPE_LEAF
    }

    /// Elements of a leaf, or children of an internal node: `count`, if it can be.
    pub(crate) fn len(&self) -> usize {
        let limit = if self.is_leaf() { LEAF_ELEMENTS } else { INTERNAL_ELEMENTS };
        usize::try_from(self.count.get()).unwrap_or(0).min(limit)
    }

    /// A leaf's records, or an internal node's children without the right bound.
    pub(crate) fn slots(&self) -> &[Element] {
        self.elements.get(..self.len()).unwrap_or_default()
    }

    /// The child of an internal node that `key` belongs to: the last one that begins at or before it, or the first.
    pub(crate) fn slot_of(&self, key: &Key) -> usize {
        self.slots().partition_point(|e| e.base.key() <= *key).saturating_sub(1)
    }

    /// All keys, an internal node's right bound included.
    fn keys(&self) -> impl DoubleEndedIterator<Item = Key> {
        let n = if self.is_leaf() { self.len() } else { self.len() + 1 };
        self.elements.iter().take(n).map(|e| e.base.key())
    }

    /// What is wrong within the node, checksum aside.
    fn check(&self) -> Result<(), &'static str> {
        let count = self.count.get();
        match self.node_type {
            TYPE_LEAF if !(0..=LEAF_ELEMENTS as i32).contains(&count) => Err("leaf has an impossible count"),
            TYPE_INTERNAL if !(1..=INTERNAL_ELEMENTS as i32).contains(&count) => {
                Err("internal node has an impossible count")
            }
            TYPE_LEAF if self.slots().iter().any(|e| e.base.btype != TYPE_RECORD) => {
                Err("leaf holds an element that is no record")
            }
            TYPE_INTERNAL
                if self.slots().iter().any(|e| !matches!(e.base.btype, TYPE_INTERNAL | TYPE_LEAF)) =>
            {
                Err("internal node holds an element that is no child")
            }
            TYPE_LEAF | TYPE_INTERNAL if !self.keys().is_sorted_by(|a, b| a < b) => {
                Err("elements are out of order")
            }
            TYPE_LEAF | TYPE_INTERNAL => Ok(()),
            _ => Err("unknown node type"),
        }
    }
}

/// One step of the way down: an internal node, and the slot taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) node: Offset,
    pub(crate) slot: usize,
}

/// The way from the root to a leaf.
pub(crate) type Path = ArrayVec<Step, MAX_DEPTH>;

/// A place between two records of the tree.
///
/// Holds the page of one leaf. May block in every method that takes `w`.
pub(crate) struct Cursor<'m, S: Source + 'm = Media> {
    source: &'m S,
    path: Path,
    leaf: S::Node<'m>,
    leaf_at: Offset,
    /// The record behind the place; `leaf.len()` when it is the next leaf's first.
    index: usize,
}

impl<'m, S: Source> Cursor<'m, S> {
    /// The place before the first record at or behind `key`.
    pub(crate) fn seek(source: &'m S, w: &mut dyn Wait, key: &Key) -> Result<Self, Error> {
        let root_at = source.root();
        let root = source.node(w, root_at)?;
        if root.parent.get() != 0 {
            return Err(Error::corrupt(Structure::Node, root_at, "root has a parent"));
        }
        let mut cursor = Self { source, path: Path::new(), leaf: root, leaf_at: root_at, index: 0 };
        // The last child that begins at or before the key; the first, if the key lies left of all of them.
        cursor.descend(w, |node| node.slot_of(key))?;
        cursor.index = cursor.leaf.slots().partition_point(|e| e.base.key() < *key);
        Ok(cursor)
    }

    /// The way to the record behind the place: the leaf, and its index there. There is none at the end of a leaf.
    pub(crate) fn into_place(self) -> (Path, Offset, usize) {
        (self.path, self.leaf_at, self.index)
    }

    /// Goes down from `self.leaf`, which may be an internal node, to a leaf.
    fn descend(&mut self, w: &mut dyn Wait, choose: impl Fn(&Node) -> usize) -> Result<(), Error> {
        while !self.leaf.is_leaf() {
            let slot = choose(&self.leaf);
            let step = Step { node: self.leaf_at, slot };
            if self.path.try_push(step).is_err() {
                return Err(Error::corrupt(Structure::Node, self.leaf_at, "tree is too deep"));
            }
            (self.leaf_at, self.leaf) = child(self.source, w, (&self.leaf, self.leaf_at), slot)?;
        }
        Ok(())
    }

    /// Steps over the record behind the place and returns it.
    pub(crate) fn next(&mut self, w: &mut dyn Wait) -> Result<Option<Element>, Error> {
        loop {
            if let Some(e) = self.leaf.slots().get(self.index) {
                self.index += 1;
                return Ok(Some(*e));
            }
            // Up to the nearest node with a child further right, then down along its left edge.
            let up = loop {
                let Some(step) = self.path.pop() else { return Ok(None) };
                let node = self.source.node(w, step.node)?;
                if step.slot + 1 < node.len() {
                    break (node, Step { slot: step.slot + 1, ..step });
                }
            };
            self.enter(w, up, |_| 0)?;
            self.index = 0;
        }
    }

    /// Steps over the record before the place and returns it.
    pub(crate) fn prev(&mut self, w: &mut dyn Wait) -> Result<Option<Element>, Error> {
        loop {
            if let Some(e) = self.index.checked_sub(1).and_then(|i| self.leaf.slots().get(i)) {
                self.index -= 1;
                return Ok(Some(*e));
            }
            let up = loop {
                let Some(step) = self.path.pop() else { return Ok(None) };
                if let Some(slot) = step.slot.checked_sub(1) {
                    break (self.source.node(w, step.node)?, Step { slot, ..step });
                }
            };
            self.enter(w, up, |node| node.len().saturating_sub(1))?;
            self.index = self.leaf.len();
        }
    }

    /// Goes down into a slot of `node`, and on to a leaf.
    fn enter(
        &mut self,
        w: &mut dyn Wait,
        (node, step): (S::Node<'m>, Step),
        choose: impl Fn(&Node) -> usize,
    ) -> Result<(), Error> {
        self.path.push(step);
        (self.leaf_at, self.leaf) = child(self.source, w, (&node, step.node), step.slot)?;
        self.descend(w, choose)
    }
}

/// The version of the record `key` that a view as of `asof` shows.
///
/// The last one created by then is nearly always the only candidate. But mirroring into a file system that was written
/// to as well mixes the versions of two histories, and then an older one can outlive a younger.
pub(crate) fn lookup<S: Source>(
    source: &S,
    w: &mut dyn Wait,
    key: &Key,
    asof: Tid,
) -> Result<Option<Element>, Error> {
    // Behind the candidate: one past `asof`, or 0, which stands behind everything.
    let mut cursor = Cursor::seek(source, w, &key.at(Tid(asof.0.wrapping_add(1))))?;
    while let Some(e) = cursor.prev(w)?.filter(|e| e.base.key().same_record(key)) {
        if e.base.visible_at(asof) {
            return Ok(Some(e));
        }
    }
    Ok(None)
}

/// The records from one key to another, both included, that a view as of `asof` shows; in order.
pub(crate) struct Scan<'m, S: Source + 'm = Media> {
    cursor: Cursor<'m, S>,
    end: Key,
    asof: Tid,
}

impl<'m, S: Source> Scan<'m, S> {
    /// Starts at the first version of `begin`; ends behind the last of `end`.
    pub(crate) fn new(
        source: &'m S,
        w: &mut dyn Wait,
        begin: &Key,
        end: &Key,
        asof: Tid,
    ) -> Result<Self, Error> {
        Ok(Self { cursor: Cursor::seek(source, w, &begin.at(Tid::MIN))?, end: end.at(Tid::ZERO), asof })
    }

    /// The next visible record.
    pub(crate) fn next(&mut self, w: &mut dyn Wait) -> Result<Option<Element>, Error> {
        while let Some(e) = self.cursor.next(w)? {
            if e.base.key() > self.end {
                return Ok(None);
            }
            if e.base.visible_at(self.asof) {
                return Ok(Some(e));
            }
        }
        Ok(None)
    }
}
