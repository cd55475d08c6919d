//! Broken disks get typed errors, quickly, and nothing is written.

use std::time::{Duration, Instant};

use crate::common::{self, Found, Tree, mount, mount_with, tree};
use dfly_hal::ThreadWait;
use dfly_hammer::crc::iscsi;
use dfly_hammer::ondisk::fifo::SECTOR;
use dfly_hammer::ondisk::{Offset, Zone};
use dfly_hammer::{Error, Hammer, MountError, MountOptions, RecoveryMode, Structure};
use dfly_hammer_image::{Builder, Content, Damage, Format, Image, Seal, Shape, crash};
use dfly_vfs::Errno;

fn builder(format: Format) -> Builder {
    let mut fs = Builder::new(format);
    let root = fs.root();
    let dir = fs.directory(root, "dir");
    for n in 0..20 {
        fs.file(dir, format!("file{n}"), Content::pattern(n, 100 * n * n));
    }
    let big = fs.file(root, "big", Content::pattern(7, 1_300_000));
    fs.symlink(root, "long", "x".repeat(100));
    fs.symlink(root, "short", "dir/file3");
    fs.commit();
    fs.write(big, 5000, b"changed").unlink(dir, "file4");
    fs.commit();
    fs
}

fn flat() -> Image {
    builder(Format::default()).finish().unwrap()
}

fn two_volumes() -> Image {
    let mut fs = builder(Format { volumes: vec![64 << 20; 2], ..Format::default() });
    fs.shape(Shape::DEEP);
    fs.finish().unwrap()
}

/// Half of the buffers of one more flush have reached the disk.
fn crashed(version: u32) -> Image {
    let mut fs = builder(Format { version, ..Format::default() });
    let before = fs.finish().unwrap();
    let root = fs.root();
    fs.unlink(root, "big").file(root, "new", Content::pattern(1, 40_000));
    crash(&before, &fs.finish().unwrap(), |_, byte| byte / 16384 % 2 == 0).unwrap()
}

/// Mounts, reads everything, looks at every node; returns what could be read or the first error.
fn exercise(image: &Image) -> Result<Tree, String> {
    let fs = mount(image).map_err(|e| e.to_string())?;
    inspect(&fs);
    tree(&fs, "/").map_err(|e| e.to_string())
}

fn inspect(fs: &Hammer) {
    let mut w = ThreadWait::new();
    let mut nodes = fs.nodes();
    let mut visited = 0;
    while let Some(report) = nodes.next(&mut w) {
        visited += 1;
        assert!(visited < 10_000, "the walk over the nodes does not end");
        let Ok(report) = report else { continue };
        for (i, e) in report.elements().iter().enumerate() {
            nodes.element_fault(&mut w, &report, i);
            if report.node.node_type == b'L' {
                nodes.data(&mut w, e);
            }
        }
    }
}

#[test]
fn every_damage_ends_in_an_error_or_in_the_right_contents() {
    let mut applied = 0;
    for base in [flat(), two_volumes(), crashed(7), crashed(3)] {
        let sound = exercise(&base).unwrap();
        for damage in Damage::samples() {
            for seal in [Seal::Stale, Seal::Fresh] {
                let mut image = base.clone();
                if damage.apply(&mut image, seal).is_err() {
                    continue;
                }
                applied += 1;
                let start = Instant::now();
                let outcome = exercise(&image);
                assert!(start.elapsed() < Duration::from_secs(20), "{damage:?} {seal:?} takes too long");
                // With fresh checksums other contents may be right; with stale ones they never are.
                if seal == Seal::Stale
                    && let Ok(found) = outcome
                {
                    assert!(found == sound, "{damage:?} changed what is read");
                }
            }
        }
    }
    assert!(applied > 400, "only {applied} damages could be applied");
}

#[test]
fn a_flipped_byte_is_noticed_or_does_not_matter() {
    let base = two_volumes();
    let sound = exercise(&base).unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noticed = 0;
    let written: Vec<(usize, u64)> = (0..base.volumes.len())
        .flat_map(|v| base.volumes[v].chunks().map(move |(at, _)| (v, at)).collect::<Vec<_>>())
        .collect();
    for _ in 0..400 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (volume, chunk) = written[(random >> 32) as usize % written.len()];
        let at = chunk + random % 4096;
        let mut image = base.clone();
        Damage::FlippedByte { volume, at }.apply(&mut image, Seal::Stale).unwrap();
        match exercise(&image) {
            Ok(found) => assert!(found == sound, "volume {volume} byte {at:#x} changed what is read"),
            Err(_) => noticed += 1,
        }
    }
    assert!(noticed > 5, "only {noticed} noticed");
}

/// Applies `damage` to `image` and says why it cannot be mounted.
fn refusal(mut image: Image, damage: Damage) -> MountError {
    damage.apply(&mut image, Seal::Fresh).unwrap();
    mount(&image).err().unwrap_or_else(|| panic!("{damage:?} was mounted"))
}

