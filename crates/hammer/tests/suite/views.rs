//! The past, pseudo file systems, odd trees: what a view shows is what was there.

use std::sync::Arc;

use dfly_bio::{BlockDevice, Completion};
use dfly_hal::{SpinWait, ThreadWait};
use dfly_hammer::ondisk::record::{PFS_DELETED, RecType};
use dfly_hammer::{Hammer, MountOptions, ObjectId, Tid, View};
use dfly_hammer_image::{Builder, Content, Format, Image, Object, Shape, crash};
use dfly_vfs::{self as vfs, Access, Call, Errno, FileSystem, Kind};
use proptest::prelude::*;

use crate::common::{Found, Tree, disk, mount, mount_with, names, read, stat, tree};

/// What one step of a history does.
#[derive(Clone, Debug)]
enum Step {
    Make(u8, u16),
    Write(u8, u32, u8),
    Truncate(u8, u32),
    Rename(u8, u8),
    Unlink(u8),
    Commit,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..8_u8;
    prop_oneof![
        (name.clone(), 0..20_000_u16).prop_map(|(n, len)| Step::Make(n, len)),
        (name.clone(), 0..50_000_u32, any::<u8>()).prop_map(|(n, at, b)| Step::Write(n, at, b)),
        (name.clone(), 0..40_000_u32).prop_map(|(n, len)| Step::Truncate(n, len)),
        (name.clone(), name.clone()).prop_map(|(a, b)| Step::Rename(a, b)),
        name.prop_map(Step::Unlink),
        Just(Step::Commit),
        Just(Step::Commit),
    ]
}

fn name(n: u8) -> String {
    // Two of them share a hash key.
    ["a", "b.f.d.e.c.a", "d.a.b.c.f.e", "c", "d", "e", "f", "g"][usize::from(n)].into()
}

/// Applies a step to the builder and to a plain model alike. Steps that make no sense do nothing.
fn apply(fs: &mut Builder, dir: Object, model: &mut Vec<(String, Object, Vec<u8>)>, step: &Step) {
    let root = dir;
    let find = |model: &Vec<(String, Object, Vec<u8>)>, n: u8| model.iter().position(|(m, ..)| *m == name(n));
    match *step {
        Step::Make(n, len) if find(model, n).is_none() => {
            let bytes = vec![n + 1; usize::from(len)];
            let file = fs.file(root, name(n), Content::bytes(bytes.clone()));
            model.push((name(n), file, bytes));
        }
        Step::Write(n, at, byte) => {
            if let Some(i) = find(model, n) {
                let (_, file, bytes) = &mut model[i];
                let at = at as usize;
                fs.write(*file, at as u64, &[byte; 100]);
                bytes.resize(bytes.len().max(at + 100), 0);
                bytes[at..at + 100].fill(byte);
            }
        }
        Step::Truncate(n, len) => {
            if let Some(i) = find(model, n) {
                fs.truncate(model[i].1, len.into());
                model[i].2.resize(len as usize, 0);
            }
        }
        Step::Rename(from, to) => {
            if let (Some(i), true) = (find(model, from), from != to) {
                fs.rename((root, name(from)), (root, name(to)));
                let moved = model.remove(i);
                model.retain(|(m, ..)| *m != name(to));
                model.push((name(to), moved.1, moved.2));
            }
        }
        Step::Unlink(n) => {
            if let Some(i) = find(model, n) {
                fs.unlink(root, name(n));
                model.remove(i);
            }
        }
        _ => {}
    }
}

