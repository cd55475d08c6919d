//! The check: sound images are clean, every fault is found and named, and memory stays within the budget.

use std::collections::BTreeSet;

use dfly_hal::ThreadWait;
use dfly_hammer::check::{Depth, Event, Finding, Kind, Options, Report, Severity, check};
use dfly_hammer::ondisk::Zone;
use dfly_hammer::ondisk::record::{ObjType, RecType};
use dfly_hammer::{Key, MountError, Tid};
use dfly_hammer_image::{
    Builder, Content, Damage, Data, Error, Format, Image, Object, Record, Seal, Shape, Silent, crash, demo,
};

use crate::common::disks;

fn run(image: &Image, options: &Options) -> Result<(Report, Vec<Finding>), MountError> {
    let mut found = Vec::new();
    let report = check(&disks(image), options, &mut ThreadWait::new(), &mut |event| {
        if let Event::Found(finding) = event {
            found.push(finding);
        }
    })?;
    assert_eq!(report.notes + report.warnings + report.errors, found.len() as u64);
    Ok((report, found))
}

fn findings(image: &Image) -> Vec<Finding> {
    run(image, &Options::default()).unwrap().1
}

#[track_caller]
fn assert_clean(image: &Image) {
    let found = findings(image);
    assert!(found.is_empty(), "{} findings, the first is: {}", found.len(), found[0]);
}

fn kinds(found: &[Finding]) -> BTreeSet<Kind> {
    found.iter().map(|f| f.kind).collect()
}

/// A directory with files of all sizes and a link, on the root.
fn plain(format: Format) -> Builder {
    let mut fs = Builder::new(format);
    let root = fs.root();
    let dir = fs.directory(root, "dir");
    fs.file(dir, "small", Content::pattern(1, 100));
    fs.file(dir, "medium", Content::pattern(2, 40_000));
    fs.file(dir, "large", Content::pattern(3, 1_500_000));
    fs.symlink(dir, "link", "x".repeat(40));
    fs.directory(dir, "inner");
    fs.commit();
    fs
}

/// The same with history, a snapshot, another pseudo file system, and a text of configuration.
fn rich(format: Format) -> Builder {
    let mut fs = plain(format);
    let root = fs.root();
    let small = fs.lookup(root, "dir/small").unwrap();
    fs.write(small, 0, b"changed");
    let then = fs.commit();
    fs.snapshot(0, then, "then").config(0, "text");
    let other = fs.pfs_master(1, "other");
    fs.file(other, "file", Content::pattern(9, 20_000));
    fs.commit();
    fs
}

#[test]
fn sound_images_are_clean() {
    for version in 1..=7 {
        assert_clean(&demo(Format { version, ..Format::default() }).finish().unwrap());
    }
    let two = Format { volumes: vec![64 << 20, 48 << 20], ..Format::default() };
    for shape in [Shape::default(), Shape::DEEP, Shape { extra_levels: 3, ..Shape::DEEP }] {
        let mut fs = rich(two.clone());
        fs.shape(shape).dedup();
        let root = fs.root();
        // The same content twice, which deduplication stores once.
        fs.file(root, "twin", Content::pattern(2, 40_000));
        assert_clean(&fs.finish().unwrap());
    }
    let large = Format { volumes: vec![5 << 40], ..Format::default() };
    assert_clean(&plain(large).finish().unwrap());
}

#[test]
fn a_crash_leaves_nothing_to_find() {
    for version in [3, 4, 7] {
        let mut fs = rich(Format { version, ..Format::default() });
        let before = fs.finish().unwrap();
        let root = fs.root();
        fs.file(root, "new", Content::pattern(4, 300_000));
        let after = fs.finish().unwrap();
        for modulus in [1, 2, 3, 7] {
            let image = crash(&before, &after, |_, at| at / 16384 % modulus == 0).unwrap();
            let (report, found) = run(&image, &Options::default()).unwrap();
            assert!(report.recovery.crashed && report.is_clean(), "{found:?}");
            assert!(kinds(&found).is_subset(&[Kind::HeaderTorn].into()), "{found:?}");
        }
    }
}

