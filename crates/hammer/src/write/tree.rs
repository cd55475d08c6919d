//! Changing the B-tree: insert, remove, split, and what every change must keep right on the way.
//!
//! - A node is split on the way down, before it is entered full, so its parent always has room for one more child.
//! - An insertion outside of a node's own bounds (but within its parent's) widens them: removals leave such gaps.
//! - Removing a child gives its range to its left neighbour, or to its right one if it was the first: so the root's
//!   bounds never move.
//! - `mirror_tid` is the highest transaction id below, at least: raised upwards until a node already has it.

use dfly_hal::Wait;

use super::op::Op;
use crate::btree::{Cursor, Path, Source, Step, child};
use crate::error::{Error, Structure};
use crate::ondisk::Offset;
use crate::ondisk::node::{
    BaseElement, Element, INTERNAL_ELEMENTS, InternalTail, Key, LEAF_ELEMENTS, NODE_SIZE, Node,
    TYPE_INTERNAL, TYPE_LEAF, Tid,
};

impl Op<'_, '_> {
    /// Puts a record's element into the tree. May block.
    ///
    /// # Errors
    /// Beside those of reading, [`Error::NoSpace`]; [`Error::Corrupt`] if the key is there already.
    pub(crate) fn insert(&mut self, w: &mut dyn Wait, e: &Element) -> Result<(), Error> {
        let key = e.base.key();
        // Each round but the last splits one node of the way down.
        let (path, leaf) = loop {
            if let Some(place) = self.way_to_leaf(w, &key)? {
                break place;
            }
        };
        let node = self.edit_node(w, leaf)?;
        let index = node.slots().partition_point(|o| o.base.key() < key);
        if node.slots().get(index).is_some_and(|o| o.base.key() == key) {
            return Err(Error::corrupt(Structure::Node, leaf, "the record that is to be inserted is there"));
        }
        node.insert_at(index, *e);
        let newest = e.base.create_tid.get().max(e.base.delete_tid.get());
        self.raise_mirror_tid(w, &path, leaf, Tid(newest))
    }

    /// Changes the element with this key, not its key. A higher `delete_tid` reaches the `mirror_tid` of all nodes above.
    /// May block.
    ///
    /// # Errors
    /// Beside those of reading, [`Error::Corrupt`] if there is none.
    pub(crate) fn update(
        &mut self,
        w: &mut dyn Wait,
        key: &Key,
        change: impl FnOnce(&mut Element),
    ) -> Result<(), Error> {
        let (path, leaf, index) = self.place_of(w, key)?;
        let node = self.edit_node(w, leaf)?;
        let missing = Error::corrupt(Structure::Node, leaf, "no such element");
        let e = node.elements.get_mut(index).ok_or(missing)?;
        change(e);
        let newest = e.base.create_tid.get().max(e.base.delete_tid.get());
        self.raise_mirror_tid(w, &path, leaf, Tid(newest))
    }

    /// Takes the element with this key out of the tree, without a trace but in `mirror_tid`. May block.
    ///
    /// # Errors
    /// Beside those of reading, [`Error::Corrupt`] if there is none.
    pub(crate) fn remove(&mut self, w: &mut dyn Wait, key: &Key) -> Result<Element, Error> {
        let (mut path, leaf, index) = self.place_of(w, key)?;
        let node = self.edit_node(w, leaf)?;
        let missing = Error::corrupt(Structure::Node, leaf, "no such element");
        let e = node.take_at(index).ok_or(missing)?;
        if node.slots().is_empty() {
            self.remove_leaf(w, &mut path, leaf)?;
        }
        Ok(e)
    }

    /// The way to the element with this key.
    fn place_of(&self, w: &mut dyn Wait, key: &Key) -> Result<(Path, Offset, usize), Error> {
        let (path, leaf, index) = Cursor::seek(self, w, key)?.into_place();
        let node = self.node(w, leaf)?;
        match node.slots().get(index) {
            Some(e) if e.base.key() == *key => Ok((path, leaf, index)),
            _ => Err(Error::corrupt(Structure::Node, leaf, "a record that was found has no element")),
        }
    }