fn as_tree(model: &[(String, Object, Vec<u8>)]) -> Tree {
    let mut tree = Tree::from([(String::new(), Found::Directory)]);
    tree.extend(model.iter().map(|(name, _, bytes)| (format!("/{name}"), Found::File(bytes.clone()))));
    tree
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_committed_state_is_seen_as_of_its_transaction(
        steps in prop::collection::vec(step(), 1..60),
        deep in any::<bool>(),
        version in 1..=7_u32,
    ) {
        let mut fs = Builder::new(Format { version, ..Format::default() });
        let dir = fs.root();
        let mut model = Vec::new();
        let mut states = Vec::new();
        for step in &steps {
            apply(&mut fs, dir, &mut model, step);
            if matches!(step, Step::Commit) {
                states.push((fs.commit(), as_tree(&model)));
            }
        }
        let last = fs.commit();
        states.push((last, as_tree(&model)));
        if deep {
            fs.shape(Shape::DEEP);
        }
        let image = fs.finish().unwrap();
        let mounted = mount(&image).unwrap();
        prop_assert_eq!(&tree(&mounted, "/").unwrap(), &as_tree(&model));
        for (tid, state) in &states {
            // Inclusive at the creation, exclusive at the deletion: one before the next flush is the same picture.
            for at in [tid.0, tid.0 + 1] {
                prop_assert_eq!(&tree(&mounted, &format!("/@@{:#018x}", at)).unwrap(), state, "as of {:x}", at);
            }
        }
    }

    #[test]
    fn a_crash_shows_the_last_flush_whatever_reached_the_disk(seed in any::<u64>(), version in 1..=7_u32) {
        let mut fs = Builder::new(Format { version, ..Format::default() });
        let root = fs.root();
        let keep = fs.file(root, "keep", Content::pattern(1, 30_000));
        for n in 0..70 {
            fs.file(root, format!("f{n}"), Content::bytes(vec![n; 10]));
        }
        fs.commit();
        let before = fs.finish().unwrap();
        fs.write(keep, 100, b"lost").unlink(root, "f7").file(root, "new", Content::bytes("new"));
        fs.commit();
        let after = fs.finish().unwrap();
        let mut bits = seed;
        let crashed = crash(&before, &after, |_, _| {
            bits = bits.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            bits >> 63 == 1
        }).unwrap();
        let expected = tree(&mount(&before).unwrap(), "/").unwrap();
        let mounted = mount(&crashed).unwrap();
        prop_assert!(mounted.recovery().crashed);
        prop_assert_eq!(tree(&mounted, "/").unwrap(), expected);
    }
}

fn history() -> (Image, Tid, Tid) {
    let mut fs = Builder::new(Format::default());
    let root = fs.root();
    let dir = fs.directory(root, "d");
    let file = fs.file(dir, "f", Content::bytes("old"));
    fs.file(dir, "gone", Content::bytes("gone"));
    let first = fs.commit();
    fs.write(file, 0, b"new").unlink(dir, "gone");
    fs.file(dir, "x@@y", Content::bytes("ordinary"));
    let second = fs.commit();
    (fs.finish().unwrap(), first, second)
}

#[test]
fn extensions_lead_to_the_past_from_every_place_in_a_path() {
    let (image, first, _) = history();
    let fs = mount(&image).unwrap();
    let content = |path: &str| stat(&fs, path).and_then(|a| read(&fs, a.node, a.size));
    let t = format!("@@{first}");
    assert_eq!(content("/d/f").unwrap(), b"new");
    for path in [
        format!("/{t}/d/f"),
        format!("/d{t}/f"),
        format!("/d/{t}/f"),
        format!("/d/f{t}"),
        format!("/d/.{t}/f"),
        format!("/d/{}/f", t.replace("0x", "0X")),
        format!("/{t}:00000/d/f"),
        format!("/{t}/../{t}/d/f"),
    ] {
        assert_eq!(content(&path).unwrap(), b"old", "{path}");
    }
    assert_eq!(content(&format!("/d/gone{t}")).unwrap(), b"gone");
    assert_eq!(content(&format!("/{t}/@@-1/d/f")).unwrap(), b"new");
    assert_eq!(content("/@@0x0000000000000000/d/f").unwrap(), b"new");
    assert_eq!(content("/@@0xffffffffffffffff/d/f").unwrap(), b"new");
    assert_eq!(content("/d/x@@y").unwrap(), b"ordinary");
    for missing in ["/d/gone", "/d/f@@", "/d/f@@1", "/@@-1:00007", "/@@0x0000000000000001/d"] {
        assert_eq!(stat(&fs, missing).unwrap_err(), Errno::ENOENT, "{missing}");
    }
}

#[test]
fn views_of_the_past_are_other_file_systems_and_show_ctime_only() {
    let (image, first, _) = history();
    let fs = mount(&image).unwrap();
    let (now, then) = (stat(&fs, "/d/f").unwrap(), stat(&fs, &format!("/d/f@@{first}")).unwrap());
    assert_eq!(now.fileid, then.fileid);
    assert_ne!(now.fsid, then.fsid);
    assert_eq!((then.mtime, then.atime), (then.ctime, then.ctime));
    assert_eq!(ObjectId::from(then.node).view, View::AsOf(first));
}

#[test]
fn a_mount_can_show_the_past_as_its_root() {
    let (image, first, _) = history();
    let mut options = MountOptions::default();
    options.view = View::AsOf(first);
    let fs = mount_with(&image, options).unwrap();
    let file = stat(&fs, "/d/f").unwrap();
    assert_eq!(read(&fs, file.node, 10).unwrap(), b"old");
}

