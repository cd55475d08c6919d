//! Checks images with faults in them: it ends, and what it calls sound can be read to the last byte.
#![no_main]

mod images;

use std::{ops::ControlFlow, sync::LazyLock};

use dfly_hal::SpinWait;
use dfly_hammer::check::{Depth, Options, check};
use dfly_hammer::{Hammer, MountOptions};
use dfly_vfs::{Call, FileSystem, Kind, NodeId};
use images::{Base, Input, bases};
use libfuzzer_sys::fuzz_target;

/// Bytes of a file that are read: of sparse files not all.
const READ: u64 = 1 << 20;
/// More entries than the images were built with: then a directory is in itself, which the check must have seen.
const ENTRIES: usize = 300;

static BASES: LazyLock<Vec<Base>> = LazyLock::new(bases);

fuzz_target!(
    init: {
        LazyLock::force(&BASES);
    },
    |input: &[u8]| {
        let mut input = Input(input);
        let mut options = Options::default();
        options.cache_bytes = 1 << 20;
        options.memory_bytes = 1 << 20;
        let how = input.byte();
        if how % 4 != 0 {
            options.depth = Depth::Quick;
        }
        let (base, image, _) = Base::broken(&BASES, &mut input);
        let devices = base.devices(&image);
        let mut idle = || ();
        let w = &mut SpinWait::new(&mut idle);
        let Ok(report) = check(&devices, &options, w, &mut |_| ()) else { return };
        // Whether file data is right is not looked at quickly.
        if report.is_clean() && options.depth == Depth::Full {
            let fs = Hammer::mount(&devices, MountOptions::default(), w).unwrap();
            read_all(&fs, w).unwrap();
        }
    }
);

fn read_all(fs: &Hammer, w: &mut SpinWait<'_>) -> dfly_vfs::Result<()> {
    let mut directories = vec![fs.root()];
    let mut entries = 0;
    while let Some(directory) = directories.pop() {
        let c = &mut Call::new(w);
        let mut found: Vec<NodeId> = Vec::new();
        fs.readdir(c, directory, 2, &mut |entry| {
            found.push(entry.node);
            ControlFlow::Continue(())
        })?;
        for node in found {
            entries += 1;
            assert!(entries < ENTRIES);
            match fs.getattr(c, node)?.kind {
                Kind::Directory => directories.push(node),
                Kind::Regular => drop(fs.read(c, node, 0, READ, &mut |_| ControlFlow::Continue(()))?),
                Kind::Symlink => fs.readlink(c, node, &mut |_| ())?,
                _ => {}
            }
        }
    }
    Ok(())
}