    /// The way to the leaf that `key` belongs into, with room for it; or one step towards that.
    fn way_to_leaf(&mut self, w: &mut dyn Wait, key: &Key) -> Result<Option<(Path, Offset)>, Error> {
        let mut path = Path::new();
        let mut at = self.root();
        let root = self.node(w, at)?;
        if root.is_full() {
            drop(root);
            self.grow_root(w, at)?;
            return Ok(None);
        }
        let (mut left, mut right) = (bound(Key::BEGIN, 1), bound(Key::END, 0));
        loop {
            let node = self.node(w, at)?;
            if node.is_leaf() {
                return Ok(Some((path, at)));
            }
            let slot = node.slot_of(key);
            let end = node.len();
            let begins_right = node.elements.first().is_some_and(|e| *key < e.base.key());
            let ends_left = node.elements.get(end).is_some_and(|e| *key >= e.base.key());
            drop(node);
            if begins_right || ends_left {
                let node = self.edit_node(w, at)?;
                let (index, wide) = if begins_right { (0, &left) } else { (end, &right) };
                if let Some(e) = node.elements.get_mut(index) {
                    e.base = BaseElement { btype: e.base.btype, ..*wide };
                }
            }
            let node = self.node(w, at)?;
            let (child_at, next) = child(self, w, (&node, at), slot)?;
            let full = next.is_full();
            let bounds =
                (node.elements.get(slot).map(|e| e.base), node.elements.get(slot + 1).map(|e| e.base));
            let too_deep = Error::corrupt(Structure::Node, at, "tree is too deep");
            drop(next);
            drop(node);
            if full {
                self.split_child(w, Step { node: at, slot }, child_at, key)?;
                return Ok(None);
            }
            path.try_push(Step { node: at, slot }).map_err(|_| too_deep)?;
            if let (Some(l), Some(r)) = bounds {
                (left, right) = (l, r);
            }
            at = child_at;
        }
    }

    /// Puts a new root above a full one.
    fn grow_root(&mut self, w: &mut dyn Wait, old_at: Offset) -> Result<(), Error> {
        let old = self.node(w, old_at)?;
        let (btype, mirror_tid) = (old.node_type, old.mirror_tid);
        drop(old);
        let (root_at, root) = self.new_node(w)?;
        root.node_type = TYPE_INTERNAL;
        root.count = 1.into();
        root.mirror_tid = mirror_tid;
        let first = BaseElement { btype, ..bound(Key::BEGIN, 1) };
        let only = Element::internal(first, pointer(old_at, Tid(mirror_tid.get())));
        root.elements[0] = only;
        root.elements[1] = end_of_node(bound(Key::END, 0));
        self.edit_node(w, old_at)?.parent = root_at.0.into();
        self.changes.figures.root = root_at;
        Ok(())
    }

    /// Splits a full child, because `key` is on its way into it. The parent has room.
    fn split_child(
        &mut self,
        w: &mut dyn Wait,
        parent: Step,
        old_at: Offset,
        key: &Key,
    ) -> Result<(), Error> {
        let (new_at, _) = self.new_node(w)?;
        let old = self.edit_node(w, old_at)?;
        let count = old.len();
        // Records that come in order leave full nodes behind, others half full ones.
        let appends = old.is_leaf() && old.slots().last().is_some_and(|e| e.base.key() < *key);
        let at = if appends { (count + 1) * 3 / 4 } else { count.div_ceil(2) };
        let moved = old.clone();
        let (kept, rest) = moved.elements.split_at(at);
        let (Some(last), Some(first)) = (kept.last(), rest.first()) else {
            return Err(Error::corrupt(Structure::Node, old_at, "node is too small to be split"));
        };
        let is_leaf = old.is_leaf();
        old.count = (at as i32).into();
        let separator = if is_leaf {
            separator(&last.base, &first.base)
        } else {
            if let Some(e) = old.elements.get_mut(at) {
                *e = end_of_node(first.base);
            }
            first.base
        };
        let new = self.edit_node(w, new_at)?;
        new.node_type = moved.node_type;
        new.parent = moved.parent;
        new.mirror_tid = moved.mirror_tid;
        new.count = ((count - at) as i32).into();
        // An internal node's right bound goes with its children.
        let taken = rest.get(..count - at + usize::from(!is_leaf)).unwrap_or_default();
        if let Some(to) = new.elements.get_mut(..taken.len()) {
            to.copy_from_slice(taken);
        }
        if !is_leaf {
            for e in taken.iter().take(count - at) {
                self.edit_node(w, Offset(e.as_internal().subtree_offset.get()))?.parent = new_at.0.into();
            }
        }
        let base = BaseElement { btype: moved.node_type, ..separator };
        let e = Element::internal(base, pointer(new_at, Tid(moved.mirror_tid.get())));
        self.edit_node(w, parent.node)?.insert_at(parent.slot + 1, e);
        Ok(())
    }