#[test]
fn mount_errors_name_the_volume_and_the_fault() {
    use MountError as M;
    let size = 64 << 20;
    assert!(matches!(
        refusal(flat(), Damage::Truncated { volume: 0, size: 30 << 20 }),
        M::TooSmall { index: 0, bytes, needed } if bytes == 30 << 20 && needed > bytes && needed <= size
    ));
    assert!(matches!(
        refusal(flat(), Damage::Truncated { volume: 0, size: 1000 }),
        M::TooSmall { index: 0, bytes: 512, needed: 16384 }
    ));
    assert_eq!(
        refusal(flat(), Damage::Signature { volume: 0, signature: 5 }),
        M::NotHammer { index: 0, found: 5 }
    );
    let swapped = 0xc841_4d4d_c552_3031_u64.swap_bytes();
    let signature = Damage::Signature { volume: 1, signature: swapped };
    assert_eq!(refusal(two_volumes(), signature), M::ByteOrder { index: 1 });
    assert_eq!(refusal(flat(), Damage::Version(8)), M::Version { index: 0, version: 8 });
    assert_eq!(refusal(two_volumes(), Damage::MissingVolume), M::Missing { expected: 2, given: 1 });
    assert_eq!(refusal(two_volumes(), Damage::ForeignFsid), M::OtherFileSystem { index: 1 });
    assert_eq!(refusal(two_volumes(), Damage::VolumeNumber(0)), M::Duplicate { index: 1, number: 0 });
    assert!(matches!(refusal(flat(), Damage::RootVolume(1)), M::Header { index: 0, value: 1, .. }));
    let mut root_only_missing = two_volumes();
    root_only_missing.volumes.remove(0);
    assert_eq!(mount(&root_only_missing).err(), Some(M::NoRootVolume));
    assert_eq!(
        Hammer::mount(&[], MountOptions::default(), &mut ThreadWait::new()).err(),
        Some(M::VolumeCount { given: 0 })
    );
}

#[test]
fn volumes_are_found_by_number_not_by_order_and_counted_by_the_root_alone() {
    let mut image = two_volumes();
    let sound = exercise(&image).unwrap();
    image.edit_header(1, |h| h.vol_count = 1.into()).unwrap();
    image.volumes.swap(0, 1);
    assert!(exercise(&image).unwrap() == sound);
}

#[test]
fn tree_errors_name_the_structure_and_the_place() {
    let corrupt = |damage| match refusal(two_volumes(), damage) {
        MountError::Read(e) => e,
        other => panic!("{other}"),
    };
    assert!(matches!(corrupt(Damage::Root(1)), Error::OutOfRange { structure: Structure::Node, .. }));
    assert!(matches!(
        corrupt(Damage::TooDeep(200)),
        Error::Corrupt { structure: Structure::Node, what: "tree is too deep", .. }
    ));
    let mut image = flat();
    Damage::LeafCount(64).apply(&mut image, Seal::Fresh).unwrap();
    let message = exercise(&image).unwrap_err();
    assert!(message.contains("impossible count"), "{message}");
    let mut image = flat();
    Damage::LeafCount(64).apply(&mut image, Seal::Stale).unwrap();
    let message = exercise(&image).unwrap_err();
    assert!(message.contains("checksum"), "{message}");
}

#[test]
fn a_damaged_file_does_not_hide_the_others() {
    let mut image = flat();
    let sound = exercise(&image).unwrap();
    Damage::DataByte(dfly_hammer::ondisk::record::RecType::DATA, 0).apply(&mut image, Seal::Stale).unwrap();
    let fs = mount(&image).unwrap();
    let mut bad = 0;
    for (path, found) in &sound {
        let Found::File(bytes) = found else { continue };
        let attr = common::stat(&fs, path).unwrap();
        match common::read(&fs, attr.node, bytes.len() as u64) {
            Ok(read) => assert!(read == *bytes),
            Err(e) => {
                assert_eq!(e.errno(), Errno::EIO);
                bad += 1;
            }
        }
    }
    assert_eq!(bad, 1);
}

#[test]
fn a_record_of_unknown_type_counts_in_the_fifo() {
    let mut image = Builder::new(Format::default()).finish().unwrap();
    let map = image.header(0).unwrap().vol0_blockmap[3];
    assert_eq!(map.first_offset.get(), Offset::new(Zone::UNDO, 0, 0).0, "the FIFO is fresh");
    let fillers = Offset(map.alloc_offset.get()).long() / SECTOR;
    let mut record = vec![0; SECTOR as usize];
    let (tail_at, len) = (record.len() - 8, (SECTOR as u32).to_le_bytes());
    record[..8].copy_from_slice(&[0x4e, 0xc8, 0x45, 0, len[0], len[1], len[2], len[3]]);
    record[8..12].copy_from_slice(&(fillers as u32).to_le_bytes());
    record[tail_at..].copy_from_slice(&[0x4f, 0xc7, 0x45, 0, len[0], len[1], len[2], len[3]]);
    let crc = iscsi(&record[..12]) ^ iscsi(&record[16..]);
    record[12..16].copy_from_slice(&crc.to_le_bytes());
    image.write(Offset(map.first_offset.get()), &record).unwrap();
    let fs = mount(&image).unwrap();
    assert!(fs.recovery().crashed && fs.recovery().undo_records == 0);
    assert_eq!(fs.header().vol0_blockmap[3].next_offset.get(), Offset::new(Zone::UNDO, 0, SECTOR).0);
}

#[test]
fn raw_mode_shows_the_disk_as_it_lies() {
    let options = |recovery| {
        let mut o = MountOptions::default();
        o.recovery = recovery;
        o
    };
    let image = crashed(7);
    let recovered = mount_with(&image, options(RecoveryMode::InMemory)).unwrap();
    let raw = mount_with(&image, options(RecoveryMode::Raw)).unwrap();
    assert!(recovered.recovery().crashed && recovered.recovery().undo_records > 0);
    assert!(!raw.recovery().crashed);
    assert_ne!(
        recovered.header().vol0_next_tid.get() == 0,
        raw.header().vol0_stat_freebigblocks.get() == 0,
        "both headers are there"
    );
    inspect(&raw);
}
