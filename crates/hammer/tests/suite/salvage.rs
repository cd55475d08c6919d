//! Salvage: all of a sound file system, and all that is left of a broken one.

use std::sync::Arc;

use dfly_bio::{BlockDevice, Completion};
use dfly_hal::ThreadWait;
use dfly_hammer::MountError;
use dfly_hammer::ondisk::record::RecType;
use dfly_hammer::ondisk::{Offset, Zone};
use dfly_hammer::salvage::{Event, Options, Salvage};
use dfly_hammer_image::{Builder, Content, Damage, Format, Image, Seal, Shape, Silent, demo};

use crate::common::{Found, Tree, disk, disks, mount, stat, tree};

fn open(image: &Image) -> Salvage {
    let w = &mut ThreadWait::new();
    Salvage::open(&disks(image), &Options::default(), w, &mut |_| ()).unwrap()
}

/// What a mount shows, under the name that salvage gives it.
fn mounted(image: &Image, pfs: &str) -> Tree {
    tree(&mount(image).unwrap(), pfs).unwrap()
}

fn salvaged(image: &Image) -> Tree {
    tree(&open(image), "/PFS00000").unwrap()
}

fn files() -> Builder {
    let mut fs = Builder::new(Format { volumes: vec![96 << 20, 64 << 20], ..Format::default() });
    fs.shape(Shape { leaf: 8, internal: 4, ..Shape::default() });
    let root = fs.root();
    let dir = fs.directory(root, "dir");
    for n in 0..30 {
        fs.file(dir, format!("file{n}"), Content::pattern(n, 1000 * n * n));
    }
    fs.file(root, "sparse", Content::hole(1 << 40).with_bytes(5 << 30, *b"island"));
    fs.symlink(root, "long", "x".repeat(100));
    fs.symlink(root, "short", "dir/file3");
    fs.commit();
    let file = fs.lookup(root, "dir/file9").unwrap();
    fs.write(file, 5000, b"changed").unlink(dir, "file4").rename((dir, "file5"), (root, "moved"));
    fs.truncate(fs.lookup(root, "dir/file20").unwrap(), 7);
    fs.commit();
    fs
}

#[test]
fn all_of_a_sound_file_system_comes_out() {
    for version in [1, 3, 6, 7] {
        let image = demo(Format { version, ..Format::default() }).finish().unwrap();
        let fs = open(&image);
        assert!(fs.report().tree_is_whole && fs.report().left_out == 0, "{:?}", fs.report());
        let mut expected = mounted(&image, "/");
        // Links to pseudo file systems are not expanded: what they name lies beside.
        expected.retain(|path, _| !path.starts_with("/home"));
        let mut found = tree(&fs, "/PFS00000").unwrap();
        found.retain(|path, _| !path.starts_with("/home"));
        assert_eq!(found, expected);
        assert_eq!(tree(&fs, "/PFS00001").unwrap(), mounted(&image, "/@@-1:00001"));
        assert!(stat(&fs, "/lost+found").is_err());
    }
}

/// The tree, the headers, the freemap, the UNDO log: whatever of it is gone, every file is found by its records.
#[test]
fn without_a_tree_all_is_found_by_its_leaves() {
    let image = files().finish().unwrap();
    let expected = mounted(&image, "/");
    let root = Offset(image.header(0).unwrap().vol0_btree_root.get());
    type Break = Box<dyn Fn(&mut Image)>;
    let cases: [(&str, Break); 7] = [
        ("no root", Box::new(|i| i.edit_header(0, |h| h.vol0_btree_root = 0.into()).unwrap())),
        ("a root of zeros", Box::new(move |i| i.write(root, &[0; 4096]).unwrap())),
        ("a root with a wrong checksum", Box::new(move |i| i.write(root, &[0xee; 4]).unwrap())),
        ("no headers", Box::new(|i| i.volumes.iter_mut().for_each(|v| v.write_at(0, &[0; 16384]).unwrap()))),
        (
            "no freemap",
            Box::new(move |i| {
                i.edit_header(0, |h| h.vol0_btree_root = 0.into()).unwrap();
                for volume in 0..2 {
                    i.write(Offset::new(Zone::RAW_BUFFER, volume, 0), &vec![0xaa; 8 << 20]).unwrap();
                }
            }),
        ),
        ("a FIFO out of bounds", Box::new(|i| Damage::FifoRange(3, 9).apply(i, Seal::Fresh).unwrap())),
        (
            "children that name no parent",
            Box::new(move |i| {
                for node in i.nodes().unwrap().into_iter().filter(|n| n.depth == 1) {
                    i.edit_node(node.at, Seal::Fresh, |n| n.parent = 7.into()).unwrap();
                }
            }),
        ),
    ];
    for (name, break_it) in cases {
        let mut broken = image.clone();
        break_it(&mut broken);
        assert_eq!(salvaged(&broken), expected, "{name}");
    }
}

#[test]
fn records_of_a_leaf_with_a_wrong_checksum_stand_for_themselves() {
    let image = files().finish().unwrap();
    let expected = mounted(&image, "/");
    let mut broken = image.clone();
    for leaf in image.nodes().unwrap().into_iter().filter(|n| n.node.node_type == b'L') {
        broken.write(leaf.at, &[0x55; 4]).unwrap();
    }
    assert_eq!(salvaged(&broken), expected);
}