#[test]
fn nothing_can_be_written() {
    let (image, ..) = history();
    let fs = mount(&image).unwrap();
    let mut w = ThreadWait::new();
    let file = stat(&fs, "/d/f").unwrap();
    assert_eq!(fs.open(&mut Call::new(&mut w), file.node, Access::Write).unwrap_err(), Errno::EROFS);
    let name = vfs::Name::new("new").unwrap();
    assert_eq!(fs.ncreate(&mut Call::new(&mut w), fs.root(), name, 0o644).unwrap_err(), Errno::EROFS);
}

#[test]
fn pseudo_file_systems_have_roots_of_their_own() {
    let mut fs = Builder::new(Format::default());
    let root = fs.root();
    let master = fs.pfs_master(1, "master");
    fs.file(master, "inside", Content::bytes("pfs"));
    fs.symlink(root, "pfs1", "@@PFS00001");
    fs.symlink(master, "nested", "@@PFS00001");
    let synced = fs.commit();
    fs.pfs_slave(2, "slave", 1, synced);
    fs.symlink(root, "pfs2", "@@PFS00002");
    fs.commit();
    let fs = mount(&fs.finish().unwrap()).unwrap();
    for path in ["/@@-1:00001/inside", "/pfs1/inside", "/pfs2/inside", "/pfs1/../pfs1/inside"] {
        let attr = stat(&fs, path).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(read(&fs, attr.node, attr.size).unwrap(), b"pfs", "{path}");
    }
    let links = tree(&fs, "/").unwrap();
    assert_eq!(links["/pfs1"], Found::Symlink(b"@@-1:00001".to_vec()));
    assert_eq!(links["/pfs2"], Found::Symlink(format!("@@{synced}:00002").into_bytes()));
    // Only links in the root file system expand.
    assert_eq!(tree(&fs, "/@@-1:00001").unwrap()["/nested"], Found::Symlink(b"@@PFS00001".to_vec()));
    let mut w = ThreadWait::new();
    let all = fs.pseudo_file_systems(&mut w).unwrap();
    assert_eq!(
        all.iter().map(|p| (p.id, p.is_slave())).collect::<Vec<_>>(),
        [(0, false), (1, false), (2, true)]
    );
    assert_ne!(stat(&fs, "/pfs1/inside").unwrap().fsid, stat(&fs, "/").unwrap().fsid);
}

#[test]
fn listing_goes_on_at_any_cookie() {
    let mut fs = Builder::new(Format::default());
    let root = fs.root();
    for n in 0..200 {
        fs.file(root, format!("file{n}"), Content::bytes(""));
    }
    fs.shape(Shape::DEEP);
    let fs = mount(&fs.finish().unwrap()).unwrap();
    let all = names(&fs, fs.root()).unwrap();
    assert_eq!(all.len(), 200);
    let mut one_by_one = Vec::new();
    let mut cookie = 0;
    let mut w = ThreadWait::new();
    loop {
        let mut found = None;
        fs.readdir(&mut Call::new(&mut w), fs.root(), cookie, &mut |e| {
            found = Some((String::from_utf8_lossy(e.name).into_owned(), e.next));
            std::ops::ControlFlow::Break(())
        })
        .unwrap();
        let Some((name, next)) = found else { break };
        assert!(next > cookie);
        cookie = next;
        one_by_one.push(name);
    }
    let listed: Vec<_> =
        [".", ".."].into_iter().map(String::from).chain(all.into_iter().map(|(n, _)| n)).collect();
    assert_eq!(one_by_one, listed);
}

#[test]
fn an_entry_without_its_inode_is_listed_and_looks_like_nothing() {
    let mut fs = Builder::new(Format::default());
    let root = fs.root();
    let file = fs.file(root, "orphan", Content::bytes("x"));
    fs.commit();
    fs.records_mut()
        .filter(|r| r.key.obj_id == file.id && r.key.rec_type == 1)
        .for_each(|r| r.key.obj_id += 1 << 40);
    let fs = mount(&fs.finish().unwrap()).unwrap();
    let attr = stat(&fs, "/orphan").unwrap();
    assert_eq!((attr.kind, attr.mode, attr.nlink, attr.size, attr.fileid), (Kind::Fifo, 0, 0, 0, 0));
    // Whoever comes by the listing instead of the name sees the same.
    let listed = names(&fs, fs.root()).unwrap();
    assert_eq!(listed[0], ("orphan".to_string(), attr.node));
    let mut w = ThreadWait::new();
    assert_eq!(fs.getattr(&mut Call::new(&mut w), attr.node).unwrap(), attr);
    assert_eq!(read(&fs, attr.node, 1).unwrap_err(), Errno::EINVAL);
}

