//! What the builder's operations leave on the disk: worked examples, told by the original's code.

use dfly_hammer::ondisk::node::{TYPE_LEAF, Tid};
use dfly_hammer::ondisk::record::RecType;
use dfly_hammer::ondisk::{Offset, Zone};
use dfly_hammer_image::{Builder, Content, Format, Image, Object};

/// Key, creation, deletion and length of every record of a type that an object has, in order.
fn records(image: &Image, object: Object, rec_type: RecType) -> Vec<(i64, u64, u64, i32)> {
    let nodes = image.nodes().unwrap();
    let leaves = nodes.iter().filter(|n| n.node.node_type == TYPE_LEAF);
    leaves
        .flat_map(|n| &n.node.elements[..n.node.count.get() as usize])
        .filter(|e| e.base.obj_id.get() == object.id && e.base.rec_type.get() == rec_type.0)
        .map(|e| {
            let base = &e.base;
            (base.key.get(), base.create_tid.get(), base.delete_tid.get(), e.as_leaf().data_len.get())
        })
        .collect()
}

/// End and length of every live block of a file.
fn live_blocks(fs: &Builder, file: Object) -> Vec<(i64, i32)> {
    let records = records(&fs.finish().unwrap(), file, RecType::DATA);
    records.into_iter().filter(|r| r.2 == 0).map(|(end, _, _, len)| (end, len)).collect()
}

/// Fact sheet 3.5, size table.
#[test]
fn the_size_of_a_file_decides_on_its_records() {
    let mut fs = Builder::default();
    let root = fs.root();
    let mut blocks = |size: u64| {
        let file = fs.file(root, format!("{size}"), Content::pattern(0, size));
        live_blocks(&fs, file)
    };
    assert_eq!(blocks(0), []);
    assert_eq!(blocks(1), [(16, 16)]);
    assert_eq!(blocks(16), [(16, 16)]);
    assert_eq!(blocks(17), [(32, 32)]);
    assert_eq!(blocks(8192), [(8192, 8192)]);
    assert_eq!(blocks(8193), [(0x4000, 16384)]);
    assert_eq!(blocks(16385), [(0x4000, 16384), (0x8000, 16384)]);
    assert_eq!(blocks(1 << 20).len(), 64);
    assert_eq!(blocks((1 << 20) + 1).pop(), Some((0x110000, 65536)));
}

/// Fact sheet 3.5: truncation and growth.
#[test]
fn a_new_size_rewrites_the_block_at_the_old_end() {
    let mut fs = Builder::default();
    let root = fs.root();
    for (from, to, expected) in [
        (20_000, 10_000, vec![(0x4000, 16384)]),
        (10_000, 5_000, vec![(5008, 5008)]),
        (12_000, 50, vec![(64, 64)]),
        (100, 5_000, vec![(5008, 5008)]),
        (20_100, 50_000, vec![(0x4000, 16384), (0x8000, 16384)]),
        (32_768, 16_384, vec![(0x4000, 16384)]),
        (100, 0, vec![]),
    ] {
        let file = fs.file(root, format!("{from}-{to}"), Content::pattern(0, from));
        fs.commit();
        let tid = fs.tid().0;
        fs.truncate(file, to);
        assert_eq!(live_blocks(&fs, file), expected, "{from} to {to}");
        let image = fs.finish().unwrap();
        let rewritten = records(&image, file, RecType::DATA).iter().any(|r| r.1 == tid);
        assert_eq!(rewritten, to % 16384 != 0, "{from} to {to}: a cut at a block's border rewrites nothing");
        fs.commit();
    }
    let file = fs.file(root, "hole", Content::pattern(0, 100));
    fs.commit();
    fs.write(file, 20_000, &[1; 100]);
    assert_eq!(live_blocks(&fs, file), [(0x4000, 16384), (0x8000, 16384)]);
}

#[test]
fn one_transaction_leaves_one_version() {
    let mut fs = Builder::default();
    let root = fs.root();
    let gone = fs.file(root, "gone", Content::pattern(0, 40_000));
    let file = fs.file(root, "file", Content::pattern(0, 40_000));
    fs.truncate(file, 100);
    fs.unlink(root, "gone");
    let image = fs.finish().unwrap();
    let tid = fs.tid().0;
    assert_eq!(records(&image, file, RecType::DATA), [(112, tid, 0, 112)]);
    assert_eq!(records(&image, file, RecType::INODE), [(0, tid, 0, 128)]);
    assert_eq!(records(&image, gone, RecType::DATA), []);
    assert_eq!(records(&image, gone, RecType::INODE), []);
    assert_eq!(records(&image, root, RecType::DIRENTRY).len(), 1);
}