/// Every fault that the damage tests know, but those that leave a sound file system.
#[test]
fn every_damage_is_found() {
    let format = Format { volumes: vec![64 << 20, 48 << 20], ..Format::default() };
    let mut fs = demo(format);
    fs.shape(Shape { leaf: 10, internal: 5, ..Shape::default() });
    let before = fs.finish().unwrap();
    let root = fs.root();
    fs.unlink(root, "home");
    let crashed = crash(&before, &fs.finish().unwrap(), |_, _| false).unwrap();
    let (mut applied, mut seen) = (0, BTreeSet::new());
    for damage in Damage::samples() {
        for seal in [Seal::Stale, Seal::Fresh] {
            // Recovery undoes some of what is done to other places.
            let of_the_fifo = format!("{damage:?}").starts_with(['F', 'U']);
            let mut image = if of_the_fifo { crashed.clone() } else { before.clone() };
            match damage.apply(&mut image, seal) {
                Ok(()) => applied += 1,
                Err(Error::NotThere(_)) => continue,
                Err(e) => panic!("{damage:?}: {e}"),
            }
            let sound = match (&damage, seal) {
                // Different data with a right checksum is just different data, and so are old bytes.
                (Damage::DataByte(..) | Damage::FifoByte | Damage::UndoTarget(_), Seal::Fresh) => true,
                (Damage::FifoRange(3, 3), _) => true,
                _ => false,
            };
            let mut options = Options::default();
            // File data is not summed up quickly.
            if !matches!(damage, Damage::DataByte(..)) {
                options.depth = Depth::Quick;
            }
            match run(&image, &options) {
                Ok((report, found)) => {
                    assert!(sound || !report.is_clean(), "{damage:?}, {seal:?}: {found:?}");
                    seen.extend(kinds(&found));
                }
                Err(e) => assert!(!sound, "{damage:?}: {e}"),
            }
        }
    }
    assert!(applied > 120 && seen.len() > 15, "{applied} {seen:?}");
}

