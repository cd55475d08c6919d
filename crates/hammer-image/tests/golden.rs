//! What the original's `newfs_hammer` made, the builder makes too, byte for byte.

use std::process::ExitCode;

use anyhow::{bail, ensure};
use dfly_golden::Golden;
use dfly_hammer::ondisk::Offset;
use dfly_hammer::ondisk::record::InodeData;
use dfly_hammer_image::{Builder, CHUNK, Format, Image, Volume};

fn main() -> ExitCode {
    dfly_golden::run(|suite| {
        suite.each("fresh", &["empty-v6", "empty-v7", "empty-2vol"], a_fresh_file_system_is_newfs_s);
    })
}

fn a_fresh_file_system_is_newfs_s(golden: &Golden, name: &str) -> anyhow::Result<()> {
    let mut theirs = Image::read_files(&golden.volumes(name)?)?;
    let mut header = theirs.header(0)?;
    let root = Offset(header.vol0_btree_root.get());
    let mut leaf = theirs.node(root)?;
    let fifo_end = Offset(header.vol0_blockmap[3].alloc_offset.get());
    let mut fs = Builder::new(Format {
        version: header.vol_version.get(),
        label: String::from_utf8(header.label().to_vec())?,
        fsid: header.vol_fsid,
        volumes: theirs.volumes.iter().map(Volume::size).collect(),
        fifo_bytes: fifo_end.byte(),
    });
    // The clock of their machine.
    let inode: InodeData = theirs.view(Offset(leaf.elements[0].as_leaf().data_offset.get()))?;
    fs.inode_in_place(fs.root(), |ours| {
        (ours.ctime, ours.mtime, ours.atime) = (inode.ctime, inode.mtime, inode.atime)
    });
    for (record, element) in fs.records_mut().zip(&leaf.elements) {
        record.create_ts = element.as_leaf().create_ts.get();
    }
    let ours = fs.finish()?;

    // What newfs leaves unfinished: three checksums that nobody verifies, a counter below its own records, and a leaf
    // without its highest transaction.
    let right = ours.header(0)?;
    ensure!(
        header.vol_crc.get() == 0
            && header.vol0_next_tid.get() == 0x1_0000_0000
            && leaf.mirror_tid.get() == 0
    );
    header.vol0_next_tid = right.vol0_next_tid;
    for zone in [8, 9] {
        header.vol0_blockmap[zone].entry_crc = right.vol0_blockmap[zone].entry_crc;
    }
    theirs.put_header(0, &header)?;
    for volume in 1..theirs.volumes.len() {
        theirs.put_header(volume, &theirs.header(volume)?)?;
    }
    leaf.mirror_tid = ours.node(root)?.mirror_tid;
    theirs.put_node(root, &leaf)?;

    for (n, (a, b)) in ours.volumes.iter().zip(&theirs.volumes).enumerate() {
        let (mut ours, mut theirs) = ([0; CHUNK], [0; CHUNK]);
        for (at, _) in a.chunks().chain(b.chunks()) {
            a.read_at(at, &mut ours)?;
            b.read_at(at, &mut theirs)?;
            if let Some(byte) = ours.iter().zip(&theirs).position(|(a, b)| a != b) {
                let end = (byte + 16).min(CHUNK);
                let (a, b) = (&ours[byte..end], &theirs[byte..end]);
                bail!("volume {n}, byte {:#x}: {a:02x?} instead of {b:02x?}", at + byte as u64);
            }
        }
    }
    Ok(())
}