/// Fact sheet 15.9.
#[test]
fn the_last_name_takes_the_object_along() {
    let mut fs = Builder::default();
    let root = fs.root();
    let file = fs.file(root, "f", Content::pattern(0, 40_000));
    let t1 = fs.commit().0;
    fs.link(root, "g", file);
    let t2 = fs.commit().0;
    fs.unlink(root, "f");
    let t3 = fs.commit().0;
    fs.unlink(root, "g");
    let t4 = fs.commit().0;
    let image = fs.finish().unwrap();
    assert_eq!(records(&image, file, RecType::INODE), [(0, t1, t2, 128), (0, t2, t3, 128), (0, t3, t4, 128)]);
    assert!(records(&image, file, RecType::DATA).iter().all(|r| (r.1, r.2) == (t1, t4)));
}

/// Fact sheet 15.4: three names with one hash, and when a key is taken.
#[test]
fn names_that_collide_take_the_next_free_key() {
    const KEY: i64 = 0x73fa_a10e_aa92_0000;
    let (a, b, c) = ("a.b.c.d.h.g.e.f", "b.c.a.g.h.f.e.d", "b.h.c.g.f.e.a.d");
    let mut fs = Builder::default();
    let root = fs.root();
    let mut tids = Vec::new();
    let new = |fs: &mut Builder, name: &str| {
        fs.file(root, name, Content::default());
    };
    new(&mut fs, a);
    new(&mut fs, b);
    tids.push(fs.commit().0);
    new(&mut fs, c);
    tids.push(fs.commit().0);
    fs.unlink(root, a);
    tids.push(fs.commit().0);
    new(&mut fs, a);
    tids.push(fs.commit().0);
    fs.unlink(root, b);
    tids.push(fs.commit().0);
    new(&mut fs, b);
    fs.unlink(root, b);
    new(&mut fs, b);
    tids.push(fs.commit().0);
    fs.unlink(root, a);
    new(&mut fs, a);
    tids.push(fs.commit().0);
    let entries = records(&fs.finish().unwrap(), root, RecType::DIRENTRY);
    let found: Vec<_> =
        entries.into_iter().map(|(key, created, deleted, _)| (key - KEY, created, deleted)).collect();
    assert_eq!(
        found,
        [
            (0, tids[0], tids[2]),
            (0, tids[3], tids[6]),
            (1, tids[0], tids[4]),
            (1, tids[5], 0),
            (2, tids[1], 0),
            (3, tids[6], 0),
        ]
    );
}

/// Fact sheet 15.5.
#[test]
fn a_name_that_is_replaced_keeps_its_key() {
    let mut fs = Builder::default();
    let root = fs.root();
    fs.file(root, "f", Content::bytes("fff"));
    fs.file(root, "g", Content::bytes("ggg"));
    let t1 = fs.commit().0;
    fs.rename((root, "f"), (root, "g"));
    let t2 = fs.commit().0;
    let entries = records(&fs.finish().unwrap(), root, RecType::DIRENTRY);
    let found: Vec<_> =
        entries.into_iter().map(|(key, created, deleted, _)| (key, created, deleted)).collect();
    let (g, f) = (0x01d4_1b76_1aa2_0000, 0x76d3_2be0_5d33_0000);
    assert_eq!(found, [(g, t1, t2), (g + 1, t2, 0), (f, t1, t2)]);
}

/// Fact sheet 1.3: where records of such lengths go.
#[test]
fn small_records_do_not_cross_buffers() {
    let mut fs = Builder::default();
    let root = fs.root();
    for size in [1, 16, 17, 8191, 8192] {
        fs.file(root, format!("{size:04}"), Content::pattern(0, size));
        fs.commit();
    }
    let image = fs.finish().unwrap();
    let mut places: Vec<u64> = Vec::new();
    for node in image.nodes().unwrap() {
        for element in &node.node.elements[..node.node.count.get() as usize] {
            if element.base.rec_type.get() == RecType::DATA.0 {
                places.push(Offset(element.as_leaf().data_offset.get()).in_big_block());
            }
        }
    }
    assert_eq!(places, [0, 0x10, 0x20, 0x40, 0x4000]);
}

