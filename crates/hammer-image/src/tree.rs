//! The bulk loader: sorted leaf elements become a B-tree of a chosen shape.

use std::ops::Range;

use dfly_hammer::crc::Flavor;
use dfly_hammer::ondisk::node::{
    BaseElement, Element, INTERNAL_ELEMENTS, InternalTail, Key, LEAF_ELEMENTS, Node, TYPE_INTERNAL,
    TYPE_LEAF, Tid,
};
use dfly_hammer::ondisk::{Offset, Zone};
use zerocopy::{FromZeros, IntoBytes};

use crate::image::Image;
use crate::layout::Space;
use crate::{Error, Result};

/// How the nodes of the tree are filled. All shapes are legal, and a reader has to cope with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Records in a leaf, 1 to 63.
    pub leaf: usize,
    /// Children of an internal node, 2 to 62.
    pub internal: usize,
    /// After how many leaves an empty one stands, as a removal that could not get its locks leaves it: the only child
    /// of its parent. 0 for none.
    pub empty_leaf_every: usize,
    /// Nodes above leaves store bounds narrower than their parents say, as the removal of a first child leaves them.
    pub narrow_bounds: bool,
    /// Levels of nodes with one child on top of the root that is needed.
    pub extra_levels: usize,
}

impl Default for Shape {
    /// Full nodes, nothing unusual.
    fn default() -> Self {
        Self {
            leaf: LEAF_ELEMENTS,
            internal: INTERNAL_ELEMENTS,
            empty_leaf_every: 0,
            narrow_bounds: false,
            extra_levels: 0,
        }
    }
}

impl Shape {
    /// A deep tree of few records: 3 in a leaf, 3 children in a node, and everything unusual.
    pub const DEEP: Self =
        Self { leaf: 3, internal: 3, empty_leaf_every: 5, narrow_bounds: true, extra_levels: 0 };
}

/// A node before it is written.
struct Plan {
    at: Offset,
    /// Left bound; the right one is the next plan's on the same level.
    left: Key,
    /// Elements of the level below, or records.
    children: Range<usize>,
    mirror_tid: u64,
}

/// The tree's nodes, allocated but not written.
pub(crate) struct Tree {
    /// From the leaves to the root, which is the only node of its level.
    levels: Vec<Vec<Plan>>,
    shape: Shape,
}

impl Tree {
    /// Decides on the nodes for records with these keys, in order, and allocates them.
    pub(crate) fn plan(keys: &[Key], shape: Shape, space: &mut Space) -> Result<Self> {
        if !(1..=LEAF_ELEMENTS).contains(&shape.leaf) || !(2..=INTERNAL_ELEMENTS).contains(&shape.internal) {
            return Err(Error::Description(format!("{shape:?}: out of range")));
        }
        let plan = |left, children| Plan { at: Offset::NONE, left, children, mirror_tid: 0 };
        let mut leaves = Vec::new();
        for start in (0..keys.len().max(1)).step_by(shape.leaf) {
            let mut left = if start == 0 { Key::BEGIN } else { separator(&keys[start - 1], &keys[start]) };
            // An empty leaf takes the room between two records, if there is some.
            let due =
                shape.empty_leaf_every != 0 && (start / shape.leaf).is_multiple_of(shape.empty_leaf_every);
            if due && start != 0 && left < keys[start] {
                leaves.push(plan(left, start..start));
                left = keys[start];
            }
            leaves.push(plan(left, start..(start + shape.leaf).min(keys.len())));
        }
        let mut levels = vec![leaves];
        let mut extra = shape.extra_levels;
        loop {
            let below = &levels[levels.len() - 1];
            if below.len() == 1 {
                if extra == 0 {
                    break;
                }
                extra -= 1;
            }
            // An empty leaf is legal only where it is the only child.
            let alone = |i: usize| levels.len() == 1 && below.len() > 1 && below[i].children.is_empty();
            let mut level = Vec::new();
            let mut start = 0;
            while start < below.len() {
                let most = (start + shape.internal).min(below.len());
                let end = if alone(start) {
                    start + 1
                } else {
                    (start + 1..most).find(|&i| alone(i)).unwrap_or(most)
                };
                level.push(plan(below[start].left, start..end));
                start = end;
            }
            levels.push(level);
        }
        for node in levels.iter_mut().flatten() {
            node.at = space.alloc(Zone::BTREE, size_of::<Node>())?;
        }
        Ok(Self { levels, shape })
    }

    /// Address of the root.
    pub(crate) fn root(&self) -> Offset {
        self.levels.last().and_then(|level| level.first()).map_or(Offset::NONE, |root| root.at)
    }

