//! The walk: every node checked against its parent, every record handed on. The first walk checks; all walks collect.

use dfly_hal::Wait;

use super::links::Links;
use super::records::{self, Records};
use super::space::{Extent, Space, Use, Window};
use super::{Finding, Kind, Log, ObjectRef, Options};
use crate::btree::{MAX_DEPTH, NodeRef};
use crate::error::MountError;
use crate::inspect::{ElementFault, NodeFault, NodeReport, Nodes};
use crate::media::Media;
use crate::ondisk::node::{Element, Key, NODE_SIZE, TYPE_INTERNAL, TYPE_LEAF};
use crate::ondisk::{BIG_BLOCK_SIZE, Offset};

/// The least budget.
const MIN_MEMORY: usize = 1 << 20;

/// Walks the tree until all windows are done.
pub(super) fn walk_all(
    media: &Media,
    w: &mut dyn Wait,
    options: &Options,
    log: &mut Log<'_>,
) -> Result<(), MountError> {
    let half = options.memory_bytes.max(MIN_MEMORY) / 2;
    let mut space = Space::new(media, w, options.depth, log)?;
    let (mut places, mut links) = (Window::new(half)?, Links::new(half)?);
    let mut records = Some(Records::new(media, options.depth));
    while !places.is_done() || !links.is_done() {
        log.report.passes += 1;
        walk(media, w, records.as_mut(), &mut places, &mut links, log);
        if let Some(records) = records.take() {
            records.finish(log);
        }
        if !places.is_done() {
            places.finish(&mut space, w, log);
        }
        if !links.is_done() {
            links.finish(media, w, log);
        }
    }
    space.counters(log);
    Ok(())
}

fn walk(
    media: &Media,
    w: &mut dyn Wait,
    mut first: Option<&mut Records<'_>>,
    places: &mut Window,
    links: &mut Links,
    log: &mut Log<'_>,
) {
    let mut nodes = Nodes::new(media);
    // How many children the nodes on the way down have.
    let mut counts = [0; MAX_DEPTH];
    while let Some(next) = nodes.next(w) {
        let report = match next {
            Ok(report) => report,
            Err((at, _)) if first.is_some() => {
                log.found(Finding::new(Kind::NodeUnreadable, at));
                continue;
            }
            Err(_) => continue,
        };
        if in_whole_block(media, report.at) {
            let nobody = ObjectRef { pfs: 0, obj_id: 0 };
            places.add(Extent::new(report.at, NODE_SIZE as u32, nobody, Use::Node));
        } else if first.is_some() {
            log.found(Finding::new(Kind::NodeUnreadable, report.at));
        }
        let siblings = report.depth.checked_sub(1).and_then(|d| counts.get(d)).copied();
        if let Some(count) = counts.get_mut(report.depth) {
            *count = report.node.len();
        }
        if first.is_some() {
            log.report.nodes += 1;
            check_node(media, w, &report, siblings, log);
        }
        if report.node.node_type != TYPE_LEAF {
            continue;
        }
        for e in report.node.slots() {
            if let Some(records) = first.as_deref_mut() {
                records.look(w, e, report.at, log);
            }
            records::collect(media, w, e, places, links);
        }
        log.progress();
    }
}

/// Whether an address lies in a big-block that is there as a whole.
pub(super) fn in_whole_block(media: &Media, at: Offset) -> bool {
    media.volume(at.volume()).is_some_and(|v| at.byte() / BIG_BLOCK_SIZE < v.buffers_len / BIG_BLOCK_SIZE)
}

fn check_node(
    media: &Media,
    w: &mut dyn Wait,
    report: &NodeReport,
    siblings: Option<usize>,
    log: &mut Log<'_>,
) {
    let (node, at) = (&report.node, report.at);
    let mut found = |kind| log.found(Finding::new(kind, at));
    if report.checksum.is_none() {
        found(Kind::NodeChecksum);
    }
    match report.fault {
        Some(NodeFault::MirrorTid) => found(Kind::MirrorTid),
        Some(NodeFault::Count) => found(Kind::NodeCount),
        Some(NodeFault::Depth) => found(Kind::NodeDepth),
        Some(NodeFault::Type) => found(Kind::NodeType),
        None if !matches!(node.node_type, TYPE_INTERNAL | TYPE_LEAF) => found(Kind::NodeType),
        None => {}
    }
    let elements = report.elements();
    if report.depth == 0 {
        if node.parent.get() != 0 {
            found(Kind::NodeParent);
        }
        let ends = elements.first().zip(elements.last());
        let right = |(first, last): (&Element, &Element)| {
            let begins = first.base.key() == Key::BEGIN && first.base.delete_tid.get() == 1;
            begins && last.base.key() == Key::END
        };
        if node.node_type == TYPE_INTERNAL && !ends.is_some_and(right) {
            found(Kind::RootBounds);
        }
    }
    if node.node_type == TYPE_LEAF && node.count.get() == 0 && siblings.is_some_and(|n| n > 1) {
        found(Kind::NodeEmpty);
    }
    if !elements.is_sorted_by(|a, b| a.base.key() < b.base.key()) {
        found(Kind::ElementOrder);
    }
    for index in 0..elements.len() {
        match report.element_fault(index) {
            Some(ElementFault::Type) => found(Kind::ElementType),
            Some(_) => found(Kind::ElementBounds),
            None => {}
        }
    }
    let below = match node.node_type {
        TYPE_LEAF => node.slots().iter().map(|e| e.base.create_tid.get().max(e.base.delete_tid.get())).max(),
        _ => node.slots().iter().map(|e| e.as_internal().mirror_tid.get()).max(),
    };
    // `newfs_hammer` does not sum up the two records that it makes.
    let fresh = node.mirror_tid.get() == 0 && report.depth == 0 && node.count.get() == 2;
    if let Some(below) = below.filter(|t| *t > node.mirror_tid.get() && !fresh) {
        log.found(Finding::new(Kind::MirrorTid, at).values(node.mirror_tid.get(), below));
    }
    if node.node_type == TYPE_INTERNAL {
        check_children(media, w, report, log);
    }
}

fn check_children(media: &Media, w: &mut dyn Wait, report: &NodeReport, log: &mut Log<'_>) {
    for (index, e) in report.node.slots().iter().enumerate() {
        let at = Offset(e.as_internal().subtree_offset.get());
        // What cannot be read is found when it is visited.
        let Ok(child) = NodeRef::load_unchecked(media, w, at) else { continue };
        let twice =
            report.node.slots().iter().take(index).any(|o| o.as_internal().subtree_offset.get() == at.0);
        if child.parent.get() != report.at.0 || twice {
            log.found(Finding::new(Kind::NodeParent, at).values(child.parent.get(), report.at.0));
        }
        if child.node_type != e.base.btype {
            let finding = Finding::new(Kind::NodeType, at);
            log.found(finding.values(child.node_type.into(), e.base.btype.into()));
        }
    }
}
