//! Unpacks a disk image once, however many tests and test binaries ask for it at the same time.

use std::{
    fs::{self, File, Permissions},
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};

use crate::manifest::ImageFile;

/// Blocks of zeroes become holes at this granularity.
const BLOCK_BYTES: usize = 64 << 10;

/// The path of `image` in `scratch`, unpacked from `packed` if nobody did it before.
///
/// The hash is part of the file's name and a file gets its name after it was checked, so what is there is right.
pub(crate) fn once<R: Read>(
    scratch: &Path,
    image: &ImageFile,
    packed: impl FnOnce() -> anyhow::Result<R>,
) -> anyhow::Result<PathBuf> {
    let stem = image.file.strip_suffix(".img.xz").context("not the name of a packed image")?;
    let hash = image.raw_sha256.get(..16).context("not a SHA-256")?;
    let path = scratch.join(format!("{stem}-{hash}.img"));
    if path.exists() {
        return Ok(path);
    }
    fs::create_dir_all(scratch)?;
    let lock = File::create(scratch.join(format!("{stem}.lock")))?;
    lock.lock()?;
    if !path.exists() {
        // Of two test binaries the second gets the lock here, and finds the work done.
        let mut file = tempfile::NamedTempFile::new_in(scratch)?;
        sparse_copy(packed()?, file.as_file_mut(), image)?;
        file.as_file().set_permissions(Permissions::from_mode(0o444))?;
        file.persist(&path)?;
    }
    Ok(path)
}

/// Copies `from` to the empty file `to`, leaving holes for zeroes, and checks size and hash.
fn sparse_copy(from: impl Read, to: &mut File, expect: &ImageFile) -> anyhow::Result<()> {
    let mut from = from.take(expect.raw_size.saturating_add(1));
    let (mut block, mut hash, mut size) = (vec![0; BLOCK_BYTES], Sha256::new(), 0u64);
    loop {
        let filled = fill(&mut from, &mut block)?;
        let bytes = &block[..filled];
        hash.update(bytes);
        size += filled as u64;
        match bytes.iter().all(|&byte| byte == 0) {
            true => drop(to.seek(SeekFrom::Current(filled as i64))?),
            false => to.write_all(bytes)?,
        }
        if filled < BLOCK_BYTES {
            break;
        }
    }
    ensure!(size == expect.raw_size, "unpacks to {size} bytes or more, not to {}", expect.raw_size);
    let found = hex(&hash.finalize());
    ensure!(found == expect.raw_sha256, "has the SHA-256 {found}, not {}", expect.raw_sha256);
    to.set_len(size)?;
    Ok(())
}

/// Reads until `block` is full or the input ends; the number of bytes read.
fn fill(from: &mut impl Read, block: &mut [u8]) -> anyhow::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match from.read(&mut block[filled..])? {
            0 => break,
            bytes => filled += bytes,
        }
    }
    Ok(filled)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::MetadataExt,
        sync::atomic::{AtomicU32, Ordering},
        thread,
    };

    use super::*;

    fn sample() -> (Vec<u8>, ImageFile) {
        let mut bytes = vec![0; 40 * BLOCK_BYTES + 77];
        bytes[5 * BLOCK_BYTES + 3] = 1;
        let raw_sha256 = hex(&Sha256::digest(&bytes));
        let image = ImageFile { file: "s.img.xz".into(), raw_size: bytes.len() as u64, raw_sha256 };
        (bytes, image)
    }

    #[test]
    fn zeroes_become_holes_and_the_content_stays() {
        let (bytes, image) = sample();
        let scratch = tempfile::tempdir().unwrap();
        let path = once(scratch.path(), &image, || Ok(bytes.as_slice())).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert!(fs::metadata(&path).unwrap().blocks() * 512 <= 2 * BLOCK_BYTES as u64);
    }

    #[test]
    fn many_at_once_unpack_one_time() {
        let (bytes, image) = sample();
        let scratch = tempfile::tempdir().unwrap();
        let unpacked = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    once(scratch.path(), &image, || {
                        unpacked.fetch_add(1, Ordering::Relaxed);
                        Ok(bytes.as_slice())
                    })
                    .unwrap()
                });
            }
        });
        assert_eq!(unpacked.into_inner(), 1);
    }

    #[test]
    fn wrong_content_is_refused_and_leaves_nothing() {
        let (mut bytes, image) = sample();
        let scratch = tempfile::tempdir().unwrap();
        bytes[9] = 1;
        let error = once(scratch.path(), &image, || Ok(bytes.as_slice())).unwrap_err();
        assert!(error.to_string().contains("SHA-256"), "{error}");
        for cut in [bytes.len() - 1, bytes.len() - 2 * BLOCK_BYTES] {
            let error = once(scratch.path(), &image, || Ok(&bytes[..cut])).unwrap_err();
            assert!(error.to_string().contains("unpacks to"), "{error}");
        }
        bytes.resize(bytes.len() + BLOCK_BYTES, 0);
        let error = once(scratch.path(), &image, || Ok(bytes.as_slice())).unwrap_err();
        assert!(error.to_string().contains("unpacks to"), "{error}");
        let left: Vec<_> =
            fs::read_dir(scratch.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(left, ["s.lock"]);
    }
}
