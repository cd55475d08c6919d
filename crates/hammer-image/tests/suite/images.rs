//! Every image is sound, whatever it holds: the project's own checker says so. With `HAMMER_IMAGE_ZOO=DIR` in the
//! environment the images are also written there, for other judges.

use super::check::{Report, check, different_bytes, recover};
use dfly_hammer::ondisk::node::Tid;
use dfly_hammer::ondisk::{Offset, Zone};
use dfly_hammer_image::{Builder, Content, Damage, Format, Hint, Image, Object, Seal, Shape, crash, demo};

fn sound(name: &str, image: &Image) -> Report {
    if let Some(folder) = std::env::var_os("HAMMER_IMAGE_ZOO") {
        let folder = std::path::Path::new(&folder);
        let file = |n| folder.join(format!("{name}.{n}.img"));
        image.write_files(&(0..image.volumes.len()).map(file).collect::<Vec<_>>()).unwrap();
    }
    check(image).unwrap_or_else(|what| panic!("{name}: {what}"))
}

fn version(version: u32) -> Format {
    Format { version, ..Format::default() }
}

/// Some hundred records: directories, names that share words, files of several sizes, changed over several
/// transactions by a fixed sequence of random numbers.
fn busy(format: Format, steps: u64) -> Builder {
    let mut random = 0x1234_5678_9abc_def1u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) % below
    };
    let mut fs = Builder::new(format);
    let mut directories = vec![fs.root()];
    let mut files: Vec<(Object, String, Object)> = Vec::new();
    for step in 0..steps {
        let directory = directories[next(directories.len() as u64) as usize];
        match (next(12), files.len()) {
            (0, _) => directories.push(fs.directory(directory, format!("dir-{step}"))),
            (1, 1..) => {
                let (parent, name, _) = files.swap_remove(next(files.len() as u64) as usize);
                fs.unlink(parent, name);
            }
            (2, 1..) => {
                let file = files[next(files.len() as u64) as usize].2;
                fs.write(file, next(40_000), &vec![step as u8; next(20_000) as usize + 1]);
            }
            (3, 1..) => {
                let file = files[next(files.len() as u64) as usize].2;
                fs.truncate(file, next(30_000));
            }
            (4, 1..) => {
                let n = next(files.len() as u64) as usize;
                let name = format!("moved-{step}.c");
                fs.rename((files[n].0, files[n].1.as_str()), (directory, name.as_str()));
                (files[n].0, files[n].1) = (directory, name);
            }
            (5, 1..) => {
                let file = files[next(files.len() as u64) as usize].2;
                let name = format!("link~{step}");
                fs.link(directory, &name, file);
                files.push((directory, name, file));
            }
            (6, 1..) => {
                let file = files[next(files.len() as u64) as usize].2;
                fs.inode(file, |inode| inode.mode = 0o600.into());
            }
            (7, _) => {
                fs.commit();
            }
            _ => {
                let name = format!("file_{step}.txt");
                let content = Content::pattern(step, [0, 1, 100, 8192, 8193, 50_000][next(6) as usize]);
                let file = fs.file(directory, &name, content);
                files.push((directory, name, file));
            }
        }
    }
    fs.commit();
    fs
}

#[test]
fn an_empty_file_system_has_one_leaf_and_two_big_blocks() {
    let report = sound("empty", &Builder::default().finish().unwrap());
    assert_eq!((report.nodes, report.records, report.depth), (1, 2, 1));
    assert_eq!(report.blocks.into_iter().collect::<Vec<_>>(), [(3, 1), (4, 2), (8, 1), (9, 1)]);
}

#[test]
fn the_demonstration_is_sound_in_every_version() {
    for v in 1..=7 {
        let report = sound(&format!("demo-v{v}"), &demo(version(v)).finish().unwrap());
        assert!(report.records > 100, "{report:?}");
    }
}

#[test]
fn any_shape_of_the_tree_is_sound() {
    let mut fs = busy(Format { volumes: vec![128 << 20], ..Format::default() }, 700);
    let shapes = [
        ("full", Shape::default()),
        ("deep", Shape::DEEP),
        ("single", Shape { leaf: 1, internal: 2, ..Shape::DEEP }),
        ("gaps", Shape { empty_leaf_every: 1, ..Shape::DEEP }),
        ("tall", Shape { extra_levels: 5, ..Shape::default() }),
    ];
    let mut records = Vec::new();
    for (name, shape) in shapes {
        let report = sound(&format!("shape-{name}"), &fs.shape(shape).finish().unwrap());
        records.push(report.records);
        let unusual = (report.empty_leaves > 0, report.narrow_nodes > 0);
        assert_eq!(unusual, (shape.empty_leaf_every > 0, shape.narrow_bounds), "{name}: {report:?}");
        match name {
            "deep" => assert!(report.depth >= 6, "{report:?}"),
            "single" => assert!(report.depth >= 10, "{report:?}"),
            "tall" => assert!(report.depth >= 7, "{report:?}"),
            _ => (),
        }
    }
    assert!(records[0] > 1000 && records.iter().all(|&n| n == records[0]), "{records:?}");
}

