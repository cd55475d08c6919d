//! What the crate makes and finds, held against what DragonFly's own tools and kernel code made.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use dfly_bio::{BlockDevice, FileDisk, MemDisk};
use dfly_golden::{Golden, IMAGES};
use dfly_hal::ThreadWait;
use dfly_hammer::check::{Event, Finding, Kind, Options as CheckOptions, check};
use dfly_hammer::format::{Options, newfs};
use dfly_hammer::ondisk::record::InodeData;
use dfly_hammer::ondisk::volume::VolumeHeader;
use dfly_hammer::ondisk::{BUFFER_SIZE, Offset};
use dfly_hammer::salvage::{Options as SalvageOptions, Salvage};
use dfly_hammer::{Hammer, MountOptions};
use dfly_hammer_image::{Image, Volume};
use dfly_vfs::{self as vfs, Call, FileSystem, Walk, walk};
use sha2::{Digest, Sha256};

fn main() -> ExitCode {
    dfly_golden::run(|suite| {
        suite.each("newfs makes", &["empty-v6", "empty-v7", "empty-2vol"], newfs_makes);
        suite.each("check finds nothing in", IMAGES, check_finds_nothing);
        suite.test("check finds nothing in recovered images", check_recovered);
        suite.each("salvage without a tree finds", &["basic", "history", "multivol", "pfs"], salvage_finds);
    })
}

/// Byte for byte what `newfs_hammer` made, with its UUID and its clock; masked are checksums that it leaves zero (the
/// header's) or stale (of the zones whose first allocation it made).
fn newfs_makes(golden: &Golden, name: &str) -> Result<()> {
    let mut theirs = Image::read_files(&golden.volumes(name)?)?;
    let header = theirs.header(0)?;
    let leaf = theirs.node(Offset(header.vol0_btree_root.get()))?;
    let inode: InodeData = theirs.view(Offset(leaf.elements[0].as_leaf().data_offset.get()))?;
    let mut options = Options::new(header.label(), header.vol_fsid, inode.ctime.get());
    options.version = header.vol_version.get();
    options.undo_bytes = Some(Offset(header.vol0_blockmap[3].alloc_offset.get()).byte());
    let disks: Vec<_> = theirs.volumes.iter().map(|v| Arc::new(MemDisk::new(512, v.size() / 512))).collect();
    let devices: Vec<Arc<dyn BlockDevice>> = disks.iter().map(|d| d.clone() as _).collect();
    newfs(&devices, &options, &mut ThreadWait::new())?;

    for (volume, disk) in disks.iter().enumerate() {
        let image = disk.image();
        let mut mine = [0; size_of::<VolumeHeader>()];
        image.read(0, &mut mine);
        let mine: VolumeHeader = zerocopy::FromBytes::read_from_bytes(&mine).ok().context("header")?;
        let mut masked = theirs.header(volume)?;
        ensure!(masked.vol_crc.get() == 0, "newfs_hammer sets no checksum");
        if volume == 0 {
            for zone in [8, 9] {
                masked.vol0_blockmap[zone].entry_crc = mine.vol0_blockmap[zone].entry_crc;
            }
        }
        // Sets the checksum.
        theirs.put_header(volume, &masked)?;
        same(&image, &theirs.volumes[volume]).with_context(|| format!("volume {volume}"))?;
    }
    Ok(())
}

fn same(ours: &dfly_bio::Image, theirs: &Volume) -> Result<()> {
    let (mut a, mut b) = ([0; BUFFER_SIZE], [0; BUFFER_SIZE]);
    for at in (0..theirs.size()).step_by(BUFFER_SIZE) {
        let len = (theirs.size() - at).min(BUFFER_SIZE as u64) as usize;
        ours.read(at, &mut a[..len]);
        theirs.read_at(at, &mut b[..len])?;
        if let Some(byte) = (0..len).find(|&i| a[i] != b[i]) {
            let end = (byte + 16).min(len);
            bail!("byte {:#x}: {:02x?} instead of {:02x?}", at + byte as u64, &a[byte..end], &b[byte..end]);
        }
    }
    Ok(())
}

/// What a check finds that was not expected.
fn findings(volumes: &[PathBuf]) -> Result<Vec<Finding>> {
    let mut devices: Vec<Arc<dyn BlockDevice>> = Vec::new();
    for path in volumes {
        devices.push(Arc::new(FileDisk::open(path)?));
    }
    let mut found = Vec::new();
    let report = check(&devices, &CheckOptions::default(), &mut ThreadWait::new(), &mut |event| {
        if let Event::Found(finding) = event {
            found.push(finding);
        }
    })?;
    ensure!(report.notes + report.warnings + report.errors == found.len() as u64, "{report:?}");
    ensure!(report.nodes > 0 && report.records >= 2 && report.inodes > 0 && report.passes == 1, "{report:?}");
    Ok(found)
}