#[test]
fn lost_data_reads_as_zeros_and_is_named() {
    let mut fs = Builder::default();
    let root = fs.root();
    fs.file(root, "file", Content::pattern(1, 50_000));
    fs.commit();
    let image = fs.finish().unwrap();
    let Found::File(mut bytes) = mounted(&image, "/")["/file"].clone() else { panic!() };
    let mut broken = image.clone();
    Damage::DataByte(RecType::DATA, 100).apply(&mut broken, Seal::Stale).unwrap();
    let fs = open(&broken);
    bytes[..16384].fill(0);
    assert_eq!(tree(&fs, "/PFS00000").unwrap()["/file"], Found::File(bytes));
    let w = &mut ThreadWait::new();
    let node = stat(&fs, "/PFS00000/file").unwrap().node;
    let lost = fs.lost(w, node);
    assert_eq!((lost.len(), &lost[0]), (1, &(0..16384)));
    assert!(fs.has_inode(w, node));
}

#[test]
fn what_no_name_leads_to_is_in_lost_and_found_and_what_has_no_inode_is_made_up() {
    let image = files().finish().unwrap();
    let all = mounted(&image, "/");
    // The entry of "dir" leads elsewhere: the directory has no name any more.
    let nth = (0..).find(|n| {
        let mut tried = image.clone();
        Silent::Data(RecType::DIRENTRY, *n, 0, vec![0x77; 8]).apply(&mut tried).unwrap();
        !mounted(&tried, "/").contains_key("/dir/file1")
    });
    let mut broken = image.clone();
    Silent::Data(RecType::DIRENTRY, nth.unwrap(), 0, vec![0x77; 8]).apply(&mut broken).unwrap();
    let found = tree(&open(&broken), "/lost+found").unwrap();
    let below: Vec<_> = found.iter().filter(|(path, _)| path.ends_with("/file1")).collect();
    assert_eq!(below.len(), 1, "{:?}", found.keys());
    assert_eq!(*below[0].1, all["/dir/file1"]);

    // The inode of a file of full blocks: what is in them is all there.
    let mut fs = Builder::default();
    let root = fs.root();
    fs.file(root, "whole", Content::pattern(3, 32768));
    fs.commit();
    let image = fs.finish().unwrap();
    let all = mounted(&image, "/");
    let mut broken = image.clone();
    Silent::Data(RecType::INODE, 1, 0, vec![1]).apply(&mut broken).unwrap();
    let (volume, at) = {
        let leaf = image.nodes().unwrap().remove(0).node;
        let inode = leaf.elements.iter().filter(|e| e.base.rec_type.get() == 1).nth(1).unwrap();
        image.locate(Offset(inode.as_leaf().data_offset.get())).unwrap()
    };
    broken.volumes[volume].write_at(at, &[0xff]).unwrap();
    let fs = open(&broken);
    assert_eq!(tree(&fs, "/PFS00000").unwrap()["/whole"], all["/whole"]);
    let node = stat(&fs, "/PFS00000/whole").unwrap().node;
    assert!(!fs.has_inode(&mut ThreadWait::new(), node));
}

/// Whatever is wrong, it ends, and gives no more than there is.
#[test]
fn every_damage_leaves_something_to_read() {
    let image = files().finish().unwrap();
    let expected = mounted(&image, "/");
    let (mut applied, mut complete) = (0, 0);
    for damage in Damage::samples() {
        let mut broken = image.clone();
        if damage.apply(&mut broken, Seal::Fresh).is_err() {
            continue;
        }
        let devices = disks(&broken);
        let found = Salvage::open(&devices, &Options::default(), &mut ThreadWait::new(), &mut |_| ());
        let Ok(fs) = found else {
            assert!(matches!(damage, Damage::Truncated { .. }), "{damage:?}");
            continue;
        };
        applied += 1;
        let found = tree(&fs, "/PFS00000").unwrap_or_default();
        complete += usize::from(found == expected);
    }
    assert!(applied > 100 && complete > 60, "{complete} of {applied}");
}

#[test]
fn memory_that_does_not_suffice_is_said() {
    let image = files().finish().unwrap();
    let mut options = Options::default();
    options.memory_bytes = 160 * 20;
    let fs = Salvage::open(&disks(&image), &options, &mut ThreadWait::new(), &mut |_| ()).unwrap();
    assert!(fs.report().left_out > 0 && fs.report().records <= 20, "{:?}", fs.report());
}

#[test]
fn ignored_headers_are_said_and_too_small_devices_refused() {
    let mut image = files().finish().unwrap();
    image.volumes[1].write_at(0, &[0; 512]).unwrap();
    let mut ignored = Vec::new();
    let w = &mut ThreadWait::new();
    Salvage::open(&disks(&image), &Options::default(), w, &mut |event| {
        if let Event::HeaderIgnored(index) = event {
            ignored.push(index);
        }
    })
    .unwrap();
    assert_eq!(ignored, [1]);
    image.volumes[0].resize(4096);
    let small: Arc<dyn BlockDevice> = disk(&image.volumes[0], Completion::Inline);
    let error = Salvage::open(&[small], &Options::default(), w, &mut |_| ()).err();
    assert!(matches!(error, Some(MountError::TooSmall { index: 0, .. })), "{error:?}");
}
