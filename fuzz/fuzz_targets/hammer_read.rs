//! Mounts and reads images with faults in them: every answer is a value or an error, comes quickly, and nothing is
//! written.
#![no_main]

mod images;

use std::{
    ops::ControlFlow,
    sync::{Arc, LazyLock},
};

use dfly_bio::BlockDevice;
use dfly_hal::SpinWait;
use dfly_hammer::{Hammer, MountOptions, RecoveryMode, Tid, ondisk::node::TYPE_LEAF};
use dfly_vfs::{Call, FileSystem, Kind, Name, NodeId, Walk, walk};
use images::{Base, Input, bases};
use libfuzzer_sys::fuzz_target;

/// Entries and nodes that are looked at: enough for the images as they were built.
const ENTRIES: usize = 200;
const NODES: usize = 60;

static BASES: LazyLock<Vec<Base>> = LazyLock::new(|| {
    let bases = bases();
    for base in &bases {
        let seen = explore(&base.devices(&base.image), RecoveryMode::InMemory, base.past);
        assert!(seen > 20 && seen < ENTRIES, "{seen} entries of a sound image");
    }
    bases
});

fuzz_target!(
    init: {
        LazyLock::force(&BASES);
    },
    |input: &[u8]| {
        let mut input = Input(input);
        let recovery = if input.byte() % 4 == 0 { RecoveryMode::Raw } else { RecoveryMode::InMemory };
        let (base, image, past) = Base::broken(&BASES, &mut input);
        explore(&base.devices(&image), recovery, past);
    }
);

/// Looks at everything that can be reached, and returns how many entries of directories that is.
fn explore(devices: &[Arc<dyn BlockDevice>], recovery: RecoveryMode, past: Tid) -> usize {
    let mut idle = || ();
    let w = &mut SpinWait::new(&mut idle);
    let mut options = MountOptions::default();
    options.recovery = recovery;
    options.cache_bytes = 1 << 20;
    let Ok(fs) = Hammer::mount(devices, options, w) else { return 0 };

    let _ = (fs.pseudo_file_systems(w), fs.snapshots(w, 0), fs.config(w, 0), fs.header());
    let mut nodes = fs.nodes();
    for _ in 0..NODES {
        let Some(node) = nodes.next(w) else { break };
        let Ok(report) = node else { continue };
        for (index, element) in report.elements().iter().enumerate() {
            let _ = nodes.element_fault(w, &report, index);
            if report.node.node_type == TYPE_LEAF {
                let _ = nodes.data(w, element);
            }
        }
    }

    let mut entries = 0;
    let past = format!("/@@{:#018x}", past.0);
    for root in ["/", "/@@-1:00001", &past] {
        let start = walk(&fs, &mut Call::new(w), fs.root(), root.as_bytes(), &Walk::default());
        let mut directories: Vec<NodeId> = start.into_iter().map(|attr| attr.node).collect();
        while let Some(directory) = directories.pop() {
            let c = &mut Call::new(w);
            let mut found: Vec<(Vec<u8>, NodeId)> = Vec::new();
            let _ = fs.readdir(c, directory, 0, &mut |entry| {
                found.push((entry.name.to_vec(), entry.node));
                if found.len() < ENTRIES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            let _ = fs.nlookupdotdot(c, directory);
            for (name, node) in found.iter().skip(2) {
                entries += 1;
                if entries >= ENTRIES {
                    return entries;
                }
                let _ = Name::new(name).map(|name| fs.nresolve(c, directory, name));
                if visit(&fs, c, *node) == Some(Kind::Directory) {
                    directories.push(*node);
                }
            }
        }
    }
    entries
}

/// Reads both ends of a file, a link, and the history.
fn visit(fs: &Hammer, c: &mut Call<'_>, node: NodeId) -> Option<Kind> {
    let attr = fs.getattr(c, node).ok()?;
    let _ = fs.readlink(c, node, &mut |_| ());
    for offset in [0, attr.size.saturating_sub(70_000)] {
        let mut seen = 0;
        let read = fs.read(c, node, offset, 100_000, &mut |bytes| {
            seen += bytes.len() as u64;
            ControlFlow::Continue(())
        });
        assert!(seen <= 100_000 && offset.saturating_add(seen) <= attr.size.max(offset));
        assert!(read.is_err() || read.ok() == Some(seen));
    }
    let _ = fs.next_data(c, node, 1);
    let mut versions = 0;
    let _ = fs.versions(c.wait, node, &mut |_| versions += 1);
    Some(attr.kind)
}