/// The sheet's list of faults that DragonFly's tools do not see, each found under its own name, and nothing else with it.
#[test]
fn silent_faults_are_found_and_named() {
    use {Kind as K, Silent as S};
    let sound = rich(Format { volumes: vec![128 << 20], ..Format::default() }).finish().unwrap();
    assert_clean(&sound);
    let header = sound.header(0).unwrap();
    let next_tid = header.vol0_next_tid.get();
    let (inode, dirent, data) = (RecType::INODE, RecType::DIRENTRY, RecType::DATA);
    let (large, small, meta, btree) = (Zone::LARGE_DATA, Zone::SMALL_DATA, Zone::META, Zone::BTREE);
    let le = |n: u64| n.to_le_bytes().to_vec();
    let cases: Vec<(Silent, &[Kind])> = vec![
        // Counters, and space that nobody uses.
        (S::LeakedBlock(large), &[K::BigBlockLeaked]),
        (S::LeakedBlock(btree), &[K::BigBlockLeaked]),
        (S::BytesFree(large, -16), &[K::SpaceLeaked]),
        (S::BytesFree(meta, 16), &[K::SpaceOverused]),
        (S::BlocksFree(1), &[K::Layer1Free]),
        (S::FreeCount(-1), &[K::FreeCount]),
        (S::BlockCount(1), &[K::BigBlockCount]),
        (S::InodeCount(1), &[K::InodeCount]),
        // Space that would be overwritten, or is shared.
        (S::Append(large, 0), &[K::AppendTooLow]),
        (S::Append(small, 16), &[K::AppendTooLow]),
        (S::Append(btree, 8192), &[K::AppendTooLow]),
        (S::Append(meta, 1), &[K::Layer2State]),
        (S::Overlap(inode), &[K::Overlap, K::InodeParent]),
        (S::Owner(small, large), &[K::WrongOwner]),
        (S::Owner(Zone::FREE, Zone(12)), &[K::Layer2Owner, K::Layer1Free, K::FreeCount]),
        (S::Owner(Zone::UNDO, Zone::FREE), &[K::Layer2Owner, K::Layer2State, K::Layer1Free, K::FreeCount]),
        // Checksums that nobody looks at.
        (S::HeaderCrc(0), &[K::HeaderChecksum]),
        (S::BlockmapCrc(10), &[K::BlockmapChecksum]),
        (S::BlockmapCrc(4), &[K::BlockmapChecksum]),
        (S::Layer1Crc, &[K::Layer1Checksum]),
        (S::Layer2Crc(meta), &[K::Layer2Checksum]),
        // Transactions.
        (S::MirrorTid(2), &[K::MirrorTid]),
        (S::NextTid(0x1_0000_0010), &[K::NextTid]),
        (S::Tids(data, 0, 1, 0), &[K::RecordTids, K::ElementOrder, K::HistoryOverlap]),
        (S::Tids(data, 0, next_tid, next_tid), &[K::RecordTids, K::RecordTime]),
        (S::Tids(data, 0, next_tid, 2), &[K::RecordTids, K::RecordTime]),
        // Names, inodes, files.
        (S::Localization(dirent, 0, 2), &[K::ElementOrder, K::RecordDomain]),
        (S::Data(dirent, 0, 0, le(0x7777)), &[K::DirentTarget, K::InodeOrphan]),
        (S::Data(dirent, 0, 8, le(5 << 16)), &[K::DirentTarget]),
        (S::Data(dirent, 0, 16, b"a/b".to_vec()), &[K::DirentName, K::DirentKey]),
        (S::Data(dirent, 0, 16, b"dix".to_vec()), &[K::DirentKey]),
        (S::ObjType(dirent, 0, 2), &[K::DirentType]),
        (S::Data(inode, 2, 72, le(2)), &[K::InodeLinks]),
        (S::Data(inode, 1, 24, le(99)), &[K::InodeParent]),
        (S::Data(inode, 2, 0, vec![2]), &[K::InodeField]),
        (S::Data(inode, 2, 64, vec![7]), &[K::ObjectType, K::SymlinkTarget, K::DirentType]),
        (S::Data(inode, 5, 80, le(41)), &[K::SymlinkTarget]),
        (S::Data(inode, 3, 80, le(16384)), &[K::DataBeyondEnd]),
        (S::ObjType(inode, 2, 4), &[K::ObjectType]),
        (S::ObjType(data, 0, 4), &[K::ObjectType]),
        (S::Key(data, 1, 16384 + 64), &[K::DataGrid, K::DataOverlap]),
        (S::Key(RecType::SNAPSHOT, 0, 7), &[K::SnapshotRecord]),
        (S::Key(RecType::CONFIG, 0, 7), &[K::RecordDomain]),
        (S::Data(RecType::CONFIG, 0, 0, vec![b'x'; 1024]), &[K::ConfigRecord]),
        (S::Data(RecType::PFS, 1, 76, vec![2]), &[K::PfsRecord]),
        (S::Key(RecType::PFS, 1, 3 << 16), &[K::PfsMissing, K::PfsRoot]),
        (S::Key(RecType::PFS, 1, (1 << 16) + 1), &[K::RecordDomain]),
    ];
    for (fault, expected) in cases {
        let mut image = sound.clone();
        fault.apply(&mut image).unwrap();
        let found = findings(&image);
        let expected: BTreeSet<Kind> = expected.iter().copied().collect();
        let text: Vec<_> = found.iter().map(|f| f.to_string()).collect();
        assert_eq!(kinds(&found), expected, "{fault:?}: {text:#?}");
    }
}

