//! Sequential read of one large file from memory (bar H8).

use std::{
    fs, hint::black_box, io::Write, ops::ControlFlow, path::Path, process::Command, process::Stdio, sync::Arc,
};

use anyhow::{Context, Result, ensure};
use dfly_bio::{BlockDevice, MemDisk};
use dfly_hal::ThreadWait;
use dfly_hammer::{Hammer, MountOptions};
use dfly_hammer_image::{Builder, Content, Format};
use dfly_vfs::{Call, FileSystem, NodeId, Walk, walk};
use ext4_view::Ext4;

use crate::harness::{Bar, Effort, Group, Unit};

/// How much a reader asks for at once.
const CHUNK_BYTES: usize = 128 << 10;

/// Both copy the file to the same small buffer; ours verifies the checksum of every block on the way, and its page
/// cache is much smaller than the file.
pub(crate) fn bench(effort: Effort) -> Result<()> {
    let mib = if effort == Effort::Quick { 64 } else { 256 };
    let bytes = mib << 20;
    let ext4 = ext4_with_file(bytes)?;
    let (hammer, node) = hammer_with_file(bytes)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut other = buffer.clone();
    ensure!(read_ext4(&ext4, &mut buffer)? == bytes, "ext4-view reads another size");
    ensure!(read_hammer(&hammer, node, &mut other)? == bytes, "dfly-hammer reads another size");
    ensure!(buffer == other, "they read different bytes");

    let mut group =
        Group::new(format!("Sequential read of a file of {mib} MiB from memory"), Unit::Bytes(bytes));
    let ours = group.add("dfly-hammer", || read_hammer(&hammer, node, &mut other));
    let peer = group.add("ext4-view", || read_ext4(&ext4, &mut buffer));
    group.ratio(ours, peer, Bar::SpeedAtLeast(0.7), "H8");
    group.run(effort);
    Ok(())
}

/// What the file holds from `offset` on, a multiple of 8: no block repeats.
fn fill(offset: u64, buffer: &mut [u8]) {
    for (word, bytes) in (offset / 8..).zip(buffer.chunks_mut(8)) {
        bytes.copy_from_slice(&word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[..bytes.len()]);
    }
}

/// A HAMMER file system in memory with one file.
fn hammer_with_file(bytes: u64) -> Result<(Hammer, NodeId)> {
    let mut builder = Builder::new(Format { volumes: vec![bytes + (64 << 20)], ..Format::default() });
    builder.file(builder.root(), "file", Content::made(bytes, fill));
    let image = builder.finish()?;
    let mut disk = dfly_bio::Image::new(image.volumes[0].size());
    for (at, chunk) in image.volumes[0].chunks() {
        disk.write(at, chunk)?;
    }
    let device: Arc<dyn BlockDevice> = Arc::new(MemDisk::from_image(512, disk));
    let mut w = ThreadWait::new();
    let fs = Hammer::mount(&[device], MountOptions::default(), &mut w)?;
    let file = walk(&fs, &mut Call::new(&mut w), fs.root(), b"/file", &Walk::default())?;
    Ok((fs, file.node))
}

fn read_hammer(fs: &Hammer, node: NodeId, buffer: &mut [u8]) -> Result<u64> {
    let mut w = ThreadWait::new();
    let mut total = 0;
    loop {
        let mut filled = 0;
        let read = fs.read(&mut Call::new(&mut w), node, total, buffer.len() as u64, &mut |bytes| {
            buffer[filled..filled + bytes.len()].copy_from_slice(bytes);
            filled += bytes.len();
            ControlFlow::Continue(())
        })?;
        black_box(&*buffer);
        total += read;
        if read < buffer.len() as u64 {
            return Ok(total);
        }
    }
}

/// An ext4 file system in memory with the file `/file`, made by `mkfs.ext4`.
fn ext4_with_file(bytes: u64) -> Result<Ext4> {
    let scratch = tempfile::tempdir()?;
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree)?;
    let mut file = fs::File::create(tree.join("file"))?;
    let mut buffer = vec![0; CHUNK_BYTES];
    for offset in (0..bytes).step_by(CHUNK_BYTES) {
        fill(offset, &mut buffer);
        file.write_all(&buffer)?;
    }

    let image = scratch.path().join("ext4.img");
    make_ext4(&tree, &image, bytes + bytes / 4 + (16 << 20))?;
    Ok(Ext4::load(Box::new(fs::read(&image)?))?)
}

fn make_ext4(tree: &Path, image: &Path, bytes: u64) -> Result<()> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.env("PATH", path)
        .args(["-q", "-b", "4096", "-d"])
        .arg(tree)
        .arg(image)
        .arg(format!("{}k", bytes >> 10));
    let status = mkfs.stdout(Stdio::null()).status().context("mkfs.ext4 (of the package e2fsprogs)")?;
    ensure!(status.success(), "mkfs.ext4: {status}");
    Ok(())
}

fn read_ext4(ext4: &Ext4, buffer: &mut [u8]) -> Result<u64> {
    let mut file = ext4.open("/file")?;
    let mut total = 0;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_bytes(&mut buffer[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        black_box(&*buffer);
        total += filled as u64;
        if filled < buffer.len() {
            return Ok(total);
        }
    }
}
