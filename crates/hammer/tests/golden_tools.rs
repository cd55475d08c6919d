//! What the crate makes and finds, held against what DragonFly's own tools and kernel code made.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use dfly_bio::{BlockDevice, MemDisk};
use dfly_golden::Golden;
use dfly_hal::ThreadWait;
use dfly_hammer::format::{Options, newfs};
use dfly_hammer::ondisk::record::InodeData;
use dfly_hammer::ondisk::volume::VolumeHeader;
use dfly_hammer::ondisk::{BUFFER_SIZE, Offset};
use dfly_hammer_image::{Image, Volume};

fn main() -> ExitCode {
    dfly_golden::run(|suite| {
        suite.each("newfs makes", &["empty-v6", "empty-v7", "empty-2vol"], newfs_makes);
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
