//! Salvages images with faults in them, the tree most of all: it ends, and hands out no more than files say they hold.
#![no_main]

mod images;

use std::collections::HashSet;
use std::{ops::ControlFlow, sync::LazyLock};

use dfly_hal::SpinWait;
use dfly_hammer::salvage::{Options, Salvage};
use dfly_vfs::{Call, FileSystem, Kind, NodeId};
use images::{Base, Input, bases};
use libfuzzer_sys::fuzz_target;

const READ: u64 = 200_000;
const ENTRIES: usize = 300;

static BASES: LazyLock<Vec<Base>> = LazyLock::new(bases);

fuzz_target!(
    init: {
        LazyLock::force(&BASES);
    },
    |input: &[u8]| {
        let mut input = Input(input);
        let how = input.byte();
        let (base, mut image, _) = Base::broken(&BASES, &mut input);
        // Without a root every node is looked for.
        if how % 2 == 0 && let Ok(mut header) = image.header(0) {
            header.vol0_btree_root = 0.into();
            let _ = image.put_header(0, &header);
        }
        let mut options = Options::default();
        options.cache_bytes = 1 << 20;
        let mut idle = || ();
        let w = &mut SpinWait::new(&mut idle);
        let Ok(fs) = Salvage::open(&base.devices(&image), &options, w, &mut |_| ()) else { return };
        read_all(&fs, w);
    }
);

fn read_all(fs: &Salvage, w: &mut SpinWait<'_>) {
    let (mut todo, mut entered, mut entries) = (vec![fs.root()], HashSet::new(), 0);
    while let Some(directory) = todo.pop() {
        let c = &mut Call::new(w);
        if !entered.insert(directory) {
            continue;
        }
        let mut found: Vec<NodeId> = Vec::new();
        let _ = fs.readdir(c, directory, 2, &mut |entry| {
            found.push(entry.node);
            if found.len() < ENTRIES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let _ = fs.nlookupdotdot(c, directory);
        for node in found {
            entries += 1;
            if entries > ENTRIES {
                return;
            }
            let attr = fs.getattr(c, node).unwrap();
            if attr.kind == Kind::Directory {
                todo.push(node);
            }
            let _ = fs.readlink(c, node, &mut |_| ());
            for offset in [0, attr.size.saturating_sub(70_000)] {
                let mut seen = 0;
                let read = fs.read(c, node, offset, READ, &mut |bytes| {
                    seen += bytes.len() as u64;
                    ControlFlow::Continue(())
                });
                assert!(seen <= READ && offset.saturating_add(seen) <= attr.size.max(offset));
                assert!(read.is_err() || read.ok() == Some(seen));
            }
            let _ = fs.next_data(c, node, 1);
            if attr.size < READ {
                let lost: u64 = fs.lost(c.wait, node).iter().map(|range| range.end - range.start).sum();
                assert!(lost <= attr.size);
            }
        }
    }
}
