//! Sequential read of one large file from memory (bar H8).

use std::{
    fs,
    hint::black_box,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use ext4_view::Ext4;

use crate::harness::{Effort, Group, Unit};

/// How much a reader asks for at once.
const CHUNK_BYTES: usize = 128 << 10;

pub(crate) fn bench(effort: Effort) -> Result<()> {
    let mib = if effort == Effort::Quick { 32 } else { 256 };
    let bytes = mib << 20;
    let ext4 = ext4_with_file(bytes)?;
    ensure!(read_ext4(&ext4)? == bytes, "ext4-view reads another size");

    let mut group =
        Group::new(format!("Sequential read of a file of {mib} MiB from memory"), Unit::Bytes(bytes));
    group.add("ext4-view", || read_ext4(&ext4));
    group.run(effort);
    Ok(())
}

/// Bytes of the file's content, which no block repeats.
fn content(bytes: u64) -> impl Iterator<Item = [u8; 8]> {
    (0..bytes / 8).map(|word| (word.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes())
}

/// An ext4 file system in memory with the file `/file`, made by `mkfs.ext4`.
fn ext4_with_file(bytes: u64) -> Result<Ext4> {
    let scratch = tempfile::tempdir()?;
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree)?;
    let mut file = std::io::BufWriter::new(fs::File::create(tree.join("file"))?);
    for word in content(bytes) {
        file.write_all(&word)?;
    }
    file.into_inner()?;

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

fn read_ext4(ext4: &Ext4) -> Result<u64> {
    let mut file = ext4.open("/file")?;
    let (mut buffer, mut total) = (vec![0; CHUNK_BYTES], 0);
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_bytes(&mut buffer[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        black_box(&buffer);
        total += filled as u64;
        if filled < buffer.len() {
            return Ok(total);
        }
    }
}