    /// Writes the nodes; `records` are the elements of all leaves, in order.
    pub(crate) fn write(mut self, records: &[Element], image: &mut Image, flavor: Flavor) -> Result<()> {
        self.sum_up_mirror_tids(records);
        let parents = self.parents();
        for (depth, level) in self.levels.iter().enumerate() {
            for (index, plan) in level.iter().enumerate() {
                let mut node = Node::new_zeroed();
                node.parent = parents[depth][index].0.into();
                node.count = (plan.children.len() as i32).into();
                node.mirror_tid = plan.mirror_tid.into();
                if depth == 0 {
                    node.node_type = TYPE_LEAF;
                    node.elements[..plan.children.len()].copy_from_slice(&records[plan.children.clone()]);
                } else {
                    node.node_type = TYPE_INTERNAL;
                    let right = level.get(index + 1).map_or(Key::END, |next| next.left);
                    self.fill_internal(&mut node, depth, plan, right, records);
                }
                node.crc = flavor.of(&node.as_bytes()[4..]).into();
                image.put(plan.at, &node)?;
            }
        }
        Ok(())
    }

    fn fill_internal(&self, node: &mut Node, depth: usize, plan: &Plan, right: Key, records: &[Element]) {
        let below = &self.levels[depth - 1];
        let btype = if depth == 1 { TYPE_LEAF } else { TYPE_INTERNAL };
        let children = &below[plan.children.clone()];
        for (element, child) in node.elements.iter_mut().zip(children) {
            let tail = InternalTail {
                mirror_tid: child.mirror_tid.into(),
                subtree_offset: child.at.0.into(),
                reserved: Default::default(),
            };
            *element = Element::internal(bound(child.left, btype), tail);
        }
        let mut right = right;
        let is_root = depth + 1 == self.levels.len();
        if let (true, 1, false) = (self.shape.narrow_bounds, depth, is_root) {
            let first = children[0].children.clone();
            let last = children[children.len() - 1].children.clone();
            if !first.is_empty() && !last.is_empty() {
                node.elements[0].base = bound(records[first.start].base.key(), btype);
                let key = records[last.end - 1].base.key();
                right = right.min(key.at(Tid(key.create_tid.0 + 1)));
            }
        }
        node.elements[children.len()] = Element::internal(bound(right, 0), InternalTail::new_zeroed());
    }

    fn sum_up_mirror_tids(&mut self, records: &[Element]) {
        for depth in 0..self.levels.len() {
            let (below, rest) = self.levels.split_at_mut(depth);
            for plan in &mut rest[0] {
                let children = plan.children.clone();
                plan.mirror_tid = match below.last() {
                    None => records[children]
                        .iter()
                        .map(|e| e.base.create_tid.get().max(e.base.delete_tid.get()))
                        .max(),
                    Some(below) => below[children].iter().map(|p| p.mirror_tid).max(),
                }
                .unwrap_or(0);
            }
        }
    }

    fn parents(&self) -> Vec<Vec<Offset>> {
        let mut parents: Vec<Vec<Offset>> = self.levels.iter().map(|l| vec![Offset::NONE; l.len()]).collect();
        for (depth, level) in self.levels.iter().enumerate().skip(1) {
            for plan in level {
                parents[depth - 1][plan.children.clone()].fill(plan.at);
            }
        }
        parents
    }
}

/// A bound as it is stored.
fn bound(key: Key, btype: u8) -> BaseElement {
    let mut base = BaseElement::new_zeroed();
    base.localization = key.localization.into();
    base.obj_id = key.obj_id.into();
    base.rec_type = key.rec_type.into();
    base.key = key.key.into();
    base.create_tid = key.create_tid.0.into();
    // The tree's left bound carries a deletion, for reasons of history.
    base.delete_tid = u64::from(key == Key::BEGIN).into();
    base.btype = btype;
    base
}

/// The bounds of the whole tree, around a child of this type.
pub(crate) fn bounds(btype: u8) -> [BaseElement; 2] {
    [bound(Key::BEGIN, btype), bound(Key::END, 0)]
}

/// What the original stores between two leaves: half way, in the first field that differs.
fn separator(left: &Key, right: &Key) -> Key {
    fn mid(a: i128, b: i128) -> i128 {
        a + ((b - a + 1) >> 1)
    }
    let mut key = *right;
    key.localization = mid(left.localization.into(), right.localization.into()) as u32;
    if left.localization == right.localization {
        key.obj_id = mid(left.obj_id.into(), right.obj_id.into()) as i64;
        if left.obj_id == right.obj_id {
            key.rec_type = mid(left.rec_type.into(), right.rec_type.into()) as u16;
            if left.rec_type == right.rec_type {
                key.key = mid(left.key.into(), right.key.into()) as i64;
            }
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fact sheet 2.7: the example of a split leaf.
    #[test]
    fn separators_lie_half_way() {
        let left = Key {
            localization: 2,
            obj_id: 0x1_0000_0745,
            rec_type: 0x10,
            key: 0xb0000,
            create_tid: Tid(0x20),
        };
        let right = Key { key: 0xb4000, create_tid: Tid(0x60), ..left };
        assert_eq!(separator(&left, &right), Key { key: 0xb2000, ..right });
        assert_eq!(separator(&left, &left.at(Tid(0x60))), left.at(Tid(0x60)));
        let far = Key { obj_id: i64::MAX, ..left };
        assert_eq!(separator(&Key { obj_id: i64::MIN, ..left }, &far).obj_id, 0);
    }
}