/// Faults that only a description of records can make.
#[test]
fn contradictions_between_records_are_found_and_named() {
    type Break = fn(&mut Builder);
    let cases: [(&str, Break, &[Kind]); 9] = [
        (
            "two names alike",
            |fs| {
                let dir = at(fs, "dir");
                let other = at(fs, "dir/medium");
                fs.entry_at(dir, "small", 1, other).inode(other, |i| i.nlinks = 2.into());
            },
            &[Kind::DirentTwice],
        ),
        (
            "a second name that is not counted",
            |fs| {
                let (dir, other) = (at(fs, "dir"), at(fs, "dir/medium"));
                fs.entry_at(dir, "again", 0, other);
            },
            &[Kind::InodeLinks],
        ),
        (
            "a second name of a directory",
            |fs| {
                let (root, other) = (fs.root(), at(fs, "dir/inner"));
                fs.entry_at(root, "again", 0, other);
            },
            &[Kind::InodeLinks, Kind::DirectoryLinks, Kind::InodeParent],
        ),
        (
            "a directory below itself",
            |fs| {
                let (root, inner) = (fs.root(), at(fs, "dir/inner"));
                fs.rename((root, "dir"), (inner, "dir"));
            },
            &[Kind::DirectoryLoop],
        ),
        (
            "a file without a name",
            |fs| {
                let dir = at(fs, "dir");
                let dirent = RecType::DIRENTRY.0;
                let last = fs.tid();
                fs.commit();
                let tid = fs.tid();
                let gone = fs
                    .records_mut()
                    .find(|r| r.key.rec_type == dirent && r.data.get().unwrap().ends_with(b"medium"));
                let gone = gone.unwrap();
                (gone.delete_tid, gone.delete_ts) = (tid, 7);
                assert!(last < tid);
                fs.file(dir, "so that there is a transaction", Content::default());
            },
            &[Kind::InodeOrphan],
        ),
        (
            "an object that waits for its end",
            |fs| {
                let dir = at(fs, "dir");
                fs.file(dir, "open", Content::bytes("still open"));
                fs.commit();
                let tid = fs.tid();
                let open = at(fs, "dir/open");
                fs.inode(open, |i| i.nlinks = 0.into());
                let dirent = RecType::DIRENTRY.0;
                let gone = fs
                    .records_mut()
                    .find(|r| r.key.rec_type == dirent && r.data.get().unwrap().ends_with(b"open"));
                let gone = gone.unwrap();
                (gone.delete_tid, gone.delete_ts) = (tid, 7);
            },
            &[Kind::InodeUnlinked],
        ),
        (
            "data of nobody",
            |fs| {
                let record = data_record(0x7777, 16384, 16384, fs.tid());
                fs.record(record);
            },
            &[Kind::NoInode],
        ),
        (
            "two records of the same bytes",
            |fs| {
                let medium = at(fs, "dir/medium");
                let record = data_record(medium.id, 64, 64, fs.tid());
                fs.record(record);
            },
            &[Kind::DataOverlap],
        ),
        (
            "two versions at the same time",
            |fs| {
                let medium = at(fs, "dir/medium");
                let record = data_record(medium.id, 32768, 16384, fs.tid());
                fs.record(record);
            },
            &[Kind::HistoryOverlap],
        ),
    ];
    for (name, break_it, expected) in cases {
        let mut fs = plain(Format::default());
        break_it(&mut fs);
        fs.commit();
        let found = findings(&fs.finish().unwrap());
        let text: Vec<_> = found.iter().map(|f| f.to_string()).collect();
        assert_eq!(kinds(&found), expected.iter().copied().collect(), "{name}: {text:#?}");
        assert!(found.iter().all(|f| f.object.is_some()), "{name}: {text:#?}");
    }
}

fn at(fs: &Builder, path: &str) -> Object {
    fs.lookup(fs.root(), path).unwrap()
}