    /// Takes an empty leaf out of the tree, and with it the nodes above that have no other child.
    fn remove_leaf(&mut self, w: &mut dyn Wait, path: &mut Path, leaf: Offset) -> Result<(), Error> {
        let mut gone = leaf;
        while let Some(Step { node: at, slot }) = path.pop() {
            self.free(w, gone, NODE_SIZE)?;
            let node = self.edit_node(w, at)?;
            if node.len() > 1 {
                node.remove_child(slot);
                return Ok(());
            }
            gone = at;
        }
        // All that is left of the tree is its root.
        let root = self.edit_node(w, gone)?;
        root.node_type = TYPE_LEAF;
        root.count = 0.into();
        Ok(())
    }

    /// Tells all nodes above a leaf of a transaction in it.
    fn raise_mirror_tid(
        &mut self,
        w: &mut dyn Wait,
        path: &Path,
        leaf: Offset,
        tid: Tid,
    ) -> Result<(), Error> {
        if self.node(w, leaf)?.mirror_tid.get() >= tid.0 {
            return Ok(());
        }
        self.edit_node(w, leaf)?.mirror_tid = tid.0.into();
        for step in path.iter().rev() {
            let node = self.node(w, step.node)?;
            let below = node.elements.get(step.slot).map_or(0, |e| e.as_internal().mirror_tid.get());
            if below >= tid.0 {
                break;
            }
            let above = node.mirror_tid.get();
            drop(node);
            let node = self.edit_node(w, step.node)?;
            if let Some(e) = node.elements.get_mut(step.slot) {
                e.as_internal_mut().mirror_tid = tid.0.into();
            }
            if above >= tid.0 {
                break;
            }
            node.mirror_tid = tid.0.into();
        }
        Ok(())
    }
}

impl Node {
    fn is_full(&self) -> bool {
        self.len() >= if self.is_leaf() { LEAF_ELEMENTS } else { INTERNAL_ELEMENTS }
    }

    /// All slots that are in use; in an internal node also the right bound's.
    fn used(&self) -> usize {
        self.len() + usize::from(!self.is_leaf())
    }

    /// Makes room at `index`. The node is not full.
    fn insert_at(&mut self, index: usize, e: Element) {
        let used = self.used();
        if index <= used && used < LEAF_ELEMENTS {
            self.elements.copy_within(index..used, index + 1);
            if let Some(to) = self.elements.get_mut(index) {
                *to = e;
                self.count = (self.count.get() + 1).into();
            }
        }
    }

    fn take_at(&mut self, index: usize) -> Option<Element> {
        let e = *self.slots().get(index)?;
        let used = self.used();
        self.elements.copy_within(index + 1..used, index);
        self.count = (self.count.get() - 1).into();
        Some(e)
    }

    /// Removes a child, not the only one; a neighbour gets its range and its `mirror_tid`.
    fn remove_child(&mut self, slot: usize) {
        let Some(gone) = self.take_at(slot) else { return };
        let heir = slot.saturating_sub(1);
        let Some(e) = self.elements.get_mut(heir) else { return };
        let tail = e.as_internal_mut();
        tail.mirror_tid = tail.mirror_tid.get().max(gone.as_internal().mirror_tid.get()).into();
        if slot == 0 {
            e.base = BaseElement { btype: e.base.btype, ..gone.base };
        }
    }
}

fn pointer(to: Offset, mirror_tid: Tid) -> InternalTail {
    InternalTail { mirror_tid: mirror_tid.0.into(), subtree_offset: to.0.into(), reserved: [0.into(); 2] }
}

/// The right bound of an internal node.
fn end_of_node(base: BaseElement) -> Element {
    Element::internal(BaseElement { btype: 0, ..base }, pointer(Offset::NONE, Tid::ZERO))
}

/// An element without data at a key: a bound.
fn bound(key: Key, delete_tid: u64) -> BaseElement {
    BaseElement {
        obj_id: key.obj_id.into(),
        key: key.key.into(),
        create_tid: key.create_tid.0.into(),
        delete_tid: delete_tid.into(),
        rec_type: key.rec_type.into(),
        obj_type: 0,
        btype: 0,
        localization: key.localization.into(),
    }
}

/// A bound above `left` and not above `right`, in the middle of the first field in which they differ.
fn separator(left: &BaseElement, right: &BaseElement) -> BaseElement {
    let (l, r) = (left.key(), right.key());
    let mid = |a: i128, b: i128| a + ((b - a + 1) >> 1);
    let mut key = r;
    if l.localization != r.localization {
        key.localization = mid(l.localization.into(), r.localization.into()) as u32;
    } else if l.obj_id != r.obj_id {
        key.obj_id = mid(l.obj_id.into(), r.obj_id.into()) as i64;
    } else if l.rec_type != r.rec_type {
        key.rec_type = mid(l.rec_type.into(), r.rec_type.into()) as u16;
    } else if l.key != r.key {
        key.key = mid(l.key.into(), r.key.into()) as i64;
    }
    bound(key, 0)
}