fn check_finds_nothing(golden: &Golden, name: &str) -> Result<()> {
    // Killed while recovery wrote the header back, whose checksum is not among what UNDO restores.
    let torn = name == "crash-in-recovery-1";
    expect(&golden.volumes(name)?, if torn { &[Kind::HeaderTorn] } else { &[] })
}

fn check_recovered(golden: &Golden) -> Result<()> {
    for name in IMAGES {
        if let Some(path) = golden.recovered(name)? {
            expect(&[path], &[]).context(*name)?;
        }
    }
    Ok(())
}

fn expect(volumes: &[PathBuf], kinds: &[Kind]) -> Result<()> {
    let found = findings(volumes)?;
    let lines: Vec<_> = found.iter().take(20).map(|f| f.to_string()).collect();
    let same = found.iter().map(|f| f.kind).eq(kinds.iter().copied());
    ensure!(same, "{} findings:\n{}", found.len(), lines.join("\n"));
    Ok(())
}

/// Without the root of the tree, the same files with the same contents as a mount shows.
fn salvage_finds(golden: &Golden, name: &str) -> Result<()> {
    let mut image = Image::read_files(&golden.volumes(name)?)?;
    let w = &mut ThreadWait::new();
    let fs = Hammer::mount(&disks(&image)?, MountOptions::default(), w)?;
    let expected = listing(&fs, "/", w)?;
    image.edit_header(0, |h| h.vol0_btree_root = 0.into())?;
    let fs = Salvage::open(&disks(&image)?, &SalvageOptions::default(), w, &mut |_| ())?;
    ensure!(!fs.report().tree_is_whole && expected.len() > 3);
    let found = listing(&fs, "/PFS00000", w)?;
    for (path, contents) in &expected {
        ensure!(found.get(path) == Some(contents), "{path}: {:?}, not {contents:?}", found.get(path));
    }
    let more: Vec<_> = found.keys().filter(|path| !expected.contains_key(*path)).collect();
    ensure!(more.is_empty(), "found more: {more:?}");
    Ok(())
}

fn disks(image: &Image) -> Result<Vec<Arc<dyn BlockDevice>>> {
    let mut devices: Vec<Arc<dyn BlockDevice>> = Vec::new();
    for volume in &image.volumes {
        let mut bytes = dfly_bio::Image::new(volume.size());
        for (at, chunk) in volume.chunks() {
            let len = (volume.size() - at).min(chunk.len() as u64) as usize;
            bytes.write(at, &chunk[..len]).map_err(|_| anyhow!("out of memory"))?;
        }
        devices.push(Arc::new(MemDisk::from_image(512, bytes)));
    }
    Ok(devices)
}

/// Each path, its size, and a hash of its contents; of links to pseudo file systems the path only.
fn listing(fs: &impl FileSystem, root: &str, w: &mut ThreadWait) -> Result<BTreeMap<String, (u64, String)>> {
    let mut all = BTreeMap::new();
    let start = walk(fs, &mut Call::new(w), fs.root(), root.as_bytes(), &Walk::default())?;
    let mut todo = vec![(String::new(), start.node)];
    while let Some((path, node)) = todo.pop() {
        let attr = fs.getattr(&mut Call::new(w), node)?;
        let mut hash = Sha256::new();
        match attr.kind {
            vfs::Kind::Directory => fs.readdir(&mut Call::new(w), node, 2, &mut |e| {
                todo.push((format!("{path}/{}", String::from_utf8_lossy(e.name)), e.node));
                ControlFlow::Continue(())
            })?,
            // Sparse files are compared where they begin.
            vfs::Kind::Regular => drop(fs.read(&mut Call::new(w), node, 0, 8 << 20, &mut |bytes| {
                hash.update(bytes);
                ControlFlow::Continue(())
            })?),
            vfs::Kind::Symlink if attr.size != 10 => {
                fs.readlink(&mut Call::new(w), node, &mut |bytes| hash.update(bytes))?;
            }
            _ => {}
        }
        all.insert(path, (attr.size, format!("{:?} {:x?}", attr.kind, hash.finalize())));
    }
    Ok(all)
}