/// Fact sheet 15.1: the FIFO of a first small flush.
#[test]
fn undo_is_cut_at_sectors_as_the_original_cuts_it() {
    let mut image = Builder::default().finish().unwrap();
    let mut journal = image.journal().unwrap();
    let sizes: [(u64, usize); 8] = [
        (0x2000_0000_0080_0040, 16),
        (0x2000_0000_0180_0000, 4096),
        (0x2000_0000_0200_0070, 16),
        (0x2000_0000_0080_0050, 16),
        (0x2000_0000_0000_0000, 32),
        (0x1000_0000_0000_00d0, 8),
        (0x1000_0000_0000_00e0, 8),
        (0x1000_0000_0000_0108, 640),
    ];
    for (target, len) in sizes {
        journal.undo(Offset(target), &vec![0xa5; len]).unwrap();
    }
    assert_eq!(journal.position().byte(), 0x15b0);
    journal.finish(dfly_hammer_image::Hint::Exact).unwrap();
    let mut found = Vec::new();
    let mut at = 0;
    while at < 0x15b0 {
        let head = image.read(Offset::new(Zone::UNDO, 0, at), 32).unwrap();
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
        if head[2] == 0x43 {
            found.push((word(8), word(24)));
        }
        at += u64::from(word(4));
    }
    let payloads = [16, 416, 472, 472, 472, 472, 472, 472, 472, 376, 16, 16, 32, 8, 8, 248, 392];
    assert_eq!(found, (0x4000..).zip(payloads).collect::<Vec<_>>());
}

/// Fact sheet 15.3: REDO records and where they lie, and the sector that is made ready ahead of them (5.1).
#[test]
fn redo_is_placed_as_the_original_places_it() {
    use dfly_hammer_image::{Hint, Redo};
    let mut image = Builder::default().finish().unwrap();
    let file = Object { pfs: 0, id: 0x1_0000_0745 };
    let mut journal = image.journal().unwrap();
    journal.skip_to(0x2a00).unwrap();
    journal.undo(Offset::new(Zone::RAW_BUFFER, 0, 0), &[0; 272]).unwrap();
    journal.undo(Offset::new(Zone::RAW_BUFFER, 0, 0), &[0; 1]).ok();
    let at = journal.redo(file, &Redo::Write(0, b"BBBB")).unwrap().byte();
    assert_eq!(at, 0x2b68);
    let sync = journal.redo(file, &Redo::Sync(at)).unwrap().byte();
    assert_eq!(sync, at + 72);
    // What is left of the sector cannot hold one more.
    let next = journal.redo(file, &Redo::Write(0x4e16, &[b'C'; 20])).unwrap().byte();
    assert_eq!((next, journal.position().byte()), (0x2c00, 0x2c00 + 88));
    journal.skip_to(0x5200).unwrap();
    let seq_at = |image: &Image, at: u64| {
        u32::from_le_bytes(image.read(Offset::new(Zone::UNDO, 0, at + 8), 4).unwrap().try_into().unwrap())
    };
    journal.finish(Hint::Exact).unwrap();
    let buffer = seq_at(&image, 0x4000);
    assert_eq!(seq_at(&image, 0x5400), (buffer ^ 0x4000_0000) + 10);
}

#[test]
fn a_full_fifo_is_an_error() {
    let mut image = Builder::default().finish().unwrap();
    let mut journal = image.journal().unwrap();
    let error =
        (0..1 << 20).find_map(|_| journal.undo(Offset::new(Zone::RAW_BUFFER, 0, 0), &[0; 4096]).err());
    assert!(matches!(error, Some(dfly_hammer_image::Error::FifoFull)));
}

#[test]
fn the_first_mistake_is_reported() {
    let mut fs = Builder::new(Format { label: "L".into(), ..Format::default() });
    let root = fs.root();
    fs.unlink(root, "nothing").unlink(root, "nothing else");
    let message = fs.finish().unwrap_err().to_string();
    assert!(message.contains("\"nothing\": no such name"), "{message}");
    for format in [
        Format { version: 8, ..Format::default() },
        Format { volumes: vec![], ..Format::default() },
        Format { volumes: vec![30 << 20], ..Format::default() },
        Format { fifo_bytes: 1 << 20, ..Format::default() },
        Format { label: "x".repeat(64), ..Format::default() },
    ] {
        assert!(Builder::new(format).finish().is_err());
    }
}

#[test]
fn a_snapshot_names_a_view() {
    let mut fs = Builder::default();
    let root = fs.root();
    let tid = fs.commit();
    fs.snapshot(0, tid, "label").config(0, "text");
    let image = fs.finish().unwrap();
    assert_eq!(records(&image, root, RecType::SNAPSHOT), [(tid.0 as i64, fs.tid().0, 0, 128)]);
    assert_eq!(records(&image, root, RecType::CONFIG), [(0, fs.tid().0, 0, 1024)]);
    assert!(fs.tid() > tid && tid > Tid::MIN);
}