fn data_record(obj_id: i64, end: i64, len: usize, create_tid: Tid) -> Record {
    let key = Key { localization: 2, obj_id, rec_type: RecType::DATA.0, key: end, create_tid };
    Record::new(key, ObjType::REGULAR, Data::bytes(vec![b'x'; len]))
}

/// Before version 5 nothing is shared, also not file data.
#[test]
fn shared_data_is_an_overlap_where_there_is_no_deduplication() {
    for (version, shared) in [(4, true), (7, false)] {
        let mut fs = Builder::new(Format { version, ..Format::default() });
        let root = fs.root();
        fs.file(root, "a", Content::pattern(1, 16384));
        fs.file(root, "b", Content::pattern(2, 16384));
        fs.commit();
        let mut image = fs.finish().unwrap();
        Silent::Overlap(RecType::DATA).apply(&mut image).unwrap();
        let found = kinds(&findings(&image));
        assert_eq!(found.contains(&Kind::Overlap), shared, "{version}: {found:?}");
    }
}

/// 55,000 places and as many inodes and names do not fit into a mebibyte: the tree is walked more than once, and nothing is missed.
#[test]
fn a_small_budget_costs_passes_and_misses_nothing() {
    let mut fs = Builder::new(Format { volumes: vec![96 << 20], ..Format::default() });
    let root = fs.root();
    for n in 0..20_000 {
        fs.file(root, format!("{n:05}"), Content::default());
    }
    // More names of one file than fit at once.
    let one = fs.lookup(root, "00007").unwrap();
    for n in 0..15_000 {
        fs.link(root, format!("link{n:05}"), one);
    }
    fs.commit();
    let image = fs.finish().unwrap();
    let mut small = Options::default();
    (small.memory_bytes, small.depth) = (1 << 20, Depth::Quick);
    let mut large = small;
    large.memory_bytes = 64 << 20;
    let passes = |image: &Image, options| {
        let (report, mut found) = run(image, options).unwrap();
        found.sort_by_key(|f| (f.kind, f.at));
        (report.passes, report.records, found)
    };
    let ((many, records, found), (one, ..)) = (passes(&image, &small), passes(&image, &large));
    assert_eq!((one, records, found), (1, 55_002, vec![]));
    assert!((2..=8).contains(&many), "{many} passes");
    let (inode, dirent) = (RecType::INODE, RecType::DIRENTRY);
    for fault in [
        Silent::Data(inode, 3, 72, vec![9]),
        Silent::Data(inode, 19_990, 72, vec![9]),
        Silent::Data(dirent, 19_990, 0, vec![9]),
        Silent::Overlap(inode),
        Silent::Append(Zone::BTREE, 1 << 20),
        Silent::LeakedBlock(Zone::META),
        Silent::FreeCount(1),
    ] {
        let mut image = image.clone();
        fault.apply(&mut image).unwrap();
        let (found, expected) = (passes(&image, &small).2, passes(&image, &large).2);
        assert!(!found.is_empty() && found == expected, "{fault:?}: {found:?} {expected:?}");
    }
}

#[test]
fn what_is_no_file_system_is_not_checked() {
    let mut image = plain(Format::default()).finish().unwrap();
    Damage::Signature { volume: 0, signature: 7 }.apply(&mut image, Seal::Fresh).unwrap();
    let error = run(&image, &Options::default()).unwrap_err();
    assert_eq!(error, MountError::NotHammer { index: 0, found: 7 });
}

#[test]
fn names_of_kinds_are_unique_words() {
    let names: BTreeSet<_> = Kind::ALL.iter().map(|k| k.name()).collect();
    assert_eq!(names.len(), Kind::ALL.len());
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    assert!(names.iter().all(|n| n.chars().all(plain)));
    assert!(Kind::ALL.iter().any(|k| k.severity() == Severity::Note));
}