#[test]
fn a_long_symlink_that_lost_its_target_has_none() {
    let mut fs = Builder::new(Format::default());
    let root = fs.root();
    let link = fs.symlink(root, "link", "x".repeat(30));
    fs.commit();
    fs.records_mut()
        .filter(|r| r.key.obj_id == link.id && r.key.rec_type == RecType::FIX.0)
        .for_each(|r| r.key.obj_id += 1 << 40);
    let fs = mount(&fs.finish().unwrap()).unwrap();
    let node = names(&fs, fs.root()).unwrap()[0].1;
    let mut w = ThreadWait::new();
    assert_eq!(fs.readlink(&mut Call::new(&mut w), node, &mut |_| ()).unwrap_err(), Errno::ENOENT);
    assert_eq!(fs.getattr(&mut Call::new(&mut w), node).unwrap().size, 30);
}

#[test]
fn an_older_version_may_outlive_a_younger_one() {
    let mut fs = Builder::new(Format::default());
    let root = fs.root();
    let file = fs.file(root, "f", Content::bytes("12345"));
    let mirrored = fs.commit();
    fs.inode(file, |i| i.mode = 0o600.into());
    let local = fs.commit();
    let end = fs.commit();
    // What mirroring leaves where the target was written to: its own version ends, the source's goes on.
    for r in fs.records_mut().filter(|r| r.key.obj_id == file.id && r.key.rec_type == RecType::INODE.0) {
        r.delete_tid = if r.key.create_tid == local { end } else { Tid::ZERO };
        r.delete_ts = u32::from(r.delete_tid != Tid::ZERO);
    }
    let fs = mount(&fs.finish().unwrap()).unwrap();
    let mode = |path: String| stat(&fs, &path).unwrap().mode;
    assert_eq!(mode("/f".into()), mode(format!("/f@@{mirrored}")));
    assert_eq!(mode(format!("/f@@{local}")), 0o600);
}

#[test]
fn the_link_to_a_destroyed_pseudo_file_system_is_ordinary() {
    let mut fs = Builder::new(Format::default());
    let root = fs.root();
    let gone = fs.pfs_master(1, "gone");
    fs.file(gone, "inside", Content::bytes("x"));
    fs.symlink(root, "pfs1", "@@PFS00001");
    fs.commit();
    fs.pfs(1, |pfs| pfs.mirror_flags = PFS_DELETED.into());
    let fs = mount(&fs.finish().unwrap()).unwrap();
    assert_eq!(tree(&fs, "/").unwrap()["/pfs1"], Found::Symlink(b"@@PFS00001".to_vec()));
    let mut w = ThreadWait::new();
    assert!(fs.pseudo_file_systems(&mut w).unwrap()[1].is_deleted());
}

#[test]
fn several_threads_share_a_small_cache_and_a_queueing_disk() {
    let mut fs = Builder::new(Format::default());
    let root = fs.root();
    for n in 0..8 {
        fs.file(root, format!("f{n}"), Content::pattern(n, 300_000));
    }
    let image = fs.finish().unwrap();
    let sound = tree(&mount(&image).unwrap(), "/").unwrap();
    let device = disk(&image.volumes[0], Completion::Queued);
    let devices: Vec<Arc<dyn BlockDevice>> = vec![device.clone()];
    let mut options = MountOptions::default();
    options.cache_bytes = 0;
    let mut poll = || {
        device.poll();
    };
    let fs = Hammer::mount(&devices, options, &mut SpinWait::new(&mut poll)).unwrap();
    std::thread::scope(|scope| {
        for t in 0..3 {
            let (fs, device, sound) = (&fs, &device, &sound);
            scope.spawn(move || {
                let mut poll = || {
                    device.poll();
                };
                let mut w = SpinWait::new(&mut poll);
                for n in (0..8).cycle().skip(t).take(8) {
                    let Found::File(bytes) = &sound[&format!("/f{n}")] else { unreachable!() };
                    let name = format!("f{n}");
                    let name = vfs::Name::new(name.as_str()).unwrap();
                    let attr = fs.nresolve(&mut Call::new(&mut w), fs.root(), name).unwrap();
                    let mut at = 0;
                    fs.read(&mut Call::new(&mut w), attr.node, 0, attr.size, &mut |b| {
                        assert!(bytes[at..at + b.len()] == *b);
                        at += b.len();
                        std::ops::ControlFlow::Continue(())
                    })
                    .unwrap();
                    assert_eq!(at, bytes.len());
                }
            });
        }
    });
    let stats = fs.cache_stats();
    assert!(stats.evictions > 0 && stats.resident_pages <= stats.capacity_pages, "{stats:?}");
}