#[test]
fn data_spills_to_the_next_volume() {
    let format = Format { volumes: vec![64 << 20, 48 << 20, 41 << 20], ..Format::default() };
    let mut fs = busy(format, 300);
    let root = fs.root();
    fs.file(root, "big", Content::pattern(7, 50 << 20));
    let report = sound("volumes", &fs.finish().unwrap());
    assert_eq!(report.blocks[&4], 4);
    assert!(report.blocks[&10] >= 7, "{report:?}");
}

#[test]
fn a_full_volume_is_an_error() {
    let mut fs = Builder::default();
    let root = fs.root();
    fs.file(root, "big", Content::pattern(7, 20 << 20));
    assert_eq!(fs.finish().unwrap_err().to_string(), "no space left for 65536 bytes in zone 10");
}

#[test]
fn a_large_volume_costs_only_what_is_written() {
    // Two layer-2 tables, and a volume of its own big-blocks behind them.
    let format = Format { volumes: vec![5 << 40, 1 << 40], ..Format::default() };
    let image = demo(format).finish().unwrap();
    assert_eq!(image.volumes[0].size(), 5 << 40);
    let report = check(&image).unwrap();
    assert_eq!(report.blocks[&4], 4);
}

#[test]
fn shared_data_can_make_free_space_negative() {
    let mut fs = Builder::default();
    let root = fs.root();
    for n in 0..8 {
        fs.file(root, format!("copy {n}"), Content::made(3 << 20, |_, buf| buf.fill(b'x')));
    }
    let report = sound("dedup", &fs.dedup().finish().unwrap());
    assert!(report.least_free < -(8 << 20), "{report:?}");
}

#[test]
fn an_upgraded_file_system_mixes_checksums() {
    let mut fs = busy(version(7), 100);
    let until = fs.tid();
    let root = fs.root();
    fs.file(root, "new", Content::bytes("with the new checksum"));
    fs.old_crc_before(until);
    sound("upgraded", &fs.finish().unwrap());
}

#[test]
fn a_sparse_file_reaches_to_the_end_of_the_key_space() {
    let mut fs = Builder::default();
    let root = fs.root();
    let last = (1 << 63) - (128 << 10);
    let places = [0, 1 << 31, 1 << 40, 1 << 62, last];
    let content = places.iter().fold(Content::default(), |c, &at| c.with_bytes(at, format!("at {at}")));
    fs.file(root, "huge", content);
    let report = sound("sparse", &fs.finish().unwrap());
    assert_eq!(report.records, 2 + 2 + places.len());
    fs.file(root, "too far", Content::default().with_bytes(i64::MAX as u64 - 10, "x"));
    assert!(fs.finish().is_err());
}

#[test]
fn too_deep_a_tree_is_wrong_only_in_its_height() {
    let mut image = busy(version(7), 100).finish().unwrap();
    Damage::TooDeep(200).apply(&mut image, Seal::Fresh).unwrap();
    assert!(sound("too-deep", &image).depth > 200);
}

#[test]
fn recovery_of_a_crash_finds_the_state_before() {
    // Without and with a scan for the end; with the old and the new checksum.
    for v in [3, 4, 7] {
        let mut fs = busy(version(v), 200);
        let before = fs.finish().unwrap();
        let root = fs.root();
        fs.file(root, "late", Content::pattern(1, 20_000));
        let after = fs.finish().unwrap();
        let none = crash(&before, &after, |_, _| false).unwrap();
        let all = crash(&before, &after, |_, _| true).unwrap();
        let mut odd = false;
        let some = crash(&before, &after, |_, _| std::mem::replace(&mut odd, true)).unwrap();
        assert_eq!(sound(&format!("crash-none-v{v}"), &none), check(&before).unwrap());
        assert_eq!(sound(&format!("crash-all-v{v}"), &all), check(&after).unwrap());
        assert!(check(&some).is_err(), "half of a flush");
        for image in [&none, &all, &some] {
            let found = recover(image).unwrap();
            assert_eq!(check(&found), check(&before));
            assert_eq!(different_bytes(&found, &before), 0);
        }
    }
}

#[test]
fn a_journal_wraps_around() {
    let mut image = busy(version(7), 200).finish().unwrap();
    let before = check(&image).unwrap();
    let mut journal = image.journal().unwrap();
    journal.skip_to((8 << 20) - 1024).unwrap();
    for block in 0..5 {
        journal.overwrite(Offset::new(Zone::META, 0, (4 << 23) + block * 512), &[0xee; 512]).unwrap();
    }
    assert!(journal.position().byte() < 16 << 10);
    journal.finish(Hint::Stale).unwrap();
    let found = recover(&image).unwrap();
    assert_eq!(check(&found).unwrap(), before);
    assert!(check(&image).unwrap_err().contains("crc"));
}

#[test]
fn views_of_a_slave_hold_what_the_master_had() {
    let mut fs = Builder::default();
    let master = fs.pfs_master(1, "master");
    fs.file(master, "a", Content::bytes("one"));
    let synced = fs.commit();
    fs.unlink(master, "a");
    fs.commit();
    let slave = fs.pfs_slave(2, "slave", 1, synced);
    fs.pfs_slave(3, "never written", 1, Tid::ZERO);
    assert!(fs.lookup(master, "a").is_none() && fs.lookup(slave, "a").is_some());
    sound("slave", &fs.finish().unwrap());
}
